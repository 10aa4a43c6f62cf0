"""Writes projections as PyTorch saves them, and what torch.nn computes with them.

`proj_*.ckpt` is the patch kind, Linear(E, D) on every visual token; `pooled.ckpt` is Linear(E, K*D) read as K x D.
`mm_projector.bin` and `multi_modal_projector.safetensors` are `mlp2_gelu` under the names of published models.
The published projection is the bare dict {weight, bias}; the nested and prefixed ones are what trainers write around it.

Run: `python tests/golden/proj/export.py`
"""

import sys
from collections import OrderedDict
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from writer import start, write_json, write_tensors  # noqa: E402

B, N, E, K, D = 2, 5, 12, 3, 16
HIDDEN = [20, 10]


def rounded(layer, dtype):
    """The layer with its weights rounded to `dtype`, computed in f32."""
    copy = nn.Linear(layer.in_features, layer.out_features)
    copy.load_state_dict({k: v.to(dtype).float() for k, v in layer.state_dict().items()})
    return copy


def mlp(widths, activation):
    layers = []
    for i, (before, after) in enumerate(zip(widths, widths[1:])):
        layers += [nn.Linear(before, after), activation()]
    return nn.Sequential(*layers[:-1])


if __name__ == "__main__":
    folder = start(__file__, "torch", "safetensors", "numpy", seed=5)
    for old in [*folder.glob("*.ckpt"), *folder.glob("*.bin"), *folder.glob("*.safetensors")]:
        old.unlink()
    tensors, lists = {}, {"b": B, "n": N, "e": E, "k": K, "d": D}
    patches, pooled = torch.randn(B, N, E), torch.randn(B, 1, E)
    tensors |= {"patch.input": patches, "pooled.input": pooled}

    with torch.no_grad():
        linear = nn.Linear(E, D)
        for weight in linear.parameters():
            weight.normal_(0.0, 0.7)
        for name, dtype in [("f32", torch.float32), ("f16", torch.float16), ("bf16", torch.bfloat16)]:
            torch.save(OrderedDict((k, v.to(dtype)) for k, v in linear.state_dict().items()), folder / f"proj_{name}.ckpt")
            tensors[f"patch.{name}"] = rounded(linear, dtype)(patches)
        state = OrderedDict((k, v.clone()) for k, v in linear.state_dict().items())
        tensors |= {"patch.weight": state["weight"], "patch.bias": state["bias"]}
        save_file(dict(state), folder / "proj_plain.safetensors", {"format": "pt"})
        torch.save(dict(state), folder / "proj_dict.ckpt")
        torch.save({k: nn.Parameter(v) for k, v in state.items()}, folder / "proj_parameters.ckpt")
        torch.save({"state_dict": state, "epoch": 3, "lr": 8e-4, "name": "clip_linear"}, folder / "proj_state_dict.ckpt")
        torch.save(OrderedDict((f"module.{k}", v) for k, v in state.items()), folder / "proj_dataparallel.ckpt")
        torch.save({"module": OrderedDict([("image_prefix.proj.weight", state["weight"]), ("image_prefix.proj.bias", state["bias"])]),
                    "optimizer": None, "global_steps": 15000, "ds_version": "0.9.2"}, folder / "proj_deepspeed.ckpt")
        torch.save(state, folder / "proj_legacy.ckpt", _use_new_zipfile_serialization=False)
        # Stored transposed in memory: the strides tell, the shape does not.
        torch.save(OrderedDict(weight=state["weight"].T.contiguous().T, bias=state["bias"]), folder / "proj_strided.ckpt")
        torch.save(OrderedDict(weight=state["weight"]), folder / "proj_no_bias.ckpt")
        torch.save(OrderedDict(weight=state["weight"][:, :-1].clone(), bias=state["bias"]), folder / "proj_narrow.ckpt")
        torch.save(OrderedDict(weight=state["weight"], bias=state["bias"][:-1].clone()), folder / "proj_short_bias.ckpt")
        torch.save(OrderedDict(weight=torch.where(torch.arange(E) == 1, torch.nan, state["weight"]), bias=state["bias"]), folder / "proj_nan.ckpt")

        # A layer norm over D may follow, as in `use_image_embed_layernorm`.
        norm = nn.LayerNorm(D)
        norm.weight.normal_(1.0, 0.4)
        norm.bias.normal_(0.0, 0.4)
        tensors |= {"ln.weight": norm.weight, "ln.bias": norm.bias, "patch.ln": norm(linear(patches))}

        wide = nn.Linear(E, K * D)
        torch.save(wide.state_dict(), folder / "pooled.ckpt")
        tensors |= {"pooled.weight": wide.weight, "pooled.bias": wide.bias, "pooled.output": wide(pooled[:, 0]).reshape(B, K, D)}
        tensors["pooled.ln"] = norm(tensors["pooled.output"])

        for name, widths, activation in [
            ("mlp2_gelu", [E, HIDDEN[0], D], nn.GELU), ("mlp2_relu", [E, HIDDEN[0], D], nn.ReLU),
            ("mlp3_gelu", [E, *HIDDEN, D], nn.GELU), ("mlp3_relu", [E, *HIDDEN, D], nn.ReLU),
            ("mlp2_gelu_tanh", [E, HIDDEN[0], D], lambda: nn.GELU(approximate="tanh")),
        ]:
            stitch = mlp(widths, activation)
            for weight in stitch.parameters():
                weight.normal_(0.0, 0.5)
            torch.save(stitch.state_dict(), folder / f"{name}.ckpt")
            tensors[f"{name}.output"] = stitch(patches)
            lists[name] = {"widths": widths, "keys": list(stitch.state_dict())}
            if name == "mlp2_gelu":
                # As LLaVA saves its projector, and as transformers names it.
                state = stitch.state_dict()
                torch.save({f"model.mm_projector.{k}": v for k, v in state.items()}, folder / "mm_projector.bin")
                numbered = {f"multi_modal_projector.linear_{int(k[0]) // 2 + 1}{k[1:]}": v for k, v in state.items()}
                save_file({**numbered, "vision_tower.layers.0.weight": torch.zeros(3, 2)}, folder / "multi_modal_projector.safetensors", {"format": "pt"})

    # Gradients of sum(output * direction), for a training step of the stitch.
    leaf = patches.clone().requires_grad_()
    direction = torch.randn(B, N, D)
    linear.zero_grad()
    (linear(leaf) * direction).sum().backward()
    tensors |= {"grad.direction": direction, "grad.input": leaf.grad, "grad.weight": linear.weight.grad, "grad.bias": linear.bias.grad}
    lists["loads"] = {"as f32": ["proj_f32", "proj_dict", "proj_parameters", "proj_strided"], "rounded": ["proj_f16", "proj_bf16"]}
    lists["loads or is refused clearly"] = ["proj_state_dict", "proj_dataparallel", "proj_deepspeed", "proj_legacy"]
    lists["not finite"] = ["proj_nan"]
    lists["refused"] = {"proj_no_bias": "bias is missing", "proj_narrow": "E is 11 against 12", "proj_short_bias": "bias has 15 values, weight 16 rows"}
    write_tensors(folder / "expected.safetensors", tensors)
    write_json(folder / "expected.json", lists)

"""Writes tiny DINOv2s in the forms that `encoders/dinov2` must load, what transformers computes with them, PyTorch's
resizing of positions, and the moments of transformers' random initialisation.

Run: `python tests/golden/dinov2/export.py`
"""

import shutil
import sys
import tempfile
from collections import OrderedDict
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import Dinov2Config, Dinov2ForImageClassification, Dinov2Model, Dinov2WithRegistersConfig, Dinov2WithRegistersModel

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from writer import liven, moments, start, write_json, write_tensors  # noqa: E402

# Positions of five patches a side; layer norms of another epsilon than usual, so that it counts.
SIZES = dict(hidden_size=24, num_hidden_layers=2, num_attention_heads=3, image_size=35, patch_size=7, mlp_ratio=2, layer_norm_eps=1e-3)
# Sides at which positions shrink, stay and grow; at 45 three pixels are left over.
SIDES = [21, 35, 45]
PROCESSOR = {
    "crop_size": {"height": 21, "width": 21}, "do_center_crop": True, "do_convert_rgb": True, "do_normalize": True, "do_rescale": True,
    "do_resize": True, "image_mean": [0.485, 0.456, 0.406], "image_processor_type": "BitImageProcessor", "image_std": [0.229, 0.224, 0.225],
    "resample": 3, "rescale_factor": 0.00392156862745098, "size": {"shortest_edge": 24},
}


@torch.no_grad()
def compute(model, images, name):
    """Every hidden state, all tokens, and the last after the layer norm, of images of each side."""
    model = getattr(model, "dinov2", model).eval()
    kept = {}
    for side, image in images.items():
        out = model(image, output_hidden_states=True)
        kept[f"{name}.{side}.last"] = out.last_hidden_state
        assert torch.equal(out.pooler_output, out.last_hidden_state[:, 0])
    for i, state in enumerate(model(images[21], output_hidden_states=True).hidden_states):
        kept[f"{name}.21.hidden.{i}"] = state
    return kept


def meta(state, layers):
    """A state dict of transformers' in the names of facebookresearch/dinov2."""
    out = OrderedDict()
    out["cls_token"] = state["embeddings.cls_token"]
    out["pos_embed"] = state["embeddings.position_embeddings"]
    if "embeddings.register_tokens" in state:
        out["register_tokens"] = state["embeddings.register_tokens"]
    out["mask_token"] = state["embeddings.mask_token"]
    for kind in ["weight", "bias"]:
        out[f"patch_embed.proj.{kind}"] = state[f"embeddings.patch_embeddings.projection.{kind}"]
    for i in range(layers):
        old, new = f"encoder.layer.{i}", f"blocks.{i}"
        for kind in ["weight", "bias"]:
            out[f"{new}.norm1.{kind}"] = state[f"{old}.norm1.{kind}"]
            qkv = [state[f"{old}.attention.attention.{part}.{kind}"] for part in ["query", "key", "value"]]
            out[f"{new}.attn.qkv.{kind}"] = torch.cat(qkv)
            out[f"{new}.attn.proj.{kind}"] = state[f"{old}.attention.output.dense.{kind}"]
            out[f"{new}.norm2.{kind}"] = state[f"{old}.norm2.{kind}"]
            for theirs, ours in [("fc1", "fc1"), ("fc2", "fc2"), ("weights_in", "w12"), ("weights_out", "w3")]:
                if f"{old}.mlp.{theirs}.{kind}" in state:
                    out[f"{new}.mlp.{ours}.{kind}"] = state[f"{old}.mlp.{theirs}.{kind}"]
        for n in [1, 2]:
            out[f"{new}.ls{n}.gamma"] = state[f"{old}.layer_scale{n}.lambda1"]
    for kind in ["weight", "bias"]:
        out[f"norm.{kind}"] = state[f"layernorm.{kind}"]
    return out


def saved(model, folder=None):
    """What `save_pretrained` writes, which has not the names that modules have in memory."""
    scratch = Path(tempfile.mkdtemp())
    model.save_pretrained(scratch)
    state = load_file(scratch / "model.safetensors")
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for name in ["config.json", "model.safetensors"]:
            shutil.copy(scratch / name, folder / name)
    shutil.rmtree(scratch)
    return state


def resized(table, side, offset, antialias):
    """A table of positions [M*M, E] for G x G patches; an offset goes by way of a scale factor, as in Meta's own code."""
    m = round(table.shape[0] ** 0.5)
    kwargs = {"scale_factor": ((side + offset) / m,) * 2} if offset else {"size": (side, side)}
    grid = table.reshape(1, m, m, -1).permute(0, 3, 1, 2)
    out = torch.nn.functional.interpolate(grid, mode="bicubic", antialias=antialias, **kwargs)
    assert out.shape[-2:] == (side, side)
    return out.permute(0, 2, 3, 1).reshape(side * side, -1)


if __name__ == "__main__":
    folder = start(__file__, "torch", "transformers", "safetensors", "numpy")
    generator = torch.Generator().manual_seed(5)
    images = {side: torch.randn(2, 3, side, side, generator=generator) for side in SIDES}
    tensors = {f"image.{side}": image for side, image in images.items()}

    plain = liven(Dinov2Model(Dinov2Config(**SIZES)), generator)
    state = saved(plain, folder / "plain")
    write_json(folder / "plain/preprocessor_config.json", PROCESSOR)
    tensors |= compute(plain, images, "plain")
    torch.save(meta(state, 2), folder / "plain.pth")
    # Meta's own code resizes positions by a scale with an offset.
    with torch.no_grad():
        own = plain.embeddings.position_embeddings.clone()
        plain.embeddings.position_embeddings.copy_(own)
        table = torch.cat([own[:, :1], resized(own[0, 1:], 3, 0.1, False)[None]], 1)
        plain.embeddings.interpolate_pos_encoding = lambda *_: table
        tensors["plain.21.offset"] = plain(images[21]).last_hidden_state

    gated = liven(Dinov2ForImageClassification(Dinov2Config(**SIZES, use_swiglu_ffn=True, qkv_bias=False)), generator)
    saved(gated, folder / "gated")
    tensors |= compute(gated, images, "gated")
    # The names that transformers 5 has in memory.
    assert "dinov2.encoder.layer.0.mlp.gate_proj.weight" in gated.state_dict()
    save_file({k: v.clone() for k, v in gated.state_dict().items()}, folder / "gated_new.safetensors", {"format": "pt"})

    registers = liven(Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**SIZES, num_register_tokens=3, use_swiglu_ffn=True)), generator)
    state = saved(registers, folder / "registers")
    tensors |= compute(registers, images, "registers")
    torch.save(meta(state, 2), folder / "registers.pth")

    for m, side in [(37, 16), (5, 3), (3, 8)]:
        table = torch.randn(m * m, 1, generator=generator)
        tensors[f"positions.{m}"] = table
        for offset in [0.0, 0.1]:
            for antialias in [False, True]:
                tensors[f"positions.{m}.{side}.{offset}.{antialias}"] = resized(table, side, offset, antialias)
    write_tensors(folder / "expected.safetensors", tensors)

    sizes = dict(hidden_size=128, num_hidden_layers=1, num_attention_heads=2, image_size=56, patch_size=14, layerscale_value=0.5, initializer_range=0.03)
    drawn = {}
    for name, model in [
        ("dinov2", Dinov2Model(Dinov2Config(**sizes))),
        ("dinov2_with_registers", Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**sizes, use_swiglu_ffn=True))),
    ]:
        drawn[name] = moments(saved(model))
        # Masks serve pre-training alone.
        del drawn[name]["embeddings.mask_token"]
    write_json(folder / "expected.json", {"sizes": sizes, "drawn": drawn})

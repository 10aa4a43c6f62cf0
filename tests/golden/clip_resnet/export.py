"""Writes a tiny CLIP with a ModifiedResNet tower in the forms that `encoders/clip-resnet` must load, and its activations.

Run: `python tests/golden/clip_resnet/export.py`
"""

import shutil
import sys
from collections import OrderedDict
from pathlib import Path

import open_clip
import torch
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from writer import start, write_json, write_tensors, write_torchscript  # noqa: E402

CONFIG = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 96, "layers": [1, 2, 1, 1], "width": 4, "patch_size": None},
    "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1},
}
# Batch-norm statistics of a trained network are no identity; these keep activations near 1.
STATISTICS = {"running_mean": (0.0, 0.3), "running_var": (0.4, 1.8), "weight": (0.6, 1.4), "bias": (0.0, 0.3)}


def randomise(tower, generator):
    """Random convolutions and batch norms, some with a negative scale, so that folding is put to the test."""
    with torch.no_grad():
        for name, module in tower.named_modules():
            if isinstance(module, torch.nn.Conv2d):
                fan_in = module.weight[0].numel()
                module.weight.copy_(torch.randn(module.weight.shape, generator=generator) * (2.0 / fan_in) ** 0.5)
            if isinstance(module, torch.nn.BatchNorm2d):
                n = module.num_features
                low, high = STATISTICS["running_var"]
                module.running_var.copy_(low + (high - low) * torch.rand(n, generator=generator))
                module.running_mean.copy_(STATISTICS["running_mean"][1] * torch.randn(n, generator=generator))
                low, high = STATISTICS["weight"]
                sign = torch.where(torch.rand(n, generator=generator) < 0.2, -1.0, 1.0)
                module.weight.copy_(sign * (low + (high - low) * torch.rand(n, generator=generator)))
                module.bias.copy_(STATISTICS["bias"][1] * torch.randn(n, generator=generator))
                module.num_batches_tracked.fill_(1234)
            # Branch outputs at half scale keep deep residual sums in range.
            if name.endswith("bn3") and "layer" in name:
                module.weight.mul_(0.5)


@torch.no_grad()
def activations(tower, image):
    """Every stage's map [B,C,h,w], and features [B,N,E] with N row-major over (h w)."""
    kept, x = {}, image
    for stage in ["stem", "layer1", "layer2", "layer3", "layer4"]:
        x = getattr(tower, stage)(x)
        kept[stage] = x.clone()
    kept["features"] = x.flatten(2).transpose(1, 2)
    return kept


if __name__ == "__main__":
    folder = start(__file__, "torch", "open_clip_torch", "safetensors", "numpy")
    model = open_clip.model.CLIP(**CONFIG).eval()
    generator = torch.Generator().manual_seed(3)
    randomise(model.visual, generator)
    state = model.state_dict()

    shutil.rmtree(folder / "open_clip", ignore_errors=True)
    preprocess = {"mean": list(open_clip.OPENAI_DATASET_MEAN), "std": list(open_clip.OPENAI_DATASET_STD)}
    write_json(folder / "open_clip/open_clip_config.json", {"model_cfg": CONFIG, "preprocess_cfg": preprocess})
    save_file({k: v.contiguous() for k, v in state.items()}, folder / "open_clip/open_clip_model.safetensors", {"format": "pt"})

    # The tower alone, names without `visual.`.
    torch.save(OrderedDict((k, v.clone()) for k, v in model.visual.state_dict().items()), folder / "visual.pt")

    # OpenAI's archives: convolutions, linear layers and attention in f16, norms in f32, three sizes beside the weights.
    half = open_clip.model.CLIP(**CONFIG).eval()
    half.load_state_dict(state)
    open_clip.model.convert_weights_to_fp16(half)
    openai = OrderedDict((k, v.clone()) for k, v in half.state_dict().items())
    assert openai["visual.conv1.weight"].dtype == torch.float16 and openai["visual.bn1.weight"].dtype == torch.float32
    sizes = {"input_resolution": 96, "context_length": 8, "vocab_size": 64}
    torch.save(OrderedDict([*openai.items(), *((k, torch.tensor(v)) for k, v in sizes.items())]), folder / "openai_f16.pt")
    # The same with every tensor in f16 and the sizes as plain integers.
    everything = OrderedDict((k, v.half() if v.is_floating_point() else v) for k, v in openai.items())
    torch.save(OrderedDict([*everything.items(), *sizes.items()]), folder / "all_f16.pt")
    rounded = open_clip.model.CLIP(**CONFIG).eval()
    rounded.load_state_dict({k: v.float() if torch.is_tensor(v) and v.is_floating_point() else v for k, v in openai.items()})
    image = torch.randn(2, 3, 96, 96, generator=generator)

    tensors = {"image": image}
    kept = activations(model.visual, image)
    print({k: (round(v.mean().item(), 3), round(v.std().item(), 3)) for k, v in kept.items()})
    tensors |= kept
    pooled = model.visual(image)
    assert pooled.shape == (2, CONFIG["embed_dim"])
    tensors |= {f"f16.{k}": v for k, v in activations(rounded.visual, image).items() if k in ("stem", "features")}
    every = open_clip.model.CLIP(**CONFIG).eval()
    every.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in everything.items()})
    tensors["all_f16.features"] = activations(every.visual, image)["features"]
    write_torchscript(folder / "torchscript.pt", rounded.visual, openai, sizes)
    write_tensors(folder / "expected.safetensors", tensors)
    write_json(folder / "expected.json", {
        "image_size": 96, "layers": CONFIG["vision_cfg"]["layers"], "width": 4, "tokens": 9, "features": 128,
        "keys": {"open_clip": sorted(state), "visual": sorted(model.visual.state_dict())},
    })

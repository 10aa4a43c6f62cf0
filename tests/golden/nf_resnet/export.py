"""Writes a tiny NF-ResNet in the forms that `encoders/nf-resnet` must load, its features, and how timm initialises a whole one.

Run: `python tests/golden/nf_resnet/export.py`
"""

import shutil
import sys
from collections import OrderedDict
from pathlib import Path

import timm
import torch
from timm.layers import ScaledStdConv2d
from timm.models import save_for_hf
from transformers import TimmWrapperConfig, TimmWrapperModel

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from writer import start, write_json, write_tensors  # noqa: E402

NAME = "nf_resnet26"
SIZES = {"depths": (1, 2, 1, 1), "channels": (32, 48, 64, 96), "stem_chs": 16}
# 72 is halved to 9, then to 5 and 3: an odd side is averaged over the pixels there are.
SIDE = 72
INITIALISED = "nf_resnet50"


@torch.no_grad()
def randomise(model, generator):
    """Filters with a mean of their own, gains of either sign, some of them 0, and biases, so that the folding is put to the test."""
    for module in model.modules():
        if isinstance(module, ScaledStdConv2d):
            n = module.out_channels
            fan_in = module.weight[0].numel()
            shift = 0.3 * torch.randn((n, 1, 1, 1), generator=generator)
            spread = 0.3 + torch.rand((n, 1, 1, 1), generator=generator)
            module.weight.copy_((torch.randn(module.weight.shape, generator=generator) * spread + shift) * fan_in**-0.5)
            module.gain.copy_(0.6 + 0.8 * torch.rand((n, 1, 1, 1), generator=generator))
            module.gain.mul_(torch.where(torch.rand((n, 1, 1, 1), generator=generator) < 0.2, -1.0, 1.0))
            module.gain[0] = 0.0
            module.bias.copy_(0.3 * torch.randn(n, generator=generator))
    return model


@torch.no_grad()
def features(model, pixels):
    """The map behind the final activation [B,E,h,w] as tokens [B,N,E], and timm's own average of it [B,1,E]."""
    found = model.forward_features(pixels)
    pooled = model.forward_head(found, pre_logits=True)
    return found.flatten(2).transpose(1, 2), pooled[:, None]


@torch.no_grad()
def moments(model):
    """Of every tensor behind the classifier: shape, mean, deviation, and the kurtosis that tells normal (3) from uniform (1.8)."""
    rows = {}
    for name, tensor in model.state_dict().items():
        if not name.startswith("head."):
            x = tensor.double().flatten()
            z = x - x.mean()
            var = z.square().mean()
            kurtosis = (z.pow(4).mean() / var.square()).item() if var > 0 else 0.0
            rows[name] = {"shape": list(tensor.shape), "mean": x.mean().item(), "std": var.sqrt().item(), "kurtosis": kurtosis}
    return rows


if __name__ == "__main__":
    folder = start(__file__, "torch", "timm", "transformers", "safetensors")
    generator = torch.Generator().manual_seed(5)
    model = randomise(timm.create_model(NAME, num_classes=3, **SIZES), generator).eval()
    state = model.state_dict()

    # A folder as timm saves it for the hub, with the classifier.
    shutil.rmtree(folder / "timm", ignore_errors=True)
    save_for_hf(model, folder / "timm", safe_serialization=True)
    # The tower alone in f16, without a description.
    half = OrderedDict((k, v.half()) for k, v in state.items() if not k.startswith("head."))
    torch.save(half, folder / "bare_f16.pth")
    # As transformers saves it, every name under `timm_model.`
    shutil.rmtree(folder / "wrapper", ignore_errors=True)
    wrapper = TimmWrapperModel(TimmWrapperConfig(architecture=NAME, model_args=SIZES, num_labels=3)).eval()
    wrapper.timm_model.load_state_dict({k: v for k, v in state.items() if not k.startswith("head.")})
    wrapper.save_pretrained(folder / "wrapper")

    pixels = torch.rand(2, 3, SIDE, SIDE, generator=generator)
    tokens, pooled = features(model, pixels)
    print({"std": tokens.std().item(), "positive": (tokens > 0).double().mean().item(), "pooled": pooled.std().item()})
    with torch.no_grad():
        out = wrapper(pixels)
    assert torch.equal(out.pooler_output[:, None], pooled) and torch.equal(out.last_hidden_state.flatten(2).transpose(1, 2), tokens)
    rounded = timm.create_model(NAME, num_classes=0, **SIZES).eval()
    rounded.load_state_dict({k: v.float() for k, v in half.items()})
    half_tokens, half_pooled = features(rounded, pixels)
    write_tensors(folder / "expected.safetensors", {
        "pixels": pixels, "tokens": tokens, "pooled": pooled, "f16.tokens": half_tokens, "f16.pooled": half_pooled,
    })
    write_json(folder / "expected.json", {"initialised": {"model": INITIALISED, "tensors": moments(timm.create_model(INITIALISED))}})

"""What every `export.py` here shares: fixed seeds, versions, and how expected values are written."""

import io
import json
import platform
import random
import warnings
import zipfile
from importlib import metadata
from pathlib import Path

import numpy
import torch
from safetensors.torch import save_file


def start(script, *packages, seed=0):
    """Fixes seeds and threads, writes and prints the versions, returns the case's folder."""
    random.seed(seed)
    numpy.random.seed(seed)
    torch.manual_seed(seed)
    # One thread sums in one order, so that a second run writes the same bytes.
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    folder = Path(script).resolve().parent
    versions = {"python": platform.python_version()}
    versions |= {name: metadata.version(name) for name in packages}
    write_json(folder / "versions.json", versions)
    print(folder.name, versions)
    return folder


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")


def write_tensors(path, tensors):
    """Writes f32 and i64 tensors as one safetensors file and prints what it holds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().contiguous().clone()
        assert tensor.dtype in (torch.float32, torch.int64), (name, tensor.dtype)
        assert tensor.dtype == torch.int64 or torch.isfinite(tensor).all(), name
        kept[name] = tensor
        print(f"  {name} {list(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}")
    save_file(kept, str(path))


class Whole(torch.nn.Module):
    """A module that holds a tower as `visual`, with the three sizes as buffers, so with OpenAI's names."""

    def __init__(self, visual, sizes):
        super().__init__()
        self.visual = visual
        for name, value in sizes.items():
            self.register_buffer(name, torch.tensor(value))

    def forward(self, image):
        return self.visual(image)


def write_torchscript(path, visual, openai, sizes):
    """OpenAI's own files are TorchScript archives: in the same container, a pickle of nested `__torch__` objects."""
    side = sizes["input_resolution"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.trace(Whole(visual, sizes).eval(), torch.zeros(1, 3, side, side), check_trace=False)
        for name, parameter in scripted.named_parameters():
            parameter.data = parameter.data.to(openai[name].dtype)
        whole = io.BytesIO()
        torch.jit.save(scripted, whole)
        # Debug entries name the folders of the machine that wrote them.
        with zipfile.ZipFile(whole) as archive, zipfile.ZipFile(path, "w") as kept:
            for entry in archive.infolist():
                if not entry.filename.endswith(".debug_pkl"):
                    info = zipfile.ZipInfo(f"torchscript/{entry.filename.split('/', 1)[1]}", (1980, 1, 1, 0, 0, 0))
                    kept.writestr(info, archive.read(entry), entry.compress_type)
        names = torch.jit.load(str(path)).state_dict()
    assert all(torch.equal(openai[name], tensor) for name, tensor in names.items() if name in openai)


def moments(state):
    """Shape, mean, deviation and kurtosis of freshly drawn tensors, by name."""
    drawn = {}
    for name, tensor in state.items():
        x = tensor.detach().double()
        spread = x.std(unbiased=False).item()
        drawn[name] = {"shape": list(x.shape), "mean": x.mean().item(), "std": spread}
        drawn[name]["kurtosis"] = (((x - x.mean()) / spread) ** 4).mean().item() if spread > 0 else 0.0
    return drawn


@torch.no_grad()
def refill(model, generator, value):
    """Sets every parameter to `value(name, weight, noise)`, noise a normal draw of its shape, one after the other."""
    for name, weight in model.named_parameters():
        weight.copy_(value(name, weight, torch.randn(weight.shape, generator=generator)))
    return model


def liven(model, generator):
    """Random weights of a vision transformer under which every part counts: at the scale models are initialised with,
    attention is nearly uniform and biases are 0."""
    def value(name, weight, noise):
        if "norm" in name and name.endswith("weight"):
            return 1.0 + 0.2 * noise
        if "lambda" in name:
            return 0.6 + 0.2 * noise
        if name.endswith("bias"):
            return 0.2 * noise
        if "embed" in name and weight.dim() < 4 or "token" in name or "probe" in name:
            return 0.7 * noise
        return noise * (1.5 / weight[0].numel() ** 0.5)

    return refill(model, generator, value)

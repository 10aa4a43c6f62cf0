"""What every `export.py` here shares: fixed seeds, versions, and how expected values are written."""

import json
import platform
import random
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

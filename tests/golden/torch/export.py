"""Has the program write a PyTorch state dict, loads it with PyTorch, and keeps the file it wrote.

Run: `python tests/golden/torch/export.py LIMBER`
`input.safetensors` holds a tensor of every type that both formats know, a scalar and an empty one. The test writes
`expected.ckpt` again, byte for byte; this script says that PyTorch reads it as what it is.
"""

import subprocess
import sys
import zipfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from writer import start  # noqa: E402


def main():
    folder = start(__file__, "torch", "safetensors")
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn((20, 13), generator=generator)
    tensors = {"weight": weight, "bias": torch.randn(20, generator=generator), "half.weight": weight.half(),
               "scalar": torch.tensor(2.5), "empty": torch.zeros(0, 4), "b16": weight.bfloat16(), "deep": weight.double(),
               "flags": weight > 0, "steps": torch.tensor([70_000, -1]), "bytes": torch.arange(300).to(torch.uint8)}
    for dtype in [torch.int32, torch.int16, torch.int8]:
        tensors[str(dtype).removeprefix("torch.")] = torch.tensor([-100, 100], dtype=dtype)
    source, target = folder / "input.safetensors", folder / "expected.ckpt"
    save_file(tensors, str(source), metadata={"limber.stitch": "linear"})
    source.chmod(0o644)
    subprocess.run([sys.argv[1], "convert", str(source), "--out", str(target), "--to", "torch"], check=True)
    for mmap in [False, True]:
        loaded = torch.load(target, weights_only=True, mmap=mmap)
        assert loaded.keys() == tensors.keys(), loaded.keys()
        for name, tensor in load_file(source).items():
            assert loaded[name].dtype == tensor.dtype and loaded[name].shape == tensor.shape, name
            assert loaded[name].is_contiguous() and torch.equal(loaded[name], tensor), name
    with zipfile.ZipFile(target) as archive:
        assert archive.testzip() is None
        print(f"  {len(tensors)} tensors, {len(archive.namelist())} entries: as PyTorch reads them")
    linear = torch.nn.Linear(13, 20)
    linear.load_state_dict({name: loaded[name] for name in ["weight", "bias"]})


if __name__ == "__main__":
    main()

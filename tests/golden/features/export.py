"""Writes features in every form that NumPy and safetensors give them, what `numpy.load` makes of each, and arrays that are none.

Run: `python tests/golden/features/export.py`
"""

import shutil
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import torch
from numpy.lib import format as npy
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from writer import start, write_tensors  # noqa: E402

N, E = 3, 4
FLOATS = ["<f8", ">f8", "<f4", ">f4", "<f2", ">f2"]
INTEGERS = ["<i8", ">i8", "<u8", "<i4", ">i4", "<u4", "<i2", ">u2", "|i1", "|u1"]


def written(path, array, version):
    """A `.npy` file of a header version that `numpy.save` chooses for long headers alone."""
    with open(path, "wb") as file:
        npy.write_array(file, array, version=version)


def main():
    folder = start(__file__, "numpy", "ml_dtypes", "safetensors", "torch")
    for kind in ("good", "bad"):
        shutil.rmtree(folder / kind, ignore_errors=True)
        (folder / kind).mkdir()
    good, bad = folder / "good", folder / "bad"
    rng = np.random.default_rng(3)
    values = rng.standard_normal((N, E))
    for name in FLOATS:
        np.save(good / f"float_{'big' if name[0] == '>' else 'little'}_{name[2]}.npy", values.astype(name))
    for name in INTEGERS:
        order = {"<": "little", ">": "big", "|": "byte"}[name[0]]
        low = 0 if name[1] == "u" else -100
        np.save(good / f"integer_{order}_{name[1:]}.npy", rng.integers(low, 100, (N, E)).astype(name))
    np.save(good / "bool.npy", values > 0)
    np.save(good / "bf16.npy", values.astype(ml_dtypes.bfloat16))
    np.save(good / "fortran.npy", np.asfortranarray(values.astype("<f4")))
    np.save(good / "fortran_big_f2.npy", np.asfortranarray(values.astype(">f2")))
    np.save(good / "fortran_batch.npy", np.asfortranarray(values.astype("<f8")[None]))
    np.save(good / "batch.npy", values.astype("<f4")[None])
    written(good / "version_2.npy", values.astype("<f4"), (2, 0))
    written(good / "version_3.npy", values.astype("<f4"), (3, 0))
    # One token: as the original's encoder gives it, [1, E, 1, 1], and without any other side.
    np.save(good / "one_vector.npy", values[0].astype("<f4"))
    np.save(good / "one_map.npy", values[0].astype("<f4").reshape(1, E, 1, 1))
    np.save(good / "one_row.npy", values[:1].astype("<f8"))
    np.savez(good / "stored.npz", values.astype("<f4"))
    np.savez_compressed(good / "deflated.npz", features=np.asfortranarray(values))
    np.savez_compressed(good / "several.npz", b=values.astype("<f4"), a=-values.astype("<f4"))
    save_file({"image": values.astype("<f4")}, good / "one.safetensors")
    save_file({"a": values.astype("<f4"), "b": values.astype("<f8")[None], "c": (values * 50).astype("<i8")}, good / "several.safetensors")
    save_torch({"x": torch.from_numpy(values).bfloat16()}, good / "bf16.safetensors")

    np.save(bad / "complex.npy", values.astype("<c8"))
    np.save(bad / "text.npy", np.array([["a", "bc"]]))
    np.save(bad / "objects.npy", np.array([[{}, 1], [2, 3]], dtype=object))
    np.save(bad / "records.npy", np.zeros((N, E), [("x", "<f4"), ("y", "<f4")]))
    np.save(bad / "long_double.npy", values.astype(np.longdouble))
    np.save(bad / "days.npy", np.zeros((N, E), "<M8[D]"))
    np.save(bad / "scalar.npy", np.float32(1.0))
    np.save(bad / "transposed.npy", values.T.astype("<f4"))
    np.save(bad / "nan.npy", np.where(np.arange(N * E).reshape(N, E) == 6, np.nan, values).astype("<f4"))
    np.save(bad / "beyond_f32.npy", np.where(np.arange(N * E).reshape(N, E) == 11, 1e300, values))
    np.savez(bad / "objects.npz", np.array([[{}, 1], [2, 3]], dtype=object))
    np.savez(bad / "empty.npz")
    torch.save({"x": torch.from_numpy(values)}, bad / "pytorch.pt")

    expected = {}
    for path in sorted(good.iterdir()):
        if path.suffix == ".npy" and path.name != "bf16.npy":
            expected[path.name] = np.load(path)
        elif path.name == "bf16.npy":
            # NumPy itself gives two raw bytes back.
            expected[path.name] = np.load(path).view(ml_dtypes.bfloat16)
        elif path.suffix == ".npz":
            expected |= {f"{path.name}#{name}": array for name, array in np.load(path).items()}
    from safetensors.torch import load_file

    for path in sorted(good.glob("*.safetensors")):
        expected |= {f"{path.name}#{name}": t.double().numpy() for name, t in load_file(path).items()}
    write_tensors(folder / "expected.safetensors", {k: torch.from_numpy(v.astype("<f4").squeeze()) for k, v in expected.items()})


if __name__ == "__main__":
    main()

"""Fits linear maps from pooled features to mean caption embeddings with numpy and scikit-learn.

Run: `python tests/golden/fit/export.py`
The decoder and the tokenizer are those of `train` and `tokenizer/json`. 60 items of 3 tokens; E 12 is narrower, E 40 wider than D 32.
Ridge regression is `sklearn.linear_model.Ridge` in f64; the Procrustes map is U V' of numpy's SVD of the centred
cross-covariance, singular values below 1e-10 of the norm left out, with the scale of least squares.
"""

import json
import sys
from pathlib import Path

import numpy
import torch
from safetensors.torch import load_file, save_file
from sklearn.linear_model import Ridge
from tokenizers import Tokenizer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from writer import start, write_tensors  # noqa: E402

WORDS = "a small large red green blue circle square ring above below left of the and two three stars".split()


def fits(x, y):
    """Weight [D, E] and bias [D] of every method."""
    for alpha in [0.5, 30.0]:
        ridge = Ridge(alpha=alpha, solver="svd").fit(x, y)
        yield f"ridge-{alpha}", ridge.coef_, ridge.intercept_
    mean_x, mean_y = x.mean(0), y.mean(0)
    xc, yc = x - mean_x, y - mean_y
    u, s, vt = numpy.linalg.svd(xc.T @ yc, full_matrices=False)
    kept = s > 1e-10 * numpy.linalg.norm(s)
    rotation = u[:, kept] @ vt[kept]
    mapped = xc @ rotation
    scale = (mapped * yc).sum() / (mapped**2).sum()
    yield "procrustes", scale * rotation.T, mean_y - mean_x @ (scale * rotation)


def main():
    folder = start(__file__, "numpy", "scikit-learn", "torch", "tokenizers")
    tokenizer = Tokenizer.from_file(str(folder.parent / "tokenizer/json/tokenizer.json"))
    wte = load_file(folder.parent / "train/decoder/model.safetensors")["transformer.wte.weight"].double().numpy()
    rng = numpy.random.default_rng(4)
    captions = [" ".join(rng.choice(WORDS, rng.integers(2, 10))) for _ in range(60)]
    y = numpy.stack([wte[tokenizer.encode(text).ids].mean(0) for text in captions])
    expected = {}
    for e in [12, 40]:
        # A mean far from 0 and columns of unequal size.
        scales = rng.uniform(0.3, 3.0, e)
        mixed = y @ rng.normal(size=(y.shape[1], e))
        tokens = ((mixed[:, None] + rng.normal(size=(60, 3, e))) * scales + 5 * scales).astype(numpy.float32)
        named = {f"{i:02}": torch.from_numpy(tokens[i]) for i in range(60)}
        save_file(named, str(folder / f"features-{e}.safetensors"))
        with open(folder / f"data-{e}.jsonl", "w", encoding="utf-8") as lines:
            for i, text in enumerate(captions):
                lines.write(json.dumps({"image": f"features-{e}.safetensors#{i:02}", "caption": text}) + "\n")
        for name, weight, bias in fits(tokens.astype(numpy.float64).mean(1), y):
            expected[f"{e}.{name}.weight"] = torch.from_numpy(weight.astype(numpy.float32))
            expected[f"{e}.{name}.bias"] = torch.from_numpy(bias.astype(numpy.float32))
    write_tensors(folder / "expected.safetensors", expected)


if __name__ == "__main__":
    main()

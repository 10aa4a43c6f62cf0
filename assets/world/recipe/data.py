"""What the recipes read: scenes, their class labels and their pixels; and the loop that trains an encoder.

The demo's recipe stands beside this one; its modules `world`, `images` and `pipeline` are used as they are.
"""
import argparse
import json
import math
import pathlib
import sys
import time

import numpy as np
import torch

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "demo/recipe"))
import images  # noqa: E402
import world  # noqa: E402


def begin(steps, lr, seed, more=lambda parser: None):
    """The arguments of an encoder's recipe, OUT --held FOLDER DATA, and its random numbers."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("data")
    parser.add_argument("--held", required=True)
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=lr)
    parser.add_argument("--seed", type=int, default=seed)
    more(parser)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    return args, np.random.default_rng(args.seed)


def labelled(folder, side):
    """Pixels of a data set, and which classes each image holds."""
    return pixels(folder, world.load(folder), side), *labels(folder)


def pixels(folder, entries, side):
    """All images of a data set as one memory-mapped u8 array [B, 3, S, S]."""
    folder = pathlib.Path(folder)
    file = folder / f"pixels-{side}-{len(entries)}.npy"
    if not file.exists():
        part = file.with_suffix(f".{time.time_ns()}.npy")
        array = np.lib.format.open_memmap(part, "w+", np.uint8, (len(entries), 3, side, side))
        for i, entry in enumerate(entries):
            array[i] = images.pixels(folder / entry["image_path"], side)
        array.flush()
        part.rename(file)
    return np.load(file, mmap_mode="r")


def labels(folder):
    """Which classes each image holds, f32 [B, C]: every shape, every colour, every colour with a shape."""
    table = json.loads((pathlib.Path(folder) / "labels.json").read_text())
    marks = torch.zeros(len(table["images"]), len(table["classes"]))
    for row, image in enumerate(table["images"]):
        marks[row, image["labels"]] = 1
    return marks, table["classes"]


def batch(array, rows, rng):
    """Pixels on the scale -1..1, f32 [B, 3, S, S], half of them mirrored, which changes no class."""
    x = torch.from_numpy(np.array(array[np.sort(rows)])).float() / 127.5 - 1
    mirrored = torch.from_numpy(rng.random(len(rows)) < 0.5)
    x[mirrored] = x[mirrored].flip(-1)
    return x.to(memory_format=torch.channels_last), np.sort(rows)


def fit(parameters, steps, lr, loss_of, save, decay=0.05, warmup=100):
    """Steps of AdamW under a cosine with warm-up; `loss_of(step)` gives a loss."""
    parameters = list(parameters)
    groups = [{"params": [p for p in parameters if p.ndim > 1], "weight_decay": decay},
              {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98))
    begin, losses = time.time(), []
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = lr * min(1, (step + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * step / steps))
        loss = loss_of(step)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        losses.append(loss.item())
        if step % 100 == 99:
            print(f"step {step + 1} loss {np.mean(losses[-100:]):.4f} {time.time() - begin:.0f} s", flush=True)
        if step % 500 == 499:
            save()
    save()


def average_precision(scores, marks):
    """Mean over the classes that occur, in per cent: how well scores [B, C] order the images of a class."""
    out = []
    for c in range(marks.shape[1]):
        if marks[:, c].sum() > 0:
            hits = marks[scores[:, c].argsort(descending=True), c]
            precision = hits.cumsum(0) / torch.arange(1, len(hits) + 1)
            out.append((precision * hits).sum() / hits.sum())
    return 100 * torch.stack(out).mean().item()

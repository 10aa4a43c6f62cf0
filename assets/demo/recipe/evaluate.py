"""Scores the finished parts in f32: evaluate.py PARTS DATA... prints right captions by number of objects."""
import pathlib
import sys

import numpy as np
import torch

import images
import pipeline
import train_stitch
import world

parts = pathlib.Path(sys.argv[1])
torch.set_num_threads(1)
visual = pipeline.load_clip(parts / "clip").visual.to(memory_format=torch.channels_last)
lm, tokenizer = pipeline.load_lm(parts / "gptj")
project = pipeline.load_projection(parts / "proj.ckpt")
for folder in sys.argv[2:]:
    entries = world.load(folder)
    pixels = [images.pixels(pathlib.Path(folder) / e["image_path"]) for e in entries]
    features = torch.cat([pipeline.features(visual, np.stack(pixels[i:i + 50])) for i in range(0, len(pixels), 50)])
    score, wrong = train_stitch.exact(lm, tokenizer, project, features, entries)
    print(folder, {f"{n} objects": f"{r} of {t}" for n, (r, t) in score.items()})
    for expected, said in wrong[:12]:
        print(f"  {expected}\n      {said}")

"""Writes the demo's golden cases: export.py LIMBER

Draws held-out scenes with the program, copies them here, and records what the reference libraries
(Pillow, open_clip, torch, transformers, all in f32) make of them with the parts in assets/demo:
the greedy token ids behind the prompt "A picture of", EOS with them, and their log-probabilities.
It also draws the samples assets/demo/scene-*.png and their captions, scenes.json.
"""
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

import numpy as np
import torch

here = pathlib.Path(__file__).resolve().parent
demo = here.parents[2] / "assets" / "demo"
sys.path.insert(0, str(demo / "recipe"))
import images  # noqa: E402
import pipeline  # noqa: E402
import world  # noqa: E402

GOLDEN = {"seed": 9003, "size": 64, "objects": "1-2", "count": 12}
SAMPLES = {"seed": 9004, "size": 128, "objects": "1-2", "count": 40}


def drawn(limber, folder, seed, size, objects, count):
    command = [limber, "shapes", "--seed", str(seed), "--size", str(size), "--objects", objects]
    subprocess.run([*command, "--count", str(count), "--out", str(folder)], check=True)
    return [(folder / e["image_path"], e) for e in world.load(folder)]


def said(files):
    """Token ids, their log-probabilities and the text for image files, in one batch of one each."""
    visual = pipeline.load_clip(demo / "clip").visual
    lm, tokenizer = pipeline.load_lm(demo / "gptj")
    project = pipeline.load_projection(demo / "proj.ckpt")
    for file in files:
        prefix = project(pipeline.features(visual, np.stack([images.pixels(file)])))
        (ids, logprobs), = pipeline.greedy(lm, tokenizer, prefix)
        yield ids, logprobs, pipeline.text(tokenizer, ids)


def main():
    limber = sys.argv[1]
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        scenes = drawn(limber, pathlib.Path(folder) / "golden", **GOLDEN)
        rows = []
        for i, ((file, entry), (ids, logprobs, text)) in enumerate(zip(scenes, said([f for f, _ in scenes]))):
            name = f"scene-{i + 1:02}.png"
            shutil.copy(file, here / name)
            rows.append({"image": name, "caption": entry["captions"][0], "text": text, "tokens": ids, "logprobs": logprobs})
        lines = ",\n".join("  " + json.dumps(r) for r in rows)
        (here / "expected.json").write_text(f"[\n{lines}\n]\n")
        print(sum(r["text"] == r["caption"] for r in rows), "of", len(rows), "golden scenes right")

        # Samples for the README: two with two objects and one with one, each the first of its kind that is right.
        samples = drawn(limber, pathlib.Path(folder) / "samples", **SAMPLES)
        results = [(f, e, t) for (f, e), (_, _, t) in zip(samples, said([f for f, _ in samples]))]
        wanted = [" above ", " left of ", None]
        listed = []
        for k, word in enumerate(wanted):
            fits = [r for r in results if r[1]["captions"][0] == r[2] and (
                word in r[2] if word else len(world.objects(r[1])) == 1)]
            if fits:
                name = f"scene-{k + 1}.png"
                shutil.copy(fits[0][0], demo / name)
                listed.append({"image": name, "caption": fits[0][2]})
        (demo / "scenes.json").write_text(json.dumps(listed, indent=2) + "\n")


if __name__ == "__main__":
    main()

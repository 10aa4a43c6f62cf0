"""Scores projections of the demo on held-out scenes with the program: compare.py LIMBER DATA [PROJ...]

Prints, by number of objects, the captions that are right word for word, and the share of words that are right at
their place. Without a projection the embedded one is scored.
"""
import itertools
import json
import pathlib
import subprocess
import sys

import world


def main():
    limber, folder, *projections = sys.argv[1:]
    entries = world.load(folder)
    files = [str(pathlib.Path(folder) / e["image_path"]) for e in entries]
    config = pathlib.Path(__file__).resolve().parents[3] / "configs/demo.yaml"
    for projection in projections or [None]:
        command = [limber, "caption", "--config", config, "--json", "--batch", "50", "--max-tokens", "60"]
        if projection:
            command += ["--set", f"stitch.weights={pathlib.Path(projection).resolve()}"]
        lines = subprocess.run([*command, *files], check=True, capture_output=True, text=True).stdout.splitlines()
        right, words = {}, []
        for entry, line in zip(entries, lines, strict=True):
            said, caption = json.loads(line)["text"], entry["captions"][0]
            right.setdefault(len(world.objects(entry)), []).append(said == caption)
            words += [a == b for a, b in itertools.zip_longest(said.split(), caption.split())]
        counts = {f"{n} objects": f"{sum(r)} of {len(r)}" for n, r in sorted(right.items())}
        exact = sum(map(sum, right.values())) / len(entries)
        print(projection or "embedded", counts, f"exact {exact:.4f}, words {sum(words) / len(words):.4f}")


if __name__ == "__main__":
    main()

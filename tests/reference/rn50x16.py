"""Full-size RN50x16: pixels and features of `limber encode` against open_clip, in f32.

Run: `python tests/reference/rn50x16.py --limber target/release/limber --folder /tmp/rn50x16`
Needs about 2 GB of disk and 4 GB of memory. Exit status 0: the relative error is under --tolerance and pixels are identical.
"""

import argparse
import json
import shutil
from pathlib import Path

import open_clip
import torch
from PIL import Image

import parts


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="RN50x16", help="any of open_clip's ResNets")
    parser.add_argument("--tolerance", type=float, default=1e-4, help="relative error allowed for the features")
    parser.add_argument("--images", type=int, default=2)
    args = parts.arguments(parser)

    config = json.loads((Path(open_clip.__file__).parent / f"model_configs/{args.model}.json").read_text())
    # The text tower plays no part: a small one saves disk.
    config["text_cfg"] |= {"layers": 1}
    model = parts.tower(config, args.seed)
    parts.write_tower(model, config, args.folder / "encoder")

    side = config["vision_cfg"]["image_size"]
    pixels = {}
    for i in range(args.images):
        file = args.folder / f"image{i}.png"
        parts.photo(file, args.seed + i, "RGB")
        pixels[file.stem] = parts.preprocess(side)(Image.open(file))
    reference = {name: parts.features(model, image[None])[0] for name, image in pixels.items()}
    some = next(iter(reference.values()))
    print(f"features {list(some.shape)}: mean {some.mean():.3f}, standard deviation {some.std():.3f}, largest {some.abs().max():.2f}")
    assert 1e-2 < some.std() < 1e3, "activations left the sane range"

    settings = parts.write_config(
        args.folder / "limber.yaml",
        {"kind": "clip-resnet", "model": args.model, "weights": str(args.folder / "encoder")},
        {"kind": "linear", "weights": "random:2"},
        {"kind": "gptj", "weights": "random:3"},
    )
    images = sorted(args.folder.glob("image*.png"))
    ours = {}
    for stage in ["pixels", "features"]:
        out = args.folder / f"{stage}.safetensors"
        parts.limber(args.limber, "encode", "--config", settings, "--stage", stage, *images, "--out", out)
        ours[stage] = parts.read(out)
    if not args.keep:
        shutil.rmtree(args.folder / "encoder")

    worst, after = parts.compare_pixels(ours["pixels"], pixels)
    error = max(parts.relative(ours["features"][name], reference[name]) for name in reference)
    # Features from open_clip's own pixels isolate the tower: equal pixels make the two figures one.
    parts.verdict({
        "pixels, 8-bit levels apart": (worst == 0, f"{worst:g}"),
        "pixels, normalised": (after < 1e-5, f"{after:.1e}"),
        f"{args.model} features {list(some.shape)}, relative error": (error < args.tolerance, f"{error:.2e} (allowed {args.tolerance:.0e})"),
    })


if __name__ == "__main__":
    main()

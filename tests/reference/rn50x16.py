"""Full-size RN50x16: pixels and features of `limber encode` against open_clip, in f32.

Run: `python tests/reference/rn50x16.py --limber target/release/limber --folder /tmp/rn50x16`
Needs about 2 GB of disk and 4 GB of memory. Exit status 0: the relative error is under --tolerance and pixels are identical.
"""

import argparse
import json
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
    images = parts.photos(args, args.images)
    pixels = {file.stem: parts.preprocess(side)(Image.open(file)) for file in images}
    reference = {name: parts.features(model, image[None])[0] for name, image in pixels.items()}
    some = next(iter(reference.values()))
    parts.sane(f"features {list(some.shape)}", some)

    encoder = {"kind": "clip-resnet", "model": args.model, "weights": str(args.folder / "encoder")}
    ours = {stage: parts.encoded(args, stage, images, **encoder) for stage in ["pixels", "features"]}
    worst, after = parts.compare_pixels(ours["pixels"], pixels)
    error = max(parts.relative(ours["features"][name], reference[name]) for name in reference)
    # Features from open_clip's own pixels isolate the tower: equal pixels make the two figures one.
    parts.finish(args, {
        "pixels, 8-bit levels apart": (worst == 0, f"{worst:g}"),
        "pixels, normalised": (after < 1e-5, f"{after:.1e}"),
        f"{args.model} features {list(some.shape)}, relative error": parts.within(error, args.tolerance),
    }, args.folder / "encoder")


if __name__ == "__main__":
    main()

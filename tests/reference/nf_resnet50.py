"""Full-size nf_resnet50 at 384: pixels, the pooled vector and the map of `limber encode` against timm, in f32.

Run: `python tests/reference/nf_resnet50.py --limber target/release/limber --folder /tmp/nf_resnet50`
Needs about 300 MB of disk and 2 GB of memory. Exit status 0: relative errors are under --tolerance and pixels are identical.
"""

import argparse

import timm
import torch
from PIL import Image
from timm.models import save_for_hf
from torchvision import transforms

import parts


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="nf_resnet50", choices=["nf_resnet26", "nf_resnet50", "nf_resnet101"])
    parser.add_argument("--side", type=int, default=384, help="image side; odd ones make maps whose halves are rounded up")
    parser.add_argument("--form", default="folder", choices=["folder", "pth"], help="a folder of the hub, or the tower alone as .pth")
    parser.add_argument("--tolerance", type=float, default=1e-4, help="relative error allowed for the features")
    parser.add_argument("--images", type=int, default=2)
    args = parts.arguments(parser)

    golden = parts.golden("nf_resnet")
    model = golden.randomise(timm.create_model(args.model), torch.Generator().manual_seed(args.seed)).eval()
    weights = args.folder / "encoder"
    if args.form == "folder":
        save_for_hf(model, weights, safe_serialization=True)
    else:
        weights = args.folder / "tower.pth"
        torch.save({name: tensor for name, tensor in model.state_dict().items() if not name.startswith("head.")}, weights)

    # As the project feeds this tower: torchvision's own defaults, and no normalisation.
    prepare = transforms.Compose([transforms.Resize(args.side), transforms.CenterCrop(args.side), transforms.ToTensor()])
    pixels, tokens, pooled = {}, {}, {}
    images = parts.photos(args, args.images)
    for file in images:
        pixels[file.stem] = prepare(Image.open(file))
        found = golden.features(model, pixels[file.stem][None])
        tokens[file.stem], pooled[file.stem] = (f[0] for f in found)
    some = tokens["image0"]
    parts.sane(f"map {list(some.shape)}", some, f", positive {(some > 0).float().mean():.2f}")

    checks = {}
    for name, pool, reference in [("pooled vector", True, pooled), ("map", False, tokens)]:
        encoder = {"kind": "nf-resnet", "model": args.model, "image_size": args.side, "pool": pool, "weights": str(weights)}
        if pool:
            ours = parts.encoded(args, "pixels", images, **encoder)
            apart = max((ours[stem] - pixels[stem]).abs().max().item() for stem in pixels)
            checks["pixels, largest difference"] = (apart == 0, f"{apart:g}")
        ours = parts.encoded(args, "features", images, **encoder)
        error = max(parts.relative(ours[stem], reference[stem]) for stem in reference)
        shape = list(reference["image0"].shape)
        checks[f"{args.model} {name} {shape}, relative error"] = parts.within(error, args.tolerance)
    parts.finish(args, checks, weights)


if __name__ == "__main__":
    main()

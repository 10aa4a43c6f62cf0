"""Full-size DINOv2: pixels and features of `limber encode` against torchvision and transformers, in f32.

Run: `python tests/reference/dinov2.py --limber target/release/limber --folder /tmp/dinov2`
Needs about 1 GB of disk and 3 GB of memory for the base model. Exit status 0: every relative error is under --tolerance.
"""

import argparse

import torch
from PIL import Image
from torchvision import transforms
from transformers import Dinov2Config, Dinov2Model, Dinov2WithRegistersConfig, Dinov2WithRegistersModel

import parts

SIZES = {"small": (384, 12, 6), "base": (768, 12, 12), "large": (1024, 24, 16), "giant": (1536, 40, 24)}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="base")
    parser.add_argument("--registers", action="store_true", help="the model with registers")
    parser.add_argument("--layer", type=int, default=-2, help="another hidden state to compare")
    parser.add_argument("--tolerance", type=float, default=1e-4, help="relative error allowed for the features")
    parser.add_argument("--images", type=int, default=2)
    args = parts.arguments(parser)

    width, layers, heads = SIZES[args.size]
    settings = dict(hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads, image_size=518, patch_size=14,
                    use_swiglu_ffn=args.size == "giant")
    kind = (Dinov2WithRegistersConfig, Dinov2WithRegistersModel) if args.registers else (Dinov2Config, Dinov2Model)
    model = parts.golden("dinov2").liven(kind[1](kind[0](**settings)), torch.Generator().manual_seed(args.seed)).eval()
    model.save_pretrained(args.folder / "encoder")

    # As the authors evaluate: torchvision on a PIL image.
    steps = [transforms.Resize(256, transforms.InterpolationMode.BICUBIC), transforms.CenterCrop(224), transforms.ToTensor(),
             transforms.Normalize(MEAN, STD)]
    images = parts.photos(args, args.images)
    pixels = {file.stem: transforms.Compose(steps)(Image.open(file)) for file in images}
    batch = torch.stack(list(pixels.values()))
    with torch.no_grad():
        out = model(batch, output_hidden_states=True)
    first = 1 + (model.config.num_register_tokens if args.registers else 0)
    states = {-1: out.last_hidden_state[:, first:], args.layer: out.hidden_states[args.layer][:, first:]}
    parts.sane(f"last of the hidden states, features {list(states[-1].shape[1:])}", out.hidden_states[-1])

    checks = {}
    weights = args.folder / "encoder"

    def encode(stage, **settings):
        ours = parts.encoded(args, stage, images, kind="auto", weights=str(weights), **settings)
        return torch.stack([ours[name] for name in pixels])

    apart = (encode("pixels") - batch).abs().max().item()
    checks["pixels, largest difference"] = (apart < 1e-5, f"{apart:.1e}")
    for layer, wanted in states.items():
        error = parts.relative(encode("features", layer=layer), wanted)
        checks[f"dinov2-{args.size} {list(wanted.shape[1:])}, layer {layer}, relative error"] = parts.within(error, args.tolerance)
    parts.finish(args, checks, weights)


if __name__ == "__main__":
    main()

"""Full-size SigLIP: pixels and features of `limber encode` against transformers, in f32.

Run: `python tests/reference/siglip.py --limber target/release/limber --folder /tmp/siglip`
Needs about 1 GB of disk and 3 GB of memory for the base model. Exit status 0: every relative error is under --tolerance.
"""

import argparse

import torch
from PIL import Image
from transformers import SiglipVisionConfig, SiglipVisionModel
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

import parts

# Width, MLP, layers, heads, patch, side.
SIZES = {
    "base-patch16-224": (768, 3072, 12, 12, 16, 224),
    "base-patch16-384": (768, 3072, 12, 12, 16, 384),
    "large-patch16-384": (1024, 4096, 24, 16, 16, 384),
    "so400m-patch14-384": (1152, 4304, 27, 16, 14, 384),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=SIZES, default="base-patch16-224")
    parser.add_argument("--layer", type=int, default=-2, help="another hidden state to compare")
    parser.add_argument("--tolerance", type=float, default=1e-4, help="relative error allowed for the features")
    parser.add_argument("--images", type=int, default=2)
    args = parts.arguments(parser)

    width, inner, layers, heads, patch, side = SIZES[args.model]
    config = SiglipVisionConfig(hidden_size=width, intermediate_size=inner, num_hidden_layers=layers, num_attention_heads=heads,
                                patch_size=patch, image_size=side)
    model = parts.golden("siglip").liven(SiglipVisionModel(config), torch.Generator().manual_seed(args.seed)).eval()
    processor = SiglipImageProcessorPil(size={"height": side, "width": side})
    model.save_pretrained(args.folder / "encoder")
    processor.save_pretrained(args.folder / "encoder")

    images = parts.photos(args, args.images)
    batch = processor([Image.open(file) for file in images], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        out = model(batch, output_hidden_states=True)
    parts.sane(f"hidden states, features {list(out.last_hidden_state.shape[1:])}", out.hidden_states[-1])

    def encode(stage, **encoder):
        found = parts.encoded(args, stage, images, kind="auto", weights=str(args.folder / "encoder"), **encoder)
        return torch.stack([found[file.stem] for file in images])

    checks = {}
    apart = (encode("pixels") - batch).abs().max().item()
    checks["pixels, largest difference"] = (apart < 1e-5, f"{apart:.1e}")
    wanted = {
        "patches": ({}, out.last_hidden_state),
        "pooled": ({"pool": True}, out.pooler_output[:, None]),
        f"layer {args.layer}": ({"layer": args.layer}, out.hidden_states[args.layer]),
    }
    for name, (settings, reference) in wanted.items():
        error = parts.relative(encode("features", **settings), reference)
        checks[f"siglip-{args.model} {name} {list(reference.shape[1:])}, relative error"] = parts.within(error, args.tolerance)
    parts.finish(args, checks, args.folder / "encoder")


if __name__ == "__main__":
    main()

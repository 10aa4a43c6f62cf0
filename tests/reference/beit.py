"""Full-size BEiT: pixels and features of `limber encode` against transformers, in f32, with both kinds of position bias.

Run: `python tests/reference/beit.py --limber target/release/limber --folder /tmp/beit`
Needs about 3 GB of disk and 5 GB of memory. Exit status 0: the relative errors are under --tolerance.
"""

import argparse
import shutil

import torch
from PIL import Image
from transformers import BeitConfig, BeitForImageClassification, BeitForMaskedImageModeling
from transformers.models.beit.image_processing_pil_beit import BeitImageProcessorPil

import parts

SIZES = {
    "base": dict(hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072),
    "large": dict(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096),
}


def write(folder, size, side, shared, seed):
    """A model as the hub has it: self-supervised with one bias for all layers, or fine-tuned with one a layer."""
    config = BeitConfig(**SIZES[size], image_size=side, use_shared_relative_position_bias=shared, use_relative_position_bias=not shared,
                        use_mask_token=shared)
    config._attn_implementation = "eager"
    model = (BeitForMaskedImageModeling if shared else BeitForImageClassification)(config)
    parts.golden("beit").fill(model, torch.Generator().manual_seed(seed))
    model.save_pretrained(folder)
    # The values of Microsoft's own files.
    BeitImageProcessorPil(size={"height": side, "width": side}, resample=2).save_pretrained(folder)
    return model.beit


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=list(SIZES), default="large")
    parser.add_argument("--side", type=int, default=224, help="image side the model is for")
    parser.add_argument("--tolerance", type=float, default=1e-4, help="relative error allowed for the features")
    parser.add_argument("--images", type=int, default=2)
    args = parts.arguments(parser)

    images = parts.photos(args, args.images)
    checks = {}
    for shared in [False, True]:
        name = "one bias for all layers" if shared else "a bias a layer"
        encoder = args.folder / "encoder"
        model = write(encoder, args.size, args.side, shared, args.seed)
        processor = BeitImageProcessorPil.from_pretrained(encoder)
        pixels = {file.stem: processor(Image.open(file), return_tensors="pt")["pixel_values"].float() for file in images}
        with torch.no_grad():
            reference = {stem: model(image).last_hidden_state[0, 1:] for stem, image in pixels.items()}
            some = next(iter(reference.values()))
            parts.sane(f"{name}: features {list(some.shape)}", some)
            # The tables must matter, or a wrong one would pass.
            for key, parameter in model.named_parameters():
                if "bias_table" in key:
                    parameter.zero_()
            moved = parts.relative(model(next(iter(pixels.values()))).last_hidden_state[0, 1:], some)
        del model
        ours = {stage: parts.encoded(args, stage, images, kind="beit", weights=str(encoder)) for stage in ["pixels", "features"]}
        if not args.keep:
            shutil.rmtree(encoder)
        apart = max((ours["pixels"][stem] - image[0]).abs().max().item() for stem, image in pixels.items())
        error = max(parts.relative(ours["features"][stem], features) for stem, features in reference.items())
        checks[f"{name}: pixels, normalised"] = (apart < 1e-6, f"{apart:.1e}")
        checks[f"{name}: features move without the tables"] = (moved > 0.05, f"by {moved:.2f}")
        checks[f"{name}: features {list(some.shape)}, relative error"] = parts.within(error, args.tolerance)
    parts.verdict(checks)


if __name__ == "__main__":
    main()

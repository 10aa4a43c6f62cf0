"""Full-size CLIP vision transformers: features of `limber encode` against open_clip and transformers, in f32.

ViT-B/32 pooled and ViT-L/14 patches, each from a folder of open_clip's and from one of Hugging Face's.

Run: `python tests/reference/clip_vit.py --limber target/release/limber --folder /tmp/clip_vit`
Needs about 3 GB of disk and 5 GB of memory. Exit status 0: the relative error is under --tolerance and pixels are identical.
"""

import argparse
import json
import shutil
from pathlib import Path

import open_clip
import torch
from PIL import Image
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

import parts

# Name, what is compared, of open_clip's configs; the second library's tower has the same sizes.
TOWERS = [("ViT-B-32-quickgelu", "pool", "quick_gelu"), ("ViT-L-14", "layer", "gelu")]
LAYER = -2


def open_clip_tower(name, folder, seed):
    """A random tower with lively weights in open_clip's form, and its function of pixels [B,3,S,S] to [B,N,E]."""
    config = json.loads((Path(open_clip.__file__).parent / f"model_configs/{name}.json").read_text())
    # The text tower plays no part: a small one saves disk.
    config["text_cfg"] |= {"layers": 1}
    model = parts.golden("clip_vit").liven(open_clip.model.CLIP(**config), torch.Generator().manual_seed(seed))
    parts.write_tower(model, config, folder)

    def states(pixels, pool):
        if pool:
            return model.visual(pixels)[:, None]
        # open_clip counts what leaves a block: -2 is the last but one there too.
        return model.visual.forward_intermediates(pixels, output_fmt="NLC")["image_intermediates"][LAYER]

    return config, states


def hugging_face_tower(config, activation, folder, seed):
    vision = config["vision_cfg"]
    width = vision["width"]
    model = CLIPVisionModelWithProjection(CLIPVisionConfig(
        hidden_size=width, intermediate_size=4 * width, num_hidden_layers=vision["layers"], num_attention_heads=width // 64,
        image_size=vision["image_size"], patch_size=vision["patch_size"], projection_dim=config["embed_dim"], hidden_act=activation))
    model = parts.golden("clip_vit").liven(model, torch.Generator().manual_seed(seed))
    model.save_pretrained(folder)

    def states(pixels, pool):
        out = model(pixels, output_hidden_states=True)
        return out.image_embeds[:, None] if pool else out.hidden_states[LAYER][:, 1:]

    return states


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tolerance", type=float, default=1e-4, help="relative error allowed for the features")
    parser.add_argument("--images", type=int, default=2)
    args = parts.arguments(parser)
    side = 224
    images = parts.photos(args, args.images)
    pixels = {file.stem: parts.preprocess(side)(Image.open(file)) for file in images}
    checks = {}
    for index, (name, what, activation) in enumerate(TOWERS):
        pool = what == "pool"
        folders = [args.folder / f"{name}-open_clip", args.folder / f"{name}-transformers"]
        config, first = open_clip_tower(name, folders[0], args.seed + index)
        for folder, states in zip(folders, [first, None]):
            states = states or hugging_face_tower(config, activation, folder, args.seed + index)
            with torch.no_grad():
                reference = {name: states(image[None], pool)[0] for name, image in pixels.items()}
            some = next(iter(reference.values()))
            label = f"{folder.name} {'pooled' if pool else f'hidden state {LAYER}'} {list(some.shape)}"
            parts.sane(label, some)
            settings = {"kind": "clip-vit", "weights": str(folder)} | ({"pool": True} if pool else {"layer": LAYER})
            worst, _ = parts.compare_pixels(parts.encoded(args, "pixels", images, **settings), pixels)
            ours = parts.encoded(args, "features", images, **settings)
            error = max(parts.relative(ours[image], reference[image]) for image in reference)
            checks[f"{folder.name}, pixels, 8-bit levels apart"] = (worst == 0, f"{worst:g}")
            checks[f"{label}, relative error"] = parts.within(error, args.tolerance)
            if not args.keep:
                shutil.rmtree(folder)
    parts.verdict(checks)


if __name__ == "__main__":
    main()

"""What `save_pretrained` of transformers 4 and 5 writes of image processors, and the pixels that they make of one picture.

Run: `TRANSFORMERS_4=PYTHON python tests/golden/processors/export.py`, PYTHON being one with transformers 4 (4.57.1), Pillow and NumPy.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

CROP = {"size": {"shortest_edge": 20}, "crop_size": {"height": 18, "width": 18}}
SQUARE = {"size": {"height": 18, "width": 18}}
# Model, class, settings.
CASES = {
    "clip": ("clip", "CLIPImageProcessor", CROP),
    "clip-numbers": ("clip", "CLIPImageProcessor", {"size": 18, "crop_size": 18, "resample": 2}),
    "clip-bytes": ("clip", "CLIPImageProcessor", CROP | {"do_rescale": False}),
    "clip-plain": ("clip", "CLIPImageProcessor", CROP | {"do_normalize": False}),
    "clip-raw": ("clip", "CLIPImageProcessor", CROP | {"do_normalize": False, "do_rescale": False}),
    "clip-factor": ("clip", "CLIPImageProcessor", CROP | {"rescale_factor": 1 / 127.5}),
    "siglip": ("siglip", "SiglipImageProcessor", SQUARE),
    "bit": ("bit", "BitImageProcessor", CROP | {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}),
    "vit": ("vit", "ViTImageProcessor", SQUARE | {"image_std": [0.25, 0.5, 1.0]}),
    "beit": ("beit", "BeitImageProcessor", {"size": {"height": 22, "width": 22}, "do_center_crop": True, "crop_size": 18}),
}
SAVE = """
import json, sys, tempfile, transformers
from pathlib import Path
out = {}
for name, (model, kind, settings) in json.load(sys.stdin).items():
    with tempfile.TemporaryDirectory() as folder:
        getattr(transformers, kind)(**settings).save_pretrained(folder)
        out[name] = {file.name: json.loads(file.read_text()) for file in Path(folder).iterdir()}
json.dump(out, sys.stdout)
"""


def saved(python):
    return json.loads(subprocess.run([python, "-c", SAVE], input=json.dumps(CASES), capture_output=True, text=True, check=True).stdout)


def main():
    import importlib

    import torch
    from transformers import AutoTokenizer, CLIPImageProcessor, CLIPProcessor
    from writer import start, write_json, write_tensors

    folder = start(__file__, "transformers", "torchvision", "pillow")
    files = {f"{name} of 5": value for name, value in saved(sys.executable).items()}
    files |= {f"{name} of 4": value for name, value in saved(os.environ["TRANSFORMERS_4"]).items()}
    with tempfile.TemporaryDirectory() as place:
        tokenizer = AutoTokenizer.from_pretrained(folder.parent / "tokenizer/json")
        tokenizer.pad_token = tokenizer.eos_token
        CLIPProcessor(CLIPImageProcessor(**CROP), tokenizer).save_pretrained(place)
        files["clip nested"] = {file.name: json.loads(file.read_text()) for file in Path(place).iterdir() if "processor" in file.name}
    y, x = numpy.mgrid[0:31, 0:45].astype(numpy.float64)
    waves = [127 + 100 * numpy.sin(x / 5 + y / 9), 255 * (x + y) / 74, 127 + 120 * numpy.cos(x * y / 60)]
    picture = numpy.stack(waves, -1).round().clip(0, 255).astype(numpy.uint8)
    tensors = {"picture": torch.from_numpy(picture.astype(numpy.int64))}
    for name, (model, kind, settings) in CASES.items():
        module = importlib.import_module(f"transformers.models.{model}.image_processing_pil_{model}")
        made = getattr(module, f"{kind}Pil")(**settings)(Image.fromarray(picture), return_tensors="pt")["pixel_values"][0]
        tensors[f"pixels.{name}"] = made.to(torch.float32).contiguous()
    write_tensors(folder / "expected.safetensors", tensors)
    write_json(folder / "expected.json", {"files": files})


if __name__ == "__main__":
    main()

"""Encoders at batch 1: seconds of PyTorch, in both memory formats, and of limber on the same weights, taking turns in one run.

Run: `cargo build --release --example encode_speed && python benches/reference/encoders.py rn50x16 nf_resnet50 beit_large`
Prints a line an encoder: medians, the ratio of PyTorch's better one to limber's, and the relative errors of both
sides' features against the same model in f64.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/reference"))
# Nothing is read from the network.
os.environ["HF_HUB_OFFLINE"] = "1"


def rn50x16(folder):
    """OpenAI CLIP's RN50x16 at 384 without its attention pool, batch norms fitted to its own activations."""
    import open_clip
    import parts

    config = json.loads((Path(open_clip.__file__).parent / "model_configs/RN50x16.json").read_text())
    config["text_cfg"] |= {"layers": 1}
    model = parts.tower(config, 0)
    parts.write_tower(model, config, folder)
    return model.visual, lambda pixels: parts.features(model, pixels), 384, "clip-resnet", {"model": "RN50x16"}


def nf_resnet50(folder):
    """timm's nf_resnet50 at 384, its last map averaged."""
    import timm

    model = timm.create_model("nf_resnet50").eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            # timm starts every residual branch at 0, which would leave most of the model untested.
            if name.endswith("gain") and not value.any():
                value.fill_(0.5)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "model.safetensors")
    features = lambda pixels: model.forward_features(pixels).mean((2, 3))[:, None]
    return model, features, 384, "nf-resnet", {"model": "nf_resnet50", "image_size": 384}


def beit_large(folder):
    """BEiT-large at 224: last hidden state without the class token."""
    from transformers import BeitConfig, BeitModel

    sizes = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
    torch.manual_seed(0)
    model = BeitModel(BeitConfig(**sizes, use_relative_position_bias=True), add_pooling_layer=False).eval()
    model.save_pretrained(folder)
    return model, lambda pixels: model(pixels).last_hidden_state[:, 1:], 224, "beit", {}


def clip_vit(folder):
    """OpenAI CLIP's ViT-L/14 at 336: last hidden state of the patches."""
    from transformers import CLIPVisionConfig, CLIPVisionModel

    sizes = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
    torch.manual_seed(0)
    model = CLIPVisionModel(CLIPVisionConfig(**sizes, image_size=336, patch_size=14)).eval()
    model.save_pretrained(folder)
    return model, lambda pixels: model(pixels).last_hidden_state[:, 1:], 336, "clip-vit", {}


CASES = {case.__name__: case for case in [rn50x16, nf_resnet50, beit_large, clip_vit]}


class Limber:
    """The example `encode_speed`, which encodes once for every line it is sent."""

    def __init__(self, program, kind, settings, folder, threads):
        words = [program, kind, json.dumps(settings), folder, folder / "pixels.safetensors", folder / "out.safetensors"]
        environment = {**os.environ, "RAYON_NUM_THREADS": str(threads)}
        self.process = subprocess.Popen([str(w) for w in words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        self.out = folder / "out.safetensors"
        self.line()

    def line(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"encode_speed ended with status {self.process.wait()}")
        return line

    def __call__(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return float(self.line())

    def features(self):
        self.process.stdin.close()
        if self.process.wait():
            sys.exit(f"encode_speed ended with status {self.process.returncode}")
        return load_file(self.out)


def features_in_f64(model, features, pixels):
    """The same features in double precision; the model stays so."""
    model.to(torch.float64, memory_format=torch.contiguous_format)
    return features(pixels.double())


@torch.no_grad()
def measure(case, args):
    with tempfile.TemporaryDirectory(prefix="limber-encoders-") as folder:
        folder = Path(folder)
        model, features, side, kind, settings = case(folder)
        pixels = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(1))
        save_file({"pixels": pixels}, folder / "pixels.safetensors")
        limber = Limber(args.program, kind, settings, folder, args.threads)
        reference = features(pixels)
        formats = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}
        seconds = {name: [] for name in [*formats, "limber"]}
        for _ in range(args.repeats):
            for name, layout in formats.items():
                model.to(memory_format=layout)
                image = pixels.to(memory_format=layout)
                features(image)
                start = time.perf_counter()
                features(image)
                seconds[name].append(time.perf_counter() - start)
            limber()
            seconds["limber"].append(limber())
        ours = limber.features()
        exact = features_in_f64(model, features, pixels)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    error = lambda found: float(f"{((found.double() - exact).norm() / exact.norm()).item():.1e}")
    return {
        "encoder": case.__name__,
        **{f"{name.replace('-', '_')}_s": round(value, 4) for name, value in medians.items()},
        "ratio": round(min(medians[name] for name in formats) / medians["limber"], 2),
        "error_torch": error(reference),
        "error_limber": error(ours["features"]),
        "load_s": round(ours["load_s"].item(), 3),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"any of {', '.join(CASES)}; all where none is named")
    parser.add_argument("--program", type=Path, default=ROOT / "target/release/examples/encode_speed")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of both sides")
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    if unknown := [name for name in args.cases if name not in CASES]:
        parser.error(f"unknown case {unknown[0]!r}; known are {', '.join(CASES)}")
    torch.set_num_threads(args.threads)
    print(f"torch {torch.__version__}, {args.threads} threads each")
    for name in args.cases or CASES:
        print(json.dumps(measure(CASES[name], args)), flush=True)


if __name__ == "__main__":
    main()

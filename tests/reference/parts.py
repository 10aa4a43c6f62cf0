"""What the full-size and end-to-end checks share: parts made by the reference libraries, and calls of the program.

Tower and decoder get the same kind of random weights as the golden data, by the golden scripts' own functions.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy
import open_clip
import torch
import yaml
from PIL import Image, ImageDraw, ImageFilter
from safetensors.torch import load_file, save_file

from golden import golden

def arguments(parser):
    """The arguments of every check."""
    parser.add_argument("--limber", required=True, type=Path, help="the program, as built by cargo build --release")
    parser.add_argument("--folder", required=True, type=Path, help="an empty or absent folder for weights and outputs")
    parser.add_argument("--keep", action="store_true", help="leave the folder's weights in place afterwards")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of the reference libraries")
    found = parser.parse_args()
    if not found.limber.is_file():
        parser.error(f"no program at {found.limber}")
    if found.folder.exists() and any(found.folder.iterdir()):
        parser.error(f"{found.folder} is not empty")
    found.limber, found.folder = found.limber.resolve(), found.folder.resolve()
    found.folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(found.seed)
    torch.set_num_threads(found.threads)
    return found


def limber(program, *words):
    """Runs the program offline; returns its standard output. A failure ends the check with the program's own message."""
    words = [str(word) for word in words]
    begun = time.monotonic()
    ran = subprocess.run([program, *words], capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    print(f"limber {words[0]}: {time.monotonic() - begun:.1f} s")
    if ran.returncode != 0:
        print(f"failed with status {ran.returncode}: {program} {' '.join(words)}\n{ran.stderr}", file=sys.stderr)
        verdict({f"limber {words[0]} runs": (False, f"status {ran.returncode}")})
    return ran.stdout


def json_lines(output):
    return [json.loads(line) for line in output.splitlines() if line.strip()]


def relative(ours, reference):
    """Norm of the difference over the norm of the reference; infinite where shapes differ or a value is not finite."""
    if ours.shape != reference.shape or not torch.isfinite(ours).all():
        print(f"shape {list(ours.shape)} against {list(reference.shape)}")
        return float("inf")
    return ((ours.double() - reference.double()).norm() / reference.double().norm()).item()


def within(error, tolerance):
    """A check of a relative error, with its figure."""
    return error < tolerance, f"{error:.2e} (allowed {tolerance:.0e})"


def photos(args, count):
    """Photo-like RGB images of one seed each, in the folder."""
    files = [args.folder / f"image{i}.png" for i in range(count)]
    for i, file in enumerate(files):
        photo(file, args.seed + i, "RGB")
    return files


def encoded(args, stage, images, **encoder):
    """What `limber encode` gives for images, by their stems; the section `encoder` is given, nothing else counts."""
    config = write_config(args.folder / "limber.yaml", encoder, {"kind": "linear", "weights": "random:2"},
                          {"kind": "gptj", "weights": "random:3"})
    file = args.folder / f"{stage}.safetensors"
    limber(args.limber, "encode", "--config", config, "--stage", stage, *images, "--out", file)
    return read(file)


def sane(label, features, more=""):
    """Prints what features look like; random weights may not let activations vanish or explode."""
    print(f"{label}: mean {features.mean():.3f}, standard deviation {features.std():.3f}, largest {features.abs().max():.2f}{more}")
    assert 1e-2 < features.std() < 1e3, "activations left the sane range"


def finish(args, checks, *weights):
    """Removes the weights unless they are kept, then gives the verdict."""
    if not args.keep:
        for path in weights:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    verdict(checks)


def verdict(checks):
    """Prints every check with its figure, then one line, and exits 0 only where all passed."""
    for name, (passed, figure) in checks.items():
        print(f"  {'ok  ' if passed else 'FAIL'} {name}: {figure}")
    failed = [name for name, (passed, _) in checks.items() if not passed]
    print("FAIL: " + ", ".join(failed) if failed else f"PASS, {len(checks)} checks: " + "; ".join(f"{n} {f}" for n, (_, f) in checks.items() if isinstance(f, str)))
    sys.exit(1 if failed else 0)


def tower(config, seed):
    """A random CLIP with a ModifiedResNet whose batch norms fit its own activations about as a trained one's do.

    Statistics drawn blindly would let activations grow with depth: forty blocks reach thousands.
    """
    generator = torch.Generator().manual_seed(seed)
    model = open_clip.model.CLIP(**config)
    golden("clip_resnet").randomise(model.visual, generator)
    norms = [module for module in model.visual.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    sample = torch.randn(2, 3, 6, 6, generator=generator) + 0.3 * torch.randn(2, 3, 1, 1, generator=generator)
    features(model.train(), torch.nn.functional.interpolate(sample, size=192, mode="bicubic"))
    for norm in norms:
        spread = norm.running_var.sqrt()
        norm.running_mean += 0.2 * spread * torch.randn(spread.shape, generator=generator)
        # A channel that hardly varies would be blown up by its own small variance.
        norm.running_var *= 0.8 + 0.7 * torch.rand(spread.shape, generator=generator)
        norm.running_var.clamp_(min=0.1 * norm.running_var.mean().item())
    return model.eval()


def write_tower(model, config, folder):
    """`open_clip_model.safetensors` and `open_clip_config.json`, as open_clip's repositories have them."""
    folder.mkdir(parents=True, exist_ok=True)
    preprocess = {"mean": list(open_clip.OPENAI_DATASET_MEAN), "std": list(open_clip.OPENAI_DATASET_STD)}
    text = json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}, indent=1)
    (folder / "open_clip_config.json").write_text(text + "\n")
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "open_clip_model.safetensors", {"format": "pt"})


@torch.no_grad()
def features(model, pixels):
    """Pixels [B,3,S,S] to [B,N,E]: the tower without its attention pool, the map flattened row-major."""
    x = model.visual.stem(pixels)
    for layer in ["layer1", "layer2", "layer3", "layer4"]:
        x = getattr(model.visual, layer)(x)
    return x.flatten(2).transpose(1, 2)


def preprocess(side):
    """open_clip's own evaluation transform of a PIL image."""
    return open_clip.image_transform(side, is_train=False, mean=open_clip.OPENAI_DATASET_MEAN, std=open_clip.OPENAI_DATASET_STD)


def levels(pixels):
    """Normalised pixels [3,S,S] back to their 8-bit values, and how far the normalised ones lie from those."""
    mean = torch.tensor(open_clip.OPENAI_DATASET_MEAN)[:, None, None]
    std = torch.tensor(open_clip.OPENAI_DATASET_STD)[:, None, None]
    raw = (pixels * std + mean) * 255
    return raw.round(), (raw - raw.round()).abs().max().item()


def compare_pixels(ours, references):
    """Largest differences over images: in 8-bit levels before normalisation, and after it."""
    worst, after = 0.0, 0.0
    for name, reference in references.items():
        if ours[name].shape != reference.shape:
            return float("inf"), float("inf")
        worst = max(worst, (levels(ours[name])[0] - levels(reference)[0]).abs().max().item())
        after = max(after, (ours[name] - reference).abs().max().item())
    return worst, after


def photo(path, seed, mode=None):
    """Draws a picture with the statistics of a photo: shades, shapes, soft edges, noise; an odd size; a mode by the seed."""
    g = numpy.random.default_rng(seed)
    w, h = (int(v) for v in g.integers(40, 700, 2))
    y, x = numpy.mgrid[0:h, 0:w]
    waves = [128 + 100 * numpy.sin(x * g.uniform(0.002, 0.1) + y * g.uniform(0.002, 0.1) + g.uniform(0, 6)) for _ in range(3)]
    image = Image.fromarray(numpy.stack(waves, -1).clip(0, 255).astype(numpy.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(12):
        x0, y0 = g.integers(0, w), g.integers(0, h)
        box = [int(x0), int(y0), int(x0 + g.integers(5, 200)), int(y0 + g.integers(5, 200))]
        colour = tuple(int(v) for v in g.integers(0, 256, 3))
        (draw.ellipse if g.random() < 0.5 else draw.rectangle)(box, fill=colour)
    image = image.filter(ImageFilter.GaussianBlur(float(g.uniform(0, 2))))
    noisy = numpy.asarray(image).astype(float) + g.normal(0, 8, (h, w, 3))
    image = Image.fromarray(noisy.clip(0, 255).astype(numpy.uint8))
    mode = mode or ["RGB", "RGB", "L", "RGBA", "P", "LA"][seed % 6]
    if "A" in mode:
        image.putalpha(Image.fromarray(g.integers(0, 256, (h, w)).astype(numpy.uint8)))
    image.convert(mode).save(path)


def write_config(path, encoder, stitch, decoder, **rest):
    path.write_text(yaml.safe_dump({"encoder": encoder, "stitch": stitch, "decoder": decoder, **rest}, sort_keys=False))
    return path


def captioner(folder, prompt):
    """The config of a tower, a projection and a decoder that lie in the folder, each weight in its own type."""
    parts = {"encoder": {"kind": "clip-resnet", "weights": str(folder / "encoder")},
             "stitch": {"kind": "linear", "weights": str(folder / "proj.ckpt")},
             "decoder": {"kind": "auto", "weights": str(folder / "decoder")}}
    return write_config(folder / "limber.yaml", **parts, prompt=prompt)


def read(path):
    return load_file(str(path))


class Reference:
    """Scores and captions by transformers, from a prefix [1,K,D] on."""

    def __init__(self, model, tokenizer):
        self.model, self.tokenizer = model, tokenizer

    def ids(self, text):
        """The ids of a text as it stands: no token is added in front, whatever the tokenizer is set to."""
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def embeds(self, prefix, ids):
        return torch.cat([prefix, self.model.get_input_embeddings()(torch.tensor([ids], dtype=torch.long))], 1)

    @torch.no_grad()
    def score(self, prefix, prompt, text):
        """Log-probabilities of the ids of `text` over all rows, and over the rows that the tokenizer has."""
        before, after = self.ids(prompt), self.ids(text)
        logits = self.model(inputs_embeds=self.embeds(prefix, before + after)).logits[0]
        first = prefix.shape[1] + len(before) - 1
        rows, picked = logits[first:first + len(after)], torch.tensor(after)[:, None]
        every = rows.log_softmax(-1).gather(1, picked)[:, 0]
        known = rows[:, :len(self.tokenizer)].log_softmax(-1).gather(1, picked)[:, 0]
        return after, every, known

    @torch.no_grad()
    def greedy(self, prefix, prompt, count):
        """Greedy ids up to EOS, both kinds of log-probability, and the smallest lead of a pick over the next best."""
        tokens, every, known, lead, past = [], [], [], float("inf"), None
        step = self.embeds(prefix, self.ids(prompt))
        while len(tokens) < count:
            out = self.model(inputs_embeds=step, past_key_values=past, use_cache=True)
            past, row = out.past_key_values, out.logits[0, -1]
            cut = row[:len(self.tokenizer)]
            best = cut.topk(2)
            lead = min(lead, (best.values[0] - best.values[1]).item())
            tokens.append(best.indices[0].item())
            every.append(row.log_softmax(-1)[tokens[-1]].item())
            known.append(cut.log_softmax(-1)[tokens[-1]].item())
            if tokens[-1] == self.tokenizer.eos_token_id:
                break
            step = self.model.get_input_embeddings()(torch.tensor([tokens[-1:]]))
        return tokens, torch.tensor(every), torch.tensor(known), lead


def without_end(tokens, end):
    return tokens[:tokens.index(end)] if end in tokens else tokens


def logprob_error(ours, every, known):
    """Largest difference to either kind of log-probability: a program may norm over all rows or over known ids."""
    n = min(len(ours), len(every))
    if n == 0:
        return float("inf") if len(every) else 0.0
    ours = torch.tensor(ours[:n])
    return min((ours - every[:n]).abs().max().item(), (ours - known[:n]).abs().max().item())

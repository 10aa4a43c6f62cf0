"""The whole path at a tiny size: every stage of `limber` against Pillow, open_clip, torch and transformers.

Run: `python tests/reference/pipeline.py --limber target/release/limber --folder /tmp/pipeline`
Takes seconds. The parts are written by the libraries in their own formats: tower, proj.ckpt, decoder, tokenizer.
"""

import argparse

import torch
from PIL import Image

import families
import parts

SIDE = 96
TOWER = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": SIDE, "layers": [1, 2, 1, 1], "width": 8, "patch_size": None},
    "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1},
}
PROMPT = "A picture of"
# Below this lead of the best token over the next, rounding may turn a pick.
TIE = 1e-3


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--family", choices=sorted(families.FAMILIES), default="gptj", help="of the decoder")
    parser.add_argument("--tokens", type=int, default=12)
    parser.add_argument("--dtype", choices=["f32", "f16", "bf16"], default="f32", help="type of the stored decoder and projection")
    parser.add_argument("--vocab", type=int, default=450, help="rows of the head, more than the tokenizer has")
    parser.add_argument("--tolerance", type=float, default=1e-3, help="largest difference allowed in a log-probability")
    args = parts.arguments(parser)

    dtype = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[args.dtype]
    model, tokenizer = families.write(args.folder / "decoder", args.family, 3, args.seed, width=64, heads=4, vocab=args.vocab, positions=128, dtype=dtype)
    tower = parts.tower(TOWER, args.seed + 1)
    parts.write_tower(tower, TOWER, args.folder / "encoder")
    projection = torch.nn.Linear(8 * 32, 64).to(dtype)
    torch.save(projection.state_dict(), args.folder / "proj.ckpt")
    projection = projection.float()
    settings = parts.captioner(args.folder, PROMPT)

    reference = parts.Reference(model, tokenizer)
    files, pixels, found, prefixes, captions = [], {}, {}, {}, {}
    for i in range(args.images):
        file = args.folder / f"photo{i:02}.png"
        parts.photo(file, 100 * args.seed + i)
        files.append(file)
        # To RGB first: open_clip itself converts after the resize, which picks a palette's nearest pixels.
        pixels[file.stem] = parts.preprocess(SIDE)(Image.open(file).convert("RGB"))
        found[file.stem] = parts.features(tower, pixels[file.stem][None])[0]
        with torch.no_grad():
            prefixes[file.stem] = projection(found[file.stem])
        captions[file.stem] = reference.greedy(prefixes[file.stem][None], PROMPT, args.tokens)

    checks = {}
    ours = {}
    for stage in ["pixels", "features", "prefix"]:
        out = args.folder / f"{stage}.safetensors"
        parts.limber(args.limber, "encode", "--config", settings, "--stage", stage, *files, "--out", out)
        ours[stage] = parts.read(out)
        checks[f"{stage}: one tensor an image"] = (sorted(ours[stage]) == sorted(pixels), len(ours[stage]))
    if not all(passed for passed, _ in checks.values()):
        parts.verdict(checks)
    worst, after = parts.compare_pixels(ours["pixels"], pixels)
    checks["pixels, 8-bit levels apart"] = (worst == 0, f"{worst:g}")
    checks["pixels, normalised"] = (after < 1e-5, f"{after:.1e}")
    for stage, references in [("features", found), ("prefix", prefixes)]:
        error = max(parts.relative(ours[stage][name], references[name]) for name in references)
        checks[f"{stage}, relative error"] = (error < 1e-4, f"{error:.1e}")

    end = tokenizer.eos_token_id

    def compare(name, rows):
        same, ties, different, error, texts = 0, 0, [], 0.0, True
        for file, row in zip(files, rows):
            tokens, every, known, lead = captions[file.stem]
            if parts.without_end(row["tokens"], end) == parts.without_end(tokens, end):
                same += 1
                error = max(error, parts.logprob_error(row["logprobs"], every, known))
                # A caption leaves special tokens out: OPT has more of them than its end.
                text = tokenizer.decode(parts.without_end(tokens, end), skip_special_tokens=True, clean_up_tokenization_spaces=False)
                texts &= row["text"].strip() == text.strip()
                finish = "eos" if end in tokens else "length"
                texts &= row["finish"] == finish
            elif lead < TIE:
                ties += 1
            else:
                different.append(file.stem)
        checks[f"{name}: greedy tokens"] = (len(rows) == len(files) and not different and same > 0, f"{same} of {len(files)} the same, {ties} ties, different {different}")
        checks[f"{name}: log-probabilities"] = (error < args.tolerance, f"{error:.1e}")
        checks[f"{name}: text and finish"] = (texts, texts)

    flags = ["--config", settings, "--max-tokens", args.tokens, "--temperature", "0", "--json"]
    compare("caption", parts.json_lines(parts.limber(args.limber, "caption", *flags, *files)))
    compare("caption in batches of 7", parts.json_lines(parts.limber(args.limber, "caption", *flags, "--batch", "7", *files)))

    # Two images in one prompt: transformers sees prefix, text, prefix, text.
    with torch.no_grad():
        first, second = prefixes[files[0].stem][None], prefixes[files[1].stem][None]
        joined = torch.cat([reference.embeds(first, reference.ids("Q: What? A: red")), second], 1)
    tokens, every, known, lead = reference.greedy(joined, "Q: What? A:", args.tokens)
    row = parts.json_lines(parts.limber(args.limber, "generate", *flags, "--image", files[0], "--image", files[1],
                                        "--prompt", "<image>Q: What? A: red<image>Q: What? A:"))[0]
    same = parts.without_end(row["tokens"], end) == parts.without_end(tokens, end)
    error = parts.logprob_error(row["logprobs"], every, known) if same else float("nan")
    checks["two images: greedy tokens"] = (same or lead < TIE, "the same" if same else f"{row['tokens']} against {tokens}, lead {lead:.1e}")
    checks["two images: log-probabilities"] = (not same or error < args.tolerance, f"{error:.1e}")

    text = " a small red circle above a large blue square."
    ids, every, known = reference.score(first, PROMPT, text)
    row = parts.json_lines(parts.limber(args.limber, "score", "--config", settings, "--image", files[0], "--prompt", PROMPT, "--text", text, "--json"))[0]
    error = parts.logprob_error(row["logprobs"], every, known)
    checks["score: ids"] = (row["tokens"] == ids, f"{len(row['tokens'])} of {len(ids)}")
    checks["score: log-probabilities"] = (error < args.tolerance and len(row["logprobs"]) == len(ids), f"{error:.1e}")
    parts.verdict(checks)


if __name__ == "__main__":
    main()

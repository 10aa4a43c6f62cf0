"""Full-width GPT-J behind an image prefix: `limber score` and `limber caption` against transformers, in f32.

Run: `python tests/reference/gptj.py --limber target/release/limber --folder /tmp/gptj`
Two layers of width 4096 need about 2 GB of disk and 4 GB of memory; every further layer 0.8 GB of each.
The prefix is a real one: a tiny open_clip tower and an nn.Linear, so that the whole path is compared.
"""

import argparse
import shutil

import torch
from PIL import Image

import parts

TOWER = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None},
    "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1},
}
PROMPT = "A picture of"


def text_of(tokenizer, count):
    """A text of exactly `count` tokens that is encoded as it was decoded."""
    words = " a small red circle above a large blue square, and it's raining; there are 365 three squares on the green grass.\n naïve café 😀"
    ids = tokenizer(words * (1 + count // 10))["input_ids"][:count]
    while True:
        text = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        again = tokenizer(text)["input_ids"]
        if again == ids or len(ids) < count // 2:
            return text
        ids = ids[:-1]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--heads", type=int, default=16)
    parser.add_argument("--rotary", type=int, default=64)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--vocab", type=int, default=0, help="rows of the head; 0 is what the tokenizer has, GPT-J has 50400")
    parser.add_argument("--positions", type=int, default=200, help="tokens to score")
    parser.add_argument("--tokens", type=int, default=20, help="greedy tokens to compare")
    parser.add_argument("--dtype", choices=["f32", "f16", "bf16"], default="f32", help="type of the decoder's stored weights")
    parser.add_argument("--tolerance", type=float, default=1e-3, help="largest difference allowed in a log-probability")
    args = parts.arguments(parser)

    dtype = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[args.dtype]
    model, tokenizer = parts.decoder(args.folder / "decoder", args.width, args.heads, args.rotary, args.layers, args.vocab, 2048, args.seed, dtype)
    tower = parts.tower(TOWER, args.seed + 1)
    parts.write_tower(tower, TOWER, args.folder / "encoder")
    projection = torch.nn.Linear(8 * 32, args.width)
    torch.save(projection.state_dict(), args.folder / "proj.ckpt")
    image = args.folder / "image.png"
    parts.photo(image, args.seed + 2, "RGB")
    with torch.no_grad():
        prefix = projection(parts.features(tower, parts.preprocess(64)(Image.open(image))[None]))

    reference = parts.Reference(model, tokenizer)
    text = text_of(tokenizer, args.positions)
    ids, every, known = reference.score(prefix, PROMPT, text)
    tokens, picked, picked_known, lead = reference.greedy(prefix, PROMPT, args.tokens)
    print(f"{len(ids)} tokens to score, log-probabilities from {every.min():.2f} to {every.max():.2f}; smallest greedy lead {lead:.1e}")
    del model, reference

    # The weights' own type is kept: the config asks for no other.
    settings = parts.write_config(
        args.folder / "limber.yaml",
        {"kind": "clip-resnet", "weights": str(args.folder / "encoder")},
        {"kind": "linear", "weights": str(args.folder / "proj.ckpt")},
        {"kind": "gptj", "weights": str(args.folder / "decoder")},
        prompt=PROMPT,
    )
    scored = parts.json_lines(parts.limber(args.limber, "score", "--config", settings, "--image", image, "--prompt", PROMPT, "--text", text, "--json"))[0]
    captioned = parts.json_lines(parts.limber(args.limber, "caption", "--config", settings, "--max-tokens", args.tokens, "--temperature", "0", "--json", image))[0]
    generated = parts.json_lines(parts.limber(args.limber, "generate", "--config", settings, "--image", image, "--prompt", f"<image>{PROMPT}",
                                              "--max-tokens", args.tokens, "--temperature", "0", "--json"))[0]
    if not args.keep:
        shutil.rmtree(args.folder / "decoder")

    error = parts.logprob_error(scored["logprobs"], every, known)
    greedy_error = parts.logprob_error(captioned["logprobs"], picked, picked_known)
    end = tokenizer.eos_token_id
    same = parts.without_end(captioned["tokens"], end) == parts.without_end(tokens, end)
    also = parts.without_end(generated["tokens"], end) == parts.without_end(tokens, end)
    parts.verdict({
        "ids of the text": (scored["tokens"] == ids, f"{len(scored['tokens'])} of {len(ids)}"),
        "log-probabilities, largest difference": (error < args.tolerance and len(scored["logprobs"]) == len(ids), f"{error:.2e} over {len(ids)} (allowed {args.tolerance:.0e})"),
        "total": (abs(scored["total"] - sum(scored["logprobs"])) < 1e-2, f"{scored['total']:.3f}"),
        "greedy tokens of caption": (same, f"{len(tokens)} identical" if same else f"{captioned['tokens']} against {tokens}"),
        "greedy tokens of generate": (also, f"{len(tokens)} identical" if also else f"{generated['tokens']} against {tokens}"),
        "greedy log-probabilities": (not same or greedy_error < args.tolerance, f"{greedy_error:.2e}"),
    })


if __name__ == "__main__":
    main()

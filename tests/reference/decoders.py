"""A language model at full width behind an image prefix: `limber score` and `limber caption` against transformers, in f32.

Run: `python tests/reference/decoders.py --family gpt2 --limber target/release/limber --folder /tmp/gpt2`
Two layers of gpt-j-6b's width need about 2 GB of disk and 4 GB of memory, every further layer 0.8 GB of each; the others less.
The prefix is a real one: a tiny open_clip tower and an nn.Linear, so that the whole path is compared.
"""

import argparse
import json
import shutil

import torch
from PIL import Image

import families
import parts

TOWER = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None},
    "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1},
}
PROMPT = "A picture of"
# Sums of f32 terms in another order: a batch is not the same to the last bit.
BATCHED = 1e-4


def text_of(reference, count):
    """A text of exactly `count` tokens that is encoded as it was decoded."""
    words = " a small red circle above a large blue square, and it's raining; there are 365 three squares on the green grass.\n naïve café 😀"
    ids = reference.ids(words * (1 + count // 10))[:count]
    while True:
        text = reference.tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        again = reference.ids(text)
        if again == ids or len(ids) < count // 2:
            return text
        ids = ids[:-1]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--family", choices=sorted(families.FAMILIES), required=True)
    parser.add_argument("--width", type=int, default=0, help="0 is the width of the model that the family stands for")
    parser.add_argument("--heads", type=int, default=0)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--vocab", type=int, default=None, help="rows of the head; what the tokenizer has where nothing is said, 0 is the family's own")
    parser.add_argument("--settings", type=json.loads, default={}, help='JSON of further settings of the model\'s config, e.g. \'{"do_layer_norm_before": false}\'')
    parser.add_argument("--positions", type=int, default=200, help="tokens to score")
    parser.add_argument("--tokens", type=int, default=20, help="greedy tokens to compare")
    parser.add_argument("--images", type=int, default=3, help="images to caption, one by one and in one batch")
    parser.add_argument("--dtype", choices=["f32", "f16", "bf16"], default="f32", help="type of the decoder's stored weights")
    parser.add_argument("--tolerance", type=float, default=1e-3, help="largest difference allowed in a log-probability")
    args = parts.arguments(parser)

    dtype = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[args.dtype]
    model, tokenizer = families.write(args.folder / "decoder", args.family, args.layers, args.seed, args.width, args.heads, args.vocab,
                                      dtype=dtype, settings=args.settings)
    tower = parts.tower(TOWER, args.seed + 1)
    parts.write_tower(tower, TOWER, args.folder / "encoder")
    projection = torch.nn.Linear(8 * 32, model.get_input_embeddings().weight.shape[1])
    torch.save(projection.state_dict(), args.folder / "proj.ckpt")
    images, prefixes = [args.folder / f"image{i}.png" for i in range(args.images)], []
    for i, image in enumerate(images):
        parts.photo(image, args.seed + 2 + i, "RGB")
        with torch.no_grad():
            prefixes.append(projection(parts.features(tower, parts.preprocess(64)(Image.open(image))[None])))

    reference = parts.Reference(model, tokenizer)
    text = text_of(reference, args.positions)
    ids, every, known = reference.score(prefixes[0], PROMPT, text)
    picked = [reference.greedy(prefix, PROMPT, args.tokens) for prefix in prefixes]
    print(f"{args.family}, as {families.FAMILIES[args.family].like}: {sum(p.numel() for p in model.parameters()) / 1e6:.0f} million parameters; {len(ids)} tokens to score,"
          f" log-probabilities from {every.min():.2f} to {every.max():.2f}; smallest greedy lead {min(lead for *_, lead in picked):.1e}")
    del model, reference

    # The weights' own type is kept: the config asks for no other.
    settings = parts.captioner(args.folder, PROMPT)

    def program(command, *words):
        return parts.json_lines(parts.limber(args.limber, command, "--config", settings, "--json", *words))

    greedy = ["--max-tokens", args.tokens, "--temperature", "0"]
    scored = program("score", "--image", images[0], "--prompt", PROMPT, "--text", text)[0]
    singles = program("caption", *greedy, *images)
    batch = program("caption", *greedy, "--batch", len(images), *images)
    generated = program("generate", *greedy, "--image", images[0], "--prompt", f"<image>{PROMPT}")[0]
    if not args.keep:
        shutil.rmtree(args.folder / "decoder")

    end = tokenizer.eos_token_id
    wanted = [parts.without_end(tokens, end) for tokens, *_ in picked]

    def same(rows):
        """How many rows have the reference's tokens, and the largest difference of their log-probabilities."""
        equal = [row["tokens"] == tokens for row, tokens in zip(rows, wanted)]
        error = max((parts.logprob_error(row["logprobs"], *pick[1:3]) for row, pick, ok in zip(rows, picked, equal) if ok), default=0.0)
        return sum(equal), error

    count, greedy_error = same(singles)
    batched, _ = same(batch)
    apart = max((abs(a - b) for one, other in zip(singles, batch) for a, b in zip(one["logprobs"], other["logprobs"])), default=0.0)
    error = parts.logprob_error(scored["logprobs"], every, known)
    also = generated["tokens"] == wanted[0]
    tokens = sum(len(row) for row in wanted)
    parts.verdict({
        "ids of the text": (scored["tokens"] == ids, f"{len(scored['tokens'])} of {len(ids)}"),
        "log-probabilities, largest difference": (error < args.tolerance and len(scored["logprobs"]) == len(ids), f"{error:.2e} over {len(ids)} (allowed {args.tolerance:.0e})"),
        "total": (abs(scored["total"] - sum(scored["logprobs"])) < 1e-2, f"{scored['total']:.3f}"),
        "greedy tokens of caption": (count == len(images), f"{tokens} identical" if count == len(images) else f"{[row['tokens'] for row in singles]} against {wanted}"),
        "greedy tokens of generate": (also, f"{len(wanted[0])} identical" if also else f"{generated['tokens']} against {wanted[0]}"),
        "greedy log-probabilities": (greedy_error < args.tolerance, f"{greedy_error:.2e}"),
        "a batch and its rows alone": (batched == count == len(batch) and apart < BATCHED, f"{len(batch)} rows, {apart:.2e} (allowed {BATCHED:.0e})"),
    })


if __name__ == "__main__":
    main()

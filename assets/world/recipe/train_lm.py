"""Goes on training the demo's GPT-J on text alone: captions, and questions with answers, one to five scenes a document.

train_lm.py OUT --start FOLDER --held FOLDER DATA
As in the demo's recipe a layout (the scene's 4 x 4 cells in words) stands where an image will stand later; no image is
ever read. A document of questions is `LAYOUT Q: ... A: ...`, and up to four more scenes, each on a line of its own.
Some documents have no layout at all, so that a prompt without an image is nothing foreign.
"""
import argparse
import pathlib
import random

import torch
from transformers import GPTJForCausalLM

import data
import pipeline
import world

LENGTH = 176


def cells(entry, rng):
    return "".join(" " + c for c in world.layout(entry, rng))


def question(entry, rng):
    """A question with its answer; every kind is as likely as every other."""
    all_of = entry["metadata"]["questions"]
    kind = rng.choice(sorted({q["kind"] for q in all_of}))
    return world.asked(rng.choice([q for q in all_of if q["kind"] == kind]))


def document(entries, rng):
    """Segments as (text, whether it is a target). Layouts and line ends are context alone."""
    blind = rng.random() < 0.12
    if rng.random() < 0.4:
        entry = rng.choice(entries)
        return ([] if blind else [(cells(entry, rng), False)]) + [(world.caption(entry, rng), True), (world.EOS, True)]
    segments = []
    for shot in range(rng.choice([1, 1, 2, 3, 5])):
        entry = rng.choice(entries)
        segments += [("\n", False)] if shot else []
        segments += [] if blind else [(cells(entry, rng), False)]
        segments.append((question(entry, rng), True))
    return segments + [(world.EOS, True)]


def row(entries, tokenizer, rng, known):
    """Whole documents, one after the other, as ids and targets."""
    ids, targets = [], []
    while True:
        document_ids, wanted = [], []
        for text, target in document(entries, rng):
            found = known.get(text)
            if found is None:
                found = tokenizer.encode(text).ids
                if len(known) < 300_000:
                    known[text] = found
            document_ids += found
            wanted += found if target else [-100] * len(found)
        if len(ids) + len(document_ids) > LENGTH:
            if ids:
                return ids, targets
            continue
        ids, targets = ids + document_ids, targets + wanted


@torch.no_grad()
def scores(model, tokenizer, held, rng):
    """Captions that are right word for word, and answers that are, by number of scenes before the one asked about."""
    eos = tokenizer.token_to_id(world.EOS)

    def say(texts, limit):
        said = []
        for text in texts:
            ids = torch.tensor([tokenizer.encode(text).ids])
            out = model.generate(ids, max_new_tokens=limit, do_sample=False, pad_token_id=eos, attention_mask=torch.ones_like(ids))
            said.append(tokenizer.decode([i for i in out[0, ids.shape[1]:].tolist() if i != eos]).split("\n")[0].strip())
        return said

    result = {}
    said = say([cells(e, rng) + pipeline.PROMPT for e in held], 40)
    result["captions"] = sum(s == e["captions"][0] for s, e in zip(said, held)) / len(held)
    for shots in (0, 1, 2, 4):
        prompts, answers = [], []
        for entry in held:
            parts = [cells(e, rng) + question(e, rng) for e in [*rng.sample(held, shots), entry]]
            start, answer = parts[-1].rsplit(" A: ", 1)
            prompts.append("\n".join([*parts[:-1], start + " A:"]))
            answers.append(answer)
        result[f"{shots} shots"] = sum(s == a for s, a in zip(say(prompts, 12), answers)) / len(held)
    return result


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("data")
    parser.add_argument("--start", required=True)
    parser.add_argument("--held", required=True)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--noise", type=float, default=0.25, help="norm of the noise over norm of an embedding")
    parser.add_argument("--seed", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    rng = random.Random(args.seed)
    model, tokenizer = pipeline.load_lm(args.start)
    model.train().requires_grad_(True)
    eos = tokenizer.token_to_id(world.EOS)
    entries, known = world.load(args.data), {}

    def noisy(_module, _input, output):
        scale = output.detach().norm(dim=-1, keepdim=True) / output.shape[-1] ** 0.5
        return output + torch.randn_like(output) * scale * args.noise * torch.rand(output.shape[0], 1, 1)

    hook = model.transformer.wte.register_forward_hook(noisy)

    def save():
        copy = GPTJForCausalLM(model.config)
        copy.load_state_dict(model.state_dict())
        copy.half().save_pretrained(args.out, max_shard_size="900KB")
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (args.out / name).write_bytes((pathlib.Path(args.start) / name).read_bytes())

    def loss_of(_step):
        rows = [row(entries, tokenizer, rng, known) for _ in range(args.batch)]
        longest = max(len(ids) for ids, _ in rows)
        ids = torch.tensor([r + [eos] * (longest - len(r)) for r, _ in rows])
        labels = torch.tensor([t + [-100] * (longest - len(t)) for _, t in rows])
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(ids).logits
        return torch.nn.functional.cross_entropy(logits[:, :-1].float().flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)

    data.fit(model.parameters(), args.steps, args.lr, loss_of, save)
    hook.remove()
    print(scores(model.eval(), tokenizer, world.load(args.held)[:150], random.Random(7)))


if __name__ == "__main__":
    main()

"""Trains the one linear layer between the frozen image tower and the frozen language model.

train_stitch.py OUT --clip FOLDER --lm FOLDER --held FOLDER DATA...
The loss is the language model's on [prefix][caption][EOS], caption tokens and EOS alone being targets.
Features are standardised for the training; mean and deviation are folded into the saved weight and bias.
"""
import argparse
import math
import pathlib
import random
import time

import numpy as np
import torch

import images
import pipeline
import world


def encoded(visual, entries, pixels):
    """Features of a whole data set, f16 [B, N, E]."""
    rows = []
    with torch.autocast("cpu", torch.bfloat16):
        for i in range(0, len(entries), 128):
            rows.append(pipeline.features(visual, pixels[i:i + 128]).half())
    return torch.cat(rows)


def exact(lm, tokenizer, project, features, entries):
    """Share of greedy captions that are right word for word, by number of objects, and some that are not."""
    right, wrong = {}, []
    for i in range(0, len(entries), 100):
        prefix = project(features[i:i + 100].float())
        for entry, (ids, _) in zip(entries[i:i + 100], pipeline.greedy(lm, tokenizer, prefix)):
            said, n = pipeline.text(tokenizer, ids), len(world.objects(entry))
            right.setdefault(n, []).append(said == entry["captions"][0])
            if not right[n][-1]:
                wrong.append((entry["captions"][0], said))
    return {n: (sum(r), len(r)) for n, r in sorted(right.items())}, wrong


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("data", nargs="+")
    parser.add_argument("--clip", required=True)
    parser.add_argument("--lm", required=True)
    parser.add_argument("--held", required=True)
    parser.add_argument("--keep", type=pathlib.Path, help="file that keeps the features between runs")
    parser.add_argument("--start", help="projection to start from")
    parser.add_argument("--limit", type=int, help="images taken of each data set")
    parser.add_argument("--three", type=float, default=1.0, help="share of the three-object scenes that is taken")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--minutes", type=float, default=1e9, help="ends the schedule early where steps take long")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    rng = random.Random(args.seed)
    begin = time.time()
    visual = pipeline.load_clip(args.clip).visual.to(memory_format=torch.channels_last)
    lm, tokenizer = pipeline.load_lm(args.lm)
    eos = tokenizer.token_to_id(world.EOS)
    entries, features = [], []
    for folder in args.data:
        found = world.load(folder)
        pixels = images.cached(folder, found)[:args.limit]
        found = found[:args.limit]
        if not (args.keep and args.keep.exists()):
            features.append(encoded(visual, found, pixels))
        entries += found
    if features:
        features = torch.cat(features)
        if args.keep:
            torch.save(features, args.keep)
    else:
        features = torch.load(args.keep, weights_only=True)
    held = world.load(args.held)[:200]
    held_features = encoded(visual, held, images.cached(args.held, held))
    some = features[:4000].float().flatten(0, 1)
    mean, std = some.mean(0), some.std(0) + 1e-3 * some.std()
    print(f"{len(entries)} images encoded in {time.time() - begin:.0f} s", flush=True)

    e, d = features.shape[-1], lm.config.n_embd
    linear = torch.nn.Linear(e, d)
    with torch.no_grad():
        # The prefix starts as the word for an empty cell, so training begins inside the model's language.
        linear.weight.normal_(0, 0.3 * lm.transformer.wte.weight.std() / e ** 0.5)
        linear.bias.copy_(lm.transformer.wte.weight[tokenizer.encode(" nothing").ids[0]])
        if args.start:
            old = pipeline.load_projection(args.start)
            linear.weight.copy_(old.weight * std)
            linear.bias.copy_(old.bias + old.weight @ mean)

    def project(x):
        return linear((x - mean) / std)

    optimiser = torch.optim.AdamW(linear.parameters(), lr=args.lr, betas=(0.9, 0.98), weight_decay=0.0)
    begin, losses = time.time(), []
    pool = [i for i, e in enumerate(entries) if len(world.objects(e)) < 3 or rng.random() < args.three]
    order, step = [], 0

    def save():
        weight = linear.weight.detach() / std
        state = {"weight": weight.contiguous(), "bias": linear.bias.detach() - weight @ mean}
        torch.save(state, args.out)

    while True:
        done = max(step / args.steps, (time.time() - begin) / 60 / args.minutes)
        if done >= 1:
            break
        if len(order) < args.batch:
            order = rng.sample(pool, len(pool))
        rows, order = order[:args.batch], order[args.batch:]
        texts = [world.pictured(entries[i]) if rng.random() < 0.85 else rng.choice(entries[i]["captions"]) for i in rows]
        ids = [tokenizer.encode(t).ids + [eos] for t in texts]
        longest = max(map(len, ids))
        tokens = torch.tensor([r + [eos] * (longest - len(r)) for r in ids])
        targets = torch.tensor([r + [-100] * (longest - len(r)) for r in ids])
        for g in optimiser.param_groups:
            g["lr"] = args.lr * min(1, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * done))
        prefix = torch.nn.functional.dropout(project(features[rows].float()), args.dropout)
        embeds = torch.cat([prefix, lm.transformer.wte(tokens)], 1)
        n = prefix.shape[1]
        with torch.autocast("cpu", torch.bfloat16):
            logits = lm(inputs_embeds=embeds, use_cache=False).logits[:, n - 1:-1]
        loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=-100)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(linear.parameters(), 1.0)
        optimiser.step()
        losses.append(loss.item())
        if step % 50 == 0:
            print(f"step {step} done {done:.3f} loss {np.mean(losses[-50:]):.3f} {time.time() - begin:.0f} s", flush=True)
        if step % 300 == 299:
            save()
            print(exact(lm, tokenizer, project, held_features[:100], held[:100])[0], flush=True)
        step += 1
    save()
    score, wrong = exact(lm, tokenizer, project, held_features, held)
    print(score)
    for expected, said in wrong[:25]:
        print(f"  {expected}\n      {said}")


if __name__ == "__main__":
    main()

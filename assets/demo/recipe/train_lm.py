"""Trains a small GPT-J on text documents alone.

train_lm.py OUT --steps N DATA...
The captions and object lists of the data sets are its whole world; it never meets an image.
Gaussian noise on the word embeddings makes its input space smooth, so that a linear map can write into it.
"""
import argparse
import math
import pathlib
import random
import time

import torch
from tokenizers import Tokenizer
from transformers import GPTJConfig, GPTJForCausalLM

import world

LENGTH = 112


def config(vocab, eos):
    return GPTJConfig(
        vocab_size=vocab, n_positions=512, n_embd=160, n_layer=4, n_head=5, rotary_dim=16, n_inner=None,
        activation_function="gelu_new", resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        bos_token_id=eos, eos_token_id=eos, tie_word_embeddings=False, use_cache=True)


def row(entries, tokenizer, rng, known):
    """One training row: whole documents, one after the other, from position 0, as ids and targets."""
    ids, targets = [], []
    while True:
        document, wanted = [], []
        for segment in world.document(rng.choice(entries), rng):
            if segment not in known:
                found = tokenizer.encode(segment).ids
                if len(known) < 300_000:
                    known[segment] = found
            else:
                found = known[segment]
            document += found
            # Which objects a scene holds cannot be foreseen: layouts are context, not targets.
            wanted += [-100] * len(found) if segment.startswith(" ") else found
        if len(ids) + len(document) > LENGTH:
            if not ids:
                continue
            return ids, targets
        ids, targets = ids + document, targets + wanted


def batch(entries, tokenizer, rng, known, size, eos):
    rows = [row(entries, tokenizer, rng, known) for _ in range(size)]
    longest = max(len(r) for r, _ in rows)
    ids = torch.full((size, longest), eos)
    labels = torch.full((size, longest), -100)
    for i, (r, t) in enumerate(rows):
        ids[i, :len(r)], labels[i, :len(r)] = torch.tensor(r), torch.tensor(t)
    return ids, labels


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("data", nargs="+")
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--minutes", type=float, default=1e9, help="ends the schedule early where steps take long")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--noise", type=float, default=0.25, help="norm of the noise over norm of an embedding")
    parser.add_argument("--ease", type=int, default=300, help="steps on single objects, then as many on up to two")
    parser.add_argument("--start", help="folder to start from")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    rng = random.Random(args.seed)
    tokenizer = Tokenizer.from_file(str(args.out / "tokenizer.json"))
    eos = tokenizer.token_to_id(world.EOS)
    entries = sum((world.load(d) for d in args.data), [])
    if args.start:
        model = GPTJForCausalLM.from_pretrained(args.start, dtype=torch.float32)
    else:
        model = GPTJForCausalLM(config(tokenizer.get_vocab_size(), eos))
    model.train()
    print(sum(p.numel() for p in model.parameters()), "parameters", flush=True)

    def noisy(_module, _input, output):
        scale = output.detach().norm(dim=-1, keepdim=True) / output.shape[-1] ** 0.5
        strength = args.noise * torch.rand(output.shape[0], 1, 1)
        return output + torch.randn_like(output) * scale * strength

    model.transformer.wte.register_forward_hook(noisy)
    decay = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim <= 1]
    optimiser = torch.optim.AdamW(
        [{"params": decay, "weight_decay": 0.05}, {"params": rest, "weight_decay": 0.0}], lr=args.lr, betas=(0.9, 0.98))
    known, begin = {}, time.time()
    easy = [e for e in entries if len(world.objects(e)) == 1]
    middle = [e for e in entries if len(world.objects(e)) <= 2]

    def save():
        copy = GPTJForCausalLM(model.config)
        copy.load_state_dict(model.state_dict())
        copy.half().save_pretrained(args.out)

    losses = []
    step = 0
    while True:
        done = max(step / args.steps, (time.time() - begin) / 60 / args.minutes)
        if done >= 1:
            break
        lr = args.lr * min(1, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * done))
        for g in optimiser.param_groups:
            g["lr"] = lr
        ids, labels = batch(
            easy if step < args.ease else middle if step < 2 * args.ease or rng.random() < 0.4 else entries,
            tokenizer, rng, known, args.batch, eos)
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(ids).logits
        per = torch.nn.functional.cross_entropy(
            logits[:, :-1].float().transpose(1, 2), labels[:, 1:], ignore_index=-100, reduction="none")
        loss = per.sum() / (labels[:, 1:] >= 0).sum()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        # The captions right behind the first layout of a row: what the stitch will rely on.
        losses.append(per[:, 18:28].mean().item())
        if step % 50 == 0:
            print(f"step {step} done {done:.3f} loss {loss.item():.3f} after layouts "
                  f"{sum(losses[-50:]) / len(losses[-50:]):.3f} lr {lr:.2e} {time.time() - begin:.0f} s", flush=True)
        if step % 300 == 299:
            save()
        step += 1
    save()


if __name__ == "__main__":
    main()

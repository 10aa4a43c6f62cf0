"""Trains a small CLIP with open_clip's model and loss on images and captions alone.

train_clip.py OUT TOKENIZER --steps N DATA...
Batches are made of groups of scenes that share their number of objects and their shapes or colours,
so that telling them apart takes the remaining attributes and the positions.
"""
import argparse
import itertools
import json
import math
import pathlib
import random
import time

import numpy as np
import open_clip
import torch
from open_clip.loss import ClipLoss
from safetensors.torch import save_file
from tokenizers import Tokenizer

import images
import world

CONTEXT = 40


def config(vocab):
    return {
        "model_cfg": {
            "embed_dim": 128,
            "vision_cfg": {"image_size": images.SIDE, "layers": [1, 1, 1, 1], "width": 24, "patch_size": None},
            "text_cfg": {"context_length": CONTEXT, "vocab_size": vocab, "width": 128, "heads": 4, "layers": 2},
        },
        "preprocess_cfg": {
            "mean": images.MEAN, "std": images.STD, "interpolation": "bicubic", "resize_mode": "shortest"},
    }


def ids(tokenizer, text):
    """Token ids, EOS, then zeros, as CLIP pads. EOS has the largest id, where open_clip pools."""
    row = tokenizer.encode(text).ids[:CONTEXT - 1] + [tokenizer.token_to_id(world.EOS)]
    return row + [0] * (CONTEXT - len(row))


def batches(entries, rng, size=48, group=16):
    """Endless batches of indices, made of groups of like scenes."""
    while True:
        groups = []
        for attribute in rng.sample(["shape", "colour"], 2):
            def key(i):
                found = world.objects(entries[i])
                return len(found), sorted(o[attribute] for o in found), rng.random()
            order = sorted(range(len(entries)), key=key)
            start = rng.randrange(group)
            groups += [order[i:i + group] for i in range(start, len(order) - group, 2 * group)]
        rng.shuffle(groups)
        per = size // group
        for i in range(0, len(groups) - per, per):
            yield sum(groups[i:i + per], [])


def kinds(entries, rng, size=64):
    """Endless batches of single objects, no two of one size, colour and shape: no negative is a false one."""
    by = {}
    for i, entry in enumerate(entries):
        if len(world.objects(entry)) == 1:
            by.setdefault(world.cell_word(world.objects(entry)[0]), []).append(i)
    while True:
        yield [rng.choice(by[k]) for k in rng.sample(sorted(by), size)]


def view(picture, entry, rng):
    """A quarter of the picture with its one object whole in it, and the grid cell nearest to its corner."""
    o, half, corner = world.objects(entry)[0], images.SIDE // 2, []
    for centre in (o["y"], o["x"]):
        low, high = (centre + o["radius"]) * images.SIDE - half, (centre - o["radius"]) * images.SIDE
        corner.append(int(min(max(rng.uniform(low, high), 0), half)))
    y, x = corner
    return picture[:, y:y + half, x:x + half], [round(y / 32), round(x / 32)]


def encode_views(visual, x, corners):
    """open_clip's image tower on views, with the position embeddings of the cells that they show."""
    x = visual.stem(x)
    for layer in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
        x = layer(x)
    x, pool = x.flatten(2).permute(2, 0, 1), visual.attnpool  # N B E
    cells = torch.tensor([[4 * (r + i) + c + j + 1 for i in (0, 1) for j in (0, 1)] for r, c in corners])
    cells = torch.cat([torch.zeros(len(cells), 1, dtype=torch.long), cells], 1)
    x = torch.cat([x.mean(0, keepdim=True), x]) + pool.positional_embedding[cells].permute(1, 0, 2).to(x.dtype)
    return torch.nn.functional.multi_head_attention_forward(
        query=x, key=x, value=x, embed_dim_to_check=x.shape[-1], num_heads=pool.num_heads,
        q_proj_weight=pool.q_proj.weight, k_proj_weight=pool.k_proj.weight, v_proj_weight=pool.v_proj.weight,
        in_proj_weight=None, in_proj_bias=torch.cat([pool.q_proj.bias, pool.k_proj.bias, pool.v_proj.bias]),
        bias_k=None, bias_v=None, add_zero_attn=False, dropout_p=0.0, out_proj_weight=pool.c_proj.weight,
        out_proj_bias=pool.c_proj.bias, use_separate_proj_weight=True, training=True, need_weights=False)[0][0]


def words(entry, rng):
    captions = entry["captions"]
    # Bare captions of single objects are shared by many scenes; those that name a place are not.
    canonical = 0.15 if len(world.objects(entry)) == 1 else 0.5
    return captions[0] if rng.random() < canonical else rng.choice(captions[1:])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("tokenizer")
    parser.add_argument("data", nargs="+")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--minutes", type=float, default=1e9, help="ends the schedule early where steps take long")
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--ease", type=int, default=500, help="steps on views of single objects alone; later every third")
    parser.add_argument("--start", help="weights to start from")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    rng = random.Random(args.seed)
    tokenizer = Tokenizer.from_file(args.tokenizer)
    sets = [world.load(d) for d in args.data]
    entries = sum(sets, [])
    arrays = [images.cached(d, e) for d, e in zip(args.data, sets)]
    starts = np.cumsum([0] + [len(s) for s in sets])

    def picture(i):
        which = int(np.searchsorted(starts, i, side="right")) - 1
        return arrays[which][i - starts[which]]

    cfg = config(tokenizer.get_vocab_size())
    model = open_clip.CLIP(**cfg["model_cfg"]).to(memory_format=torch.channels_last)
    if args.start:
        from safetensors.torch import load_file
        model.load_state_dict({k: v.float() for k, v in load_file(args.start).items()}, strict=False)
    decay = [p for n, p in model.named_parameters() if p.ndim > 1 and "embedding" not in n]
    rest = [p for n, p in model.named_parameters() if not (p.ndim > 1 and "embedding" not in n)]
    optimiser = torch.optim.AdamW(
        [{"params": decay, "weight_decay": 0.05}, {"params": rest, "weight_decay": 0.0}], lr=args.lr, betas=(0.9, 0.98))
    loss_of = ClipLoss()
    begin, seen = time.time(), []
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "open_clip_config.json").write_text(json.dumps(cfg, indent=2) + "\n")

    def save(name):
        state = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
        save_file({k: v.contiguous() for k, v in state.items()}, args.out / name)

    single, mixed = kinds(entries, rng), batches(entries, rng)
    for step in itertools.count():
        done = max(step / args.steps, (time.time() - begin) / 60 / args.minutes)
        if done >= 1:
            break
        lr = args.lr * min(1, (step + 1) / (20 if args.start else 60)) * 0.5 * (1 + math.cos(math.pi * done))
        for g in optimiser.param_groups:
            g["lr"] = lr
        # Shapes and sizes are learned fast from close views of single objects, and slowly from crowds.
        close = step < args.ease or step % 3 == 0
        batch = next(single) if close else next(mixed)
        if close:
            views, corners = zip(*(view(picture(i), entries[i], rng) for i in batch))
            # The wordings that name no place, for a view does not show where in the picture it is.
            captions = [entries[i]["captions"][rng.choice([0, 0, 1, 5, 6])] for i in batch]
        else:
            views, captions = [picture(i) for i in batch], [words(entries[i], rng) for i in batch]
        x = images.normalised(np.stack(views))
        text = torch.tensor([ids(tokenizer, c) for c in captions])
        with torch.autocast("cpu", torch.bfloat16):
            image_vectors = encode_views(model.visual, x, corners) if close else model.encode_image(x)
            text_vectors = model.encode_text(text)
        a = torch.nn.functional.normalize(image_vectors.float(), dim=-1)
        b = torch.nn.functional.normalize(text_vectors.float(), dim=-1)
        loss = loss_of(a, b, model.logit_scale.exp())
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
            seen.append((loss.item(), ((a @ b.T).argmax(1) == torch.arange(len(a))).float().mean().item()))
        if step % 50 == 0:
            mean = np.mean(seen[-50:], axis=0)
            print(f"step {step} done {done:.3f} loss {mean[0]:.3f} right {mean[1]:.3f} lr {lr:.2e} "
                  f"scale {model.logit_scale.exp().item():.1f} {time.time() - begin:.0f} s", flush=True)
        if step % 100 == 99:
            save("latest.safetensors")
    save("open_clip_model.safetensors")
    (args.out / "latest.safetensors").unlink(missing_ok=True)


if __name__ == "__main__":
    main()

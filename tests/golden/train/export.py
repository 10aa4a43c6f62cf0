"""Trains a linear stitch between features and a tiny GPT-J in PyTorch, and writes every loss and the stitch at the end.

Run: `python tests/golden/train/export.py`
Two runs over the same data, order, start and settings: losses normalised by a step's target tokens, and as the original
LiMBeR normalises them (mean of the micro-batches' means; the longest caption of a batch has no end of sequence).
50 steps, micro-batches of 3, accumulation 2, logarithmic warm-up of 10 steps, linear decay, clipping at 0.2 (active in part of the steps), no dropout.
"""

import json
import math
import shutil
import sys
from pathlib import Path

import numpy
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import GPTJConfig, GPTJForCausalLM

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from writer import start, write_json, write_tensors  # noqa: E402

STEPS, BATCH, ACCUMULATE, WARMUP, LR, CLIP = 50, 3, 2, 10, 0.02, 0.2
TOKENS, WIDTH, D = 4, 24, 32
WORDS = "a small large red green blue circle square ring above below left of the and two three stars".split()


def captions(count, generator):
    """Captions of 2 to 9 words; a batch's longest is unique often enough, and equal lengths occur."""
    def words():
        n = int(torch.randint(2, 10, (1,), generator=generator))
        return " ".join(WORDS[int(i)] for i in torch.randint(0, len(WORDS), (n,), generator=generator))
    return [words() for _ in range(count)]


def learning_rate(step):
    """DeepSpeed's WarmupDecayLR with a logarithmic warm-up from 0."""
    if step < WARMUP:
        return LR * math.log(step + 1) / math.log(WARMUP)
    return LR * (STEPS - step) / (STEPS - WARMUP)


def batch_of(model, features, ids, eos, stitch, original):
    """Sum of losses and number of targets of one micro-batch."""
    prefix = stitch(features)  # [B, K, D]
    longest = max(len(row) for row in ids)
    # The original pads with the end of sequence to the longest caption, and its first pad alone is a target.
    length = longest if original else longest + 1
    padded = torch.full((len(ids), length), eos)
    labels = torch.full((len(ids), length), -100)
    for row, tokens in enumerate(ids):
        padded[row, :len(tokens)] = torch.tensor(tokens)
        labels[row, :len(tokens)] = torch.tensor(tokens)
        if len(tokens) < length:
            labels[row, len(tokens)] = eos
    embeds = torch.cat([prefix, model.transformer.wte(padded)], 1)
    labels = torch.cat([torch.full(prefix.shape[:2], -100), labels], 1)
    logits = model(inputs_embeds=embeds).logits[:, :-1]
    targets = labels[:, 1:]
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100, reduction="sum")
    return loss, int((targets >= 0).sum())


def train(model, features, ids, eos, weights, original):
    """All losses, gradient norms and the stitch at the end."""
    stitch = torch.nn.Linear(WIDTH, D)
    stitch.load_state_dict({name: value.clone() for name, value in weights.items()})
    optimizer = torch.optim.AdamW(stitch.parameters(), lr=LR, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.01)
    losses, norms, tokens, place = [], [], [], 0
    for step in range(STEPS):
        parts = []
        optimizer.zero_grad()
        for _ in range(ACCUMULATE):
            rows = [i % len(ids) for i in range(place, place + BATCH)]
            place += BATCH
            parts.append(batch_of(model, features[rows], [ids[i] for i in rows], eos, stitch, original))
        total = sum(n for _, n in parts)
        if original:
            loss = sum(s / n for s, n in parts) / ACCUMULATE
        else:
            loss = sum(s for s, _ in parts) / total
        loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(stitch.parameters(), CLIP)))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step)
        optimizer.step()
        losses.append(float(loss.detach()))
        tokens.append(total)
    return losses, norms, tokens, {name: value.detach() for name, value in stitch.state_dict().items()}


def main():
    folder = start(__file__, "torch", "transformers", "tokenizers", "numpy")
    for old in ["decoder", "features"]:
        shutil.rmtree(folder / old, ignore_errors=True)
    generator = torch.Generator().manual_seed(11)
    tokenizer = Tokenizer.from_file(str(folder.parent / "tokenizer/json/tokenizer.json"))
    eos = tokenizer.token_to_id("<|endoftext|>")
    assert eos is not None
    config = GPTJConfig(vocab_size=tokenizer.get_vocab_size() + 3, n_positions=64, n_embd=D, n_layer=2, n_head=4,
                        rotary_dim=4, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
                        bos_token_id=eos, eos_token_id=eos, tie_word_embeddings=False)
    config._attn_implementation = "eager"
    model = GPTJForCausalLM(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if "ln_" in name and name.endswith("weight"):
                weight.copy_(1.0 + 0.2 * noise)
            elif name.endswith("bias"):
                weight.copy_(0.1 * noise)
            else:
                weight.copy_(noise / weight.shape[-1] ** 0.5)
    model.save_pretrained(folder / "decoder")
    count = 14  # no multiple of a batch, so that epochs end inside of micro-batches
    features = torch.randn((count, TOKENS, WIDTH), generator=generator)
    texts = captions(count, generator)
    (folder / "features").mkdir()
    with open(folder / "data.jsonl", "w", encoding="utf-8") as lines:
        for i, text in enumerate(texts):
            numpy.save(folder / f"features/{i:02}.npy", features[i].numpy())
            lines.write(json.dumps({"image": f"features/{i:02}.npy", "caption": text}) + "\n")
    ids = [tokenizer.encode(text).ids for text in texts]
    weights = {"weight": torch.randn((D, WIDTH), generator=generator) / WIDTH ** 0.5, "bias": torch.zeros(D)}
    save_file(weights, str(folder / "start.safetensors"))
    expected, final = {}, {}
    for name, original in [("step", False), ("original", True)]:
        losses, norms, tokens, stitch = train(model, features, ids, eos, weights, original)
        expected[name] = {"loss": losses, "grad_norm": norms, "tokens": tokens,
                          "lr": [learning_rate(step) for step in range(STEPS)]}
        final |= {f"{name}.{key}": value for key, value in stitch.items()}
        print(f"  {name}: loss {losses[0]:.4f} to {losses[-1]:.4f}, norms {min(norms):.3f} to {max(norms):.3f}")
    write_json(folder / "expected.json", expected)
    write_tensors(folder / "expected.safetensors", final)


if __name__ == "__main__":
    main()

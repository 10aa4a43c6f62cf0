"""Training steps of a linear stitch before a GPT-J of full width: PyTorch beside `limber train`, on the same weights.

Run: `python benches/reference/train.py LIMBER WORK [VARIANT...]`
GPT-J with 4 layers of width 4096 (1.2 billion weights, drawn once and kept in WORK), features of 144 x 3072, captions of
15 tokens: sequences of 160 positions. Each variant is a process of its own, whose largest resident set counts, mapped
weights with it. A step is forward, backward and AdamW; the last of `--steps` is timed, the first reads weights from disk.

Variants: torch-f32, torch-bf16, torch-f32-checkpoint (activations computed again), limber-f32, limber-bf16,
limber-q8_0, limber-q4_k, each limber variant also with `-keep` (`recompute: false`).
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

WIDTH, LAYERS, TOKENS, FEATURES, CAPTION = 4096, 4, 144, 3072, 15
VARIANTS = ["torch-f32", "torch-bf16", "limber-f32", "limber-bf16"]


def prepare(work, batch):
    """Weights, tokenizer, features and captions."""
    import numpy
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPTJConfig, GPTJForCausalLM, PreTrainedTokenizerFast

    folder = work / "gptj"
    if not (folder / "model.safetensors").exists():
        torch.manual_seed(1)
        config = GPTJConfig(n_layer=LAYERS, n_embd=WIDTH, n_head=16, rotary_dim=64, tie_word_embeddings=False)
        torch.set_default_dtype(torch.float32)
        model = GPTJForCausalLM(config)
        model.save_pretrained(folder, max_shard_size="50GB")
        words = {f"w{i}": i for i in range(50_256)} | {"<|endoftext|>": 50_256}
        tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>").save_pretrained(folder)
    rng = numpy.random.default_rng(0)
    with open(work / "data.jsonl", "w") as lines:
        for i in range(batch):
            numpy.save(work / f"{i}.npy", rng.normal(size=(TOKENS, FEATURES)).astype(numpy.float32))
            caption = " ".join(f"w{n}" for n in rng.integers(0, 50_000, CAPTION))
            lines.write(json.dumps({"image": f"{i}.npy", "caption": caption}) + "\n")


def train_torch(work, dtype, checkpoint, steps, batch):
    """Seconds of each step and the losses."""
    import numpy
    import torch
    from transformers import AutoTokenizer, GPTJForCausalLM

    kind = {"f32": torch.float32, "bf16": torch.bfloat16}[dtype]
    model = GPTJForCausalLM.from_pretrained(work / "gptj", dtype=kind).eval()
    model.requires_grad_(False)
    if checkpoint:
        model.train()
        model.gradient_checkpointing_enable()
    tokenizer = AutoTokenizer.from_pretrained(work / "gptj")
    torch.manual_seed(2)
    stitch = torch.nn.Linear(FEATURES, WIDTH)
    optimizer = torch.optim.AdamW(stitch.parameters(), lr=8e-4, betas=(0.9, 0.95), weight_decay=0.0)
    lines = [json.loads(line) for line in open(work / "data.jsonl")]
    ids = torch.tensor([tokenizer(line["caption"])["input_ids"] for line in lines])
    features = torch.from_numpy(numpy.stack([numpy.load(work / line["image"]) for line in lines]))
    seconds, losses = [], []
    for _ in range(steps):
        start = time.perf_counter()
        prefix = stitch(features).to(kind)
        embeds = torch.cat([prefix, model.transformer.wte(ids)], 1)
        # Logits where there are targets, as a careful PyTorch user would have them.
        hidden = model.transformer(inputs_embeds=embeds, use_cache=False).last_hidden_state[:, TOKENS - 1:]
        targets = torch.cat([ids, torch.full((batch, 1), 50_256)], 1)
        loss = torch.nn.functional.cross_entropy(model.lm_head(hidden).float().flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(stitch.parameters(), 1.0)
        optimizer.step()
        seconds.append(time.perf_counter() - start)
        losses.append(loss.item())
    return seconds, losses


def train_limber(limber, work, dtype, keep, steps, batch):
    """Peak memory in GB; the log tells the rest."""
    output = work / "out"
    subprocess.run(["rm", "-rf", str(output)], check=True)
    config = {
        "encoder": {"kind": "features", "tokens": TOKENS, "width": FEATURES},
        "stitch": {"kind": "linear", "dropout": 0.0},
        "decoder": {"kind": "gptj", "weights": str(work / "gptj"), "dtype": dtype},
        "train": {"steps": steps, "batch": batch, "warmup": 0, "schedule": "constant", "recompute": not keep,
                  "seed": 2, "output": str(output)},
        "data": {"format": "jsonl", "path": str(work / "data.jsonl"), "shuffle": False},
    }
    path = work / "config.yaml"
    path.write_text(json.dumps(config))
    return measured([limber, "train", "--config", str(path)])


def measured(command):
    """Peak memory in GB of a process that ends well."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, (command, status)
    return usage.ru_maxrss / 1e6


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("limber")
    parser.add_argument("work", type=Path)
    parser.add_argument("variants", nargs="*", default=VARIANTS)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.inside:
        _, dtype, *more = args.inside.split("-")
        seconds, losses = train_torch(args.work, dtype, "checkpoint" in more, args.steps, args.batch)
        (args.work / "told.json").write_text(json.dumps({"seconds": seconds, "losses": losses}))
        return
    args.work.mkdir(parents=True, exist_ok=True)
    if args.variants == ["prepare"]:
        return prepare(args.work, args.batch)
    print(f"{'variant':22} {'samples/s':>9} {'s a step':>9} {'peak GB':>8}  losses")
    for variant in args.variants:
        program, dtype, *more = variant.split("-")
        if program == "torch":
            options = ["--batch", str(args.batch), "--steps", str(args.steps), "--inside", variant]
            peak = measured([sys.executable, __file__, args.limber, str(args.work), *options])
            told = json.loads((args.work / "told.json").read_text())
            seconds, losses = told["seconds"], told["losses"]
        else:
            peak = train_limber(args.limber, args.work, dtype, "keep" in more, args.steps, args.batch)
            output = args.work / "out/log.jsonl"
            lines = [json.loads(line) for line in output.read_text().splitlines()]
            seconds, losses = [line["step_s"] - line["data_s"] for line in lines], [line["loss"] for line in lines]
        last = seconds[-1]
        print(f"{variant:22} {args.batch / last:9.3f} {last:9.2f} {peak:8.2f}  {', '.join(f'{x:.4f}' for x in losses)}", flush=True)


if __name__ == "__main__":
    main()

"""Training steps of a linear stitch before a GPT-J of full width: PyTorch beside `limber train`, on the same weights.

Run: `python benches/reference/train.py LIMBER WORK prepare`, then `python benches/reference/train.py LIMBER WORK [VARIANT...]`
GPT-J with 4 layers of width 4096 (1.2 billion weights, made once and kept in WORK: 4.9 GB in f32, 2.4 GB in bf16, 0.7 GB in
q4_k), features of 144 x 3072, captions of 15 tokens: sequences of 160 positions. Each program reads the file of its own
type. Each variant is a process of its own, whose largest resident set counts, mapped weights with it. A step is forward,
backward and AdamW; the fastest of `--steps` counts, the first reads weights from disk. All begin with the same stitch, so
the losses are comparable. At the end stand the ratios to PyTorch's variants of the same run.

Variants: torch-f32, torch-bf16, limber-f32, limber-bf16, limber-q4_k, and with an ending
`-checkpoint` (torch: activations are computed again), `-cheap` and `-keep` (limber: `recompute: cheap`, which keeps matrix products, and `recompute: false`),
`-avx512` and `-avx2` (torch: ONEDNN_MAX_CPU_ISA, as on a processor without instructions for bf16).
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from time import perf_counter

WIDTH, LAYERS, TOKENS, FEATURES, CAPTION, WORDS = 4096, 4, 144, 3072, 15, 50_400
VARIANTS = ["torch-f32", "torch-f32-checkpoint", "torch-bf16", "torch-bf16-avx512", "limber-f32", "limber-bf16", "limber-q4_k"]
RECOMPUTE = {"all": True, "cheap": "cheap", "keep": False}
ISA = {"avx512": "AVX512_CORE_VNNI", "avx2": "AVX2"}


def tensors():
    """Names and shapes of GPT-J's checkpoint."""
    yield "transformer.wte.weight", [WORDS, WIDTH]
    for i in range(LAYERS):
        at = f"transformer.h.{i}."
        yield from ((f"{at}ln_1.{end}", [WIDTH]) for end in ("weight", "bias"))
        yield from ((f"{at}attn.{name}_proj.weight", [WIDTH, WIDTH]) for name in ("q", "k", "v", "out"))
        yield from ((f"{at}mlp.fc_in.weight", [4 * WIDTH, WIDTH]), (f"{at}mlp.fc_in.bias", [4 * WIDTH]))
        yield from ((f"{at}mlp.fc_out.weight", [WIDTH, 4 * WIDTH]), (f"{at}mlp.fc_out.bias", [WIDTH]))
    yield from ((f"transformer.ln_f.{end}", [WIDTH]) for end in ("weight", "bias"))
    yield from (("lm_head.weight", [WORDS, WIDTH]), ("lm_head.bias", [WORDS]))


def make(folder, kind):
    """A file of random weights in f32 or bf16, the same but for the rounding, written tensor by tensor."""
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    dtype, size = {"f32": (torch.float32, 4), "bf16": (torch.bfloat16, 2)}[kind]
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in tensors():
        end = at + size * torch.Size(shape).numel()
        header[name] = {"dtype": {"f32": "F32", "bf16": "BF16"}[kind], "shape": shape, "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(folder / "part", "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for seed, (name, shape) in enumerate(tensors()):
            random = torch.empty(shape).normal_(0, 0.02, generator=torch.Generator().manual_seed(seed))
            values = torch.ones(shape) if "ln_" in name and name.endswith("weight") else random
            file.write(values.to(dtype).view(torch.uint8).numpy().data)
    os.replace(folder / "part", folder / "model.safetensors")


def prepare(limber, work):
    """Weights, tokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPTJConfig, PreTrainedTokenizerFast

    words = {f"w{i}": i for i in range(50_256)} | {"<|endoftext|>": 50_256}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    for kind in ["f32", "bf16", "q4_k"]:
        folder = work / kind
        if (folder / "model.safetensors").exists():
            continue
        folder.mkdir(parents=True, exist_ok=True)
        GPTJConfig(n_layer=LAYERS, n_embd=WIDTH, n_head=16, rotary_dim=64, tie_word_embeddings=False).save_pretrained(folder)
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>").save_pretrained(folder)
        if kind in ["f32", "bf16"]:
            make(folder, kind)
        else:
            subprocess.run([limber, "convert", work / "f32", "--dtype", kind, "--out", folder / "model.safetensors"], check=True)


def data(work, batch):
    """Features, captions and the start of the stitch, the same for all."""
    import numpy
    import torch

    rng = numpy.random.default_rng(0)
    with open(work / "data.jsonl", "w") as lines:
        for i in range(batch):
            numpy.save(work / f"{i}.npy", rng.normal(size=(TOKENS, FEATURES)).astype(numpy.float32))
            caption = " ".join(f"w{n}" for n in rng.integers(0, 50_000, CAPTION))
            lines.write(json.dumps({"image": f"{i}.npy", "caption": caption}) + "\n")
    torch.manual_seed(2)
    torch.save(torch.nn.Linear(FEATURES, WIDTH).state_dict(), work / "proj.ckpt")


def train_torch(work, dtype, checkpoint, steps, batch):
    """Seconds of each step and the losses."""
    import numpy
    import torch
    from transformers import AutoTokenizer, GPTJForCausalLM

    kind = {"f32": torch.float32, "bf16": torch.bfloat16}[dtype]
    model = GPTJForCausalLM.from_pretrained(work / dtype, dtype=kind).eval()
    model.requires_grad_(False)
    if checkpoint:
        model.train()
        model.gradient_checkpointing_enable()
    tokenizer = AutoTokenizer.from_pretrained(work / dtype)
    stitch = torch.nn.Linear(FEATURES, WIDTH)
    stitch.load_state_dict(torch.load(work / "proj.ckpt"))
    optimizer = torch.optim.AdamW(stitch.parameters(), lr=8e-4, betas=(0.9, 0.95), weight_decay=0.0)
    lines = [json.loads(line) for line in open(work / "data.jsonl")]
    ids = torch.tensor([tokenizer(line["caption"])["input_ids"] for line in lines])
    features = torch.from_numpy(numpy.stack([numpy.load(work / line["image"]) for line in lines]))
    seconds, losses = [], []
    for _ in range(steps):
        start = perf_counter()
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
        seconds.append(perf_counter() - start)
        losses.append(loss.item())
    return seconds, losses


def train_limber(limber, work, dtype, recompute, steps, batch):
    """Peak memory in GB; the log tells the rest."""
    output = work / "out"
    subprocess.run(["rm", "-rf", str(output)], check=True)
    config = {
        "encoder": {"kind": "features", "tokens": TOKENS, "width": FEATURES},
        "stitch": {"kind": "linear", "dropout": 0.0, "weights": str(work / "proj.ckpt")},
        "decoder": {"kind": "gptj", "weights": str(work / dtype), "dtype": dtype},
        "train": {"steps": steps, "batch": batch, "warmup": 0, "schedule": "constant", "recompute": recompute,
                  "seed": 2, "output": str(output)},
        "data": {"format": "jsonl", "path": str(work / "data.jsonl"), "shuffle": False},
    }
    path = work / "config.yaml"
    path.write_text(json.dumps(config))
    return measured([limber, "train", "--config", str(path)])


def measured(command, **environment):
    """Peak memory in GB of a process that ends well."""
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, stdout=quiet, stderr=quiet, env=os.environ | environment)
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
    args = parser.parse_intermixed_args()
    if args.inside:
        _, dtype, *more = args.inside.split("-")
        seconds, losses = train_torch(args.work, dtype, "checkpoint" in more, args.steps, args.batch)
        (args.work / "told.json").write_text(json.dumps({"seconds": seconds, "losses": losses}))
        return
    args.work.mkdir(parents=True, exist_ok=True)
    if args.variants == ["prepare"]:
        return prepare(args.limber, args.work)
    data(args.work, args.batch)
    found = {}
    print(f"{'variant':22} {'samples/s':>9} {'s a step':>9} {'peak GB':>8}  losses")
    for variant in args.variants:
        program, dtype, *more = variant.split("-")
        if program == "torch":
            options = ["--batch", str(args.batch), "--steps", str(args.steps), "--inside", variant]
            environment = {"ONEDNN_MAX_CPU_ISA": ISA[name] for name in more if name in ISA}
            peak = measured([sys.executable, __file__, args.limber, str(args.work), *options], **environment)
            told = json.loads((args.work / "told.json").read_text())
            seconds, losses = told["seconds"], told["losses"]
        else:
            peak = train_limber(args.limber, args.work, dtype, RECOMPUTE[(more or ["all"])[0]], args.steps, args.batch)
            lines = [json.loads(line) for line in (args.work / "out/log.jsonl").read_text().splitlines()]
            seconds, losses = [line["step_s"] - line["data_s"] for line in lines], [line["loss"] for line in lines]
        best = min(seconds)
        found[variant] = best, peak
        told = ", ".join(f"{x:.4f}" for x in losses)
        print(f"{variant:22} {args.batch / best:9.3f} {best:9.2f} {peak:8.2f}  {told}", flush=True)
    for ours, (seconds, peak) in found.items():
        for theirs, (other, most) in found.items():
            if ours.startswith("limber") and theirs.startswith("torch"):
                print(f"{ours} to {theirs}: {other / seconds:.2f} times the samples a second, {peak / most:.2f} of the memory")


if __name__ == "__main__":
    main()

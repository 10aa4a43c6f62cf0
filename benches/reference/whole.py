"""The whole GPT-J-6B, random weights in a file: opening, first token, memory; then the same in q4_k and as GGUF.

Run: `cargo build --release && python benches/reference/whole.py --folder /tmp/whole --make --measure bf16 --quantise --measure q4_k`
Takes 12 GB of disk and of page cache (bf16) and 3.6 GB (q4_k); `--delete` removes them. Weights are normal numbers drawn from
one pool, so that the file is made in a minute; speed and memory do not depend on them. Steps may be run one at a time.
Every step prints a line of JSON.
"""

import argparse
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
V, D, L = 50_400, 4096, 28


def tensors(layers):
    """Names and shapes of GPT-J's checkpoint."""
    yield "transformer.wte.weight", [V, D]
    for i in range(layers):
        at = f"transformer.h.{i}."
        yield from ((f"{at}ln_1.{end}", [D]) for end in ("weight", "bias"))
        yield from ((f"{at}attn.{name}_proj.weight", [D, D]) for name in "qkv")
        yield f"{at}attn.out_proj.weight", [D, D]
        yield f"{at}mlp.fc_in.weight", [4 * D, D]
        yield f"{at}mlp.fc_in.bias", [4 * D]
        yield f"{at}mlp.fc_out.weight", [D, 4 * D]
        yield f"{at}mlp.fc_out.bias", [D]
    yield from ((f"transformer.ln_f.{end}", [D]) for end in ("weight", "bias"))
    yield "lm_head.weight", [V, D]
    yield "lm_head.bias", [V]


def make(folder, layers):
    """Writes the file a piece at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    pool = (0.02 * torch.randn(1 << 24)).to(torch.bfloat16).view(torch.uint8).numpy()
    # Every piece of the pool begins elsewhere, so that no two tensors are the same.
    header, at, all = {}, 0, list(tensors(layers))
    for name, shape in all:
        size = 2 * torch.Size(shape).numel()
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(folder / "model.safetensors", "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for index, (name, shape) in enumerate(all):
            left = 2 * torch.Size(shape).numel()
            if name.endswith("ln_1.weight") or name.endswith("ln_f.weight"):
                file.write(torch.ones(left // 2, dtype=torch.bfloat16).view(torch.uint8).numpy().tobytes())
                continue
            start = 2 * (7919 * index * 64 % (1 << 22))
            while left:
                piece = pool[start : start + min(left, len(pool) - start)]
                file.write(piece.data)
                left, start = left - len(piece), 0
    config = {"model_type": "gptj", "n_layer": layers, "n_embd": D, "n_head": 16, "n_positions": 2048, "rotary_dim": 64, "vocab_size": V,
              "activation_function": "gelu_new", "eos_token_id": 50256, "tie_word_embeddings": False}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "features.yaml").write_text("""\
encoder: {kind: features, tokens: 144, width: 3072}
stitch: {kind: linear, weights: "random:0"}
decoder: {kind: gptj, weights: model.safetensors}
""")
    import numpy

    numpy.save(folder / "image.npy", numpy.random.default_rng(0).standard_normal((144, 3072), numpy.float32))
    # Any tokenizer does for random weights.
    shutil.copy(ROOT / "assets/demo/gptj/tokenizer.json", folder)
    return {"step": "make", "bytes": (folder / "model.safetensors").stat().st_size}


def run(words):
    """Seconds, most resident memory in bytes and stdout of a program that must succeed."""
    start = time.perf_counter()
    process = subprocess.Popen([str(w) for w in words], stdout=subprocess.PIPE, text=True)
    out = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{words} ended with status {status}")
    return time.perf_counter() - start, usage.ru_maxrss << 10, out


def measure(program, folder, name, tokens, cached):
    file = folder / {"bf16": "model.safetensors", "q4_k": "q4_k.safetensors", "gguf": "q4_k.gguf"}[name]
    weights = file.stat().st_size
    if cached:
        with open(file, "rb", buffering=0) as f:
            while f.read(1 << 26):
                pass
    words = [program, "caption", "--config", folder / "features.yaml", "--set", f"decoder.weights={file}", "--json",
             "--set", f"decoder.tokenizer={folder / 'tokenizer.json'}", "--max-tokens", tokens, folder / "image.npy"]
    seconds, peak, out = run(words)
    line = json.loads(out)
    timing = line["timing"]
    count = len(line["tokens"])
    return {
        "step": "measure", "file": file.name, "weights": weights, "peak": peak, "above_weights": peak - weights, "tokens": count,
        "load_s": round(timing["load_s"], 3), "prefill_s": round(timing["prefill_s"], 3), "decode_s": round(timing["decode_s"], 3),
        "first_token_s": round(timing["load_s"] + timing["encode_s"] + timing["prefill_s"], 3),
        "prefill_share": round(timing["prefill_s"] / (timing["load_s"] + timing["encode_s"] + timing["prefill_s"]), 3),
        "tokens_per_s": round((count - 1) / timing["decode_s"], 2) if count > 1 else None, "all_s": round(seconds, 3),
    }


def quantise(program, folder, out):
    seconds, peak, _ = run([program, "convert", folder, "--dtype", "q4_k", "--out", folder / out])
    return {"step": "quantise", "file": out, "seconds": round(seconds, 1), "peak": peak, "bytes": (folder / out).stat().st_size}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--layers", type=int, default=L)
    parser.add_argument("--make", action="store_true")
    parser.add_argument("--quantise", action="store_true", help="q4_k.safetensors")
    parser.add_argument("--gguf", action="store_true", help="q4_k.gguf")
    parser.add_argument("--measure", action="append", default=[], choices=["bf16", "q4_k", "gguf"])
    parser.add_argument("--tokens", type=int, default=8)
    parser.add_argument("--cold", action="store_true", help="does not read the file into the page cache first")
    parser.add_argument("--help-runs", type=int, default=0, help="times `limber --help` so often")
    parser.add_argument("--delete", action="store_true")
    parser.add_argument("--limber", type=Path, default=ROOT / "target/release/limber")
    args = parser.parse_args()
    show = lambda line: print(json.dumps(line), flush=True)  # noqa: E731
    if args.help_runs:
        runs = sorted(run([args.limber, "--help"])[0] for _ in range(args.help_runs))
        show({"step": "help", "median_ms": round(1e3 * runs[len(runs) // 2], 2), "worst_ms": round(1e3 * runs[-1], 2)})
    if args.make:
        show(make(args.folder, args.layers))
    for wanted, out in [(args.quantise, "q4_k.safetensors"), (args.gguf, "q4_k.gguf")]:
        if wanted:
            show(quantise(args.limber, args.folder, out))
    for name in args.measure:
        show(measure(args.limber, args.folder, name, args.tokens, not args.cold))
    if args.delete:
        shutil.rmtree(args.folder)


if __name__ == "__main__":
    main()

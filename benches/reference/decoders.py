"""GPT-J at full width, a few of its layers: seconds of PyTorch and of limber on the same weights, taking turns in one run.

Run: `cargo build --release --example decode_speed && python benches/reference/decoders.py --layers 4`
With `--isa AVX512_CORE_VNNI` PyTorch is measured once more in bf16 in a process that oneDNN keeps off newer instructions (AVX512_BF16
and AMX units, which many machines lack), and each ratio to that is printed too.
Four layers need 5 GB of disk and 13 GB of memory. Prints a line a stage and type: prefill of 147 positions, a step of 1 and of
8 rows; medians, the ratio of PyTorch's seconds to limber's, and once a type how far the logits of both lie apart.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import DynamicCache, GPTJConfig, GPTJForCausalLM

ROOT = Path(__file__).resolve().parents[2]
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}


class Limber:
    """The example `decode_speed`, which answers each command with its seconds."""

    def __init__(self, program, folder, dtype, threads):
        environment = {**os.environ, "RAYON_NUM_THREADS": str(threads)}
        words = [str(program), "gptj", str(folder), dtype]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        self.line()

    def line(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"decode_speed ended with status {self.process.wait()}")
        return line

    def __call__(self, *words):
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        return float(self.line())

    def end(self):
        self.process.stdin.close()
        self.process.wait()


class Torch:
    """transformers' model, with the cache of each number of rows kept."""

    def __init__(self, folder, dtype):
        self.model = GPTJForCausalLM.from_pretrained(folder, dtype=dtype).eval()
        self.kept = (None, None)

    def ids(self, positions):
        return torch.tensor([[7919 * i % self.model.config.vocab_size for i in range(positions)]])

    def prefill(self, positions):
        ids, cache = self.ids(positions), DynamicCache(config=self.model.config)
        start = time.perf_counter()
        out = self.model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return time.perf_counter() - start, out

    def step(self, rows, positions):
        key, cache = self.kept
        if key != (rows, positions):
            cache = self.prefill(positions)[1].past_key_values
            cache.batch_repeat_interleave(rows)
        ids = torch.full((rows, 1), 1)
        start = time.perf_counter()
        self.model(input_ids=ids, past_key_values=cache, use_cache=True)
        seconds = time.perf_counter() - start
        cache.crop(-1)
        self.kept = ((rows, positions), cache)
        return seconds


def write(folder, layers, seed):
    torch.manual_seed(seed)
    model = GPTJForCausalLM(GPTJConfig(n_layer=layers))
    # Spread logits, so that a difference would show.
    with torch.no_grad():
        model.lm_head.bias.normal_()
    model.save_pretrained(folder, max_shard_size="100GB")


def turns(repeats, theirs, ours):
    """Medians of both, one after the other, after one turn that does not count."""
    def rested(side):
        # PyTorch's threads spin for a while after their work.
        time.sleep(0.3)
        return side()

    seconds = [(rested(theirs), rested(ours)) for _ in range(repeats + 1)][1:]
    return [statistics.median(side) for side in zip(*seconds)]


@torch.no_grad()
def measure(folder, dtype, args):
    reference, limber = Torch(folder, DTYPES[dtype]), Limber(args.program, folder, dtype, args.threads)
    _, out = reference.prefill(args.positions)
    file = folder / "logits.out"
    limber("logits", args.positions, file)
    wanted, found = out.logits[0, -1].float(), load_file(file)["logits"][0]
    distance = ((found - wanted).norm() / wanted.norm()).item()
    yield {"stage": "logits", "dtype": dtype, "relative_error": float(f"{distance:.2e}")}
    p = args.positions
    stages = [("prefill", 1, p, lambda: reference.prefill(p)[0], lambda: limber("prefill", p))]
    for rows in args.batch:
        # The first call of each side fills its cache.
        stages.append(("decode", rows, rows, lambda rows=rows: reference.step(rows, p), lambda rows=rows: limber("decode", rows, p)))
    for stage, rows, tokens, theirs, ours in stages:
        a, b = turns(args.repeats if stage == "prefill" else 3 * args.repeats, theirs, ours)
        yield {
            "stage": stage, "dtype": dtype, "batch": rows, "torch_s": round(a, 4), "limber_s": round(b, 4), "ratio": round(a / b, 2),
            "torch_tokens_per_s": round(tokens / a, 2), "limber_tokens_per_s": round(tokens / b, 2),
        }
    limber.end()


def without_unit(folder, args):
    """Seconds of PyTorch bf16 in a process of its own that oneDNN binds to `args.isa`, by stage and rows."""
    words = [sys.executable, __file__, "--torch-alone", "--folder", folder, "--positions", args.positions, "--repeats", args.repeats,
             "--threads", args.threads, "--batch", *args.batch]
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": args.isa}
    out = subprocess.run([str(w) for w in words], env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
    return {(line["stage"], line["batch"]): line["torch_s"] for line in map(json.loads, out.splitlines())}


@torch.no_grad()
def torch_alone(args):
    """PyTorch bf16 by itself: a line a stage, the first turn of each does not count."""
    reference, p = Torch(args.folder, torch.bfloat16), args.positions
    stages = [("prefill", 1, args.repeats, lambda: reference.prefill(p)[0])]
    stages += [("decode", rows, 3 * args.repeats, lambda rows=rows: reference.step(rows, p)) for rows in args.batch]
    for stage, rows, repeats, call in stages:
        seconds = statistics.median([call() for _ in range(repeats + 1)][1:])
        print(json.dumps({"stage": stage, "batch": rows, "torch_s": seconds}), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--dtypes", default="f32,bf16", help=f"some of {', '.join(DTYPES)}")
    parser.add_argument("--positions", type=int, default=147)
    parser.add_argument("--batch", type=int, nargs="*", default=[1, 8])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of both sides")
    parser.add_argument("--folder", type=Path, help="where the weights are kept and found again; a temporary folder where nothing is said")
    parser.add_argument("--program", type=Path, default=ROOT / "target/release/examples/decode_speed")
    parser.add_argument("--isa", help="newest instructions that PyTorch bf16 may use in a second measurement (ONEDNN_MAX_CPU_ISA)")
    parser.add_argument("--torch-alone", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    dtypes = args.dtypes.split(",")
    if unknown := [name for name in dtypes if name not in DTYPES]:
        parser.error(f"unknown dtype {unknown[0]!r}; known are {', '.join(DTYPES)}")
    torch.set_num_threads(args.threads)
    if args.torch_alone:
        torch_alone(args)
        return
    with tempfile.TemporaryDirectory(prefix="limber-decoders-") as temporary:
        folder = args.folder or Path(temporary)
        if not (folder / "config.json").exists():
            write(folder, args.layers, 0)
        print(f"torch {torch.__version__}, {args.threads} threads each, {args.layers} layers", flush=True)
        found = {}
        for dtype in dtypes:
            for line in measure(folder, dtype, args):
                print(json.dumps(line), flush=True)
                if line["stage"] != "logits":
                    found[line["stage"], dtype, line["batch"]] = line
        if ("prefill", "f32", 1) in found and ("prefill", "bf16", 1) in found:
            ratio = found["prefill", "f32", 1]["torch_s"] / found["prefill", "bf16", 1]["limber_s"]
            print(json.dumps({"stage": "prefill", "torch": "f32", "limber": "bf16", "ratio": round(ratio, 2)}))
        if args.isa and ("prefill", "bf16", 1) in found:
            for (stage, rows), seconds in without_unit(folder, args).items():
                ours = found[stage, "bf16", rows]["limber_s"]
                print(json.dumps({
                    "stage": stage, "dtype": "bf16", "batch": rows, "torch_isa": args.isa, "torch_s": round(seconds, 4), "limber_s": ours,
                    "ratio": round(seconds / ours, 2),
                }))


if __name__ == "__main__":
    main()

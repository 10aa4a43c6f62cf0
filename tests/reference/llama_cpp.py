"""What `limber convert` writes as GGUF, loaded by llama.cpp: greedy tokens against transformers', ids of texts. Then the
other way round: the folder that it writes of a GGUF file, opened by transformers.

Run: `NODE_LLAMA_CPP=FOLDER [LIMBER_REAL=DIR] python tests/reference/llama_cpp.py --limber target/release/limber`
FOLDER is where `npm i --ignore-scripts node-llama-cpp@3.21.1` ran; DIR holds `smollm2/`, `smollm2.gguf` and is asked for 60 tokens.
llama.cpp keeps keys and values in f16, so a golden model is followed as far as its greedy tokens lead by 0.05.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ["gpt2/f32", "gpt2/untied", "gpt_neox/pythia", "gpt_neox/serial", "llama/bare"]
TEXTS = json.loads((ROOT / "tests/golden/gguf_tokenizers/expected.json").read_text())["texts"]


def llama_cpp(job):
    script = Path(os.environ["NODE_LLAMA_CPP"]) / "limber_greedy.mjs"
    script.write_text((Path(__file__).parent / "llama_cpp.mjs").read_text())
    said = subprocess.run(["node", script], input=json.dumps(job), capture_output=True, text=True)
    return json.loads(said.stdout.splitlines()[-1]) if said.stdout else {"error": said.stderr[-500:]}


def with_tokenizer(source, copy):
    """A golden model with a byte-level tokenizer of its few rows: llama.cpp opens a file without one, this build of it for node does not."""
    shutil.copytree(source, copy)
    rows = json.loads((source / "config.json").read_text())["vocab_size"]
    merges = [("t", "h"), ("th", "e"), ("Ġ", "the")]
    joined = ["".join(merge) for merge in merges]
    letters = ["Ċ", "Ġ", *"etaoinshrdlucmfwypvbgkjqxz.,ETAOINSHRDLU0123456789"][: rows - len(joined) - 1]
    vocab = {token: i for i, token in enumerate(letters + joined)}
    tokenizer = Tokenizer(models.BPE(vocab, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    tokenizer.save(str(copy / "tokenizer.json"))
    (copy / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"}))
    return copy


@torch.no_grad()
def greedy(model, ids, count, least):
    """Greedy tokens, up to the first whose lead is below `least`."""
    out, text = [], list(ids)
    for _ in range(count):
        best = model(input_ids=torch.tensor([text])).logits[0, -1].topk(2)
        if best.values[0] - best.values[1] < least:
            break
        out.append(int(best.indices[0]))
        text.append(out[-1])
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--limber", type=Path, default=ROOT / "target/release/limber")
    args = parser.parse_args()
    failed = False

    def check(name, written, ids, wanted, texts=(), tokenized=()):
        nonlocal failed
        found = llama_cpp({"file": str(written), "prompt": ids, "count": len(wanted), "texts": list(texts)})
        good = found.get("greedy", [])[: len(wanted)] == wanted and found.get("tokenized", []) == list(tokenized)
        failed |= not good
        print("ok    " if good else "FAILED", name, f"{len(wanted)} tokens, {len(texts)} texts", "" if good else json.dumps(found)[:400], flush=True)

    def convert(source, out, *flags):
        subprocess.run([args.limber, "convert", source, "--out", out, *flags], check=True, capture_output=True)
        return out

    def opened(name, written, ids, wanted, texts=(), tokenized=()):
        """As check, of a folder and transformers."""
        nonlocal failed
        model = AutoModelForCausalLM.from_pretrained(written, dtype=torch.float32).eval()
        found = greedy(model, ids, len(wanted), 0)
        tokens = [AutoTokenizer.from_pretrained(written)(text, add_special_tokens=False)["input_ids"] for text in texts]
        good = found == wanted and tokens == list(tokenized)
        failed |= not good
        print("ok    " if good else "FAILED", name, f"{len(wanted)} tokens, {len(texts)} texts", "" if good else found, flush=True)
        return model

    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for case in GOLDEN:
            source = with_tokenizer(ROOT / "tests/golden" / case, folder / case.replace("/", "-"))
            model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).eval()
            tokenizer = AutoTokenizer.from_pretrained(source)
            texts = ["the other hat", "\nnine trees, tea"]
            tokenized = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
            ids = [1, 2, 3, 5, 8]
            wanted = greedy(model, ids, 12, 0.05)
            check(case, convert(source, folder / "m.gguf"), ids, wanted, texts, tokenized)
            back = convert(folder / "m.gguf", f"{folder}/back-{source.name}/", "--dtype", "f32")
            opened(f"{case} and back", back, ids, wanted, texts, tokenized)
        if "LIMBER_REAL" in os.environ:
            real = Path(os.environ["LIMBER_REAL"])
            known = json.loads((ROOT / "tests/real/smollm2.json").read_text())
            texts, ids, wanted = known["texts"], known["prompt_ids"], known["greedy"]
            # Blocks are kept, so llama.cpp says of both files the same.
            first = llama_cpp({"file": str(real / "smollm2.gguf"), "prompt": ids, "count": 60, "texts": texts})
            check("smollm2.gguf", convert(real / "smollm2.gguf", folder / "q.gguf"), ids, first["greedy"], texts, first["tokenized"])
            check("smollm2.gguf in f32", convert(real / "smollm2.gguf", folder / "f.gguf", "--dtype", "f32"), ids, wanted, texts, known["llama.cpp"])
            model = AutoModelForCausalLM.from_pretrained(real / "smollm2", dtype=torch.float32).eval()
            tokenizer = AutoTokenizer.from_pretrained(real / "smollm2")
            tokenized = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
            check("smollm2/", convert(real / "smollm2", folder / "h.gguf"), ids, greedy(model, ids, 60, 1e-3), texts, tokenized)
            opened("smollm2.gguf as a folder", convert(real / "smollm2.gguf", f"{folder}/back/", "--dtype", "f32"), ids, wanted, texts, known["llama.cpp"])
            for dtype in ["f32", "f16", "bf16", "q8_0", "q4_k"]:
                out = convert(real / "smollm2", folder / f"{dtype}.gguf", "--dtype", dtype)
                # What transformers makes of the rounded numbers; llama.cpp rounds the other factor of each product too.
                back = convert(out, f"{folder}/{dtype}/", "--dtype", "f32")
                model = AutoModelForCausalLM.from_pretrained(back, dtype=torch.float32).eval()
                check(f"smollm2/ in {dtype}", out, ids, greedy(model, ids, 60, 0.01 if dtype[0] != "q" else 0.3), texts, tokenized)
    sys.exit(failed)


if __name__ == "__main__":
    main()

"""What `limber convert` writes as GGUF, read by the `gguf` package and by transformers, in every architecture and type.

Run: `python tests/reference/gguf_files.py --limber target/release/limber`
Every tensor is held against the checkpoint it was made of, through the package's own table of names; where transformers reads
GGUF itself, its logits from the file are held against those from the folder.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import gguf
import numpy
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/golden"), str(ROOT / "tests/golden/gguf")]
import lm  # noqa: E402
from export import GPT, NEOX, READ, ROPE, rows_of  # noqa: E402

WIDE = dict(hidden_size=256, intermediate_size=512)
MODELS = {
    "gptj": (gguf.MODEL_ARCH.GPTJ, dict(model_type="gptj", rotary_dim=8, **GPT | dict(n_embd=256))),
    "gpt2": (gguf.MODEL_ARCH.GPT2, dict(model_type="gpt2", **GPT | dict(n_embd=256))),
    "gptneox": (gguf.MODEL_ARCH.GPTNEOX, dict(model_type="gpt_neox", **NEOX | WIDE)),
    "llama": (gguf.MODEL_ARCH.LLAMA, dict(model_type="llama", num_key_value_heads=2, rope_parameters=ROPE, **NEOX | WIDE)),
    "qwen2": (gguf.MODEL_ARCH.QWEN2, dict(model_type="qwen2", num_key_value_heads=2, rope_parameters=ROPE, **NEOX | WIDE)),
}
# Largest error of a number in standard deviations of its row's tensor.
ALLOWED = {"f32": 0.0, "f16": 5e-3, "bf16": 4e-2, "q8_0": 5e-2, "q4_k": 0.9}
# Largest difference of transformers' logits from the file and from the folder.
LOGITS = {"f32": 1e-4, "f16": 0.2}


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--limber", type=Path, default=ROOT / "target/release/limber")
    args = parser.parse_args()
    failed = False
    for name, (arch, settings) in MODELS.items():
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            generator = torch.Generator().manual_seed(7)
            model = lm.fill(AutoModelForCausalLM.from_config(AutoConfig.for_model(**settings), attn_implementation="eager").float(), generator)
            model.save_pretrained(folder)
            (folder / "tokenizer.json").write_bytes((ROOT / "assets/demo/gptj/tokenizer.json").read_bytes())
            table = gguf.get_tensor_name_map(arch, 8)
            ids = torch.randint(0, settings["vocab_size"], (2, 20), generator=generator)
            for dtype, allowed in ALLOWED.items():
                file = folder / f"{dtype}.gguf"
                subprocess.run([args.limber, "convert", folder, "--dtype", dtype, "--out", file], check=True, capture_output=True)
                reader = gguf.GGUFReader(file)
                found = {t.name: t for t in reader.tensors}
                types = {t.tensor_type.name.lower() for t in reader.tensors if len(t.shape) == 2 and "position" not in t.name}
                worst = 0.0
                for own, weight in model.state_dict().items():
                    if own == "lm_head.weight" and model.config.tie_word_embeddings:
                        continue
                    theirs = table.get_name(own, try_suffixes=(".weight", ".bias"))
                    tensor = found.pop(theirs)
                    data = weight.numpy()
                    if arch == gguf.MODEL_ARCH.GPT2 and data.ndim == 2 and "h." in own:
                        data = data.T
                    wanted = rows_of(arch, own, data, model.config)
                    got = gguf.dequantize(tensor.data, tensor.tensor_type).reshape(wanted.shape)
                    worst = max(worst, float(numpy.abs(got - wanted).max() / max(wanted.std(), 1e-9)))
                verdict = {"architecture": name, "dtype": dtype, "types": sorted(types), "worst": round(worst, 5), "left": sorted(found)}
                good = worst <= allowed and not found and types == {dtype}
                good &= reader.get_field("tokenizer.ggml.eos_token_id").contents() == settings["eos_token_id"]
                # Logits of rounded weights say little where random layers tell every difference apart.
                if settings["model_type"] in READ and dtype in LOGITS:
                    given = {"config": model.config} if name == "gpt2" else {}
                    again = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file.name, dtype=torch.float32, **given).eval()
                    verdict["transformers"] = float((again(input_ids=ids).logits - model(input_ids=ids).logits).abs().max())
                    good &= verdict["transformers"] < LOGITS[dtype]
                failed |= not good
                print("ok    " if good else "FAILED", json.dumps(verdict), flush=True)
    # The demo's tokenizer, read from the file by transformers.
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([args.limber, "convert", ROOT / "assets/demo/gptj", "--out", Path(folder) / "demo.gguf"], check=True, capture_output=True)
        fields = gguf.GGUFReader(Path(folder) / "demo.gguf").fields
        tokens = fields["tokenizer.ggml.tokens"].contents()
        reference = AutoTokenizer.from_pretrained(ROOT / "assets/demo/gptj")
        wrong = [i for i in range(len(reference)) if reference.convert_ids_to_tokens(i) != tokens[i]]
        failed |= bool(wrong)
        print("FAILED" if wrong else "ok    ", f"{len(tokens)} tokens of the demo")
    sys.exit(failed)


if __name__ == "__main__":
    main()

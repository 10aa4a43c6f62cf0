"""Writes tiny decoders as GGUF files with the `gguf` package, and what transformers computes with the same rounded weights.

Run: `python tests/golden/gguf/export.py`
Names come from the package's own table, the order of rows is that of llama.cpp's `convert_hf_to_gguf.py`; where transformers
reads GGUF itself, it must give the same logits from the file.
"""

import json
import shutil
import sys
from pathlib import Path

import gguf
import numpy
import torch
from transformers import AutoConfig, AutoModelForCausalLM

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import lm  # noqa: E402
from writer import start, write_json, write_tensors  # noqa: E402

Q = gguf.GGMLQuantizationType
ROPE = {"rope_type": "default", "rope_theta": 500.0}
GPT = dict(vocab_size=70, n_positions=24, n_embd=64, n_layer=2, n_head=4, bos_token_id=68, eos_token_id=69)
NEOX = dict(vocab_size=70, max_position_embeddings=24, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, bos_token_id=68, eos_token_id=69)
# Case: type of matrices, architecture, settings.
MODELS = {
    "gptj-f32": (Q.F32, gguf.MODEL_ARCH.GPTJ, dict(model_type="gptj", rotary_dim=8, **GPT)),
    "gpt2-q8_0": (Q.Q8_0, gguf.MODEL_ARCH.GPT2, dict(model_type="gpt2", **GPT)),
    "gptneox-f16": (Q.F16, gguf.MODEL_ARCH.GPTNEOX, dict(model_type="gpt_neox", rotary_pct=0.5, **NEOX)),
    "gptneox-serial-q8_0": (Q.Q8_0, gguf.MODEL_ARCH.GPTNEOX, dict(model_type="gpt_neox", use_parallel_residual=False, **NEOX)),
    "llama-bf16": (Q.BF16, gguf.MODEL_ARCH.LLAMA, dict(model_type="llama", num_key_value_heads=2, rope_parameters=ROPE, **NEOX)),
    # Rows of 256 numbers: super-blocks.
    "llama-q4_k": (Q.Q4_K, gguf.MODEL_ARCH.LLAMA, dict(model_type="llama", num_key_value_heads=2, **NEOX | dict(hidden_size=256, intermediate_size=256, num_hidden_layers=1))),
    "llama-q5_1": (Q.Q5_1, gguf.MODEL_ARCH.LLAMA, dict(model_type="llama", **NEOX)),
    "llama-q6_k": (Q.Q6_K, gguf.MODEL_ARCH.LLAMA, dict(model_type="llama", num_key_value_heads=2, **NEOX | dict(hidden_size=256, intermediate_size=256, num_hidden_layers=1))),
    "qwen2-q8_0": (Q.Q8_0, gguf.MODEL_ARCH.QWEN2, dict(model_type="qwen2", tie_word_embeddings=True, num_key_value_heads=2, rope_parameters=ROPE, **NEOX)),
}
# What transformers 5 reads of its own.
READ = ("llama", "qwen2", "gpt2")


def blocks_of_q4_k(shape, generator):
    """Random super-blocks whose numbers have a deviation like that of lively weights."""
    rows, blocks = shape[0], shape[1] // 256
    raw = torch.randint(0, 256, (rows, blocks, 144), generator=generator).numpy().astype(numpy.uint8)
    spread = numpy.float16(1.5 / shape[1] ** 0.5 / (5 * 32))
    raw[..., 0:2] = numpy.frombuffer(spread.tobytes(), numpy.uint8)
    raw[..., 2:4] = numpy.frombuffer(numpy.float16(7.5 * spread).tobytes(), numpy.uint8)
    return raw.reshape(rows, blocks * 144)


def blocks_of_q6_k(shape, generator):
    """Likewise: 192 bytes of codes, 16 signed scales, an f16."""
    rows, blocks = shape[0], shape[1] // 256
    raw = torch.randint(0, 256, (rows, blocks, 210), generator=generator).numpy().astype(numpy.uint8)
    spread = numpy.float16(1.5 / shape[1] ** 0.5 / (18 * 74))
    raw[..., 208:210] = numpy.frombuffer(spread.tobytes(), numpy.uint8)
    return raw.reshape(rows, blocks * 210)


MADE = {Q.Q4_K: blocks_of_q4_k, Q.Q6_K: blocks_of_q6_k}


def rows_of(arch, name, data, config):
    """Rows in the order of llama.cpp's files."""
    def interleaved(heads):
        return data.reshape(heads, 2, data.shape[0] // heads // 2, *data.shape[1:]).swapaxes(1, 2).reshape(data.shape)

    if arch == gguf.MODEL_ARCH.LLAMA and "q_proj" in name:
        return interleaved(config.num_attention_heads)
    if arch == gguf.MODEL_ARCH.LLAMA and "k_proj" in name:
        return interleaved(config.num_key_value_heads)
    if arch == gguf.MODEL_ARCH.GPTNEOX and "query_key_value" in name:
        heads = config.num_attention_heads
        parts = data.reshape(heads, 3, data.shape[0] // heads // 3, *data.shape[1:])
        return numpy.concatenate([parts[:, i].reshape(data.shape[0] // 3, *data.shape[1:]) for i in range(3)])
    return data


def metadata(writer, config, settings):
    get = lambda *names: next(getattr(config, n) for n in names if getattr(config, n, None) is not None)  # noqa: E731
    kind = config.model_type
    writer.add_context_length(get("n_positions", "max_position_embeddings"))
    width, heads = get("n_embd", "hidden_size"), get("n_head", "num_attention_heads")
    writer.add_embedding_length(width)
    writer.add_block_count(get("n_layer", "num_hidden_layers"))
    writer.add_feed_forward_length(4 * width if kind in ("gptj", "gpt2") else config.intermediate_size)
    writer.add_head_count(heads)
    if kind in ("llama", "qwen2"):
        writer.add_head_count_kv(config.num_key_value_heads)
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
        writer.add_rope_dimension_count(width // heads)
        writer.add_vocab_size(config.vocab_size)
    else:
        writer.add_layer_norm_eps(get("layer_norm_epsilon", "layer_norm_eps"))
    if kind == "gptj":
        writer.add_rope_dimension_count(config.rotary_dim)
    if kind == "gpt_neox":
        writer.add_rope_dimension_count(int(width // heads * config.rope_parameters.get("partial_rotary_factor", 0.25)))
        writer.add_parallel_residual(config.use_parallel_residual)
    writer.add_eos_token_id(config.eos_token_id)


@torch.no_grad()
def write(path, arch, dtype, settings, generator, tokenizer=None):
    config = AutoConfig.for_model(**settings)
    model = lm.fill(AutoModelForCausalLM.from_config(config, attn_implementation="eager").float(), generator)
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[arch])
    metadata(writer, config, settings)
    if tokenizer:
        tokenizer(writer, config.vocab_size)
    else:
        # Readers ask for a vocabulary; this one has words that no text holds.
        writer.add_tokenizer_model("gpt2")
        writer.add_token_list([f"<{i}>" for i in range(config.vocab_size)])
        writer.add_token_merges([])
    table = gguf.get_tensor_name_map(arch, 8)
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    for name, weight in model.state_dict().items():
        if tied and name == "lm_head.weight":
            continue
        theirs = table.get_name(name, try_suffixes=(".weight", ".bias"))
        assert theirs, name
        data = weight.numpy()
        transposed = arch == gguf.MODEL_ARCH.GPT2 and data.ndim == 2 and any(n in name for n in ("c_attn", "c_proj", "c_fc"))
        if transposed:
            data = data.T
        if data.ndim == 1 or "position_embd" in theirs:
            writer.add_tensor(theirs, rows_of(arch, name, data, config).astype(numpy.float32))
            continue
        raw = MADE[dtype](data.shape, generator) if dtype in MADE else gguf.quantize(data, dtype)
        rounded = torch.from_numpy(gguf.dequantize(raw, dtype).copy())
        weight.copy_(rounded.T if transposed else rounded)
        writer.add_tensor(theirs, numpy.ascontiguousarray(rows_of(arch, name, raw, config)), raw_dtype=dtype)
    lm.finish(writer)
    return model.eval()


def bpe(writer, vocab):
    """The byte-level BPE of `tests/golden/tokenizer/bpe`, with one special token behind it."""
    folder = Path(__file__).resolve().parents[1] / "tokenizer/bpe"
    words = json.loads((folder / "vocab.json").read_text())
    merges = [line for line in (folder / "merges.txt").read_text().splitlines() if line and not line.startswith("#version")]
    tokens = sorted(words, key=words.get)
    kinds = [gguf.TokenType.NORMAL] * len(tokens)
    if "<|endoftext|>" in words:
        kinds[words["<|endoftext|>"]] = gguf.TokenType.CONTROL
    tokens += ["<|image|>"]
    kinds += [gguf.TokenType.CONTROL]
    while len(tokens) < vocab:
        tokens.append(f"[PAD{len(tokens)}]")
        kinds.append(gguf.TokenType.UNUSED)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)


def main():
    folder = start(__file__, "torch", "transformers", "gguf", seed=4)
    tensors, lists = {}, {}
    for path in folder.glob("*.gguf"):
        path.unlink()
    for case, (dtype, arch, settings) in MODELS.items():
        generator = torch.Generator().manual_seed(len(case))
        path = folder / f"{case}.gguf"
        model = write(path, arch, dtype, settings, generator)
        ids = torch.randint(0, settings["vocab_size"], (2, 20), generator=generator)
        with torch.no_grad():
            logits = model(input_ids=ids).logits
        assert logits.std() >= 1.0, logits.std()
        print(case, f"logits have standard deviation {logits.std():.2f}")
        if settings["model_type"] in READ:
            # It does not read a GPT-2's context length.
            given = {"config": model.config} if settings["model_type"] == "gpt2" else {}
            again = AutoModelForCausalLM.from_pretrained(folder, gguf_file=path.name, dtype=torch.float32, **given).eval()
            with torch.no_grad():
                far = (again(input_ids=ids).logits - logits).abs().max()
            print(case, f"transformers' own reading differs by {far:.1e}")
            assert far < 1e-4
        tensors |= {f"{case}.ids": ids, f"{case}.logits": logits}
        lists[case] = {"kind": settings["model_type"].replace("_", "-"), "dtype": dtype.name.lower()}
    # With a tokenizer: the ids are those of the folder it was made of.
    bpe_settings = {**GPT, "model_type": "gpt2", "n_layer": 1, "n_embd": 32, "vocab_size": 430, "eos_token_id": 420}
    write(folder / "bpe.gguf", gguf.MODEL_ARCH.GPT2, Q.F16, bpe_settings, torch.Generator().manual_seed(9), bpe)
    write_tensors(folder / "expected.safetensors", tensors)
    write_json(folder / "expected.json", {"models": lists})


if __name__ == "__main__":
    main()

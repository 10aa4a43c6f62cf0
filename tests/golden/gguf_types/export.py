"""Writes a tiny Llama as GGUF in every type of blocks, with what the `gguf` package and transformers make of it, and files with
biases, scaled frequencies, a tied head and several parts.

Run: `python tests/golden/gguf_types/export.py`
Rows of 256 numbers fill super-blocks; the two matrices of a layer that have narrower rows are f16. What the package does not
quantise to is random bytes with scales that keep the numbers lively.
"""

import struct
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
HERE = Path(__file__).parent
CODED = [Q.Q4_0, Q.Q4_1, Q.Q5_0, Q.Q5_1, Q.Q8_0, Q.TQ1_0, Q.TQ2_0, Q.MXFP4]
# Where a block of random bytes has its f16 scales, and what a code is times the scale, about.
RANDOM = {
    Q.Q2_K: ([80, 82], 20), Q.Q3_K: ([108], 40), Q.Q4_K: ([0, 2], 300), Q.Q5_K: ([0, 2], 600), Q.Q6_K: ([208], 1300),
    Q.IQ2_XXS: ([0], 50), Q.IQ2_XS: ([0], 50), Q.IQ2_S: ([0], 50), Q.IQ3_XXS: ([0], 120), Q.IQ3_S: ([0], 140),
    Q.IQ1_S: ([0], 8), Q.IQ1_M: (None, 8), Q.IQ4_NL: ([0], 70), Q.IQ4_XS: ([0], 1200),
}
WIDE = dict(model_type="llama", vocab_size=16, hidden_size=256, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=1, head_dim=8, max_position_embeddings=24, bos_token_id=14, eos_token_id=15)
NARROW = WIDE | dict(vocab_size=24, hidden_size=32, intermediate_size=32, head_dim=16, num_hidden_layers=1)
LLAMA3 = {"rope_type": "llama3", "rope_theta": 500.0, "factor": 2.5, "low_freq_factor": 0.3, "high_freq_factor": 0.9,
          "original_max_position_embeddings": 20}


def coded(data, dtype, generator):
    """The bytes of a matrix in a type."""
    block, size = gguf.GGML_QUANT_SIZES[dtype]
    if data.shape[1] % block:
        return gguf.quantize(data, Q.F16), Q.F16
    if dtype not in RANDOM:
        return gguf.quantize(data, dtype), dtype
    rows, blocks = data.shape[0], data.shape[1] // block
    raw = torch.randint(0, 256, (rows, blocks, size), generator=generator).numpy().astype(numpy.uint8)
    places, usual = RANDOM[dtype]
    bits = struct.pack("<e", float(data.std()) / usual)
    if places is None:
        # Four bits of the scale lie above each of the last four pairs of bytes.
        number = struct.unpack("<H", bits)[0]
        for i in range(4):
            raw[..., 49 + 2 * i] = raw[..., 49 + 2 * i] & 15 | (number >> 4 * i & 15) << 4
    else:
        for place in places:
            raw[..., place:place + 2] = numpy.frombuffer(bits, numpy.uint8)
    return raw.reshape(rows, blocks * size), dtype


def fingerprint(values):
    """FNV-1a of the 32-bit words of f32 numbers."""
    out = 0xCBF29CE484222325
    for word in numpy.ascontiguousarray(values, numpy.float32).view(numpy.uint32).ravel().tolist():
        out = ((out ^ word) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return f"{out:016x}"


def interleaved(raw, heads):
    return numpy.ascontiguousarray(raw.reshape(heads, 2, raw.shape[0] // heads // 2, *raw.shape[1:]).swapaxes(1, 2)).reshape(raw.shape)


@torch.no_grad()
def write(name, settings, dtype, generator, extra=lambda writer: None, split=0, without=()):
    config = AutoConfig.for_model(**settings)
    model = lm.fill(AutoModelForCausalLM.from_config(config, attn_implementation="eager").float(), generator)
    writer = gguf.GGUFWriter(HERE / f"{name}.gguf", "llama", split_max_tensors=split)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_vocab_size(config.vocab_size)
    writer.add_eos_token_id(config.eos_token_id)
    extra(writer)
    table = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 4)
    prints = {}
    for own, weight in model.state_dict().items():
        if settings.get("tie_word_embeddings") and own == "lm_head.weight":
            continue
        theirs = table.get_name(own, try_suffixes=(".weight", ".bias"))
        if any(part in own for part in without):
            weight.zero_()
            continue
        data = weight.numpy()
        raw, kind = (data, Q.F32) if data.ndim == 1 else coded(data, dtype, generator)
        if data.ndim == 2:
            weight.copy_(torch.from_numpy(gguf.dequantize(raw, kind).copy()))
        heads = config.num_attention_heads if "q_proj" in own else config.num_key_value_heads
        out = interleaved(raw, heads) if "q_proj" in own or "k_proj" in own else raw
        writer.add_tensor(theirs, numpy.ascontiguousarray(out), raw_dtype=kind)
        prints[own] = fingerprint(weight.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    ids = torch.randint(0, config.vocab_size, (1, 16), generator=generator)
    logits = model.eval()(input_ids=ids).logits
    assert 0.7 < logits.std() < 8 and torch.isfinite(logits).all(), (name, logits.std())
    return {f"{name}.ids": ids, f"{name}.logits": logits}, prints


def main():
    start(__file__, "torch", "transformers", "gguf", seed=6)
    for path in HERE.glob("*.gguf"):
        path.unlink()
    tensors, types, others = {}, {}, []
    for dtype in [*CODED, *RANDOM]:
        name = dtype.name.lower()
        found, types[name] = write(name, WIDE, dtype, torch.Generator().manual_seed(int(dtype)))
        tensors |= found

    def more(name, dtype=Q.F16, extra=lambda writer: None, settings={}, **options):
        others.append(name)
        found, _ = write(name, NARROW | settings, dtype, torch.Generator().manual_seed(len(others)), extra, **options)
        tensors.update(found)

    rope = lambda **keys: {"rope_parameters": {"rope_theta": 500.0, **keys}}  # noqa: E731
    scale = lambda **keys: lambda w: [add(w, f"llama.rope.scaling.{k}", v) for k, v in keys.items()]  # noqa: E731

    def add(writer, key, value):
        kind = {str: writer.add_string, float: writer.add_float32, int: writer.add_uint32}[type(value)]
        kind(key, value)

    def factors(writer):
        config = AutoConfig.for_model(**NARROW | {"rope_parameters": LLAMA3})
        from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

        scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
        dim = config.head_dim
        plain = 1.0 / LLAMA3["rope_theta"] ** (torch.arange(0, dim, 2, dtype=torch.float64) / dim)
        writer.add_tensor("rope_freqs.weight", (plain / scaled).float().numpy())

    more("biases", settings=dict(attention_bias=True), without=("o_proj.bias",))
    more("tied", Q.Q8_0, settings=dict(tie_word_embeddings=True))
    more("linear", extra=scale(factor=2.5), settings=rope(rope_type="linear", factor=2.5))
    more("linear-of-2023", extra=lambda w: w.add_float32("llama.rope.scale_linear", 4.0), settings=rope(rope_type="linear", factor=4.0))
    more("linear-with-type", extra=scale(type="linear", factor=2.0), settings=rope(rope_type="linear", factor=2.0))
    more("none", extra=scale(type="none", factor=2.0), settings=rope(rope_type="default"))
    more("yarn", extra=scale(type="yarn", factor=4.0, original_context_length=6), settings=rope(rope_type="yarn", factor=4.0, original_max_position_embeddings=6))
    more("factors", extra=factors, settings={"rope_parameters": LLAMA3})
    more("split", Q.Q4_1, split=5)
    write_tensors(HERE / "expected.safetensors", tensors)
    write_json(HERE / "expected.json", {"types": types, "others": others})


if __name__ == "__main__":
    main()

"""Writes tiny decoders of the families of `decoder_families`, `qwen3` and `gemma2` as GGUF files with the `gguf` package, and what transformers
computes with the same rounded weights.

Run: `python tests/golden/gguf_families/export.py`

Names come from the package's own table; entries, the order of rows and what is added to norms are those of llama.cpp's `conversion/*.py`
(`convert_hf_to_gguf.py`), of the class that is named beside each case. `expected.json`: kind and dtype of each file; `expected.safetensors`:
`CASE.ids`, `CASE.logits`.
"""

import math
import sys
from pathlib import Path

import gguf
import numpy
import torch
from transformers import AutoConfig, AutoModelForCausalLM

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import lm  # noqa: E402
from writer import start, write_json, write_tensors  # noqa: E402

A, Q = gguf.MODEL_ARCH, gguf.GGMLQuantizationType
SIZES = dict(vocab_size=70, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
             max_position_embeddings=40, bos_token_id=68, eos_token_id=69)


def rope(theta, kind="default", **more):
    return {"rope_parameters": {"rope_type": kind, "rope_theta": theta, **more}}


FACTORS = dict(short_factor=[1.1, 1.5, 2.0, 3.0, 3.5, 4.0], long_factor=[1.5, 3.0, 6.0, 9.0, 11.0, 13.0])
FALCON = dict(vocab_size=70, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=40, bos_token_id=68, eos_token_id=69)
# Case: type of matrices, architecture, settings.
MODELS = {
    # GemmaModel
    "gemma-f16": (Q.F16, A.GEMMA, dict(model_type="gemma", head_dim=32, **SIZES, **rope(10000.0))),
    # Gemma2Model: scores are scaled by the width of a head, windows lie in every other layer.
    "gemma2-f16": (Q.F16, A.GEMMA2, dict(model_type="gemma2", head_dim=32, query_pre_attn_scalar=32, sliding_window=6, attn_logit_softcapping=4.0,
                                         final_logit_softcapping=5.0, **SIZES, **rope(10000.0))),
    # Gemma3Model: seven layers, of which the sixth sees all keys, under scaled frequencies of its own.
    "gemma3-f16": (Q.F16, A.GEMMA3, dict(model_type="gemma3_text", head_dim=32, query_pre_attn_scalar=32, sliding_window=6, rope_parameters={
        "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 5000.0}, "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}},
        **SIZES | dict(num_hidden_layers=7, hidden_size=32, intermediate_size=32))),
    # Qwen3Model
    "qwen3-f16": (Q.F16, A.QWEN3, dict(model_type="qwen3", head_dim=32, **SIZES, **rope(500.0))),
    # Phi3MiniModel
    "phi3-f16": (Q.F16, A.PHI3, dict(model_type="phi3", sliding_window=6, original_max_position_embeddings=40, pad_token_id=0, **SIZES, **rope(500.0))),
    # Beyond 12 positions, of rows that are longer.
    "phi3-longrope": (Q.F16, A.PHI3, dict(model_type="phi3", original_max_position_embeddings=12, pad_token_id=0, **SIZES, **rope(
        500.0, "longrope", partial_rotary_factor=0.75, **FACTORS))),
    # Olmo2Model
    "olmo2-f16": (Q.F16, A.OLMO2, dict(model_type="olmo2", pad_token_id=0, **SIZES, **rope(500.0))),
    # SmolLM3Model, with rotary pairs as LlamaModel: the fourth of five layers has no positions.
    "smollm3-q8_0": (Q.Q8_0, A.SMOLLM3, dict(model_type="smollm3", pad_token_id=0, **SIZES | dict(num_hidden_layers=5), **rope(500.0))),
    # StableLMModel, serial and side by side behind one norm, with norms for each head.
    "stablelm-f16": (Q.F16, A.STABLELM, dict(model_type="stablelm", use_qkv_bias=True, **SIZES, **rope(10000.0, partial_rotary_factor=0.5))),
    "stablelm-parallel": (Q.F16, A.STABLELM, dict(model_type="stablelm", use_parallel_residual=True, qk_layernorm=True, **SIZES,
                                                  **rope(10000.0, partial_rotary_factor=0.25))),
    # GraniteModel
    "granite-q8_0": (Q.Q8_0, A.GRANITE, dict(model_type="granite", embedding_multiplier=3.0, attention_multiplier=0.15, residual_multiplier=0.6,
                                             logits_scaling=0.5, tie_word_embeddings=True, **SIZES, **rope(500.0))),
    # StarCoder2Model
    "starcoder2-f16": (Q.F16, A.STARCODER2, dict(model_type="starcoder2", **SIZES, **rope(500.0))),
    # FalconModel: as 7B, as 40B in blocks, as 11B.
    "falcon-f16": (Q.F16, A.FALCON, dict(model_type="falcon", **FALCON, **rope(10000.0))),
    "falcon-grouped-q8_0": (Q.Q8_0, A.FALCON, dict(model_type="falcon", new_decoder_architecture=True, num_kv_heads=2, **FALCON, **rope(10000.0))),
    "falcon-one-norm": (Q.F16, A.FALCON, dict(model_type="falcon", new_decoder_architecture=True, num_kv_heads=2, num_ln_in_parallel_attn=1,
                                              tie_word_embeddings=False, **FALCON, **rope(10000.0))),
    # MPTModel
    "mpt-f16": (Q.F16, A.MPT, dict(model_type="mpt", vocab_size=70, d_model=64, n_heads=4, n_layers=2, max_seq_len=40, bos_token_id=68, eos_token_id=69,
                                   attn_config={"clip_qkv": 1.5})),
}
GAINS = (A.GEMMA, A.GEMMA2, A.GEMMA3)


def metadata(writer, arch, c):
    """What `set_gguf_parameters` of the architecture's class writes."""
    get = lambda *names: next(getattr(c, n) for n in names if getattr(c, n, None) is not None)  # noqa: E731
    parameters = getattr(c, "rope_parameters", None) or {}
    whole = parameters.get("full_attention", parameters)
    width, heads = c.hidden_size, c.num_attention_heads
    writer.add_context_length(get("max_seq_len", "max_position_embeddings"))
    writer.add_embedding_length(width)
    writer.add_block_count(c.num_hidden_layers)
    writer.add_head_count(heads)
    writer.add_eos_token_id(c.eos_token_id)
    if arch in (A.FALCON, A.MPT):
        writer.add_feed_forward_length(4 * width)
        writer.add_layer_norm_eps(c.layer_norm_epsilon)
        if arch == A.FALCON:
            writer.add_tensor_data_layout("jploski")
            writer.add_head_count_kv(c.num_kv_heads if c.new_decoder_architecture else 1)
        else:
            writer.add_clamp_kqv(c.attn_config.clip_qkv)
            writer.add_max_alibi_bias(c.attn_config.alibi_bias_max)
        return
    writer.add_feed_forward_length(c.intermediate_size)
    writer.add_head_count_kv(c.num_key_value_heads)
    if arch in (A.STABLELM, A.STARCODER2):
        writer.add_layer_norm_eps(get("layer_norm_eps", "norm_epsilon"))
    else:
        writer.add_layer_norm_rms_eps(c.rms_norm_eps)
    if arch in (*GAINS, A.QWEN3):
        writer.add_key_length(c.head_dim)
        writer.add_value_length(c.head_dim)
    if arch not in (A.GEMMA, A.GEMMA2, A.STABLELM):
        writer.add_rope_freq_base(whole["rope_theta"])
    if arch == A.GEMMA2:
        writer.add_attn_logit_softcapping(c.attn_logit_softcapping)
        writer.add_final_logit_softcapping(c.final_logit_softcapping)
    if arch in (A.GEMMA2, A.GEMMA3):
        writer.add_sliding_window(c.sliding_window)
    if whole.get("rope_type") == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(whole["factor"])
    rotated = int(whole.get("partial_rotary_factor", 1.0) * width) // heads
    if arch == A.PHI3:
        writer.add_rope_scaling_orig_ctx_len(c.original_max_position_embeddings)
        writer.add_rope_dimension_count(rotated)
        writer.add_sliding_window(c.sliding_window or 0)
        if whole.get("long_factor"):
            scale = c.max_position_embeddings / c.original_max_position_embeddings
            writer.add_rope_scaling_attn_factors(math.sqrt(1 + math.log(scale) / math.log(c.original_max_position_embeddings)))
            for length in ("long", "short"):
                writer.add_tensor(f"rope_factors_{length}.weight", numpy.array(whole[f"{length}_factor"], numpy.float32))
    if arch == A.STABLELM:
        writer.add_rope_dimension_count(rotated)
        writer.add_parallel_residual(c.use_parallel_residual)
    if arch in (A.SMOLLM3, A.GRANITE):
        writer.add_vocab_size(c.vocab_size)
        writer.add_rope_dimension_count(width // heads)
    if arch == A.GRANITE:
        writer.add_attention_scale(c.attention_multiplier)
        writer.add_embedding_scale(c.embedding_multiplier)
        writer.add_residual_scale(c.residual_multiplier)
        writer.add_logit_scale(c.logits_scaling)


def rows_of(arch, name, data, c):
    """Rows in the order of llama.cpp's files."""
    def interleaved(heads):
        return data.reshape(heads, 2, data.shape[0] // heads // 2, *data.shape[1:]).swapaxes(1, 2).reshape(data.shape)

    if arch in (A.SMOLLM3, A.GRANITE) and "q_proj" in name:
        return interleaved(c.num_attention_heads)
    if arch in (A.SMOLLM3, A.GRANITE) and "k_proj" in name:
        return interleaved(c.num_key_value_heads)
    if arch == A.FALCON and "query_key_value" in name:
        keys = c.num_kv_heads if c.new_decoder_architecture else 1
        groups = data.reshape(keys, c.num_attention_heads // keys + 2, -1, data.shape[1])
        return numpy.concatenate([part.reshape(-1, data.shape[1]) for part in (groups[:, :-2], groups[:, -2], groups[:, -1])])
    return data


def stacked(state):
    """The norms of all heads as one matrix, in StableLM."""
    out, norms = {}, {}
    for name, weight in state.items():
        before, _, head = name.partition(".norms.")
        if head:
            norms.setdefault(f"{before}.weight", []).append(weight)
        else:
            out[name] = weight
    return out | {name: torch.stack(weights) for name, weights in norms.items()}


@torch.no_grad()
def write(path, arch, dtype, settings, generator):
    config = AutoConfig.for_model(**settings)
    model = lm.fill(AutoModelForCausalLM.from_config(config, attn_implementation="eager").float(), generator)
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[arch])
    metadata(writer, arch, config)
    # Readers ask for a vocabulary; this one has words that no text holds.
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([f"<{i}>" for i in range(config.vocab_size)])
    writer.add_token_merges([])
    table = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    for name, weight in stacked(model.state_dict()).items():
        if tied and name == "lm_head.weight":
            continue
        theirs = table.get_name(name, try_suffixes=(".weight", ".bias"))
        assert theirs, name
        if arch in GAINS and name.endswith("norm.weight"):
            gain = weight + 1
            weight.copy_(gain - 1)
            writer.add_tensor(theirs, gain.numpy())
            continue
        data = weight.numpy()
        if data.ndim == 1 or "layernorm" in name:
            writer.add_tensor(theirs, data.astype(numpy.float32))
            continue
        raw = gguf.quantize(data, dtype)
        weight.copy_(torch.from_numpy(gguf.dequantize(raw, dtype).copy()))
        writer.add_tensor(theirs, numpy.ascontiguousarray(rows_of(arch, name, raw, config)), raw_dtype=dtype)
    lm.finish(writer)
    return model.eval()


def main():
    folder = start(__file__, "torch", "transformers", "gguf", seed=4)
    tensors, lists = {}, {}
    for path in folder.glob("*.gguf"):
        path.unlink()
    for seed, (case, (dtype, arch, settings)) in enumerate(MODELS.items()):
        generator = torch.Generator().manual_seed(seed)
        model = write(folder / f"{case}.gguf", arch, dtype, settings, generator)
        ids = torch.randint(0, settings["vocab_size"], (2, 20), generator=generator)
        with torch.no_grad():
            logits = model(input_ids=ids).logits
        assert logits.std() >= 0.5, (case, logits.std())
        print(case, f"logits have standard deviation {logits.std():.2f}")
        tensors |= {f"{case}.ids": ids, f"{case}.logits": logits}
        lists[case] = {"kind": settings["model_type"].removesuffix("_text"), "dtype": dtype.name.lower()}
    write_tensors(folder / "expected.safetensors", tensors)
    write_json(folder / "expected.json", {"models": lists})


if __name__ == "__main__":
    main()

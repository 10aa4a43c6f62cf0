"""Writes tiny Llama, Mistral and Qwen2 models in the spellings their folders have, and what transformers computes with them.

Run: `python tests/golden/llama/export.py`
"""

import json
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import lm  # noqa: E402
from writer import start, write_json, write_tensors  # noqa: E402

# A head is wider than its share of the width, as in Mistral-Nemo; two query heads share one of keys.
SIZES = dict(vocab_size=80, hidden_size=24, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
             head_dim=8, max_position_embeddings=40, bos_token_id=78, eos_token_id=79)
LLAMA3 = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 0.3, "high_freq_factor": 1.2, "original_max_position_embeddings": 12}

# Beyond 12 positions every scaling has begun; with this base one frequency is kept, one on the ramp, two divided.
MODELS = {
    "llama3": dict(model_type="llama", rope_parameters={**LLAMA3, "rope_theta": 100.0}),
    # Rows are longer than the window.
    "mistral": dict(model_type="mistral", sliding_window=7, rms_norm_eps=1e-5),
    # All of the attention's own: biases, and a window from the second layer on; one table for words and head.
    "qwen2": dict(model_type="qwen2", tie_word_embeddings=True, use_sliding_window=True, sliding_window=5, max_window_layers=1),
}
# Other configs over the weights of `llama3`, as versions 4 and 5 of transformers write them.
SHORT = {"max_position_embeddings": 12, "rope_theta": 100.0, "rope_parameters": None}
VARIANTS = {
    "llama3-v4": {"rope_parameters": None, "rope_theta": 100.0, "rope_scaling": LLAMA3},
    "plain-v4": {"rope_parameters": None, "rope_theta": 500.0},
    "plain-v5": {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}},
    "linear": {**SHORT, "rope_scaling": {"type": "linear", "factor": 2.5}},
    "dynamic": {**SHORT, "rope_scaling": {"type": "dynamic", "factor": 3.0}},
    "yarn": {"rope_parameters": None, "rope_theta": 100.0, "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 12, "beta_fast": 1.2, "beta_slow": 0.3}},
    "yarn-factor": {"max_position_embeddings": 36, "rope_parameters": {
        "rope_type": "yarn", "rope_theta": 100.0, "factor": 3.0, "original_max_position_embeddings": 12, "attention_factor": 1.7, "truncate": False}},
    "yarn-mscale": {"rope_parameters": None, "rope_theta": 100.0, "rope_scaling": {
        "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 12, "mscale": 0.7, "mscale_all_dim": 1.3}},
    "pretraining-tp": {"pretraining_tp": 2},
    "gelu": {"hidden_act": "gelu_pytorch_tanh", "rms_norm_eps": 1e-3},
    # Mistral over the same weights: its window is 4096 keys where nothing is said, and none where null is.
    "mistral-default": {"model_type": "mistral"},
    "mistral-null": {"model_type": "mistral", "sliding_window": None},
}


def fresh(model):
    """Lets every call begin with the trained frequencies: a model keeps those of the longest row it has seen."""
    rotary = model.model.rotary_emb
    if rotary.rope_type == "dynamic":
        def reset(*_):
            rotary.inv_freq, rotary.max_seq_len_cached = rotary.original_inv_freq, rotary.original_max_seq_len
        model.register_forward_pre_hook(reset)
    return model


def load(folder):
    return fresh(AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval())


def write(folder, settings, seed):
    shutil.rmtree(folder, ignore_errors=True)
    config = AutoConfig.for_model(**{**SIZES, **settings})
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    model = lm.fill(model, torch.Generator().manual_seed(seed))
    model.save_pretrained(folder)
    return model


@torch.no_grad()
def logits(model, ids):
    """All positions at once, and in a cached prompt of 9 and then step by step."""
    steps, cache, at = [], None, 0
    for count in [9] + [1] * (ids.shape[1] - 9):
        out = model(input_ids=ids[:, at:at + count], past_key_values=cache, use_cache=True)
        cache, at = out.past_key_values, at + count
        steps.append(out.logits)
    return {"logits": model(input_ids=ids).logits, "cached.logits": torch.cat(steps, 1)}


def variants(folder):
    ids = torch.randint(0, SIZES["vocab_size"], (1, 20), generator=torch.Generator().manual_seed(9))
    tensors = {"ids": ids}
    base = json.loads((folder / "llama3/config.json").read_text())
    scratch = folder / "variant"
    for name, changes in VARIANTS.items():
        shutil.rmtree(scratch, ignore_errors=True)
        shutil.copytree(folder / "llama3", scratch)
        config = {key: value for key, value in {**base, **changes}.items() if value is not None or key == "sliding_window"}
        write_json(scratch / "config.json", config)
        found = logits(load(scratch), ids)
        tensors[f"{name}.logits"] = found["logits"]
        # Steps give what one pass gives, unless the frequencies change on the way.
        apart = (found["cached.logits"] - found["logits"]).abs().max()
        assert apart < 1e-4 or name == "dynamic", (name, apart)
        if name == "dynamic":
            assert apart > 0.1
            tensors[f"{name}.cached.logits"] = found["cached.logits"]
    shutil.rmtree(scratch)
    plain = tensors["plain-v4.logits"]
    for name in ["linear", "dynamic", "yarn", "yarn-factor", "yarn-mscale", "llama3-v4", "gelu"]:
        assert (tensors[f"{name}.logits"] - plain).abs().max() > 0.1, name
    assert torch.equal(tensors["pretraining-tp.logits"], tensors["llama3-v4.logits"])
    write_tensors(folder / "variants.safetensors", tensors)
    return VARIANTS


def bare(folder):
    """`LlamaModel.save_pretrained` leaves `model.` out; every matrix has a bias; one key head a query head; in bf16."""
    model = write(folder, dict(model_type="llama", attention_bias=True, mlp_bias=True, num_key_value_heads=None, head_dim=None,
                               num_hidden_layers=1), 5)
    weights = {key.removeprefix("model."): value.to(torch.bfloat16) for key, value in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    model.load_state_dict({key if key == "lm_head.weight" else f"model.{key}": value.float() for key, value in weights.items()})
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", {key: value for key, value in config.items() if key not in ["num_key_value_heads", "head_dim"]})
    ids = torch.randint(0, SIZES["vocab_size"], (2, 20), generator=torch.Generator().manual_seed(9))
    return {f"bare.{key}": value for key, value in {"logits": logits(model, ids)["logits"], "ids": ids, "embeds": lm.embed(model, ids)}.items()}


def initial():
    """How new models' weights lie, large enough that a deviation is measured to some hundredths."""
    sizes = dict(vocab_size=300, max_position_embeddings=64, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
                 num_key_value_heads=2)
    several = [
        {"model_type": "llama"},
        {"model_type": "llama", "attention_bias": True, "mlp_bias": True, "initializer_range": 0.05},
        {"model_type": "mistral", "head_dim": 24},
        {"model_type": "qwen2", "tie_word_embeddings": True},
    ]
    several = [sizes | settings for settings in several]
    return [{"settings": s, "weights": lm.initial(AutoModelForCausalLM.from_config(AutoConfig.for_model(**s)))} for s in several]


def main():
    folder = start(__file__, "torch", "transformers", "safetensors", "numpy")
    tensors, lists = {}, {}
    for seed, (name, settings) in enumerate(MODELS.items()):
        model = write(folder / name, settings, seed + 1)
        found, rows = lm.expect(model, torch.Generator().manual_seed(SEEDS[name]), SIZES["max_position_embeddings"])
        tensors |= {f"{name}.{key}": value for key, value in found.items()}
        lists[name] = rows
        again = load(folder / name)
        assert torch.equal(again(input_ids=found["ids"]).logits, found["logits"]), name
        (folder / name / "generation_config.json").unlink(missing_ok=True)
    tensors |= bare(folder / "bare")
    (folder / "bare/generation_config.json").unlink(missing_ok=True)
    lists["initial"] = initial()
    lists["variants"] = variants(folder)
    # Llama 3's instruction models end texts in several ways, and say so here alone.
    write_json(folder / "llama3/generation_config.json", {"_from_model_config": True, "bos_token_id": 78, "eos_token_id": [79, 77], "temperature": 0.6})
    write_tensors(folder / "expected.safetensors", tensors)
    write_json(folder / "expected.json", lists)


# Greedy tokens that lead clearly.
SEEDS = {"llama3": 5, "mistral": 2, "qwen2": 2}

if __name__ == "__main__":
    main()

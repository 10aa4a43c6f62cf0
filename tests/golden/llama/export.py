"""Writes tiny Llama, Mistral and Qwen2 models in the spellings their folders have, and what transformers computes with them.

Run: `python tests/golden/llama/export.py`
"""

import json
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import families  # noqa: E402
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


def write(folder, settings, seed):
    return families.write(folder, SIZES | settings, seed)


def variants(folder):
    ids = torch.randint(0, SIZES["vocab_size"], (1, 20), generator=torch.Generator().manual_seed(9))
    tensors = {"ids": ids}
    base = json.loads((folder / "llama3/config.json").read_text())
    scratch = folder / "variant"
    for name, changes in VARIANTS.items():
        shutil.rmtree(scratch, ignore_errors=True)
        shutil.copytree(folder / "llama3", scratch)
        config = families.changed(base, changes, ["sliding_window"])
        write_json(scratch / "config.json", config)
        found = families.logits(families.load(scratch), ids)
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
    return {f"bare.{key}": value for key, value in {"logits": families.logits(model, ids)["logits"], "ids": ids, "embeds": lm.embed(model, ids)}.items()}


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
    return families.initial([sizes | settings for settings in several])


def main():
    folder = start(__file__, "torch", "transformers", "safetensors", "numpy")
    tensors, lists = {}, {}
    list(lm.models(folder, MODELS, SEEDS, SIZES["max_position_embeddings"], write, families.load, tensors, lists))
    tensors |= bare(folder / "bare")
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

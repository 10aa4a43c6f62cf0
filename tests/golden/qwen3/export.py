"""Writes tiny Qwen3 models in the spellings their folders have, and what transformers computes with them.

Run: `python tests/golden/qwen3/export.py`

`untied/` is as version 5 of transformers writes it, `tied/` as version 4, with a window from the second layer on, `bare/` without `model.`
before the names, with biases, in bf16. `variants.safetensors` holds logits of other configs over the weights of `untied/`: `variants` of
`expected.json` says what is changed, null being a key taken away save those of `nulls`, and `alike` which of them change nothing.
"""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import families  # noqa: E402
from writer import start, write_json  # noqa: E402

# Heads are together wider than the model, as in Qwen3-0.6B; two query heads share one key head.
SIZES = dict(model_type="qwen3", vocab_size=80, hidden_size=24, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, head_dim=8, max_position_embeddings=40, bos_token_id=78, eos_token_id=79)
THETA = {"rope_type": "default", "rope_theta": 100.0}
# Beyond 12 positions every scaling has begun.
YARN = {"factor": 4.0, "original_max_position_embeddings": 12}
V4 = {"rope_parameters": None, "rope_theta": 100.0, "dtype": None, "torch_dtype": "float32"}
SHORT = {**V4, "max_position_embeddings": 12}
VARIANTS = {
    "plain-v4": {**V4, "rope_theta": 500.0},
    "plain-v5": {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}},
    # As the model cards write it, under its older key, and as version 5 writes it.
    "yarn-v4": {**V4, "rope_scaling": {"rope_type": "yarn", **YARN}},
    "yarn-type": {**V4, "rope_scaling": {"type": "yarn", **YARN}},
    "yarn-v5": {"rope_parameters": {"rope_type": "yarn", "rope_theta": 100.0, **YARN}},
    "yarn-betas": {"rope_parameters": {"rope_type": "yarn", "rope_theta": 100.0, **YARN, "beta_fast": 1.2, "beta_slow": 0.3}},
    "yarn-factor": {"max_position_embeddings": 36, "rope_parameters": {
        "rope_type": "yarn", "rope_theta": 100.0, "factor": 3.0, "original_max_position_embeddings": 12, "attention_factor": 1.7, "truncate": False}},
    "linear": {**SHORT, "rope_scaling": {"rope_type": "linear", "factor": 2.5}},
    "dynamic": {**SHORT, "rope_scaling": {"rope_type": "dynamic", "factor": 3.0}},
    # A window from one layer on, as version 4 wrote it before there were layer_types; in one layer of a list; set and not used.
    "window-from": {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1, "layer_types": None},
    "window-list": {"use_sliding_window": True, "sliding_window": 5, "layer_types": ["sliding_attention", "full_attention"]},
    "window-unused": {"use_sliding_window": False, "sliding_window": 5, "max_window_layers": 0, "layer_types": None},
    "window-beyond": {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 2, "layer_types": None},
    "gelu": {"hidden_act": "gelu_pytorch_tanh"},
    "epsilon": {"rms_norm_eps": 0.05},
    "v4": V4,
}
ALIKE = ["window-unused", "window-beyond", "v4"]
NULLS = ["sliding_window", "rope_scaling"]


def tune(model, generator):
    """Gains of queries and keys under which attention is far from even."""
    for name, weight in model.named_parameters():
        if "q_norm" in name or "k_norm" in name:
            weight.copy_(1.7 + 0.5 * torch.randn(weight.shape, generator=generator))


def main():
    folder = start(__file__, "torch", "transformers", "safetensors", "numpy")
    models = {
        "untied": dict(tie_word_embeddings=False, rope_parameters=THETA),
        # Texts are longer than the window.
        "tied": dict(tie_word_embeddings=True, use_sliding_window=True, sliding_window=5, max_window_layers=1, rms_norm_eps=1e-5,
                     rope_parameters={"rope_type": "default", "rope_theta": 1000000.0}),
    }
    tensors, lists = {}, {}
    for seed, (name, settings) in enumerate(models.items()):
        model = families.write(folder / name, SIZES | settings, seed + 1, tune)
        found, lists[name] = families.expect(model, SIZES["max_position_embeddings"])
        if name == "tied":
            # As version 4 writes it.
            families.spelled(folder / name, {"rope_theta": 1000000, "rope_scaling": None, "torch_dtype": "float32", "transformers_version": "4.57.6"},
                             ["rope_parameters", "dtype", "pad_token_id"])
        assert torch.equal(families.load(folder / name)(input_ids=found["ids"]).logits, found["logits"]), name
        tensors |= {f"{name}.{key}": value for key, value in found.items()}
    # The output's matrix has a bias too, unlike Qwen2's.
    biased = SIZES | dict(attention_bias=True, tie_word_embeddings=True, num_key_value_heads=4, num_hidden_layers=1)
    tensors |= {f"bare.{key}": value for key, value in families.bare(folder / "bare", biased, 5, tune).items()}
    # Qwen3's chat models end texts in two ways, and list both here.
    write_json(folder / "untied/generation_config.json", {"bos_token_id": 78, "do_sample": True, "eos_token_id": [79, 78], "pad_token_id": 78,
                                                          "temperature": 0.6, "top_k": 20, "top_p": 0.95})
    # Large enough that a deviation is measured to some hundredths.
    sizes = dict(model_type="qwen3", vocab_size=300, max_position_embeddings=64, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
                 num_attention_heads=4, num_key_value_heads=2, head_dim=24)
    lists["initial"] = families.initial([sizes | {"tie_word_embeddings": True}, sizes | {"attention_bias": True, "initializer_range": 0.05}])
    families.finish(folder, "untied", VARIANTS, NULLS, ALIKE, tensors, lists)


if __name__ == "__main__":
    main()

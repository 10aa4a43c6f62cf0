"""Writes tiny Gemma 2 models in the spellings their folders have, and what transformers computes with them.

Run: `python tests/golden/gemma2/export.py`

`capped/` is as version 5 of transformers writes it: both caps, a tied head, windows in layers 0 and 2. `open/` is as
version 4 writes it, with no caps, a head of its own, biases and another order of windows. `bare/` has names without `model.` and bf16 weights.
`variants.safetensors` holds logits of other configs over the weights of `capped/`: `variants` of `expected.json` says what is changed,
null being a key taken away save those of `nulls`, and `alike` which of them change nothing.
`embeds` and `hidden.0` are token embeddings times the square root of the width; embeddings of another origin (`prefix.embeds`) are not scaled.
"""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import families  # noqa: E402
from writer import start, write_json  # noqa: E402

# Neither the width over the heads nor a head's own width is the scale of queries. Windows are shorter than texts.
SIZES = dict(model_type="gemma2", vocab_size=80, hidden_size=24, intermediate_size=32, num_hidden_layers=3, num_attention_heads=4,
             num_key_value_heads=2, head_dim=8, query_pre_attn_scalar=12, sliding_window=5, max_position_embeddings=40,
             attn_logit_softcapping=6.0, final_logit_softcapping=4.0)
V4 = {"rope_parameters": None, "rope_theta": 10000.0, "layer_types": None, "hidden_act": "gelu_pytorch_tanh", "cache_implementation": "hybrid",
      "use_bidirectional_attention": None, "dtype": None, "torch_dtype": "float32"}
VARIANTS = {
    # As version 4.42 wrote it, before there were layer_types, and as it stands in the published folders.
    "v4": V4,
    "v4-theta": {**V4, "rope_theta": 100.0},
    "theta": {"rope_parameters": {"rope_type": "default", "rope_theta": 100.0}},
    "linear": {"rope_parameters": {"rope_type": "linear", "factor": 2.5, "rope_theta": 100.0}},
    "no-attention-cap": {"attn_logit_softcapping": None},
    "no-final-cap": {"final_logit_softcapping": None},
    "no-caps": {"attn_logit_softcapping": None, "final_logit_softcapping": None},
    "wide-caps": {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
    "narrow-caps": {"attn_logit_softcapping": 2.5, "final_logit_softcapping": 1.5},
    "scalar": {"query_pre_attn_scalar": 30},
    "window": {"sliding_window": 3},
    "types": {"layer_types": ["full_attention", "sliding_attention", "sliding_attention"]},
    "no-windows": {"layer_types": ["full_attention"] * 3},
    "one-window": {"layer_types": ["sliding_attention"] * 3},
    # `hidden_act` has no effect, whatever it is.
    "act": {"hidden_activation": "silu"},
    "act-unread": {"hidden_act": "gelu"},
    "epsilon": {"rms_norm_eps": 0.5},
}
ALIKE = ["v4", "act-unread"]
NULLS = ["attn_logit_softcapping", "final_logit_softcapping"]


def tune(model, generator):
    """Norms multiply by 1 + their weights; what a block adds outweighs the token embeddings."""
    for name, weight in model.named_parameters():
        if "norm" in name and not name.endswith("bias"):
            noise = torch.randn(weight.shape, generator=generator)
            after = "post_attention" in name or "post_feedforward" in name
            weight.copy_(1.8 + 0.6 * noise if after else 0.2 + 0.4 * noise)


def initial(sizes):
    return families.initial([sizes, sizes | {"tie_word_embeddings": False, "attention_bias": True, "initializer_range": 0.05}])


def main():
    folder = start(__file__, "torch", "transformers", "safetensors", "numpy")
    models = {
        "capped": {},
        "open": dict(attn_logit_softcapping=None, final_logit_softcapping=None, tie_word_embeddings=False, attention_bias=True,
                     num_key_value_heads=1, sliding_window=7, layer_types=["full_attention", "sliding_attention", "full_attention"], rms_norm_eps=1e-5),
    }
    tensors, lists = {}, {}
    for seed, (name, settings) in enumerate(models.items()):
        model = families.write(folder / name, SIZES | settings, seed + 1, tune)
        found, lists[name] = families.expect(model, SIZES["max_position_embeddings"])
        if name == "open":
            # As version 4 writes it.
            families.spelled(folder / name, {"rope_theta": 10000.0, "torch_dtype": "float32", "transformers_version": "4.57.6"},
                             ["rope_parameters", "dtype", "use_bidirectional_attention"])
        assert torch.equal(families.load(folder / name)(input_ids=found["ids"]).logits, found["logits"]), name
        tensors |= {f"{name}.{key}": value for key, value in found.items()}
    small = SIZES | dict(num_hidden_layers=2, num_key_value_heads=4)
    tensors |= {f"bare.{key}": value for key, value in families.bare(folder / "bare", small, 5, tune).items()}
    # Gemma 2's chat models end a turn in another way than a text, and list both here.
    write_json(folder / "capped/generation_config.json", {"_from_model_config": True, "bos_token_id": 2, "cache_implementation": "hybrid",
                                                          "eos_token_id": [1, 7], "pad_token_id": 0})
    # Large enough that a deviation is measured to some hundredths.
    lists["initial"] = initial(dict(model_type="gemma2", vocab_size=300, max_position_embeddings=64, hidden_size=64, intermediate_size=96,
                                    num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=24))
    families.finish(folder, "capped", VARIANTS, NULLS, ALIKE, tensors, lists)


if __name__ == "__main__":
    main()

"""Writes tiny models of eleven decoder families in the spellings their folders have, and what transformers computes with them.

Run: `python tests/golden/decoder_families/export.py [FAMILY...]`

A family's folder holds:

- one folder a form: `config.json` and `model.safetensors`, as version 5 of transformers writes them. `bare/` is the first form with one
  layer and a tied head, as its inner class saves it: no `model.` or `transformer.` before the names, no `lm_head`, bf16 weights.
- `expected.safetensors`: `FORM.NAME`. Of a whole form all that `lm.py` writes (logits of two sequences of 20 tokens, hidden states, attention,
  a prefix of embeddings, cached steps, greedy tokens of three prompts, the whole context, hidden keys, a gradient of the input); of the others
  and of `bare`: `ids`, `embeds`, `logits`.
- `variants.safetensors`: logits of one sequence of 20 tokens under other configs over the first form's weights: `ids`, `base.logits`,
  `NAME.logits`, and `NAME.cached.logits` (a prompt of 9, then steps) for the names in `growing`.
- `expected.json`: `kind` (transformers' model_type), `base` (the first form), `whole` (the forms with all values), `FORM` (greedy tokens),
  `variants` (what is changed in the first form's config.json; null is a key taken away, save those of `nulls`), `alike` (variants that change
  nothing), `growing` (variants whose frequencies change with the length), `initial` (how new models' weights lie).

`embeds` are what the embedding gives; `hidden.0` is what enters the first block. They differ in `granite`, which multiplies embeddings of any
origin on their way in, and in `gpt_neo`, which adds positions. In `gemma` and `gemma3` the factor is the embedding's own.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

import torch
from transformers import AutoModelForCausalLM
from transformers.models.falcon import modeling_falcon

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import families  # noqa: E402
import lm  # noqa: E402
from writer import start  # noqa: E402

V4 = {"rope_parameters": None, "dtype": None, "torch_dtype": "float32"}
# Beyond 12 positions every scaling has begun.
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 12}


def rope(theta=10000.0, kind="default", **more):
    return {"rope_parameters": {"rope_type": kind, "rope_theta": theta, **more}}


def sizes(kind, **more):
    """Sizes most families have names for: grouped queries, texts longer than the windows."""
    found = dict(model_type=kind, vocab_size=48, hidden_size=32, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
                 num_key_value_heads=2, max_position_embeddings=40, bos_token_id=1, eos_token_id=2, pad_token_id=0)
    return {key: value for key, value in (found | more).items() if value is not ...}


def gains(pattern, mean, spread=0.4):
    """Draws the norms whose name holds `pattern` anew."""
    def draw(model, generator):
        for name, weight in model.named_parameters():
            if any(part in name for part in pattern) and name.endswith("weight"):
                weight.copy_(mean + spread * torch.randn(weight.shape, generator=generator))
    return draw


def several(*steps):
    def draw(model, generator):
        for step in steps:
            step(model, generator)
    return draw


def softer(pattern, factor):
    """Multiplies matrices: where nothing divides the scores, attention would be all on one key."""
    def draw(model, _):
        for name, weight in model.named_parameters():
            if any(part in name for part in pattern):
                weight.mul_(factor)
    return draw


@dataclass
class Family:
    sizes: dict
    forms: dict
    variants: dict
    whole: int = 1
    alike: list = field(default_factory=lambda: ["v4"])
    growing: list = field(default_factory=list)
    nulls: list = field(default_factory=list)
    tune: Callable | None = None
    # Of a second new model, beside a plain one.
    initial: dict = field(default_factory=dict)
    # Of `bare/`, beside the first form's.
    bare: dict = field(default_factory=lambda: dict(num_hidden_layers=1))
    options: dict = field(default_factory=dict)
    # The forms for which no mask can hide a key and leave positions where they are.
    moved: list = field(default_factory=list)


# Norms that multiply by 1 + their weights; what a block adds outweighs the token embeddings.
OFFSET = gains(["norm"], 0.2)
SANDWICH = several(OFFSET, gains(["post_attention", "post_feedforward"], 1.8, 0.6))

FAMILIES = {
    "gemma": Family(
        sizes("gemma", num_key_value_heads=1, head_dim=12, **rope()),
        {"tied": {}, "untied": dict(tie_word_embeddings=False, attention_bias=True, num_key_value_heads=4, num_hidden_layers=1, **rope(100.0))},
        {
            "v4": {**V4, "rope_theta": 10000.0, "rope_scaling": None, "hidden_activation": None},
            "v4-theta": {**V4, "rope_theta": 100.0},
            # The first folders say "gelu" and mean the approximation.
            "gelu": {"hidden_act": "gelu"},
            "silu": {"hidden_act": "silu"},
            "linear": rope(100.0, "linear", factor=2.5),
            "epsilon": {"rms_norm_eps": 0.5},
        },
        alike=["v4", "gelu"], nulls=["rope_scaling", "hidden_activation"], tune=OFFSET, initial=dict(tie_word_embeddings=False, attention_bias=True),
    ),
    "gemma3": Family(
        # A layer that sees all has frequencies of its own.
        sizes("gemma3_text", head_dim=12, query_pre_attn_scalar=20, sliding_window=5, layer_types=["sliding_attention", "full_attention"], rope_parameters={
            "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
            "full_attention": {"rope_type": "linear", "rope_theta": 5000.0, "factor": 4.0}}),
        {"tied": {}, "capped": dict(tie_word_embeddings=False, attn_logit_softcapping=6.0, final_logit_softcapping=4.0, attention_bias=True,
                                    num_hidden_layers=1, layer_types=["sliding_attention"])},
        {
            "v4": {**V4, "rope_theta": 5000.0, "rope_local_base_freq": 100.0, "rope_scaling": {"rope_type": "linear", "factor": 4.0},
                   "sliding_window_pattern": 2, "_sliding_window_pattern": None, "layer_types": None, "hidden_act": "silu"},
            "v4-unscaled": {**V4, "rope_theta": 5000.0, "rope_local_base_freq": 100.0, "rope_scaling": None},
            # A million and ten thousand by default.
            "v4-defaults": V4,
            # Every sixth layer by default.
            "pattern-default": {"layer_types": None},
            "no-windows": {"sliding_window_pattern": 1, "layer_types": None},
            "order": {"layer_types": ["full_attention", "sliding_attention"]},
            "window": {"sliding_window": 3},
            "scalar": {"query_pre_attn_scalar": 5},
            "caps": {"attn_logit_softcapping": 4.0, "final_logit_softcapping": 3.0},
            "epsilon": {"rms_norm_eps": 0.5},
        },
        nulls=["rope_scaling"], tune=several(SANDWICH, gains(["q_norm", "k_norm"], 0.8)), initial=dict(tie_word_embeddings=False, attention_bias=True),
        bare=dict(num_hidden_layers=1, layer_types=["full_attention"]),
    ),
    "phi3": Family(
        sizes("phi3", original_max_position_embeddings=40, **rope(100.0)),
        {"untied": {}, "partial": dict(tie_word_embeddings=True, sliding_window=6, num_key_value_heads=None, num_hidden_layers=1,
                                       **rope(partial_rotary_factor=0.75))},
        {
            "v4": {**V4, "rope_theta": 100.0, "rope_scaling": None, "partial_rotary_factor": 1.0},
            "v4-partial": {**V4, "rope_theta": 100.0, "partial_rotary_factor": 0.5},
            "partial": rope(100.0, partial_rotary_factor=0.5),
            "window": {"sliding_window": 5},
            # All within the short context; beyond it from position 13 on; the same in version 4's spelling.
            "longrope-short": {"max_position_embeddings": 80, **rope(100.0, "longrope", short_factor=[1.1, 1.5, 2.0, 3.0], long_factor=[1.5, 3.0, 6.0, 9.0])},
            "longrope": {"original_max_position_embeddings": 12,
                         **rope(100.0, "longrope", short_factor=[1.1, 1.5, 2.0, 3.0], long_factor=[1.5, 3.0, 6.0, 9.0])},
            "longrope-v4": {**V4, "rope_theta": 100.0, "original_max_position_embeddings": 12, "rope_scaling": {
                "type": "longrope", "short_factor": [1.1, 1.5, 2.0, 3.0], "long_factor": [1.5, 3.0, 6.0, 9.0]}},
            "longrope-factor": {"original_max_position_embeddings": 24, "max_position_embeddings": 24, **rope(
                100.0, "longrope", short_factor=[1.1, 1.5, 2.0, 3.0], long_factor=[1.5, 3.0, 6.0, 9.0], attention_factor=1.3)},
            "epsilon": {"rms_norm_eps": 0.05},
        },
        growing=["longrope", "longrope-v4"], nulls=["rope_scaling"], initial=dict(tie_word_embeddings=True),
    ),
    "olmo2": Family(
        sizes("olmo2", **rope(100.0)),
        {"untied": {}, "tied": dict(tie_word_embeddings=True, attention_bias=True, num_key_value_heads=None, num_hidden_layers=1, **rope(500000.0))},
        {
            "v4": {**V4, "rope_theta": 100.0, "rope_scaling": None},
            "theta": rope(500.0),
            "yarn": rope(100.0, **{"kind": "yarn"}, factor=4.0, original_max_position_embeddings=12),
            "gelu": {"hidden_act": "gelu_pytorch_tanh"},
            "epsilon": {"rms_norm_eps": 0.5},
        },
        nulls=["rope_scaling"], tune=several(gains(["post_attention", "post_feedforward"], 1.6, 0.5), gains(["q_norm", "k_norm"], 1.6)),
        initial=dict(tie_word_embeddings=True, attention_bias=True),
    ),
    "smollm3": Family(
        # The second of three layers has no positions.
        sizes("smollm3", num_hidden_layers=3, no_rope_layers=[1, 0, 1], **rope(100.0)),
        {"tied": {}, "untied": dict(tie_word_embeddings=False, num_hidden_layers=2, no_rope_layers=None, no_rope_layer_interval=2,
                                    use_sliding_window=True, sliding_window=5, attention_bias=True, mlp_bias=True, **rope())},
        {
            "v4": {**V4, "rope_theta": 100.0, "rope_scaling": None},
            "yarn-v4": {**V4, "rope_theta": 100.0, "rope_scaling": YARN},
            "every-layer": {"no_rope_layers": [1, 1, 1]},
            "no-layer": {"no_rope_layers": [0, 0, 0]},
            # The list is made of the interval where there is none: layers 3, 6, ... have no positions.
            "interval": {"no_rope_layers": None, "no_rope_layer_interval": 3},
            "interval-unread": {"no_rope_layer_interval": 3},
            # Windows lie in the layers without positions.
            "window": {"use_sliding_window": True, "sliding_window": 5, "layer_types": None},
            "window-list": {"use_sliding_window": True, "sliding_window": 5, "layer_types": ["sliding_attention", "full_attention", "full_attention"]},
            "window-unused": {"sliding_window": 5, "layer_types": None},
            "epsilon": {"rms_norm_eps": 0.05},
        },
        alike=["v4", "interval-unread", "window-unused"], nulls=["rope_scaling"], initial=dict(tie_word_embeddings=False, attention_bias=True, mlp_bias=True),
        bare=dict(num_hidden_layers=1, no_rope_layers=[1]),
    ),
    "stablelm": Family(
        sizes("stablelm", num_key_value_heads=4, **rope(100.0, partial_rotary_factor=0.5)),
        {
            "serial": dict(use_qkv_bias=True),
            # As StableLM 2 12B: parallel behind one norm, a query/key norm for each head.
            "parallel": dict(use_parallel_residual=True, qk_layernorm=True, num_key_value_heads=2, tie_word_embeddings=True, num_hidden_layers=1,
                             **rope(partial_rotary_factor=0.25)),
        },
        {
            "v4": {**V4, "rope_theta": 100.0, "rope_scaling": None, "partial_rotary_factor": 0.5},
            "v4-whole": {**V4, "rope_theta": 100.0, "partial_rotary_factor": 1.0},
            # A quarter by default.
            "quarter": {**V4, "rope_theta": 100.0},
            "linear": rope(100.0, "linear", factor=2.5, partial_rotary_factor=0.5),
            "gelu": {"hidden_act": "gelu_pytorch_tanh"},
            "epsilon": {"layer_norm_eps": 0.05},
        },
        whole=2, nulls=["rope_scaling"], initial=dict(use_parallel_residual=True, qk_layernorm=True, use_qkv_bias=True, tie_word_embeddings=True),
        bare=dict(qk_layernorm=True, use_parallel_residual=True, num_hidden_layers=1),
    ),
    "granite": Family(
        sizes("granite", embedding_multiplier=3.0, logits_scaling=0.5, residual_multiplier=0.6, attention_multiplier=0.15, **rope(100.0)),
        {"tied": dict(tie_word_embeddings=True), "untied": dict(attention_bias=True, mlp_bias=True, num_key_value_heads=None, num_hidden_layers=1,
                                                                 logits_scaling=2.0)},
        {
            "v4": {**V4, "rope_theta": 100.0, "rope_scaling": None},
            "embedding": {"embedding_multiplier": 12},
            "logits": {"logits_scaling": 8},
            "residual": {"residual_multiplier": 0.22},
            "attention": {"attention_multiplier": 0.6},
            # All four are 1 by default, the attention's too.
            "ones": {"embedding_multiplier": None, "logits_scaling": None, "residual_multiplier": None, "attention_multiplier": None},
            "epsilon": {"rms_norm_eps": 0.5},
        },
        nulls=["rope_scaling"], initial=dict(tie_word_embeddings=True, attention_bias=True, mlp_bias=True),
    ),
    "starcoder2": Family(
        sizes("starcoder2", sliding_window=6, **rope(100.0)),
        {"tied": {}, "untied": dict(tie_word_embeddings=False, use_bias=False, sliding_window=None, num_key_value_heads=4, num_hidden_layers=1,
                                    **rope())},
        {
            "v4": {**V4, "rope_theta": 100.0, "rope_scaling": None},
            "no-window": {"sliding_window": None},
            "window": {"sliding_window": 3},
            "silu": {"hidden_act": "silu"},
            "epsilon": {"norm_epsilon": 0.05},
        },
        nulls=["rope_scaling", "sliding_window"], initial=dict(tie_word_embeddings=False, use_bias=False),
    ),
    "falcon": Family(
        sizes("falcon", intermediate_size=..., num_key_value_heads=..., ffn_hidden_size=32),
        {
            # As 7B: one key head, attention and MLP parallel behind one norm.
            "parallel": rope(100.0),
            # As RW-1B: linear biases, serial, biases in all matrices, as many key heads as query heads.
            "alibi": dict(alibi=True, parallel_attn=False, multi_query=False, bias=True, rope_parameters=None, num_hidden_layers=1),
            # Of sixteen heads most slopes are no powers of two: they and their products with positions are rounded to bf16.
            "alibi-heads": dict(alibi=True, parallel_attn=False, multi_query=False, rope_parameters=None, num_hidden_layers=1, num_attention_heads=16),
            # As 40B: groups, two norms; as 11B: groups, one norm, a head of its own.
            "grouped": dict(new_decoder_architecture=True, num_kv_heads=2, num_hidden_layers=1, **rope()),
            "one-norm": dict(new_decoder_architecture=True, num_kv_heads=2, num_ln_in_parallel_attn=1, tie_word_embeddings=False, num_hidden_layers=1,
                             **rope(500.0)),
        },
        {
            "v4": {**V4, "rope_theta": 100.0, "rope_scaling": None},
            "theta": rope(500.0),
            "linear": rope(100.0, "linear", factor=2.5),
            "silu": {"activation": "silu"},
            "epsilon": {"layer_norm_epsilon": 0.05},
        },
        whole=2, nulls=["rope_scaling"], moved=["alibi"], tune=softer(["query_key_value"], 1.4),
        initial=dict(new_decoder_architecture=True, num_kv_heads=2, bias=True, tie_word_embeddings=False),
    ),
    "mpt": Family(
        dict(model_type="mpt", vocab_size=48, d_model=24, n_heads=4, n_layers=2, max_seq_len=40, bos_token_id=1, eos_token_id=2, pad_token_id=0),
        # Three heads are no power of two.
        {"tied": {}, "three": dict(n_heads=3, n_layers=1, tie_word_embeddings=False)},
        {
            "v4": {"dtype": None, "torch_dtype": "float32"},
            "clip": {"attn_config": {"clip_qkv": 1.0}},
            "scale": {"attn_config": {"softmax_scale": 0.9}},
            "heads": {"n_heads": 3},
            "heads-six": {"n_heads": 6},
            "epsilon": {"layer_norm_epsilon": 0.05},
        },
        tune=softer(["Wqkv"], 1.4), initial=dict(tie_word_embeddings=False), bare=dict(n_layers=1), options=dict(position_ids=False),
    ),
    "gpt_neo": Family(
        dict(model_type="gpt_neo", vocab_size=48, hidden_size=32, num_layers=2, num_heads=4, max_position_embeddings=40, intermediate_size=24,
             attention_types=[[["global", "local"], 1]], window_size=5, bos_token_id=1, eos_token_id=2),
        {"tied": {}, "untied": dict(tie_word_embeddings=False, intermediate_size=None, attention_types=[[["local"], 1]], num_layers=1, window_size=7)},
        {
            "v4": {"dtype": None, "torch_dtype": "float32"},
            "window": {"window_size": 3},
            "global": {"attention_types": [[["global"], 2]], "attention_layers": None},
            "order": {"attention_types": [[["local"], 1], [["global"], 1]], "attention_layers": None},
            "relu": {"activation_function": "relu"},
            "epsilon": {"layer_norm_epsilon": 0.05},
        },
        tune=softer(["q_proj"], 0.4), initial=dict(tie_word_embeddings=False), bare=dict(num_layers=1, attention_types=[[["local"], 1]]),
    ),
}


def short(family):
    """Names of the sizes that a family spells in its own way."""
    own = {"mpt": ("n_layers", "max_seq_len"), "gpt_neo": ("num_layers", "max_position_embeddings")}
    return own.get(family, ("num_hidden_layers", "max_position_embeddings"))


@torch.no_grad()
def light(model):
    ids = torch.randint(0, model.config.vocab_size, (2, 20), generator=torch.Generator().manual_seed(9))
    return {"ids": ids, "embeds": lm.embed(model, ids), "logits": model(input_ids=ids).logits}


def new(name, family):
    """Sizes large enough that a deviation is measured to some hundredths."""
    wide = dict(vocab_size=300, hidden_size=64, intermediate_size=96, num_attention_heads=4, num_key_value_heads=2, num_hidden_layers=2)
    base = {key: wide.get(key, value) for key, value in family.sizes.items() if not key.endswith("token_id") and key != "rope_parameters"}
    base |= {"mpt": {"d_model": 64}, "falcon": {"ffn_hidden_size": 96}}.get(name, {})
    if "layer_types" in base:
        base["layer_types"] = base["layer_types"][-2:]
    if "no_rope_layers" in base:
        base["no_rope_layers"] = base["no_rope_layers"][-2:]
    return [base, base | family.initial]


def biased_once():
    """transformers adds Falcon's linear biases to the mask and, in its eager attention alone, to the scores once more: half of them twice is
    what its default attention computes, with the probabilities that only the eager one gives out."""
    whole = modeling_falcon.build_alibi_tensor
    modeling_falcon.build_alibi_tensor = lambda *given, **named: whole(*given, **named) / 2
    return whole


@torch.no_grad()
def as_by_default(folder, ids, logits, whole):
    """Holds logits to those of the default attention over the same folder, with the biases as they are."""
    halved, modeling_falcon.build_alibi_tensor = modeling_falcon.build_alibi_tensor, whole
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="sdpa", dtype=torch.float32).eval()
    far = (model(input_ids=ids).logits - logits).abs().max()
    modeling_falcon.build_alibi_tensor = halved
    assert far < 1e-4, (folder, far)


def export(root, name, family):
    print(name)
    whole = biased_once()
    # One family alone gives what all together give.
    torch.manual_seed(0)
    folder = root / name
    tensors, lists = {}, {}
    layers, context = short(name)
    for seed, (form, settings) in enumerate(family.forms.items()):
        model = families.write(folder / form, family.sizes | settings, seed + 1, family.tune)
        if seed < family.whole:
            options = family.options | {"masked": form not in family.moved}
            found, lists[form] = families.expect(model, family.sizes[context], **options)
        else:
            found = light(model)
        assert torch.equal(families.load(folder / form)(input_ids=found["ids"]).logits, found["logits"]), form
        if name == "falcon":
            as_by_default(folder / form, found["ids"], found["logits"], whole)
        tensors |= {f"{form}.{key}": value for key, value in found.items()}
    forms = list(family.forms)
    small = family.sizes | family.forms[forms[0]] | {"tie_word_embeddings": True} | family.bare
    prefix = f"{model.base_model_prefix}."
    found = families.bare(folder / "bare", small, 5, family.tune, prefix=prefix)
    tensors |= {f"bare.{key}": value for key, value in found.items()}
    lists |= {"kind": family.sizes["model_type"], "base": forms[0], "whole": forms[:family.whole], "growing": family.growing,
              "initial": families.initial(new(name, family))}
    families.finish(folder, forms[0], family.variants, family.nulls, family.alike, tensors, lists, family.growing)
    modeling_falcon.build_alibi_tensor = whole


if __name__ == "__main__":
    folder = start(__file__, "torch", "transformers", "safetensors", "numpy")
    for name in sys.argv[1:] or FAMILIES:
        export(folder, name, FAMILIES[name])

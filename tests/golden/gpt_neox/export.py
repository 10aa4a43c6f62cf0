"""Writes tiny GPT-NeoX models in the spellings their folders have, and what transformers computes with them.

Run: `python tests/golden/gpt_neox/export.py`
"""

import json
import shutil
import sys
from collections import OrderedDict
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import lm  # noqa: E402
from writer import start, write_json, write_tensors  # noqa: E402

SIZES = dict(vocab_size=80, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=40,
             bos_token_id=79, eos_token_id=79, hidden_dropout=0.0, attention_dropout=0.0)
MODELS = {
    # As Pythia: side by side, the exact GELU, a quarter of each head rotated.
    "pythia": dict(hidden_act="gelu", rope_parameters={"rope_type": "default", "rope_theta": 10000, "partial_rotary_factor": 0.25}),
    # One after the other (RedPajama-INCITE), the whole head rotated from another base, no biases, one table for words and head.
    "serial": dict(hidden_act="gelu_fast", use_parallel_residual=False, attention_bias=False, tie_word_embeddings=True, layer_norm_eps=1e-3,
                   rope_parameters={"rope_type": "default", "rope_theta": 500, "partial_rotary_factor": 1.0}),
}
# Other configs over the weights of `pythia`.
VARIANTS = {
    # Five eighths of a head of 8 are 5 elements, whose three frequencies turn 6.
    "odd": {"rotary_pct": 0.625, "rotary_emb_base": 200},
    "linear": {"rotary_pct": 0.5, "rotary_emb_base": 100, "rope_scaling": {"type": "linear", "factor": 2.0}},
    "dynamic": {"rotary_pct": 1.0, "rotary_emb_base": 100, "max_position_embeddings": 12, "rope_scaling": {"type": "dynamic", "factor": 3.0}},
}


def load(folder):
    return GPTNeoXForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()


def write(folder, settings, seed):
    shutil.rmtree(folder, ignore_errors=True)
    config = GPTNeoXConfig(**SIZES, **settings)
    config._attn_implementation = "eager"
    model = lm.fill(GPTNeoXForCausalLM(config), torch.Generator().manual_seed(seed))
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    return model


def old(folder, settings):
    """`config.json` as version 4 of transformers wrote it."""
    config = json.loads((folder / "config.json").read_text())
    rope = config.pop("rope_parameters")
    for key in ["dtype", "transformers_version", "attention_bias"]:
        config.pop(key, None)
    return config | {"rotary_pct": rope["partial_rotary_factor"], "rotary_emb_base": rope["rope_theta"], "torch_dtype": "float32",
                     "architectures": ["GPTNeoXForCausalLM"], **settings}


def forms(folder, model):
    """An early Pythia's pickle with masks and frequencies as buffers; the head under its newer name; names without `gpt_neox.`."""
    state = OrderedDict()
    for name, tensor in model.state_dict().items():
        state[name.replace("lm_head.", "embed_out.")] = tensor.clone()
        if name.endswith("attention.dense.bias"):
            layer = name.removesuffix(".dense.bias")
            n = SIZES["max_position_embeddings"]
            state[f"{layer}.bias"] = torch.ones(n, n).tril()[None, None].to(torch.bool)
            state[f"{layer}.masked_bias"] = torch.tensor(-1e9)
            state[f"{layer}.rotary_emb.inv_freq"] = torch.tensor([1.0])
    shutil.rmtree(folder / "bin", ignore_errors=True)
    write_json(folder / "bin/config.json", old(folder / "pythia", {}))
    torch.save(state, folder / "bin/pytorch_model.bin")

    for form, rename in [("head", lambda name: name.replace("embed_out.", "lm_head.")), ("bare", lambda name: name.removeprefix("gpt_neox."))]:
        shutil.rmtree(folder / form, ignore_errors=True)
        shutil.copytree(folder / "pythia", folder / form)
        weights = {rename(name): tensor.to(torch.float16) for name, tensor in load_file(folder / "pythia/model.safetensors").items()}
        save_file(weights, folder / form / "model.safetensors", {"format": "pt"})
    rounded = GPTNeoXForCausalLM.from_pretrained(folder / "pythia", attn_implementation="eager").eval()
    for weight in rounded.parameters():
        weight.data = weight.data.half().float()
    return rounded


def initial():
    """How new models' weights lie, large enough that a deviation is measured to some hundredths; the head under its saved name."""
    sizes = dict(vocab_size=300, max_position_embeddings=64, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4)
    found = []
    for changes in [{}, {"attention_bias": False, "use_parallel_residual": False, "tie_word_embeddings": True, "initializer_range": 0.05}]:
        settings = sizes | changes
        weights = lm.initial(GPTNeoXForCausalLM(GPTNeoXConfig(**settings)))
        found.append({"settings": settings, "weights": {name.replace("lm_head.", "embed_out."): value for name, value in weights.items()}})
    return found


@torch.no_grad()
def variants(folder, ids):
    tensors, scratch = {}, folder / "variant"
    for name, changes in VARIANTS.items():
        shutil.rmtree(scratch, ignore_errors=True)
        shutil.copytree(folder / "pythia", scratch)
        write_json(scratch / "config.json", old(folder / "pythia", changes))
        tensors[f"{name}.logits"] = load(scratch)(input_ids=ids).logits
    shutil.rmtree(scratch)
    return tensors


def main():
    folder = start(__file__, "torch", "transformers", "safetensors", "numpy")
    tensors, lists = {}, {}
    for name, model, found in lm.models(folder, MODELS, SEEDS, SIZES["max_position_embeddings"], write, load, tensors, lists):
        if name == "pythia":
            rounded = forms(folder, model)
            with torch.no_grad():
                tensors["pythia.f16.logits"] = rounded(input_ids=found["ids"]).logits
            tensors |= {f"pythia.{key}": value for key, value in variants(folder, found["ids"]).items()}
    names = list(load_file(folder / "pythia/model.safetensors"))
    print("head saved as", [name for name in names if "gpt_neox." not in name])
    # As version 4 wrote it, so that both spellings are read.
    write_json(folder / "serial/config.json", old(folder / "serial", {"attention_bias": False, "tie_word_embeddings": True}))
    lists["initial"] = initial()
    lists["variants"] = {name: old(folder / "pythia", changes) for name, changes in VARIANTS.items()}
    write_tensors(folder / "expected.safetensors", tensors)
    write_json(folder / "expected.json", lists)


# Greedy tokens that lead clearly.
SEEDS = {"pythia": 2, "serial": 1}

if __name__ == "__main__":
    main()

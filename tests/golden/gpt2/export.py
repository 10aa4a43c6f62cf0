"""Writes a tiny GPT-2 in the forms that `decoders/gpt2` must load, and what transformers computes with it.

Run: `python tests/golden/gpt2/export.py`
"""

import shutil
import sys
from collections import OrderedDict
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import lm  # noqa: E402
from writer import start, write_json, write_tensors  # noqa: E402

SIZES = dict(vocab_size=99, n_positions=40, n_embd=24, n_layer=2, n_head=3, n_inner=60)
END = dict(bos_token_id=98, eos_token_id=98)
FORMS = ["f32", "bf16", "sharded", "hub", "bin", "untied"]
VARIANTS = {
    "unscaled": {"scale_attn_weights": False},
    "by_layer": {"scale_attn_by_inverse_layer_idx": True},
    "unscaled_by_layer": {"scale_attn_weights": False, "scale_attn_by_inverse_layer_idx": True},
    "relu": {"activation_function": "relu"},
    "gelu": {"activation_function": "gelu"},
    "quick_gelu": {"activation_function": "quick_gelu"},
    "silu": {"activation_function": "silu"},
    "epsilon": {"layer_norm_epsilon": 0.5},
}


def build(seed, **settings):
    config = GPT2Config(**{**SIZES, **settings}, **END, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
    config._attn_implementation = "eager"
    return lm.fill(GPT2LMHeadModel(config), torch.Generator().manual_seed(seed))


def mask(dtype):
    size = SIZES["n_positions"]
    return torch.ones(size, size).tril()[None, None].to(dtype)


def write_forms(folder, model, untied):
    for form in FORMS:
        shutil.rmtree(folder / form, ignore_errors=True)
    model.save_pretrained(folder / "f32")
    model.save_pretrained(folder / "sharded", max_shard_size="25KB")
    untied.save_pretrained(folder / "untied")
    GPT2LMHeadModel.from_pretrained(folder / "f32", dtype=torch.bfloat16).save_pretrained(folder / "bf16")

    # The published folders: no `transformer.` before the names, the causal mask among them, no head, an old config.json.
    weights = {name.removeprefix("transformer."): tensor for name, tensor in load_file(folder / "f32/model.safetensors").items()}
    weights |= {f"h.{layer}.attn.bias": mask(torch.float32) for layer in range(SIZES["n_layer"])}
    (folder / "hub").mkdir()
    save_file(weights, folder / "hub/model.safetensors", {"format": "pt"})
    old = {
        "activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"], "attn_pdrop": 0.1, **END, "embd_pdrop": 0.1,
        "initializer_range": 0.02, "layer_norm_epsilon": 1e-05, "model_type": "gpt2", "n_ctx": SIZES["n_positions"], **SIZES, "resid_pdrop": 0.1,
        "summary_activation": None, "summary_first_dropout": 0.1, "summary_proj_to_labels": True, "summary_type": "cls_index", "summary_use_proj": True,
        "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
    }
    write_json(folder / "hub/config.json", old)

    # A pickle holds the head beside the table it shares, and masks of older types with their fill value.
    state = OrderedDict(model.state_dict())
    assert state["lm_head.weight"].data_ptr() == state["transformer.wte.weight"].data_ptr()
    for layer in range(SIZES["n_layer"]):
        state[f"transformer.h.{layer}.attn.bias"] = mask(torch.bool if layer else torch.uint8)
        state[f"transformer.h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
    # The names that GPT2Config takes for others.
    renamed = {"n_embd": "hidden_size", "n_layer": "num_hidden_layers", "n_head": "num_attention_heads", "n_positions": "max_position_embeddings"}
    write_json(folder / "bin/config.json", {renamed.get(key, key): value for key, value in old.items()})
    torch.save(state, folder / "bin/pytorch_model.bin")
    for form in FORMS:
        (folder / form / "generation_config.json").unlink(missing_ok=True)


def expect(folder, model):
    tensors, lists = lm.expect(model, torch.Generator().manual_seed(12), SIZES["n_positions"])
    ids = tensors["ids"]
    tensors |= lm.variants(GPT2LMHeadModel, folder / "f32", VARIANTS, ids[:1, :10].clone())
    lists["variants"] = VARIANTS
    with torch.no_grad():
        for form in ["f32", "sharded", "hub", "bin"]:
            again = GPT2LMHeadModel.from_pretrained(folder / form, attn_implementation="eager").eval()
            assert torch.equal(again(input_ids=ids).logits, tensors["logits"]), form
        # In f32 it is the same arithmetic in another order.
        upcast = GPT2LMHeadModel.from_pretrained(folder / "f32", attn_implementation="eager", reorder_and_upcast_attn=True).eval()
        assert torch.allclose(upcast(input_ids=ids).logits, tensors["logits"], atol=1e-5)
        for form in ["bf16", "untied"]:
            other = GPT2LMHeadModel.from_pretrained(folder / form, dtype=torch.float32, attn_implementation="eager").eval()
            tensors[f"{form}.logits"] = other(input_ids=ids).logits
    # Large enough that a deviation is measured to some hundredths.
    settings = dict(vocab_size=300, n_positions=64, n_embd=64, n_layer=3, n_head=4)
    untied = {**settings, "tie_word_embeddings": False}
    lists["initial"] = [{"settings": s, "weights": lm.initial(GPT2LMHeadModel(GPT2Config(**s)))} for s in [settings, untied]]
    write_tensors(folder / "expected.safetensors", tensors)
    write_json(folder / "expected.json", lists)


if __name__ == "__main__":
    folder = start(__file__, "torch", "transformers", "safetensors", "numpy")
    model = build(1)
    write_forms(folder, model, build(3, n_layer=1, n_inner=None, tie_word_embeddings=False))
    expect(folder, model)

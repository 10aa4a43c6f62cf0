"""Writes a tiny OPT in the forms that `decoders/opt` must load, and what transformers computes with it.

Run: `python tests/golden/opt/export.py`
"""

import shutil
import sys
from collections import OrderedDict
from pathlib import Path

import torch
from transformers import OPTConfig, OPTForCausalLM

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import lm  # noqa: E402
from writer import start, write_json, write_tensors  # noqa: E402

SIZES = dict(vocab_size=99, max_position_embeddings=40, hidden_size=24, num_hidden_layers=2, num_attention_heads=3, ffn_dim=60)
FORMS = ["f32", "bf16", "sharded", "bin", "post-norm", "untied"]
# opt-350m's form: words narrower than the blocks, norms after each sum, none at the end.
POST_NORM = dict(word_embed_proj_dim=16, do_layer_norm_before=False)
VARIANTS = {
    "gelu": {"activation_function": "gelu"},
    "norms_after": {"do_layer_norm_before": False},
    "no_final_norm": {"_remove_final_layer_norm": True},
    "no_bias": {"enable_bias": False},
    "plain_norms": {"layer_norm_elementwise_affine": False},
    "galactica": {"activation_function": "gelu", "enable_bias": False, "layer_norm_elementwise_affine": False},
}


def build(seed, **settings):
    config = OPTConfig(**{**SIZES, **settings}, dropout=0.0, attention_dropout=0.0)
    config._attn_implementation = "eager"
    return lm.fill(OPTForCausalLM(config), torch.Generator().manual_seed(seed))


def write_forms(folder, model, post, untied):
    for form in FORMS:
        shutil.rmtree(folder / form, ignore_errors=True)
    model.save_pretrained(folder / "f32")
    model.save_pretrained(folder / "sharded", max_shard_size="25KB")
    post.save_pretrained(folder / "post-norm")
    untied.save_pretrained(folder / "untied")
    OPTForCausalLM.from_pretrained(folder / "f32", dtype=torch.bfloat16).save_pretrained(folder / "bf16")

    # The published pickles: `decoder.` before the names, the head beside the table it shares, an old config.json.
    state = OrderedDict((name.removeprefix("model."), tensor) for name, tensor in model.state_dict().items())
    assert state["lm_head.weight"].data_ptr() == state["decoder.embed_tokens.weight"].data_ptr()
    (folder / "bin").mkdir()
    torch.save(state, folder / "bin/pytorch_model.bin")
    write_json(folder / "bin/config.json", {
        "_name_or_path": "opt", "_remove_final_layer_norm": False, "activation_dropout": 0.0, "activation_function": "relu", "architectures": ["OPTForCausalLM"],
        "attention_dropout": 0.0, "bos_token_id": 2, "do_layer_norm_before": True, "dropout": 0.1, "eos_token_id": 2, **SIZES, "init_std": 0.02,
        "layerdrop": 0.0, "model_type": "opt", "pad_token_id": 1, "prefix": "</s>", "torch_dtype": "float16", "transformers_version": "4.21.0.dev0",
        "use_cache": True, "word_embed_proj_dim": SIZES["hidden_size"],
    })
    for form in FORMS:
        (folder / form / "generation_config.json").unlink(missing_ok=True)


def load(folder):
    # Where nothing is said the type is that of config.json, not that of the weights.
    return OPTForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()


def expect(folder, model, post):
    tensors, lists = lm.expect(model, torch.Generator().manual_seed(12), SIZES["max_position_embeddings"])
    ids = tensors["ids"]
    other, lists["post"] = lm.expect(post, torch.Generator().manual_seed(13), SIZES["max_position_embeddings"], full=False)
    tensors |= {f"post.{name}": tensor for name, tensor in other.items()}
    tensors |= lm.variants(OPTForCausalLM, folder / "f32", VARIANTS, ids[:1, :10].clone())
    lists["variants"] = VARIANTS
    with torch.no_grad():
        for form in ["f32", "sharded", "bin"]:
            assert torch.equal(load(folder / form)(input_ids=ids).logits, tensors["logits"]), form
        for form in ["bf16", "untied"]:
            tensors[f"{form}.logits"] = load(folder / form)(input_ids=ids).logits
        # `generate` counts positions from the start of the row and puts nothing in front of embeddings.
        row = torch.tensor([lists["batch"]["ids"][1]])
        made = model.generate(inputs_embeds=lm.embed(model, row), max_new_tokens=8, do_sample=False, eos_token_id=None, pad_token_id=1)
        assert made[0].tolist() == lists["batch"]["greedy"][1]
    # Large enough that a deviation is measured to some hundredths.
    settings = dict(vocab_size=300, max_position_embeddings=64, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, ffn_dim=96)
    several = [settings, {**settings, **POST_NORM}, {**settings, "tie_word_embeddings": False, "init_std": 0.05}]
    lists["initial"] = [{"settings": s, "weights": lm.initial(OPTForCausalLM(OPTConfig(**s)))} for s in several]
    write_tensors(folder / "expected.safetensors", tensors)
    write_json(folder / "expected.json", lists)


if __name__ == "__main__":
    folder = start(__file__, "torch", "transformers", "safetensors", "numpy")
    model, post = build(1), build(7, **POST_NORM)
    write_forms(folder, model, post, build(3, num_hidden_layers=1, tie_word_embeddings=False))
    expect(folder, model, post)

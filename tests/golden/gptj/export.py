"""Writes a tiny GPT-J in every form that `decoders/gptj` must load, and what transformers computes with it.

Run: `python tests/golden/gptj/export.py`
"""

import json
import shutil
import sys
from collections import OrderedDict
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import GPTJConfig, GPTJForCausalLM

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import lm  # noqa: E402
from writer import start, write_json, write_tensors  # noqa: E402

SIZES = dict(vocab_size=300, n_positions=64, n_embd=32, n_layer=3, n_head=4, rotary_dim=4)
FORMS = ["f32", "sharded", "bin", "bin-sharded", "f16", "bf16", "bare"]

def build():
    config = GPTJConfig(**SIZES, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
                        bos_token_id=299, eos_token_id=299, tie_word_embeddings=False)
    config._attn_implementation = "eager"
    return lm.fill(GPTJForCausalLM(config), torch.Generator().manual_seed(1))


def write_forms(folder, model):
    for form in FORMS:
        shutil.rmtree(folder / form, ignore_errors=True)
    model.save_pretrained(folder / "f32")
    model.save_pretrained(folder / "sharded", max_shard_size="90KB")
    for form, dtype in [("f16", torch.float16), ("bf16", torch.bfloat16)]:
        copy = GPTJForCausalLM.from_pretrained(folder / "f32", dtype=dtype)
        copy.save_pretrained(folder / form)

    # What `GPTJModel.save_pretrained` gives, with the output head beside it.
    model.transformer.save_pretrained(folder / "bare")
    bare = load_file(folder / "bare/model.safetensors")
    assert not any(name.startswith("transformer.") for name in bare)
    bare |= {"lm_head.weight": model.lm_head.weight.detach().clone(), "lm_head.bias": model.lm_head.bias.detach().clone()}
    save_file(bare, folder / "bare/model.safetensors", {"format": "pt"})

    # Early checkpoints carry the causal mask and its fill value as buffers, and an older config.json.
    state = OrderedDict()
    for name, tensor in model.state_dict().items():
        state[name] = tensor
        if name.endswith(".ln_1.bias"):
            layer = name.removesuffix(".ln_1.bias")
            mask = torch.ones(SIZES["n_positions"], SIZES["n_positions"]).tril()[None, None]
            state[f"{layer}.attn.bias"] = mask.to(torch.bool if layer.endswith("2") else torch.uint8)
            state[f"{layer}.attn.masked_bias"] = torch.tensor(-1e9)
    old = json.loads((folder / "f32/config.json").read_text())
    for key in ["dtype", "transformers_version", "attn_implementation", "_attn_implementation", "tie_word_embeddings"]:
        old.pop(key, None)
    old |= {
        "_name_or_path": "a-folder-that-is-not-here", "architectures": ["GPTJForCausalLM"], "model_type": "gptj",
        "gradient_checkpointing": False, "rotary": True, "scale_attn_weights": True, "torch_dtype": "float32",
        "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50, "temperature": 1.0}},
        "summary_activation": None, "summary_first_dropout": 0.1, "summary_proj_to_labels": True,
        "summary_type": "cls_index", "summary_use_proj": True, "tie_word_embeddings": False,
        "tokenizer_class": "GPT2Tokenizer", "transformers_version": "4.11.0.dev0",
    }
    write_json(folder / "bin/config.json", old)
    torch.save(state, folder / "bin/pytorch_model.bin")

    names = list(model.state_dict())
    write_json(folder / "bin-sharded/config.json", old)
    cuts = [0, len(names) // 3, 2 * len(names) // 3, len(names)]
    index = {"metadata": {"total_size": sum(t.numel() * 4 for t in model.state_dict().values())}, "weight_map": {}}
    for i in range(3):
        file = f"pytorch_model-{i + 1:05}-of-00003.bin"
        # Each shard clones, as a view would drag its whole storage along.
        shard = OrderedDict((name, model.state_dict()[name].clone()) for name in names[cuts[i]:cuts[i + 1]])
        torch.save(shard, folder / "bin-sharded" / file)
        index["weight_map"] |= {name: file for name in shard}
    write_json(folder / "bin-sharded/pytorch_model.bin.index.json", index)
    for form in FORMS:
        (folder / form / "generation_config.json").unlink(missing_ok=True)


def expect(folder, model):
    tensors, lists = lm.expect(model, torch.Generator().manual_seed(2), SIZES["n_positions"])
    ids = tensors["ids"]
    for form in ["f16", "bf16"]:
        rounded = GPTJForCausalLM.from_pretrained(folder / form, dtype=torch.float32, attn_implementation="eager").eval()
        with torch.no_grad():
            tensors[f"{form}.logits"] = rounded(input_ids=ids).logits
    # Every form must give the same logits in the library that wrote it.
    for form in ["f32", "sharded"]:
        again = GPTJForCausalLM.from_pretrained(folder / form, attn_implementation="eager").eval()
        assert torch.equal(again(input_ids=ids).logits, tensors["logits"]), form
    write_tensors(folder / "expected.safetensors", tensors)
    write_json(folder / "expected.json", lists)


if __name__ == "__main__":
    folder = start(__file__, "torch", "transformers", "safetensors", "numpy")
    model = build()
    write_forms(folder, model)
    expect(folder, model)

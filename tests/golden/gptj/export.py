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
from writer import start, write_json, write_tensors  # noqa: E402

SIZES = dict(vocab_size=300, n_positions=64, n_embd=32, n_layer=3, n_head=4, rotary_dim=4)
FORMS = ["f32", "sharded", "bin", "bin-sharded", "f16", "bf16", "bare"]

# The smallest lead of a greedy token over the second best that a test may rely on.
MARGIN = 2e-2


@torch.no_grad()
def fill(model, generator):
    """Random weights under which the logits are spread, and biases and layer norms all matter."""
    for name, weight in model.named_parameters():
        noise = torch.randn(weight.shape, generator=generator)
        if "ln_" in name and name.endswith("weight"):
            weight.copy_(1.0 + 0.3 * noise)
        elif name.endswith("bias"):
            weight.copy_(0.3 * noise)
        elif "wte" in name:
            weight.copy_(noise)
        elif "q_proj" in name or "k_proj" in name:
            weight.copy_(2.0 * noise / weight.shape[1] ** 0.5)
        else:
            weight.copy_(1.5 * noise / weight.shape[1] ** 0.5)
    return model.eval()


def build():
    config = GPTJConfig(**SIZES, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
                        bos_token_id=299, eos_token_id=299, tie_word_embeddings=False)
    config._attn_implementation = "eager"
    return fill(GPTJForCausalLM(config), torch.Generator().manual_seed(1))


def embed(model, ids):
    return model.transformer.wte(ids)


@torch.no_grad()
def greedy(model, embeds, count):
    """Greedy tokens by cached steps, with the logits each was picked from: [count], [count, V]."""
    tokens, rows, past, step = [], [], None, embeds
    for _ in range(count):
        out = model(inputs_embeds=step, past_key_values=past, use_cache=True)
        past, logits = out.past_key_values, out.logits[0, -1]
        best = logits.topk(2).values
        assert best[0] - best[1] > MARGIN, f"greedy token leads by {best[0] - best[1]:.4f} only; choose another seed"
        tokens.append(int(logits.argmax()))
        rows.append(logits)
        step = embed(model, torch.tensor([[tokens[-1]]]))
    return tokens, torch.stack(rows)


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
    tensors, lists = {}, {"greedy_margin": MARGIN}
    generator = torch.Generator().manual_seed(2)
    vocab, width = SIZES["vocab_size"], SIZES["n_embd"]

    def ids_of(*shape):
        return torch.randint(0, vocab, shape, generator=generator)

    with torch.no_grad():
        ids = ids_of(2, 20)
        out = model(input_ids=ids, output_hidden_states=True, output_attentions=True)
        assert out.logits.std() >= 1.0
        print(f"logits have standard deviation {out.logits.std():.2f}")
        tensors |= {"ids": ids, "logits": out.logits, "logprobs": out.logits.log_softmax(-1), "embeds": embed(model, ids)}
        tensors["token_logprobs"] = tensors["logprobs"][:, :-1].gather(-1, ids[:, 1:, None])[..., 0]

        # Transformers' last hidden state is the one after `ln_f`; the hook keeps the last block's own output.
        kept = []
        handle = model.transformer.h[-1].register_forward_hook(lambda _m, _i, o: kept.append(o[0] if isinstance(o, tuple) else o))
        out = model(input_ids=ids[:1], output_hidden_states=True, output_attentions=True)
        handle.remove()
        for i in range(SIZES["n_layer"]):
            tensors[f"hidden.{i}"] = out.hidden_states[i]
            tensors[f"attention.{i}"] = out.attentions[i]
        tensors[f"hidden.{SIZES['n_layer']}"] = kept[0]
        tensors["hidden.ln_f"] = out.hidden_states[-1]
        assert torch.allclose(model.transformer.ln_f(kept[0]), out.hidden_states[-1], atol=1e-6)

        # A prefix of another scale than the word embeddings, as a projected image has.
        prefix = 5.0 * torch.randn(2, 6, width, generator=generator)
        text = ids_of(2, 7)
        both = torch.cat([prefix, embed(model, text)], 1)
        tensors |= {"prefix.embeds": prefix, "prefix.ids": text, "prefix.logits": model(inputs_embeds=both).logits}

        # Row 0 step by step: logits of each cached step, beside the uncached ones.
        steps, past = [], None
        for position in range(ids.shape[1]):
            out = model(input_ids=ids[:1, position:position + 1], past_key_values=past, use_cache=True)
            past = out.past_key_values
            steps.append(out.logits[:, 0])
        tensors["cached.logits"] = torch.stack(steps, 1)
        print(f"cached and uncached differ by {(tensors['cached.logits'] - tensors['logits'][:1]).abs().max():.1e}")

        # Three rows of different lengths, each computed alone.
        lengths = [5, 9, 14]
        rows = ids_of(3, max(lengths))
        lists["batch"] = {"lengths": lengths, "greedy": [], "ids": []}
        last, picked = [], []
        for row, length in enumerate(lengths):
            rows[row, length:] = 0
            out = model(input_ids=rows[row:row + 1, :length])
            last.append(out.logits[0, -1])
            tokens, logits = greedy(model, embed(model, rows[row:row + 1, :length]), 8)
            lists["batch"]["greedy"].append(tokens)
            lists["batch"]["ids"].append(rows[row, :length].tolist())
            picked.append(logits)
        tensors |= {"batch.ids": rows, "batch.last_logits": torch.stack(last), "batch.greedy_logits": torch.stack(picked),
                    "batch.greedy": torch.tensor(lists["batch"]["greedy"])}

        # The whole context, all its positions.
        full = ids_of(1, SIZES["n_positions"])
        tensors |= {"full.ids": full, "full.logits": model(input_ids=full).logits}

        for form in ["f16", "bf16"]:
            rounded = GPTJForCausalLM.from_pretrained(folder / form, dtype=torch.float32, attn_implementation="eager").eval()
            tensors[f"{form}.logits"] = rounded(input_ids=ids).logits
            tensors[f"{form}.embeds"] = embed(rounded, ids)
            lists[f"{form}.greedy"] = greedy(rounded, embed(rounded, rows[:1, :5]), 4)[0]

    # A training step's gradient: prefix positions but the last are no targets.
    targets = torch.full((2, 13), -100)
    targets[:, 5:12] = text
    # The shorter second row ends earlier, so that the mean is over unequal counts.
    targets[1, 9:] = -100
    leaf = both.clone().requires_grad_()
    loss = torch.nn.functional.cross_entropy(model(inputs_embeds=leaf).logits.reshape(-1, vocab), targets.reshape(-1))
    loss.backward()
    tensors |= {"grad.embeds": both, "grad.targets": targets, "grad.loss": loss.reshape(1), "grad.input": leaf.grad}

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

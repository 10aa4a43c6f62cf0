"""What the cases of decoder families share: a model as a folder, other configs over its weights, an input whose greedy tokens lead clearly."""

import json
import shutil

import lm
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM
from writer import write_json, write_tensors

# What one variant has to change of the logits, so that it is seen to count.
SEEN = 0.05


def fresh(model):
    """Lets every call begin with the trained frequencies: a model keeps those of the longest row it has seen."""
    rotary = getattr(model.base_model, "rotary_emb", None)
    if getattr(rotary, "rope_type", None) == "dynamic":
        def reset(*_):
            rotary.inv_freq, rotary.max_seq_len_cached = rotary.original_inv_freq, rotary.original_max_seq_len
        model.register_forward_pre_hook(reset)
    return model


def load(folder):
    return fresh(AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval())


def write(folder, settings, seed, tune=None):
    """A model of lively random weights; `tune` changes those that would not matter otherwise."""
    shutil.rmtree(folder, ignore_errors=True)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**settings), attn_implementation="eager")
    generator = torch.Generator().manual_seed(seed)
    model = lm.fill(model, generator)
    if tune:
        with torch.no_grad():
            tune(model, generator)
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    return fresh(model)


def expect(model, positions, **options):
    """`lm.expect` of the first input whose greedy tokens lead clearly."""
    for seed in range(1, 100):
        try:
            return lm.expect(model, torch.Generator().manual_seed(seed), positions, **options)
        except AssertionError as error:
            assert "choose another seed" in str(error), error
    raise AssertionError("no seed gives greedy tokens that lead clearly")


@torch.no_grad()
def logits(model, ids):
    """All positions at once, and in a cached prompt of 9 and then step by step."""
    steps, cache, at = [], None, 0
    for count in [9] + [1] * (ids.shape[1] - 9):
        out = model(input_ids=ids[:, at:at + count], past_key_values=cache, use_cache=True)
        cache, at = out.past_key_values, at + count
        steps.append(out.logits)
    return {"logits": model(input_ids=ids).logits, "cached.logits": torch.cat(steps, 1)}


def changed(config, changes, nulls):
    """`config` with `changes`: null takes a key away, save one of `nulls`, where it has a meaning of its own."""
    return {key: value for key, value in {**config, **changes}.items() if value is not None or key in nulls}


def variants(base, changes, nulls, alike=(), growing=("dynamic",)):
    """Logits of the weights in the folder `base` under other configs.

    Those of `alike` are the base's own; those of `growing` change their frequencies with the length, so steps give other logits.
    """
    model = load(base)
    ids = torch.randint(0, model.config.vocab_size, (1, 20), generator=torch.Generator().manual_seed(9))
    plain = logits(model, ids)["logits"]
    tensors = {"ids": ids, "base.logits": plain}
    config = json.loads((base / "config.json").read_text())
    scratch = base.parent / "variant"
    for name, change in changes.items():
        shutil.rmtree(scratch, ignore_errors=True)
        shutil.copytree(base, scratch)
        write_json(scratch / "config.json", changed(config, change, nulls))
        found = logits(load(scratch), ids)
        tensors[f"{name}.logits"] = found["logits"]
        # Steps give what one pass gives, unless the frequencies change on the way.
        apart = (found["cached.logits"] - found["logits"]).abs().max()
        if name in growing:
            assert apart > SEEN, (name, apart)
            tensors[f"{name}.cached.logits"] = found["cached.logits"]
        else:
            assert apart < 1e-4, (name, apart)
        apart = (found["logits"] - plain).abs().max()
        print(f"  {name} is {apart:.2e} from the base")
        assert apart == 0 if name in alike else apart > SEEN, (name, apart)
    shutil.rmtree(scratch, ignore_errors=True)
    return tensors


def bare(folder, settings, seed, tune=None, absent=(), prefix="model."):
    """A model as its inner class saves it, without `prefix` before the names, in bf16; logits are f32 arithmetic on the rounded weights."""
    model = write(folder, settings, seed, tune)
    weights = {key.removeprefix(prefix): value.to(torch.bfloat16) for key, value in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    for weight in model.parameters():
        weight.data = weight.data.bfloat16().float()
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", {key: value for key, value in config.items() if key not in absent} | {"dtype": "bfloat16"})
    ids = torch.randint(0, settings["vocab_size"], (2, 20), generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        expected = {"logits": model(input_ids=ids).logits, "ids": ids, "embeds": lm.embed(model, ids)}
        assert torch.equal(load(folder)(input_ids=ids).logits, expected["logits"])
    return expected


def initial(several):
    """How new models' weights lie, for each of these settings; no token has zeros for padding."""
    tokens = dict.fromkeys(["pad_token_id", "bos_token_id", "eos_token_id"])
    models = ((settings, AutoModelForCausalLM.from_config(AutoConfig.for_model(**settings, **tokens))) for settings in several)
    return [{"settings": settings, "weights": lm.initial(model)} for settings, model in models]


def finish(folder, base, changes, nulls, alike, tensors, lists, growing=("dynamic",)):
    """Writes what is expected, and logits of the model `base` under other configs."""
    lists |= {"variants": changes, "alike": alike, "nulls": nulls}
    write_tensors(folder / "variants.safetensors", variants(folder / base, changes, nulls, alike, growing))
    write_tensors(folder / "expected.safetensors", tensors)
    write_json(folder / "expected.json", lists)


def spelled(folder, changes, absent=()):
    """Writes `config.json` anew with other keys: as another version of transformers spells it."""
    config = json.loads((folder / "config.json").read_text())
    kept = {key: value for key, value in config.items() if key not in absent}
    write_json(folder / "config.json", kept | changes)

"""The reference pipeline: image -> frozen CLIP ResNet -> one linear layer -> frozen GPT-J -> text."""
import json
import pathlib

import open_clip
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import GPTJForCausalLM

import images
import world

PROMPT = "A picture of"


def load_clip(folder):
    """The whole CLIP in f32, frozen."""
    folder = pathlib.Path(folder)
    cfg = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]
    model = open_clip.CLIP(**cfg)
    file = folder / "open_clip_model.safetensors"
    if not file.exists():
        file = folder / "latest.safetensors"
    model.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in load_file(file).items()})
    return model.eval().requires_grad_(False)


@torch.no_grad()
def features(visual, pixels):
    """The feature map without the attention pool, flattened row-major: u8 [B, 3, S, S] -> f32 [B, N, E]."""
    x = visual.stem(images.normalised(pixels))
    for layer in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
        x = layer(x)
    return x.flatten(2).transpose(1, 2)


def load_lm(folder):
    """The language model in f32, frozen, and its tokenizer."""
    model = GPTJForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.eval().requires_grad_(False), Tokenizer.from_file(str(pathlib.Path(folder) / "tokenizer.json"))


def load_projection(file):
    state = {k: v.float() for k, v in torch.load(file, weights_only=True).items()}
    d, e = state["weight"].shape
    linear = torch.nn.Linear(e, d)
    linear.load_state_dict(state)
    return linear.requires_grad_(False)


@torch.no_grad()
def greedy(lm, tokenizer, prefix, prompt=PROMPT, limit=48):
    """Continues [prefix][prompt] of every row: a list of (token ids up to EOS and with it, log-probabilities)."""
    eos = tokenizer.token_to_id(world.EOS)
    b = prefix.shape[0]
    ids = torch.tensor([tokenizer.encode(prompt).ids]).expand(b, -1)
    embeds = torch.cat([prefix, lm.transformer.wte(ids)], 1)
    out, live = [([], []) for _ in range(b)], [True] * b
    past, at = None, 0
    for _ in range(limit):
        t = embeds.shape[1]
        got = lm(inputs_embeds=embeds, past_key_values=past, use_cache=True,
                 position_ids=torch.arange(at, at + t)[None].expand(b, -1))
        past, at = got.past_key_values, at + t
        best, token = torch.log_softmax(got.logits[:, -1].float(), -1).max(-1)
        for i in range(b):
            if live[i]:
                out[i][0].append(token[i].item())
                out[i][1].append(round(best[i].item(), 6))
                live[i] = token[i].item() != eos
        if not any(live):
            break
        embeds = lm.transformer.wte(token)[:, None]
    return out


def text(tokenizer, ids):
    """What a caller sees: the continuation up to EOS, without white space around it."""
    eos = tokenizer.token_to_id(world.EOS)
    return tokenizer.decode([i for i in ids if i != eos]).strip()

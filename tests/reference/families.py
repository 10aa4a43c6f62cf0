"""Families of language models at the width of a real one: what a check needs to know of each.

Settings go by the names that transformers shares among its configs (`hidden_size`, ...); `kind: auto` finds the decoder.
"""

import shutil
from dataclasses import dataclass, field
from typing import Callable

import torch
from transformers import AutoConfig, AutoModelForCausalLM, GPT2Tokenizer

from golden import golden


@dataclass
class Family:
    """A `model_type`, the size that is checked where nothing is said, and what its config needs beside the sizes."""

    model_type: str
    like: str
    width: int
    heads: int
    positions: int
    vocab: int
    settings: Callable[[int], dict] = field(default=lambda width: {})
    # Which of the golden tokenizer's layouts the family's folders have.
    layout: str = "gpt2"


FAMILIES = {
    "gptj": Family("gptj", "gpt-j-6b", 4096, 16, 2048, 50400, lambda width: {"rotary_dim": min(64, width // 8), "tie_word_embeddings": False}),
    "gpt2": Family("gpt2", "gpt2-xl", 1600, 25, 1024, 50257),
    "opt": Family("opt", "opt-1.3b", 2048, 32, 2048, 50272,
                  lambda width: {"ffn_dim": 4 * width, "word_embed_proj_dim": width}, layout="opt"),
    "gpt-neox": Family("gpt_neox", "pythia-410m", 1024, 16, 2048, 50304,
                       lambda width: {"intermediate_size": 4 * width, "rotary_pct": 0.25, "tie_word_embeddings": False}),
    "llama": Family("llama", "llama-3-8b", 4096, 32, 8192, 128256,
                    lambda width: {"num_key_value_heads": 8, "intermediate_size": 7 * width // 2, "tie_word_embeddings": False,
                                   "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}}),
    "qwen2": Family("qwen2", "qwen2.5-0.5b", 896, 14, 32768, 151936,
                    lambda width: {"num_key_value_heads": 2, "intermediate_size": 4864, "tie_word_embeddings": True}),
}


def write(folder, family, layers, seed, width=0, heads=0, vocab=0, positions=0, dtype=torch.float32, settings=None):
    """Writes a random model with a small tokenizer of its family's layout; returns the model in f32, as read back, and the tokenizer.

    A size of 0 is the family's own; `vocab` None is what the tokenizer has.
    """
    family = FAMILIES[family]
    width = width or family.width
    scratch = folder.with_name(folder.name + "-tokenizer")
    golden("tokenizer").train(scratch, family.layout)
    tokenizer = GPT2Tokenizer.from_pretrained(scratch)
    vocab = len(tokenizer) if vocab is None else vocab or family.vocab
    assert vocab >= len(tokenizer), f"vocab must be at least {len(tokenizer)}"
    config = AutoConfig.for_model(
        family.model_type, hidden_size=width, num_attention_heads=heads or family.heads, num_hidden_layers=layers, vocab_size=vocab,
        max_position_embeddings=positions or family.positions, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, **{**family.settings(width), **(settings or {})})
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    model = golden("lm").fill(model, torch.Generator().manual_seed(seed))
    model.to(dtype).save_pretrained(folder)
    for file in scratch.iterdir():
        shutil.copy(file, folder / file.name)
    # The reference computes in f32 on the rounded weights, as frozen weights meet f32 activations in ours.
    # Read back, because a cast model has rounded its buffers too.
    if dtype != torch.float32:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    return model.eval(), tokenizer

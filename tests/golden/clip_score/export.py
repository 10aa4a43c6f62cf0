"""Tiny CLIPs of both libraries with random weights: vectors of odd texts and of images, and the scores of captions.

`open_clip/` is a model of open_clip, `hugging_face/` one of transformers; both have the tokenizer of a small CLIP-like BPE
(`tokenizer.json`), whose ids `expected.json` holds. Scores follow Hessel et al. 2021: 2.5 max(cos, 0), and the harmonic
mean of that and the best max(cos, 0) among the references.

Run: `python tests/golden/clip_score/export.py`
"""

import json
import shutil
import sys
from pathlib import Path

import open_clip
import torch
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPConfig, CLIPModel

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from writer import start, write_json, write_tensors  # noqa: E402

SIDE, PATCH, EMBED, CONTEXT, VOCAB = 24, 6, 20, 24, 360
VISION = {"image_size": SIDE, "layers": 2, "width": 32, "head_width": 8, "patch_size": PATCH}
CORPUS = [
    "A photo depicts a small red circle above a large blue square.",
    "a photo of a dog that's running on the green grass, and it's raining; they're wet!",
    "two people (a man and a woman) riding horses in 2023 - what a day...",
    "naïve café über straße Größe привет мир 日本語 😀",
]
TEXTS = [
    "a small red circle", "A Photo DEPICTS  a\tdog", "", "it's", "they're 12345", "naïve café", "日本語 😀", "?!...", "  blanks  ",
    "two people riding horses on the green grass in the rain, a very long text that the tower has to cut at its end",
    "привет мир", "a", "square circle square", "ﬁne", "<|endoftext|> inside", "e\u0301",
]


def liven(model, generator):
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            if p.dim() == 0:
                continue
            if p.dim() == 1 and ("ln_" in name or "norm" in name) and name.endswith("weight"):
                p.copy_(1 + 0.2 * noise)
            elif p.dim() == 1:
                p.copy_(0.3 * noise)
            elif "position" in name or "token_embedding" in name:
                p.copy_(0.7 * noise)
            elif name.endswith("projection") or name.endswith("proj"):
                p.copy_(noise * p.shape[0] ** -0.5)
            else:
                p.copy_(1.5 * noise * p[0].numel() ** -0.5)
    return model.eval()


def tokenizer():
    """As CLIP's: lower case, words marked at their ends, marks of begin and end behind the vocabulary."""
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>", continuing_subword_prefix="", unk_token="<|endoftext|>"))
    bpe.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    words = Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(words, "removed", invert=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    bpe.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB, initial_alphabet=alphabet, end_of_word_suffix="</w>", show_progress=False, special_tokens=[]
    )
    bpe.train_from_iterator(CORPUS * 4, trainer)
    # CLIP's vocabulary: all bytes, all bytes that end a word, what is merged.
    merges = [tuple(pair) for pair in json.loads(bpe.to_str())["model"]["merges"]]
    vocab = {token: i for i, token in enumerate([*alphabet, *(f"{byte}</w>" for byte in alphabet), *("".join(m) for m in merges)])}
    bpe.model = models.BPE(vocab, merges, end_of_word_suffix="</w>", continuing_subword_prefix="", unk_token="<|endoftext|>")
    bpe.add_special_tokens(["<|startoftext|>", "<|endoftext|>"])
    return bpe


def pad(rows, filler):
    return torch.tensor([row + [filler] * (CONTEXT - len(row)) for row in rows])


@torch.no_grad()
def scores(images, candidates, references):
    unit = lambda x: x / x.norm(dim=-1, keepdim=True)
    images, candidates = unit(images.double()), unit(candidates.double())
    plain = 2.5 * (images * candidates).sum(-1).clamp(min=0)
    best = torch.stack([(unit(r.double()) @ c).max().clamp(min=0) for r, c in zip(references, candidates)])
    both = 2 * plain * best / (plain + best)
    return plain.tolist(), torch.nan_to_num(both).tolist()


def main():
    folder = start(__file__, "open_clip_torch", "transformers", "tokenizers", "torch", seed=3)
    generator = torch.Generator().manual_seed(3)
    bpe = tokenizer()
    begin, end = bpe.token_to_id("<|startoftext|>"), bpe.token_to_id("<|endoftext|>")
    vocab = bpe.get_vocab_size()
    assert end == vocab - 1, (begin, end, vocab)
    ids = [[begin, *bpe.encode(text, add_special_tokens=False).ids] for text in TEXTS]
    ids = [[*row[: CONTEXT - 1], end] for row in ids]
    images = torch.rand(6, 3, SIDE, SIDE, generator=generator) * 4 - 2
    # Items: an image, a caption and two references, by their places in TEXTS.
    n = len(TEXTS)
    items = [[i % 6, (5 * i) % n, [(i + 3) % n, (i + 7) % n]] for i in range(3 * n)]
    expected = {"texts": TEXTS, "ids": ids, "items": items}
    tensors = {"images": images}

    text = {"context_length": CONTEXT, "vocab_size": vocab, "width": 24, "heads": 3, "layers": 2}
    config = {"embed_dim": EMBED, "vision_cfg": VISION, "text_cfg": text, "quick_gelu": True}
    theirs = liven(open_clip.CLIP(**config), generator)
    hugging = CLIPConfig(
        projection_dim=EMBED,
        text_config={"vocab_size": vocab, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4,
                     "max_position_embeddings": CONTEXT, "hidden_act": "gelu", "eos_token_id": end, "bos_token_id": begin, "pad_token_id": 1},
        vision_config={"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
                       "image_size": SIDE, "patch_size": PATCH, "hidden_act": "gelu"},
    )
    ours = liven(CLIPModel(hugging), generator)

    for name, model in [("open_clip", theirs), ("hugging_face", ours)]:
        case = folder / name
        shutil.rmtree(case, ignore_errors=True)
        case.mkdir()
        bpe.save(str(case / "tokenizer.json"))
        with torch.no_grad():
            if name == "open_clip":
                save_file({k: v.contiguous() for k, v in model.state_dict().items()}, str(case / "open_clip_model.safetensors"))
                write_json(case / "open_clip_config.json", {"model_cfg": config, "preprocess_cfg": {}})
                text_vectors, image_vectors = model.encode_text(pad(ids, 0)), model.encode_image(images)
            else:
                model.save_pretrained(case)
                mask = torch.tensor([[1] * len(row) + [0] * (CONTEXT - len(row)) for row in ids])
                hidden = model.text_model(input_ids=pad(ids, 1), attention_mask=mask)
                text_vectors = model.text_projection(hidden.pooler_output)
                image_vectors = model.visual_projection(model.vision_model(pixel_values=images).pooler_output)
        tensors |= {f"{name}.text": text_vectors, f"{name}.image": image_vectors}
        pick = lambda places: text_vectors[torch.tensor(places)]
        chosen = image_vectors[torch.tensor([image for image, _, _ in items])]
        plain, both = scores(chosen, pick([c for _, c, _ in items]), [pick(r) for _, _, r in items])
        assert min(plain) == 0 and max(plain) > 0.3, plain
        expected[name] = {"CLIPScore": plain, "RefCLIPScore": both}
    write_tensors(folder / "expected.safetensors", tensors)
    write_json(folder / "expected.json", expected)


main()

"""Writes a small GPT-2-style byte-level BPE in the forms that checkpoints ship, and what transformers makes of odd texts.

`bpe/` has vocab.json and merges.txt alone; `json/` the same tokenizer as tokenizer.json with `<|image|>` added;
`extra/` copies the layout of GPT-J's own folder, whose added tokens fill the ids up to the head's rows.
`opt/` copies that of OPT's, `opt-json/` is what transformers saves of it.

Run: `python tests/golden/tokenizer/export.py`
"""

import json
import shutil
import sys
from pathlib import Path

from tokenizers import ByteLevelBPETokenizer
from transformers import AddedToken, AutoTokenizer, GPT2Tokenizer, GPT2TokenizerFast

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from writer import start, write_json  # noqa: E402

END, IMAGE = "<|endoftext|>", "<|image|>"
CORPUS = [
    "A picture of a small red circle above a large blue square.",
    "a photo of a dog that's running on the green grass, and it's raining",
    "Q: What colour is the circle? A: It is red. Q: How many squares are there? A: There are three.",
    "They're sure we've seen what he'd said; I'm not, you'll see, she doesn't know.",
    "The year 2023 had 365 days, 1234567890 and 3.14159 are numbers.",
    "naïve café über straße Größe señor façade",
    "привет мир, 日本語のテキスト, 你好世界, 😀😀 👍🏽",
    "def f(x):\n    return x * 2\n\n\t# a comment\n",
    "  two  spaces   three    four  ",
]
TEXTS = [
    "", " ", "  ", "   ", "\n", "\n\n", "\t", " \n ", "\r\n", "a", " a", "  a", "a ", "a  ", " a  b   c ",
    "A picture of", " A picture of", "A picture of ", "a photo of a dog", "Q: What colour is the circle? A:",
    "Q: What colour is the circle?\nA: red\n", "it's", "it'S", "IT'S", "don't we've they're I'm he'd you'll she's",
    "'s't're've'm'll'd", "’s typographic ’ quotes “x”", "hello,world!", "Hello, World!", "...", "!!!???", "a.b.c", "1234567890",
    "3.14159", "x=1+2*3", "2023-01-31", "١٢٣ ⅷ ² ½", "naïve café", "nai\u0308ve cafe\u0301", "straße Größe ÜBER", "привет мир",
    "日本語のテキスト", "你好，世界", "안녕하세요", "مرحبا بالعالم", "हिन्दी", "😀", "a 😀 b", "👍🏽👨‍👩‍👧‍👦🇩🇪", "\u200b\u200d\ufeff", "\u00a0non\u00a0breaking\u2003space",
    "\u0000\u0001\u007f", "\ufffd", "\U0010ffff", "ﬁ ﬂ ㎏ Ａ", "def f(x):\n    return x\n\n\n\tpass", "a\u2028b\u0085c", "\x0b\x0c",
    END, f"a{END}b", f"a {END} b", f"{END}{END}", f" {END}\n", "<|endoftext", "<|END|>", IMAGE, f"a{IMAGE}b", f" {IMAGE} A picture of{END}",
    "<image>Q: what? A:", "<|extratoken_1|>", "word" * 40, "the " * 30, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "http://a.b/c?d=e&f=g#h", "snake_case camelCase",
]


def train(folder, layout="gpt2"):
    """Learns the merges; the special tokens and the files are those of GPT-2's folder or of OPT's."""
    trainer = ByteLevelBPETokenizer()
    trainer.train_from_iterator(CORPUS * 4, vocab_size=420, min_frequency=2, show_progress=False)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    trainer.save_model(str(folder))
    vocab = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    # Ids in order of the vocabulary file, as in GPT-2's own, whose `<|endoftext|>` is the last id.
    vocab = dict(sorted(vocab.items(), key=lambda item: item[1]))
    if layout == "gpt2":
        vocab[END] = len(vocab)
    else:
        # fairseq's four come first, `</s>` is both ends of a text, and the tokenizer is told to put it in front.
        vocab = {token: i for i, token in enumerate(["<s>", "<pad>", "</s>", "<unk>", *vocab])}
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": True}
        special = {name: {"content": "<pad>" if name == "pad_token" else "</s>", **flags} for name in ["bos_token", "eos_token", "unk_token", "pad_token"]}
        config = {name: {**token, "__type": "AddedToken"} for name, token in special.items()}
        config |= {"errors": "replace", "add_prefix_space": False, "add_bos_token": True, "special_tokens_map_file": None, "tokenizer_class": "GPT2Tokenizer"}
        write_json(folder / "special_tokens_map.json", special)
        write_json(folder / "tokenizer_config.json", config)
    (folder / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
    return vocab


def cases(tokenizer, texts):
    """Ids of every text as it stands, and what the ids decode to."""
    rows = []
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        rows.append({
            "text": text, "ids": ids, "decoded": tokenizer.decode(ids, clean_up_tokenization_spaces=False),
            "decoded_skip_special": tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False),
        })
    return rows


if __name__ == "__main__":
    folder = start(__file__, "tokenizers", "transformers")
    vocab = train(folder / "bpe")
    plain = GPT2TokenizerFast.from_pretrained(folder / "bpe")
    assert len(plain) == len(vocab) and plain.eos_token_id == len(vocab) - 1

    imaged = GPT2TokenizerFast.from_pretrained(folder / "bpe")
    imaged.add_special_tokens({"additional_special_tokens": [IMAGE]})
    assert imaged.convert_tokens_to_ids(IMAGE) == len(vocab)
    shutil.rmtree(folder / "json", ignore_errors=True)
    imaged.save_pretrained(folder / "json")

    extra = GPT2TokenizerFast.from_pretrained(folder / "bpe")
    names = [f"<|extratoken_{i}|>" for i in range(1, 4)]
    extra.add_tokens([AddedToken(name, special=False, normalized=True) for name in names])
    shutil.rmtree(folder / "extra", ignore_errors=True)
    extra.save_pretrained(folder / "extra")
    for name in ["vocab.json", "merges.txt"]:
        shutil.copy(folder / "bpe" / name, folder / "extra" / name)
    write_json(folder / "extra/added_tokens.json", {name: len(vocab) + i for i, name in enumerate(names)})

    # OPT's folders have no tokenizer.json; whoever saves one gets a template in it that puts `</s>` in front.
    opt_vocab = train(folder / "opt", "opt")
    opt = GPT2Tokenizer.from_pretrained(folder / "opt")
    shutil.rmtree(folder / "opt-json", ignore_errors=True)
    opt.save_pretrained(folder / "opt-json")
    again = AutoTokenizer.from_pretrained(folder / "opt-json")
    opt_texts = [*TEXTS, "</s>A picture of", "a</s> b", "<pad><s><unk>", "</s></s>"]
    for text in opt_texts:
        ids = opt(text, add_special_tokens=False)["input_ids"]
        assert again(text, add_special_tokens=False)["input_ids"] == ids, text
        # What the fast tokenizer adds where nobody forbids it, and what the same text gives with the token written out.
        assert opt(text)["input_ids"] == again(text)["input_ids"] == [opt_vocab["</s>"], *ids], text
        assert opt(f"</s>{text}", add_special_tokens=False)["input_ids"] == [opt_vocab["</s>"], *ids], text

    # Ids cut at every point: a stream must hold back bytes that are no whole character yet.
    streams = []
    for text in ["a 😀 b", "日本語", "naïve café", "👍🏽 ok"]:
        ids = imaged(text)["input_ids"]
        streams.append({"text": text, "ids": ids,
                        "prefixes": [imaged.decode(ids[:k], clean_up_tokenization_spaces=False) for k in range(len(ids) + 1)]})
    for row in cases(imaged, TEXTS):
        assert row["decoded"] == row["text"], row
    # Ids that make no valid UTF-8 become replacement characters.
    raw = []
    for ids in [[vocab["Ł"]], [vocab["Ł"], vocab["a"]], [vocab["ð"], vocab["Ł"]], [vocab["a"], len(vocab) - 1, vocab["b"]],
                [len(vocab), vocab["Ġ"], vocab["b"]]]:
        raw.append({"ids": ids, "decoded": imaged.decode(ids, clean_up_tokenization_spaces=False),
                    "decoded_skip_special": imaged.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)})
    write_json(folder / "expected.json", {
        "vocab_size": len(vocab), "eos": END, "eos_id": len(vocab) - 1, "image_id": len(vocab), "json_size": len(imaged), "extra_size": len(extra),
        "bpe": cases(plain, TEXTS), "json": cases(imaged, TEXTS), "extra": cases(extra, [*TEXTS, *names, "a <|extratoken_2|> b"]),
        "streams": streams, "raw": raw, "opt": cases(opt, opt_texts), "opt_size": len(opt), "opt_eos_id": opt.eos_token_id,
    })
    print(len(TEXTS), "texts,", len(vocab), "tokens")

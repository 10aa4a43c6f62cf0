"""Writes vocabularies as `tokenizer.model` of SentencePiece and tiktoken, and what transformers makes of them and of configs beside them.

`bpe.model` is of Llama's kind, `gemma.model` has Gemma's special pieces, `unigram.model` follows its own normaliser, `tiktoken.model` is
Llama 3's format. Each case of `expected.json` names its files beside the model; those of `json` lie over `tests/golden/tokenizer/json`,
`prepend.json` is what transformers 4 saves of a Llama with `legacy: true`.

Run: `python tests/golden/tokenizer_models/export.py`
"""

import base64
import json
import shutil
import sys
import tempfile
from pathlib import Path

import sentencepiece
from tokenizers import AddedToken, Tokenizer, decoders, normalizers
from tokenizers.models import BPE
from transformers import AutoTokenizer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from writer import start, write_json  # noqa: E402

HERE = Path(__file__).parent
TEXTS = json.loads((HERE.parent / "gguf_tokenizers/expected.json").read_text())["texts"]
TEXTS += ["<image> A picture of", "a<image>b", " <image>  x", "<s>Hello</s> world", "</s>Hello", "<bos>a<eos>", "a <0x41> b", "▁▁a", "\u0000"]
CORPUS = [*TEXTS, "A picture of a small red circle above a large blue square.", "a photo of a dog that's running on the green grass"] * 3


def learned(name, model_type, **options):
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus.txt"
        corpus.write_text("\n".join(line for text in CORPUS for line in text.replace("\0", "").splitlines()), encoding="utf-8")
        sentencepiece.SentencePieceTrainer.train(
            input=str(corpus), model_prefix=str(Path(folder) / "m"), model_type=model_type, byte_fallback=True, character_coverage=0.98,
            minloglevel=2, num_threads=1, **options,
        )
        shutil.copy(Path(folder) / "m.model", HERE / f"{name}.model")


def ranks():
    """tiktoken's lines of the byte-level BPE beside this folder."""
    tree = json.loads((HERE.parent / "tokenizer/json/tokenizer.json").read_text(encoding="utf-8"))["model"]
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    of = {chr(b): b for b in printable} | {chr(0x100 + i): b for i, b in enumerate(b for b in range(256) if b not in printable)}
    tokens = sorted((t for t in tree["vocab"] if not t.startswith("<|")), key=tree["vocab"].get)
    lines = [f"{base64.b64encode(bytes(of[c] for c in token)).decode()} {rank}" for rank, token in enumerate(tokens)]
    (HERE / "tiktoken.model").write_text("\n".join(lines) + "\n")
    return len(tokens)


def expected(folder, texts):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = []
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        decoded = [tokenizer.decode(ids, skip_special_tokens=skip, clean_up_tokenization_spaces=False) for skip in (False, True)]
        rows.append({"text": text, "ids": ids, "decoded": decoded})
    return {"eos": tokenizer.eos_token_id, "rows": rows}


def case(name, model, texts, **files):
    """Ids of a folder with `tokenizer.model` and other files."""
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        shutil.copy(HERE / f"{model}.model", folder / "tokenizer.model")
        files = {f"{key}.json": value for key, value in files.items()}
        for file, value in files.items():
            write_json(folder / file, value)
        return {"name": name, "model": model, "files": files, **expected(folder, texts)}


def beside(name, texts, change, special=None, flags=None):
    """Ids of the byte-level tokenizer beside this folder under another tokenizer_config.json."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(HERE.parent / "tokenizer/json", folder, dirs_exist_ok=True)
        config = Path(folder) / "tokenizer_config.json"
        tree = json.loads(config.read_text()) | change
        tree.pop("added_tokens_decoder", None) if flags is None else tree.update(added_tokens_decoder=flags)
        files = {"tokenizer_config.json": tree}
        if special is not None:
            files["special_tokens_map.json"] = special
        for file, value in files.items():
            write_json(Path(folder) / file, value)
        return {"name": name, "model": None, "files": files, **expected(folder, texts)}


def token(content, **flags):
    return {"content": content, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True} | flags


def main():
    folder = start(__file__, "tokenizers", "transformers", "sentencepiece")
    plain = dict(normalization_rule_name="identity", add_dummy_prefix=True, remove_extra_whitespaces=False, split_digits=True)
    learned("bpe", "bpe", vocab_size=620, user_defined_symbols=["<image>"], **plain)
    gemma = plain | dict(add_dummy_prefix=False, pad_id=0, eos_id=1, bos_id=2, unk_id=3, bos_piece="<bos>", eos_piece="<eos>", pad_piece="<pad>")
    learned("gemma", "bpe", vocab_size=620, user_defined_symbols=["<image>"], **gemma)
    learned("unigram", "unigram", vocab_size=520, user_defined_symbols=["<image>"])
    count = ranks()
    llama = {"tokenizer_class": "LlamaTokenizer"}
    other = {"tokenizer_class": "TokenizersBackend"}
    added = {str(count + i): token(name) for i, name in [(0, "<|begin|>"), (3, "<|end|>")]}
    more = ["a<|end|>b", "<|begin|> a <|reserved_token_%d|>" % (count + 1)]
    cases = [
        case("llama", "bpe", TEXTS, tokenizer_config=llama | {"legacy": True}),
        case("llama without legacy", "bpe", TEXTS, tokenizer_config=llama | {"legacy": False, "eos_token": "</s>"}),
        case("llama that does not say", "bpe", TEXTS, tokenizer_config=llama | {"add_prefix_space": True}),
        case("llama without a prefix", "bpe", TEXTS, tokenizer_config=llama | {"add_prefix_space": False}),
        case("a folder of llama", "bpe", TEXTS, config={"model_type": "llama"}),
        case("gemma", "gemma", TEXTS, tokenizer_config={"tokenizer_class": "GemmaTokenizer"}),
        case("own", "bpe", TEXTS, tokenizer_config=other),
        case("own without legacy", "bpe", TEXTS, tokenizer_config=other | {"legacy": False}),
        case("unigram", "unigram", TEXTS, tokenizer_config=other),
        case("tiktoken", "tiktoken", [*TEXTS, *more], tokenizer_config=other | {"eos_token": "<|end|>", "added_tokens_decoder": added}),
    ]
    x = ["<x>  a cat", "a <x> cat", "a  <x>b", "<X> a", "x<x>y", "a<image_tok>b", " <image_tok> <other>"]
    own = {"eos_token": "<|endoftext|>"}
    flags = {"420": token("<|endoftext|>"), "421": token("<|image|>")}
    cases += [
        beside("flags", x, own, flags=flags | {"422": token("<x>", rstrip=True)}),
        beside("flags of a token that is there", ["<|image|>  a", "a  <|image|>", "a<|image|>b"], own, flags=flags | {"421": token("<|image|>", lstrip=True, rstrip=True)}),
        beside("words", ["a <x> b", "a<x>b"], own, flags=flags | {"422": token("<x>", single_word=True, special=False)}),
        beside("a map", x, own | {"extra_special_tokens": {"image_token": "<image_tok>"}}, flags=flags),
        beside("a list", x, own | {"extra_special_tokens": ["<image_tok>", "<other>"]}, flags=flags),
        beside("an older list", x, own | {"additional_special_tokens": ["<image_tok>", "<other>"], "extra_special_tokens": []}, flags=flags),
        beside("a key of its own", x, own | {"image_token": "<image_tok>", "video_token": "<other>"}, flags=flags),
        beside("a map of special tokens", x, {}, special={"eos_token": token("<|endoftext|>"), "additional_special_tokens": ["<image_tok>"]}),
    ]
    # Transformers 4's form of the first case.

    pieces = sentencepiece.SentencePieceProcessor(model_file=str(HERE / "bpe.model"))
    vocab = {pieces.id_to_piece(i): i for i in range(pieces.get_piece_size())}
    merges = [(t[:at], t[at:]) for t, _ in sorted(vocab.items(), key=lambda item: item[1]) for at in range(1, len(t)) if t[:at] in vocab and t[at:] in vocab]
    old = Tokenizer(BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    old.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    old.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    old.add_tokens([AddedToken(name, normalized=False, special=name != "<image>") for name in ["<unk>", "<s>", "</s>", "<image>"]])
    old.save(str(folder / "prepend.json"), pretty=False)
    with tempfile.TemporaryDirectory() as place:
        shutil.copy(folder / "prepend.json", Path(place) / "tokenizer.json")
        files = {"tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>"}}
        write_json(Path(place) / "tokenizer_config.json", files["tokenizer_config.json"])
        found = expected(Path(place), TEXTS)
        # A stream holds back what is no whole character yet.
        tokenizer = AutoTokenizer.from_pretrained(place)
        streams = []
        for text in ["a 😀 b", "日本語 ㎏", "naïve 𝔘x"]:
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            streams.append({"text": text, "ids": ids, "prefixes": [tokenizer.decode(ids[:k], clean_up_tokenization_spaces=False) for k in range(1, len(ids) + 1)]})
        byte = {b: vocab[f"<0x{b:02X}>"] for b in range(256)}
        raw = []
        for data in [[0xFF], [0xE6, 0x97], [0x61, 0xC3, 0x62], [0xF0, 0x9F, 0x98], [0xE6, 0x97, 0xA5, 0xFF]]:
            ids = [byte[b] for b in data]
            raw.append({"ids": ids, "decoded": tokenizer.decode(ids, clean_up_tokenization_spaces=False)})
    prepend = {"name": "prepend", "files": files, **found, "streams": streams, "raw": raw}
    write_json(folder / "expected.json", {"cases": cases, "prepend": prepend})
    print(len(cases), "cases of", len(TEXTS), "texts")


if __name__ == "__main__":
    main()

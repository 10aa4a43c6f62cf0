"""Writes GGUF files that hold a tokenizer each, and the ids that llama.cpp and transformers give for unusual texts.

Run: `npm i --ignore-scripts node-llama-cpp@3.21.1` in some folder, then
`NODE_LLAMA_CPP=FOLDER python tests/golden/gguf_tokenizers/export.py`

`bytes.gguf` is a byte-level BPE whose merges were learned on the texts themselves with nothing split off, so that every cut of
a splitter shows in the ids; it is given to llama.cpp once under each name of `tokenizer.ggml.pre`.
`merged.gguf`, `plain.gguf` and `unigram.gguf` are models of SentencePiece, `characters.gguf` is of Gemma 4's kind.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import gguf
import numpy
import sentencepiece
from sentencepiece import sentencepiece_model_pb2 as proto
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from writer import start, write_json  # noqa: E402

HERE = Path(__file__).parent
TEXTS = [
    "I'm sure you'll see WE'RE here, it's o'clock and don't",
    "HelloWorld helloWorld XMLHttpRequest2 camelCase_snake_case",
    "1 22 333 4444 55555 666666 7777777 3.14 1,000,000 0x1F",
    "a1b22c333 x=1;y=2 ٣٤٥٦ ½² Ⅷ 四",
    "def f(x):\n    return x ** 2  # two\n\n\tif x != 0:\r\n\t\tpass\n",
    "for (int i = 0; i < n; ++i) { a[i] += b->c; }",
    "$5 + €6 <= £7 ^ `code` |pipe| ~/x !~ @me #tag \"q\" (p) [l]",
    "path/to/file\\name https://a.b/c?d=e&f=g%20h a/\n/b",
    "   three leading and two trailing  ",
    "two  three   four    five     spaces",
    "line\n\n\nend\n \n  \n mixed \t \n\r\n\r\n tail \n",
    " ", "  ", "\n", "\t\t\t", "        x",
    "日本語テスト、中文字符。한국어 ㄱㅏ々〆",
    "Привет МИР, Ёлка и ёж ПРИветМир",
    "ελληνικά ΩΣ ΆΈ, École ÉCOLE naïve Æsir straße",
    "العربية، نص عربي۔ עברית",
    "हिन्दी में पाठ ไทยไม่มี বাংলা",
    "e\u0301 a\u0308 \u1e69 ﬁn Ångström",
    "😀👍🏽 👨‍👩‍👧 ❤️ a😀b",
    "nbsp\u00a0wide\u3000thin\u2009line\u2028sep\u0085nel\u200bzero",
    "dashes -- — … ?! ... «quotes» “x” ‘y’",
    "<sentinel:12> IMGIMGABCZ <|x|> <s> </s>",
    "Ünïcödé Ǆ ǅ ʼn 𐐀𐐨 𝔘 ™ © № ∑∫ →",
    "word'S WORD'LL 'tis 'twas rock'n'roll ''",
    "a.b..c...d,e;f:g!h?i-j_k*l/m",
    "12345678901234567890 1234567 12 123456789",
    "0" * 26, "9a99b999c", "=" * 20, "-" * 9 + "\n" + "~" * 4 + "\n",
    "Ends with space ", "\u2581escaped\u2581space", "<0x0A> <unk>", "",
]
SPECIAL = ["<|end|>", "<|extra|>"]
MARKED = ["a<|end|>b", " <|end|>  x<|extra|>\n", "<|extra|><|extra|> y", "x <|end|> z"]


def learned(texts):
    """A byte-level BPE whose tokens reach over everything that a splitter would cut."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=2600, initial_alphabet=alphabet, show_progress=False, max_token_length=14)
    trained.train_from_iterator(texts, trainer)
    tree = json.loads(trained.to_str())["model"]
    tokens = sorted(tree["vocab"], key=tree["vocab"].get)
    return tokens, [" ".join(merge) if isinstance(merge, list) else merge for merge in tree["merges"]]


def start_file(path, vocab):
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(8)
    writer.add_embedding_length(2)
    writer.add_block_count(1)
    writer.add_feed_forward_length(2)
    writer.add_head_count(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(vocab)
    # llama.cpp reads the vocabulary alone, limber asks for the table's rows.
    writer.add_tensor("token_embd.weight", numpy.zeros((vocab, 2), numpy.float16))
    return writer


def end_file(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def byte_level(path, tokens, merges, pre):
    writer = start_file(path, len(tokens) + len(SPECIAL))
    writer.add_tokenizer_model("gpt2")
    if pre is not None:
        writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens + SPECIAL)
    writer.add_token_types([gguf.TokenType.NORMAL] * len(tokens) + [gguf.TokenType.CONTROL, gguf.TokenType.USER_DEFINED])
    writer.add_token_merges(merges)
    for add in (writer.add_bos_token_id, writer.add_eos_token_id, writer.add_sep_token_id):
        add(len(tokens))
    end_file(writer)


def characters(path):
    """A BPE over characters with bytes for what is no token, of Gemma 4's kind."""
    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizers.Replace(" ", "\u2581")
    # Merges do not reach over line ends; rare characters are left to the bytes.
    trained.pre_tokenizer = pre_tokenizers.Split(Regex(r"[^\n]+|[\n]+"), "isolated")
    trainer = trainers.BpeTrainer(vocab_size=900, limit_alphabet=150, show_progress=False, max_token_length=10)
    trained.train_from_iterator(TEXTS, trainer)
    tree = json.loads(trained.to_str())["model"]
    tokens = sorted(tree["vocab"], key=tree["vocab"].get)
    special = ["<pad>", "<eos>", "<bos>", "<unk>"]
    kinds = [gguf.TokenType.CONTROL] * 3 + [gguf.TokenType.UNKNOWN] + [gguf.TokenType.BYTE] * 256
    kinds += [gguf.TokenType.NORMAL] * len(tokens) + [gguf.TokenType.CONTROL, gguf.TokenType.USER_DEFINED]
    all_tokens = special + [f"<0x{i:02X}>" for i in range(256)] + tokens + SPECIAL
    writer = start_file(path, len(all_tokens))
    writer.add_tokenizer_model("gemma4")
    writer.add_token_list(all_tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(m) if isinstance(m, list) else m for m in tree["merges"]])
    writer.add_eos_token_id(1)
    writer.add_bos_token_id(2)
    writer.add_unk_token_id(3)
    end_file(writer)


def sentence_piece(path, kind, prefix, folder):
    model = f"{folder}/{kind}{int(prefix)}"
    (Path(folder) / "corpus.txt").write_text("\n".join(t.replace("\n", " ") for t in TEXTS if t.strip()))
    rule = "identity" if kind == "bpe" else "nmt_nfkc"
    sentencepiece.SentencePieceTrainer.train(
        input=f"{folder}/corpus.txt", model_prefix=model, model_type=kind, vocab_size=900 if kind == "bpe" else 500,
        hard_vocab_limit=False, byte_fallback=kind == "bpe", normalization_rule_name=rule, add_dummy_prefix=prefix,
        remove_extra_whitespaces=kind != "bpe", user_defined_symbols=[SPECIAL[1]], control_symbols=[SPECIAL[0]],
        character_coverage=0.98, minloglevel=2, num_threads=1, split_digits=kind == "bpe",
    )
    read = proto.ModelProto()
    read.ParseFromString(Path(f"{model}.model").read_bytes())
    pieces = read.pieces
    writer = start_file(path, len(pieces))
    writer.add_tokenizer_model("llama" if kind == "bpe" else "t5")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([p.piece for p in pieces])
    writer.add_token_scores([p.score for p in pieces])
    writer.add_token_types([p.type for p in pieces])
    writer.add_add_space_prefix(prefix)
    writer.add_remove_extra_whitespaces(read.normalizer_spec.remove_extra_whitespaces)
    if read.normalizer_spec.precompiled_charsmap:
        writer.add_precompiled_charsmap(read.normalizer_spec.precompiled_charsmap)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    end_file(writer)
    return pieces


# The pre-tokenizers of the published tokenizer.json files, for those that are not the same pattern word by word.
def level(regex=True):
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=regex)


def split(pattern):
    return pre_tokenizers.Split(Regex(pattern), "isolated")


LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PUBLISHED = {
    "gpt-2": level(),
    "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(True), level()]),
    "starcoder": pre_tokenizers.Sequence([pre_tokenizers.Digits(True), level()]),
    "llama-bpe": pre_tokenizers.Sequence([split(LLAMA3), level(False)]),
    "qwen2": pre_tokenizers.Sequence([split(LLAMA3.replace("{1,3}", "")), level(False)]),
}


def published(tokens, merges, name, pre):
    pairs = [tuple(m.split(" ")) for m in merges]
    vocab = {t: i for i, t in enumerate(tokens)}
    made = Tokenizer(models.BPE(vocab=vocab, merges=pairs, ignore_merges=name == "llama-bpe"))
    made.pre_tokenizer = pre
    return [made.encode(text).ids for text in TEXTS]


def of_proto(pieces, prefix):
    """What transformers makes of a model of SentencePiece's BPE (`SpmConverter`, `LlamaConverter`)."""
    vocab = {p.piece: i for i, p in enumerate(pieces)}
    merges = []
    for p in pieces:
        parts = [(p.piece[:i], p.piece[i:]) for i in range(1, len(p.piece))]
        local = [(a, b) for a, b in parts if a in vocab and b in vocab]
        merges += [(a, b, p.score) for a, b in sorted(local, key=lambda x: (vocab[x[0]], vocab[x[1]]))]
    merges = [(a, b) for a, b, _ in sorted(merges, key=lambda m: m[2], reverse=True)]
    made = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    steps = [normalizers.Prepend("\u2581")] if prefix else []
    made.normalizer = normalizers.Sequence(steps + [normalizers.Replace(" ", "\u2581")])
    # Unknown, control and user-defined pieces.
    made.add_tokens([AddedToken(p.piece, special=p.type != 4, normalized=False) for p in pieces if p.type in (2, 3, 4)])
    return made


def main():
    start(__file__, "gguf", "tokenizers", "sentencepiece")
    tokens, merges = learned(TEXTS)
    names = [line for line in (HERE / "names.txt").read_text().split() if line]
    out = {"texts": TEXTS, "marked": MARKED, "llama.cpp": {}, "published": {}, "sentencepiece": {}}
    with tempfile.TemporaryDirectory() as folder:
        byte_level(HERE / "bytes.gguf", tokens, merges, "default")
        jobs = {}
        for name in names:
            byte_level(f"{folder}/{name}.gguf", tokens, merges, name)
            jobs[name] = f"{folder}/{name}.gguf"
        byte_level(f"{folder}/missing.gguf", tokens, merges, None)
        jobs[""] = f"{folder}/missing.gguf"
        files = {"merged": ("bpe", True), "plain": ("bpe", False), "unigram": ("unigram", True)}
        for name, (kind, prefix) in files.items():
            pieces = sentence_piece(HERE / f"{name}.gguf", kind, prefix, folder)
            jobs[name + ".gguf"] = str(HERE / f"{name}.gguf")
            if kind == "bpe":
                made = of_proto(pieces, prefix)
                out["sentencepiece"][name] = [made.encode(text).ids for text in TEXTS + MARKED]
        characters(HERE / "characters.gguf")
        jobs["characters.gguf"] = str(HERE / "characters.gguf")
        script = Path(os.environ["NODE_LLAMA_CPP"]) / "limber_tokenize.mjs"
        script.write_text((HERE / "tokenize.mjs").read_text())
        job = json.dumps({"texts": TEXTS + MARKED, "files": jobs})
        said = subprocess.run(["node", script], input=job, capture_output=True, text=True, check=True)
        out["llama.cpp"] = json.loads(said.stdout.splitlines()[-1])
    for name, pre in PUBLISHED.items():
        out["published"][name] = published(tokens, merges, name, pre)
    refused = [name for name, ids in out["llama.cpp"].items() if ids is None]
    print("llama.cpp knows no", refused)
    # Equal lists are kept once.
    lists = []
    for group in ("llama.cpp", "published", "sentencepiece"):
        for name, ids in out[group].items():
            if ids is not None and ids not in lists:
                lists.append(ids)
            out[group][name] = None if ids is None else lists.index(ids)
    out["lists"] = lists
    write_json(HERE / "expected.json", out)


main()

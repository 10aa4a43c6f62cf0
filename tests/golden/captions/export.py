"""Captions with odd text, tokenised and scored by pycocoevalcap: Stanford's PTBTokenizer (Java), BLEU, ROUGE-L, CIDEr.

`cases.json` holds the captions, `expected.json` their tokens and scores. Left out of the cases are the characters that
shift the tokenizer's lines against the captions (carriage return, U+2028 and their like).

Run, with a Java runtime: `pip install pycocoevalcap==1.2` and `python tests/golden/captions/export.py`
"""

import contextlib
import io
import math
import random
import sys
from collections import defaultdict
from pathlib import Path

from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.cider.cider_scorer import CiderScorer
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from writer import start, write_json  # noqa: E402

ITEMS = 640
PLAIN = """a A an The the man woman dog cat horse bench table street red blue small large sitting standing riding holding
on in under near with of and two three people white black green wooden old young skateboard surfboard pizza""".split()
ODD = """dog's dogs' it's don't can't won't isn't they're we've I'll he'd she'd've o'clock cannot gonna wanna gotta gimme
'tis 'twas y'all y'know rock'n'roll O'Neill d'accord l'eau ol' somethin' 'em '90s 'til ma'am nor'easter c'mon e'er Cap'n
c'est Mr. Mrs. Dr. St. U.S. U.S.A. U.K. e.g. i.e. a.m. p.m. Inc. Co. Ltd. Corp. Jan. Sept. Mon. No. Fig. Ave. vs. etc.
Prof. Jr. Ph.D. B. C. I. Ft. Mt. Calif. wash. Wash. mass. pty. ltd. ca. fig. 5 1 2 10 1,000 3.14 1/2 3/4 5-10
10-20-2012 1/1/99 $5 $5.99 US$20 20% #1 #tag @user user@host.com www.foo.com http://a.b/c?d=e foo.org photo.jpg
doc.txt. 555-1234 (555) +1 1980s 2nd 3rd 20x30 12:30 12:30pm well-known black-and-white t-shirt X-ray co-op pro-
anti-war and/or he/she A&W AT&T S&P-500 R&B C++ c# f# -lrb- AC/DC ( ) [ ] { } < > << >> " ' ` `` '' “ ” ‘ ’ « » ‹ › … ...
.. .... ...... - -- --- ---- ----- – — ! ? !! ?! , ; : / \\ * ** _ __ + = & &amp; &lt; &gt; &quot; &apos; &nbsp; &mdash;
&#39; % ^ ~ | § © ® ° ± ² ³ µ ¶ · ¹ º » ¼ ½ ¾ ⅓ ⅔ ⅛ ¿ ¡ × ÷ € £ ¥ ¢ ₤ ™ ← → ∞ ≈ ♥ ★ 😀 ❤️ 👨‍👩‍👧 :) :-) ;) :D :( =) ^_^
(-_-) <3 @@ ## *** café naïve Zürich São Ångström Straße ﬁsh ŒUVRE İstanbul Москва ΑΘΗΝΑ 日本 北京 العربية עברית हिन्दी
ไทย 한국 ½cup x² H₂O 10° 5µm １２３ ａｂｃ <b> </b> <br/> <!-- c --> soft\u00adhyphen n't 's 're 'll 've 'd 'm s' ’s n’t it’s
don’t don´t isn`t bench. table, The He In street. horse; grass: sky! why? cafe\u0301 \ufeffmark zero\u200bwidth""".split()
BETWEEN = [" "] * 14 + ["", "  ", "\t", "\u00a0", "\u2009", "\u3000", ", ", ". ", ".", "-", "\n"]


def sentence(odd):
    words = [random.choice(ODD if random.random() < odd else PLAIN) for _ in range(random.randint(1, 14))]
    return "".join(word + random.choice(BETWEEN if odd else [" "]) for word in words)


def changed(caption):
    """A caption that shares most of its words with another."""
    words = caption.split(" ")
    for _ in range(random.randint(0, 4)):
        at = random.randrange(len(words))
        match random.randrange(4):
            case 0:
                words.pop(at) if len(words) > 1 else None
            case 1:
                words.insert(at, random.choice(PLAIN + ODD))
            case 2:
                words[at] = random.choice(PLAIN)
            case 3:
                words[at:] = words[at:] + words[at:][:3]
    return " ".join(words)


def item():
    odd = random.choice([0.0, 0.15, 0.5, 1.0])
    first = sentence(odd)
    references = [first] + [changed(first) if random.random() < 0.7 else sentence(odd) for _ in range(random.choice([0, 1, 2, 4, 4, 4]))]
    candidate = first if random.random() < 0.05 else changed(random.choice(references))
    special = random.random()
    if special < 0.03:
        candidate = random.choice(["", " ", ".", "!?", '"', "\u200b", "😀"])
    elif special < 0.05:
        references[0] = random.choice(["", " ", "...", "—"])
    elif special < 0.06:
        candidate, references = "", ["", " . "]
    return candidate, references


class Unclipped(CiderScorer):
    """CIDEr without the clipping and the length penalty of CIDEr-D, over the same frequencies."""

    def compute_cider(self):
        documents = math.log(float(len(self.crefs)))

        def vectors(counts):
            found = [defaultdict(float) for _ in range(self.n)]
            for gram, times in counts.items():
                found[len(gram) - 1][gram] = times * (documents - math.log(max(1.0, self.document_frequency[gram])))
            return found

        def cosine(a, b):
            norm = math.sqrt(sum(x * x for x in a.values())) * math.sqrt(sum(x * x for x in b.values()))
            return sum(x * b.get(gram, 0.0) for gram, x in a.items()) / (norm or 1.0)

        scores = []
        for test, references in zip(self.ctest, self.crefs):
            test = vectors(test)
            each = [sum(map(cosine, test, vectors(reference))) / self.n for reference in references]
            scores.append(10.0 * sum(each) / len(each))
        return scores


def main():
    folder = start(__file__, "pycocoevalcap", seed=11)
    items = [item() for _ in range(ITEMS)]
    write_json(folder / "cases.json", [{"candidate": c, "references": r} for c, r in items])
    tokenizer = PTBTokenizer()
    candidates = tokenizer.tokenize({i: [{"caption": c}] for i, (c, _) in enumerate(items)})
    references = tokenizer.tokenize({i: [{"caption": r} for r in rs] for i, (_, rs) in enumerate(items)})
    scores = {}
    with contextlib.redirect_stdout(io.StringIO()):
        whole, each = Bleu(4).compute_score(references, candidates)
    for n in range(4):
        scores[f"Bleu_{n + 1}"] = whole[n], each[n]
    scores["ROUGE_L"] = Rouge().compute_score(references, candidates)
    scores["CIDEr"] = Cider().compute_score(references, candidates)
    scorer = Unclipped()
    for i in range(ITEMS):
        scorer += (candidates[i][0], references[i])
    scores["CIDEr_plain"] = scorer.compute_score()
    for name, (value, _) in scores.items():
        print(f"  {name} {float(value):.6f}")
    write_json(
        folder / "expected.json",
        {
            "tokens": [[candidates[i][0], *references[i]] for i in range(ITEMS)],
            "scores": {n: {"value": float(v), "items": [round(float(x), 9) for x in xs]} for n, (v, xs) in scores.items()},
        },
    )


main()

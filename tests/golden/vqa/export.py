"""Answers with odd text, scored by the official script of VQA v2.

The script is not on PyPI; get it with
`git clone https://github.com/GT-Vision-Lab/VQA && git -C VQA checkout a013f00`
It is written for Python 2, whose `print` statements are taken out while it is read; nothing else is changed.

Run: `python tests/golden/vqa/export.py path/to/VQA`
"""

import contextlib
import copy
import hashlib
import io
import random
import re
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from writer import start, write_json  # noqa: E402

ITEMS = 700
WORDS = """yes no red Blue 2 two Two three ten none zero a an the A The dont don't Cant can't couldnt've couldn'tve wont
whats what's Im Ive shes she's somebody'd yall'll ow's'at man's hes o'clock oclock 1,000 1,5 3.14 .5 5. 10% $5 t-shirt
and/or (left) [x] {y} "quoted" a.m. U.S. yes. no! why? what; a,b x=1 a+b c\\d e_f <b> >c d@e `f` , . / - ... :) café naïve
ÉCOLE straße İstanbul 日本 😀 ½ ² １２ １,２ ٣,٤ Na\u0308ive can´t isn’t don’t
frisbee skateboard on top of it to the left""".split()
WORDS += ["\u00a0", "\u2009", "tab\there", "line\nbreak", " ", "a.\n"]
KINDS = ["yes/no", "number", "other"]
QUESTIONS = ["is the", "how many", "what color is the", "none of the above"]


def answer():
    if random.random() < 0.03:
        return random.choice(["", " ", ".", "the", " \n", "." * 40 + "x", "a.b" * 20])
    between = random.choice([" ", " ", " ", "", "  ", ", ", ".", " ."])
    return between.join(random.choice(WORDS) for _ in range(random.choice([1, 1, 1, 2, 2, 3, 5])))


def near(text):
    """The same answer as somebody else might write it."""
    change = [str.lower, str.upper, str.title, lambda t: t + ".", lambda t: "the " + t, lambda t: t + " ", lambda t: t]
    change += [lambda t: t.replace("'", ""), lambda t: t.replace(" ", "-"), lambda t: t.replace("two", "2"), lambda t: t + "!"]
    return random.choice(change)(text)


def item(number):
    said = answer()
    agree = random.choice([0, 1, 2, 3, 4, 9, 10])
    people = random.choice([10, 10, 10, 10, 2, 3, 5])
    others = [answer() for _ in range(3)]
    answers = [said if random.random() < 0.3 else near(said) for _ in range(min(agree, people))]
    answers += [near(random.choice(others)) for _ in range(people - len(answers))]
    if random.random() < 0.1:
        answers = [answers[0]] * people
    random.shuffle(answers)
    annotated = [{"answer": a, "answer_confidence": "yes", "answer_id": i + 1} for i, a in enumerate(answers)]
    kinds = {"question_type": random.choice(QUESTIONS), "answer_type": random.choice(KINDS)}
    return {"question_id": number, "image_id": number // 3, "answers": annotated, **kinds}, near(said)


class Loaded:
    """What the script asks of its loader."""

    def __init__(self, items):
        self.qa = {item["question_id"]: item for item in items}

    def getQuesIds(self):
        return list(self.qa)


def official(folder):
    path = Path(folder) / "PythonEvaluationTools/vqaEvaluation/vqaEval.py"
    text = path.read_text(encoding="utf-8")
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(compile(re.sub(r'print "[^"]*"', "pass", text), str(path), "exec"), found)
    return found["VQAEval"], hashlib.sha256(text.encode()).hexdigest()


def main():
    folder = start(__file__, seed=12)
    script, sha256 = official(sys.argv[1])
    print("  sha256 of vqaEval.py", sha256)
    items, results = zip(*(item(number) for number in range(ITEMS)))
    results = [{"question_id": i, "answer": text} for i, text in enumerate(results)]
    write_json(folder / "annotations.json", {"annotations": items})
    write_json(folder / "results.json", results)
    scored = script(Loaded(copy.deepcopy(items)), Loaded(copy.deepcopy(results)), n=10)
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scored.evaluate()
    texts = sorted({a["answer"] for i in items for a in i["answers"]})
    normal = {t: scored.processDigitArticle(scored.processPunctuation(t.replace("\n", " ").replace("\t", " ").strip())) for t in texts}
    print("  accuracy", scored.accuracy)
    write_json(
        folder / "expected.json",
        {"script": sha256, "accuracy": scored.accuracy, "items": [scored.evalQA[i] for i in range(ITEMS)], "normalised": normal},
    )


main()

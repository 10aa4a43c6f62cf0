"""Writes logits, and what transformers' logits processors make of them: which ids may be drawn, with what probability.

Run: `python tests/golden/sampling/export.py`
"""

import sys
from pathlib import Path

import torch
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from writer import start, write_json  # noqa: E402

VOCAB = 24
SETTINGS = [
    {},
    {"min_p": 0.1},
    {"min_p": 0.5},
    {"min_p": 1.0},
    {"repetition_penalty": 1.3},
    {"repetition_penalty": 0.7},
    {"temperature": 0.6, "min_p": 0.05},
    {"temperature": 1.7, "min_p": 0.2, "repetition_penalty": 1.2},
    {"temperature": 0.8, "top_k": 7, "min_p": 0.1},
    {"temperature": 0.9, "top_p": 0.8, "repetition_penalty": 1.5},
    {"temperature": 1.2, "top_k": 9, "top_p": 0.9, "min_p": 0.08, "repetition_penalty": 1.1},
]


def processors(settings):
    """In the order of transformers' `_get_logits_processor`."""
    all = LogitsProcessorList()
    if "repetition_penalty" in settings:
        all.append(RepetitionPenaltyLogitsProcessor(penalty=settings["repetition_penalty"]))
    if "temperature" in settings:
        all.append(TemperatureLogitsWarper(settings["temperature"]))
    if "top_k" in settings:
        all.append(TopKLogitsWarper(top_k=settings["top_k"]))
    if "top_p" in settings:
        all.append(TopPLogitsWarper(top_p=settings["top_p"]))
    if "min_p" in settings:
        all.append(MinPLogitsWarper(min_p=settings["min_p"]))
    return all


def main():
    folder = start(__file__, "torch", "transformers")
    cases = []
    for settings in SETTINGS:
        # Greedy steps first, so that there is something to repeat: the history is what they chose.
        greedy = processors({key: value for key, value in settings.items() if key == "repetition_penalty"})
        history, rows = [], []
        for _ in range(5):
            logits = 2.5 * torch.randn(1, VOCAB)
            seen = torch.tensor([history], dtype=torch.int64)
            chosen = int(greedy(seen, logits.clone()).argmax())
            processed = processors(settings)(seen, logits.clone())
            probabilities = torch.softmax(processed.double(), -1)[0]
            kept = [[i, float(p)] for i, p in enumerate(probabilities) if p > 0]
            rows.append({"logits": [float(x) for x in logits[0]], "greedy": chosen, "kept": kept})
            history.append(chosen)
        cases.append({"settings": settings, "rows": rows})
    write_json(folder / "expected.json", {"cases": cases})
    print(len(cases), "cases")


main()

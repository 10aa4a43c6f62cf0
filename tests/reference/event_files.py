"""Reads back with TensorBoard what `limber train` writes for it: `python tests/reference/event_files.py LIMBER`.

A run of the golden parts with validation, cut short and resumed: every loss, learning rate and gradient norm of
`log.jsonl` and every loss of `validation.jsonl` must come back once, in order, and the captions as a text.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


def main():
    limber = sys.argv[1]
    with tempfile.TemporaryDirectory() as place:
        output = Path(place) / "out"
        data = {"format": "jsonl", "path": str(GOLDEN / "train/data.jsonl"), "shuffle": False}
        config = {
            "encoder": {"kind": "features", "tokens": 4, "width": 24},
            "stitch": {"kind": "linear", "dropout": 0.2, "weights": "random:1"},
            "decoder": {"kind": "gptj", "weights": str(GOLDEN / "train/decoder"), "tokenizer": str(GOLDEN / "tokenizer/json")},
            "train": {"steps": 30, "batch": 3, "lr": 0.01, "save_every": 10, "keep": 9, "output": str(output),
                      "validate": {"every": 10, "items": 5, "captions": 2, "data": data}},
            "data": data,
        }
        path = Path(place) / "c.yaml"
        path.write_text(json.dumps(config))
        subprocess.run([limber, "train", "--config", path], check=True, capture_output=True)
        # As if it had been killed after step 25.
        subprocess.run(["rm", "-r", output / "checkpoints/step-00000030"], check=True)
        subprocess.run([limber, "train", "--config", path, "--resume"], check=True, capture_output=True)
        events = EventAccumulator(str(output / "tensorboard"), size_guidance={"scalars": 0, "tensors": 0}).Reload()
        lines = lambda name: [json.loads(line) for line in (output / name).read_text().splitlines()]
        checked = 0
        for tag, name, key, off in [("train/loss", "log.jsonl", "loss", 1), ("train/lr", "log.jsonl", "lr", 1),
                                    ("train/grad_norm", "log.jsonl", "grad_norm", 1),
                                    ("validation/loss", "validation.jsonl", "loss", 0)]:
            told = [(e.step, numpy.float32(e.value)) for e in events.Scalars(tag)]
            ours = [(line["step"] + off, numpy.float32(line[key])) for line in lines(name)]
            assert told == ours, (tag, told, ours)
            checked += len(told)
        text = events.Tensors("validation/captions")
        # TensorBoard drops the void numbers of a run that was resumed, and keeps its texts.
        assert [e.step for e in text] == [0, 10, 20, 30, 30], text
        last = text[-1].tensor_proto.string_val[0].decode()
        assert all(said["text"] in last for said in lines("validation.jsonl")[-1]["captions"]), last
        print(f"TensorBoard reads {checked} numbers and {len(text)} texts as they were logged")


if __name__ == "__main__":
    main()

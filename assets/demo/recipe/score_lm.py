"""How well the language model reads layouts, the image left out: score_lm.py FOLDER DATA."""
import random
import sys

import torch

import pipeline
import world

torch.set_num_threads(1)
lm, tokenizer = pipeline.load_lm(sys.argv[1])
rng = random.Random(7)
right, wrong = {}, []
entries = world.load(sys.argv[2])[:200]
for i in range(0, len(entries), 100):
    some = entries[i:i + 100]
    cells = torch.tensor([tokenizer.encode("".join(" " + c for c in world.layout(e, rng))).ids for e in some])
    for e, (ids, _) in zip(some, pipeline.greedy(lm, tokenizer, lm.transformer.wte(cells))):
        said, n = pipeline.text(tokenizer, ids), len(world.objects(e))
        right.setdefault(n, []).append(said == e["captions"][0])
        if not right[n][-1]:
            wrong.append((e["captions"][0], said))
print({n: f"{sum(r)} of {len(r)}" for n, r in sorted(right.items())})
for expected, said in wrong[:8]:
    print(f"  {expected}\n      {said}")

"""What transformers makes of the real GGUF file, dequantised to f32: log-probabilities, greedy tokens, ids of texts.

Run: `LIMBER_REAL=DIR NODE_LLAMA_CPP=FOLDER python tests/real/smollm2.py`, where DIR holds `smollm2.gguf` and its Hugging Face form `smollm2/`;
`NODE_LLAMA_CPP=FOLDER` is where npm has put node-llama-cpp, whose ids of the texts are kept beside transformers'.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "golden"))
from writer import start, write_json  # noqa: E402

REAL = Path(os.environ["LIMBER_REAL"])
TEXT = """The city of Lisbon lies on seven hills above the Tagus. In 1755 an earthquake, a wave and five days of fire took most of it;
what stands today was drawn by engineers within a year. "We bury the dead and feed the living," said the minister.

def area(width, height):
    return width * height  # in square metres

- 12 boats, 3.5 km of walls, 1,204 houses
- the tram No. 28 climbs to Graça

Le tramway monte, der Fluss glänzt, река течёт, 川が流れる. """ * 2
PROMPT = "Once upon a time, a small red boat"


@torch.no_grad()
def main():
    start(__file__, "torch", "transformers")
    texts = json.loads((HERE.parent / "golden/gguf_tokenizers/expected.json").read_text())["texts"]
    texts += ["x<|im_end|>y", "<|im_start|>user\nhi<|im_end|>\n", TEXT]
    # transformers reads the file itself; `smollm2/` is what it saved of it, in bf16.
    model = AutoModelForCausalLM.from_pretrained(REAL, gguf_file="smollm2.gguf", dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(REAL / "smollm2")
    encode = lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]  # noqa: E731
    ids = torch.tensor(encode(TEXT)[:201])
    assert len(ids) == 201
    rows = model(input_ids=ids[None]).logits[0].log_softmax(-1)
    found = rows[:-1].gather(1, ids[1:, None])[:, 0]
    greedy, margin, past, step = [], 1e9, None, torch.tensor([encode(PROMPT)])
    for _ in range(60):
        out = model(input_ids=step, past_key_values=past, use_cache=True)
        best = out.logits[0, -1].topk(2).values
        margin = min(margin, float(best[0] - best[1]))
        greedy.append(int(out.logits[0, -1].argmax()))
        past, step = out.past_key_values, torch.tensor([[greedy[-1]]])
    tokenized = [encode(text) for text in texts]
    expected = {"ids": ids.tolist(), "logprobs": [round(x, 6) for x in found.tolist()], "prompt": PROMPT,
                "prompt_ids": encode(PROMPT), "greedy": greedy, "margin": round(margin, 5), "texts": texts, "tokenized": tokenized}
    script = Path(os.environ["NODE_LLAMA_CPP"]) / "limber_tokenize.mjs"
    script.write_text((HERE.parent / "golden/gguf_tokenizers/tokenize.mjs").read_text())
    job = json.dumps({"texts": texts, "files": {"real": str(REAL / "smollm2.gguf")}})
    said = subprocess.run(["node", script], input=job, capture_output=True, text=True, check=True)
    expected["llama.cpp"] = json.loads(said.stdout.splitlines()[-1])["real"]
    # transformers takes ASCII digits apart alone, for its own reading of the file made the folder's tokenizer.
    print("other ids of llama.cpp", [t for t, a, b in zip(texts, expected["llama.cpp"], tokenized) if a != b])
    print("mean log-probability", found.mean().item(), "smallest lead", margin, repr(tokenizer.decode(greedy)))
    write_json(HERE / "smollm2.json", expected)


main()

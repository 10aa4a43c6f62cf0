"""What transformers renders of published chat templates: `DIR/chat/expected.json`, of each `DIR/chat/*.jinja`.

The templates belong to their models and are in no repository; a model's folder on the hub has its own as chat_template.jinja.

Run: `LIMBER_REAL=DIR python tests/real/chat.py`
"""

import json
import os
import sys
from pathlib import Path

from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

HERE = Path(__file__).parent
CHAT = Path(os.environ["LIMBER_REAL"]) / "chat"
# The conversations of the golden data.
GOLDEN = json.loads((HERE.parent / "golden" / "chat" / "expected.json").read_text(encoding="utf-8"))["cases"]


def main():
    templates = {path.stem: path.read_text(encoding="utf-8") for path in sorted(CHAT.glob("*.jinja"))}
    if not templates:
        sys.exit(f"{CHAT} holds no .jinja file")
    conversations = list({json.dumps(case["messages"]): case["messages"] for case in GOLDEN}.values())
    cases = []
    for name, template in templates.items():
        words = Tokenizer(models.WordLevel({"<s>": 0, "</s>": 1}, unk_token="<s>"))
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>", eos_token="</s>", chat_template=template)
        for messages in conversations:
            for generation_prompt in (False, True):
                case = {"template": name, "messages": messages, "generation_prompt": generation_prompt}
                try:
                    case["text"] = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generation_prompt)
                except Exception as error:  # noqa: BLE001
                    case["error"] = str(error)
                cases.append(case)
    (CHAT / "expected.json").write_text(json.dumps({"templates": templates, "cases": cases}, ensure_ascii=False), encoding="utf-8")
    print(len(templates), "templates,", len(cases), "cases,", sum("error" in case for case in cases), "refused")


main()

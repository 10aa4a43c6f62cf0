"""What transformers renders of published chat templates: `DIR/chat/expected.json`, of each `DIR/chat/*.jinja`.

The templates belong to their models and are in no repository; a model's folder on the hub has its own as chat_template.jinja.

Run: `LIMBER_REAL=DIR python tests/real/chat.py`
"""

import json
import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "golden"))
from templates import rendered  # noqa: E402

CHAT = Path(os.environ["LIMBER_REAL"]) / "chat"
# The conversations of the golden data.
GOLDEN = json.loads((HERE.parent / "golden" / "chat" / "expected.json").read_text(encoding="utf-8"))["cases"]


def main():
    templates = {path.stem: path.read_text(encoding="utf-8") for path in sorted(CHAT.glob("*.jinja"))}
    if not templates:
        sys.exit(f"{CHAT} holds no .jinja file")
    conversations = list({json.dumps(case["messages"]): case["messages"] for case in GOLDEN}.values())
    cases = rendered(templates, conversations)
    (CHAT / "expected.json").write_text(json.dumps({"templates": templates, "cases": cases}, ensure_ascii=False), encoding="utf-8")
    print(len(templates), "templates,", len(cases), "cases,", sum("error" in case for case in cases), "refused")


main()

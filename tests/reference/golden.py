"""The scripts that wrote the golden data, so that the checks here make their parts by the same functions."""

import importlib.util
import sys
from pathlib import Path

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


def golden(case):
    """The module `golden/<case>/export.py`, or `golden/<case>.py` of those that several cases share."""
    if str(GOLDEN) not in sys.path:
        sys.path.append(str(GOLDEN))
    path = GOLDEN / case / "export.py"
    spec = importlib.util.spec_from_file_location(f"golden_{case}", path if path.is_file() else GOLDEN / f"{case}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

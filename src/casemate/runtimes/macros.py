"""The text of the functions that macros may call, in each language that has them."""

from __future__ import annotations

from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent.parent / "guest" / "macros"
PYTHON_BORDER: Final = (
    "# What stands above this line is for those who read this file alone: it is not in the joined text.\n"
)

MACRO_NAMES: Final = (
    "ArrayNth", "ArrayRange", "ArrayUnZip", "ArrayZip", "GetIndexByLabel", "GetLabelLookup", "GetProtocolByLabel",
    "MathEXPINVREG", "MathLINREG", "MathLN", "MathLOG", "MathMAX", "MathMEAN", "MathMEDIAN", "MathMIN", "MathMULTREG",
    "MathPOLYREG", "MathROUND", "MathSTDERR", "MathSTDEV", "MathSTDEVS", "MathSUM", "MathVARIANCE",
    "NonLinearRegression", "TransformTrace", "calcSunAngle", "danger", "info", "warning",
)  # fmt: skip
"""What the text defines, in every language; in Python also names that begin with `_`, which a loader leaves out."""


def macros_source(suffix: str) -> str | None:
    """The text that defines `MACRO_NAMES` in the language of a suffix (`.py`, `.js`, `.R`); None if there is none."""
    path = FOLDER / f"macros{suffix}"
    if not path.is_file():
        return None
    text = path.read_text(encoding="utf-8")
    if suffix != ".py":
        return text
    return text + (FOLDER / "curves.py").read_text(encoding="utf-8").partition(PYTHON_BORDER)[2]

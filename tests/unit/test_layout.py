"""The rules of the layout that no linter knows."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from casemate.runtimes.macros import macros_source

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src" / "casemate").rglob("*.py"))
GUEST = [path for path in SOURCES if "guest" in path.parts and path.name != "curves.py"]
MODULE_LINES_MAX = 500
FUNCTION_LINES_MAX = 70


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imported_modules(tree: ast.AST) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0] if node.level == 0 else "a relative import")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_modules_and_functions_stay_short(path: Path) -> None:
    text = path.read_text()
    too_long = [
        f"{node.name} has {node.end_lineno - node.lineno + 1} lines"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno >= FUNCTION_LINES_MAX
    ]
    assert text.count("\n") <= MODULE_LINES_MAX
    assert too_long == []


@pytest.mark.parametrize("path", GUEST, ids=name)
def test_guest_harness_needs_only_the_standard_library(path: Path) -> None:
    assert imported_modules(ast.parse(path.read_text())) <= sys.stdlib_module_names


def test_the_joined_text_of_macros_needs_only_the_standard_library() -> None:
    assert imported_modules(ast.parse(macros_source(".py") or "casemate")) <= sys.stdlib_module_names

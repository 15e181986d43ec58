"""The core knows no language by name: languages are declarations, and nothing below them tells one from another."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from casemate.runtimes.interpreter import ENGINE
from casemate.runtimes.registry import builtin_runtimes

PACKAGE = Path(__file__).parents[2] / "src" / "casemate"
CORE = sorted(
    path for folder in ("engine", "isolation", "kernel", "model") for path in (PACKAGE / folder).rglob("*.py")
)
OTHERS = {
    "cpython",
    "ecmascript",
    "deno",
    "perl",
    "lua",
    "ruby",
    "php",
    "java",
    "julia",
    "golang",
    "rscript",
    "libuv",
    "v8",
}
NOT_LANGUAGES = {
    ENGINE: "stands for the interpreter that runs the engine itself, whichever that is",
    "sh": "the base's own command interpreter, which every system has",
    "shell": "the same",
}
SHORT = 2
"""Shorter names are words and letters of other things; of them only a text that is just the name is looked at."""

ALLOWED = {
    ("model/node.py", "node"): "a machine that runs sandboxes",
    ("isolation/steps.py", "r"): "the letter of a shape in the wire form",
    ("isolation/syscalls.py", "node"): "one node of a machine's memory",
    ("isolation/syscalls.py", "libuv"): "one of the libraries whose way of falling back decides an answer",
}


def names_of_languages() -> set[str]:
    found = set(OTHERS)
    for name, runtime in builtin_runtimes().items():
        found.update(text.lower() for text in (name, *runtime.aliases, *runtime.interpreter, *runtime.extensions))
    return found - set(NOT_LANGUAGES)


NAMES = names_of_languages()
LONG_NAMES = "|".join(re.escape(name) for name in sorted(NAMES) if len(name) > SHORT)
WORDS = re.compile(rf"(?<![a-z0-9])({LONG_NAMES})(?![a-z0-9])")


def named(path: Path) -> Iterator[str]:
    """Languages in code, comments and texts; the shortest names only where a text says nothing else."""
    text = path.read_text()
    for match in WORDS.finditer(text.lower()):
        yield match[1]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.lower() in NAMES:
            yield node.value.lower()


def test_there_is_something_to_look_for_and_something_to_look_at() -> None:
    assert {"python", "javascript", "node", "r", "bash", "js", ".py", "perl"} <= NAMES
    assert len(CORE) > 40


@pytest.mark.parametrize("path", CORE, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_language_is_named_in_the_core(path: Path) -> None:
    place = str(path.relative_to(PACKAGE))
    assert {name for name in named(path) if (place, name) not in ALLOWED} == set()


def test_what_is_allowed_is_really_there() -> None:
    assert {(place, name) for place, name in ALLOWED if name in set(named(PACKAGE / place))} == set(ALLOWED)

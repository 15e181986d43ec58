"""Texts that code must not hold, and how large it may be: against surprises, for the wall is the sandbox.

A pattern is plain text, no regular expression. It is looked for in the whole code, comments and texts included. Its
words are whole words; between a word and a sign there may be blanks in the code; a blank in the pattern stands for one
or more. So `require(` finds `require (` but not `acquire(`. The search takes time in proportion to the code's length.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final

import msgspec

from casemate import service_limits as limits
from casemate.errors import InvalidInput

PREFIX: Final = "Forbidden pattern: "
TOO_LARGE: Final = "Code exceeds size limit"
_JAVASCRIPT: Final = (
    "require(",
    "import ",
    "import(",
    "import{",
    "import*",
    "import'",
    'import"',
    "process.",
    "child_process",
    "__dirname",
    "__filename",
    "eval(",
    "Function(",
    "setTimeout",
    "setInterval",
)
SHIPPED: Final[Mapping[str, tuple[str, ...]]] = {
    "javascript": _JAVASCRIPT,
    "node": _JAVASCRIPT,
    "python": (
        "eval(",
        "exec(",
        "compile(",
        "__import__",
        "__builtins__",
        "__subclasses__",
        "__globals__",
        "import os",
        "from os",
        "import subprocess",
        "from subprocess",
        "import socket",
        "from socket",
        "import ctypes",
        "from ctypes",
    ),
    "r": (
        "system(",
        "system2(",
        "shell(",
        "eval(",
        "parse(",
        "source(",
        "dyn.load(",
        ".Internal(",
        "socketConnection(",
    ),
    "bash": ("eval ", "exec ", "source ", "curl ", "wget ", "sudo ", "/dev/tcp/", "/dev/udp/"),
}
"""What is forbidden in a language where patterns are asked for and none are named."""

_PIECE: Final = re.compile(r"\s+|[\w$]+|[^\w$\s]")
_WORD: Final = re.compile(r"[\w$]")


class Match(msgspec.Struct, frozen=True, kw_only=True):
    """Where a pattern is found first; both count from one."""

    pattern: str
    line: int
    column: int

    @property
    def message(self) -> str:
        return f"{PREFIX}{self.pattern}"


def check_forbidden(patterns: Iterable[Any], *, field: str = "patterns") -> tuple[str, ...]:
    """Patterns as an operator or a caller may give them. Raises InvalidInput."""
    if isinstance(patterns, str):
        raise InvalidInput(field, "must be a list of texts")
    found = tuple(patterns)
    if len(found) > limits.SERVICE_PATTERNS_MAX:
        raise InvalidInput(field, f"more than {limits.SERVICE_PATTERNS_MAX}")
    for pattern in found:
        if not isinstance(pattern, str) or not pattern.strip() or len(pattern) > limits.SERVICE_PATTERN_MAX_CHARS:
            raise InvalidInput(field, f"a pattern is a text of 1 to {limits.SERVICE_PATTERN_MAX_CHARS} characters")
        if not pattern.isprintable():
            raise InvalidInput(field, f"{pattern[:80]!r} has a character that cannot be printed")
    return found


def patterns_for(language: str, wanted: bool | Iterable[str]) -> tuple[str, ...]:  # noqa: FBT001 - as in JSON
    """None, those that are shipped for the language, or those that are given."""
    if isinstance(wanted, bool):
        return SHIPPED.get(language, ()) if wanted else ()
    return check_forbidden(wanted)


def find_forbidden(code: str, patterns: Iterable[str]) -> tuple[Match, ...]:
    """The first place of each pattern that is there, in the order of the code."""
    found = []
    for pattern in patterns:
        place = _compiled(pattern).search(code)
        if place is not None:
            found.append((place.start(), pattern))
    return tuple(_match(code, at, pattern) for at, pattern in sorted(found))


def is_too_large(code: str, max_bytes: int = limits.CODE_MAX_BYTES) -> bool:
    """Whether the code's UTF-8 is longer than that."""
    return len(code) > max_bytes or len(code.encode("utf-8", "surrogatepass")) > max_bytes


def _match(code: str, at: int, pattern: str) -> Match:
    return Match(pattern=pattern, line=code.count("\n", 0, at) + 1, column=at - code.rfind("\n", 0, at))


@lru_cache(maxsize=limits.PATTERNS_COMPILED_MAX)
def _compiled(pattern: str) -> re.Pattern[str]:
    """One way through it, without a choice: so nothing is tried twice at one place."""
    pieces = _PIECE.findall(pattern.lstrip())
    expression = r"(?<![\w$])" if _WORD.match(pieces[0]) else ""
    for before, piece in zip(["", *pieces], pieces, strict=False):
        if piece.isspace():
            expression += r"\s+"
            continue
        if before and not before.isspace() and bool(_WORD.match(before)) != bool(_WORD.match(piece)):
            expression += r"\s*"
        expression += re.escape(piece)
    return re.compile(expression + (r"(?![\w$])" if _WORD.match(pieces[-1]) else ""))

"""Code without what readers do not see: what is removed, transformed and injected, with a report of every change.

No line gets another number, and a second time nothing changes. This is for people who read code, or pass it on; what
code can do is decided by the sandbox.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import Final

import msgspec

from casemate import limits

STRICT_GUARD: Final = '"use strict";'
WITH_STRICT_GUARD: Final = frozenset({"javascript", "node"})
CARRIAGE_RETURN_ENDS_LINE: Final = frozenset({"javascript", "node", "python"})

_BIDI: Final = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_INVISIBLE: Final = "\u00ad\u180e\u200b\u2060-\u2064\ufeff\U000e0000-\U000e007f"
_CONTROL: Final = "\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f"
_REMOVED: Final = re.compile(f"[{_CONTROL}{_BIDI}{_INVISIBLE}]")
_IS_BIDI: Final = re.compile(f"[{_BIDI}]")
_JOINERS: Final = re.compile("(?<=[A-Za-z0-9_$])[\u200c\u200d]+(?=[A-Za-z0-9_$])")
"""Only between letters of names: in emoji and in many scripts they have a meaning."""

_LINE_ENDS: Final = re.compile("\r\n?")
_SEPARATORS: Final = re.compile("[\x0b\x85\u2028\u2029]")
_BLANK_OR_COMMENT: Final = re.compile(r"\s+|//[^\n]*|/\*.*?\*/", re.DOTALL)
_STRICT: Final = re.compile(r"""(["'])use strict\1""")


class ChangeKind(StrEnum):
    """What was done."""

    REMOVED = "removed"
    TRANSFORMED = "transformed"
    INJECTED = "injected"


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One change, and the line where it was made, counted from one."""

    kind: ChangeKind
    line: int
    what: str


class Sanitized(msgspec.Struct, frozen=True, kw_only=True):
    """The code as it is to be run, and what is different in it. `changes` are the first of `changes_total`."""

    code: str
    changes: tuple[Change, ...] = ()
    changes_total: int = 0


class _Report:
    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.total = 0

    def add(self, kind: ChangeKind, line: int, what: str) -> None:
        self.total += 1
        if len(self.changes) < limits.CHANGES_MAX:
            self.changes.append(Change(kind=kind, line=line, what=what))


def sanitize(code: str, language: str) -> Sanitized:
    """The code of a language without unsafe characters, with plain line ends, and with the language's guard."""
    report = _Report()
    code = _replaced(code, _LINE_ENDS, lambda text: _line_end(text, language), ChangeKind.TRANSFORMED, report)
    code = _replaced(code, _SEPARATORS, lambda text: (" ", f"{_name(text)} to a blank"), ChangeKind.TRANSFORMED, report)
    code = _replaced(code, _REMOVED, lambda text: ("", _name(text)), ChangeKind.REMOVED, report)
    code = _replaced(code, _JOINERS, lambda text: ("", _name(text)), ChangeKind.REMOVED, report)
    if language in WITH_STRICT_GUARD:
        code = _guarded(code, report)
    return Sanitized(code=code, changes=tuple(report.changes), changes_total=report.total)


def _replaced(
    code: str, wanted: re.Pattern[str], change: Callable[[str], tuple[str, str]], kind: ChangeKind, report: _Report
) -> str:
    """Every place replaced by what `change` says, and reported with the line that it has in the result."""
    pieces, end, line = [], 0, 1
    for place in wanted.finditer(code):
        put, what = change(place[0])
        kept = code[end : place.start()]
        line += kept.count("\n")
        report.add(kind, line, what)
        line += put.count("\n")
        pieces += [kept, put]
        end = place.end()
    return "".join([*pieces, code[end:]])


def _line_end(text: str, language: str) -> tuple[str, str]:
    """A lone carriage return is the end of a line only for some languages; elsewhere one would come to be."""
    if text == "\r" and language not in CARRIAGE_RETURN_ENDS_LINE:
        return " ", "CARRIAGE RETURN to a blank"
    return "\n", f"{'CR LF' if len(text) > 1 else 'CR'} to LF"


def _name(text: str) -> str:
    """What it is, and its number: its kind says more than the name that Unicode gives it."""
    char = text[0]
    if char == "\ufeff":
        kind = "byte order mark"
    elif _IS_BIDI.match(char):
        kind = "bidirectional control"
    else:
        kind = "control character" if unicodedata.category(char) == "Cc" else "invisible character"
    return f"{kind} U+{ord(char):04X}"


def _guarded(code: str, report: _Report) -> str:
    """Strict mode, at the beginning of the first line that is no `#!` line: none of the others moves."""
    start = code.find("\n") + 1 if code.startswith("#!") else 0
    if (code.startswith("#!") and start == 0) or _STRICT.match(code, _after_comments(code, start)):
        return code
    report.add(ChangeKind.INJECTED, code.count("\n", 0, start) + 1, STRICT_GUARD)
    return code[:start] + STRICT_GUARD + code[start:]


def _after_comments(code: str, start: int) -> int:
    at = start
    while (skipped := _BLANK_OR_COMMENT.match(code, at)) is not None:
        at = skipped.end()
    return at


def as_document(changes: Iterable[Change]) -> list[dict[str, str | int]]:
    """The changes for JSON."""
    return [{"kind": each.kind.value, "line": each.line, "what": each.what} for each in changes]

"""From the options of a command to what the engine is asked: limits, files, environment, input."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from casemate import limits as bound
from casemate.cli.arguments import Parsed
from casemate.cli.commands import LIMIT_KEYS
from casemate.errors import InvalidInput
from casemate.model.result import JsonValue

STDIN: Final = "-"


def limits_of(parsed: Parsed) -> dict[str, str]:
    """The limits that were given, by their names in the engine."""
    given = {name: parsed.one(key) for key, name in LIMIT_KEYS.items()}
    return {name: value for name, value in given.items() if value is not None}


def files_of(parsed: Parsed) -> dict[str, Path]:
    """Files to place: `SRC` keeps its name, `SRC:DST` goes to DST; the last colon divides."""
    found: dict[str, Path] = {}
    for word in parsed.all("file"):
        source, _, target = word.rpartition(":") if ":" in word else (word, "", "")
        if not source:
            raise InvalidInput("file", f"{word[:80]!r} names no file", hint="write it as SRC or SRC:DST")
        inside = _inside(source, target)
        if inside in found:
            raise InvalidInput("file", f"two files go to {inside[:80]!r}")
        found[inside] = Path(source)
    return found


def _inside(source: str, target: str) -> str:
    name = Path(source).name
    return target + name if target.endswith("/") else target or name


def environment_of(parsed: Parsed, ours: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Variables to set: `NAME=VALUE`, or `NAME` alone for the value that it has here."""
    found = {}
    for word in parsed.all("env"):
        name, equals, value = word.partition("=")
        if not equals and name not in ours:
            raise InvalidInput("env", f"{name[:80]!r} is not set here", hint="write it as NAME=VALUE")
        found[name] = value if equals else ours[name]
    return found


def input_of(text: str) -> JsonValue:
    """The value of `--input`: JSON text, @FILE, or - for stdin."""
    data = text.encode(errors="surrogateescape")
    if text == STDIN:
        data = sys.stdin.buffer.read(bound.INPUT_MAX_BYTES + 1)
    elif text.startswith("@"):
        data = read_file(text[1:], bound.INPUT_MAX_BYTES, field="input")
    if len(data) > bound.INPUT_MAX_BYTES:
        raise InvalidInput("input", f"is over the limit of {bound.INPUT_MAX_BYTES} bytes")
    try:
        value: JsonValue = msgspec.json.decode(data)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        hint = "text needs quotes of its own: '\"text\"'; @FILE reads a file, - reads stdin"
        raise InvalidInput("input", f"is no valid JSON: {error}", hint=hint) from error
    return value


def read_file(path: str, max_bytes: int, *, field: str) -> bytes:
    """A file of the caller's, up to one byte more than the bound. Raises InvalidInput."""
    try:
        with Path(path).open("rb") as file:
            return file.read(max_bytes + 1)
    except OSError as error:
        raise InvalidInput(field, f"cannot read {path[:200]!r}: {error.strerror}") from error
    except ValueError as error:
        raise InvalidInput(field, f"cannot read {path[:200]!r}: {error}") from error


def stdin_of(*, taken: bool) -> int | None:
    """Our stdin for the program, unless it is a terminal, closed, or used for the code or the input."""
    if taken:
        return None
    try:
        mode = os.fstat(0).st_mode
    except OSError:
        return None
    if stat.S_ISDIR(mode):
        raise InvalidInput("stdin", "is a directory")
    return None if os.isatty(0) else 0

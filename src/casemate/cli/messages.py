"""What the command line says: results and tables to stdout, words about them to stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Final

from casemate.errors import FileTransferError

PROGRAM: Final = "casemate"


def show(lines: Iterable[str]) -> None:
    """Lines on stdout, at once. Raises BrokenPipeError, or FileTransferError if they cannot be written."""
    try:
        sys.stdout.write("".join(f"{line}\n" for line in lines))
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise FileTransferError(f"stdout: {error.strerror}") from error


def say(text: str) -> None:
    """One line on stderr."""
    sys.stderr.write(f"{PROGRAM}: {text}\n")


def say_hint(text: str) -> None:
    """What to do about it."""
    sys.stderr.write(f"hint: {text}\n")


def show_json(value: object) -> None:
    """One JSON document on stdout, on one line unless a person looks at it."""
    from msgspec import json

    text = json.encode(value)
    show([(json.format(text, indent=2) if sys.stdout.isatty() else text).decode()])


def quoted(name: str, most: int = 500) -> str:
    """A guest's file name on one line of a terminal; names that differ look different."""
    return repr(name)[:most]


def printable(text: str, most: int = 500) -> str:
    """Text of a guest on one line of a terminal: nothing in it moves a cursor."""
    return " ".join("".join(c if c.isprintable() or c.isspace() else "\ufffd" for c in text).split())[:most]

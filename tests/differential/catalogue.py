"""The programs that are run natively and in the sandbox: data in `programs/LANGUAGE/*.txt`.

A line `#--- NAME {OPTIONS}` begins a program, which goes on to the next such line. OPTIONS is JSON and may be left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

PROGRAMS: Final = Path(__file__).parent / "programs"
HEADING: Final = re.compile(r"^#--- (\w+)(?: (\{.*\}))?\n", re.MULTILINE)


class Program(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One program and its world. `line_end` replaces the line feeds of the code."""

    language: str = ""
    topic: str = ""
    name: str = ""
    code: str = ""
    filename: str | None = None
    args: tuple[str, ...] = ()
    env: dict[str, str] = {}
    stdin: str | None = None
    files: dict[str, str] = {}
    line_end: str = "\n"

    def __str__(self) -> str:
        return f"{self.language}-{self.topic}-{self.name}"


def languages() -> tuple[str, ...]:
    return tuple(sorted(folder.name for folder in PROGRAMS.iterdir()))


def programs(language: str) -> tuple[Program, ...]:
    """Every program of a language. Their names are unique."""
    found = [each for file in sorted((PROGRAMS / language).glob("*.txt")) for each in _of_file(language, file)]
    names = [each.name for each in found]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"{language}: two programs are named {', '.join(sorted(twice))}")
    return tuple(found)


def _of_file(language: str, file: Path) -> Iterator[Program]:
    _, *parts = HEADING.split(file.read_bytes().decode())
    for name, options, code in zip(parts[0::3], parts[1::3], parts[2::3], strict=True):
        described = msgspec.json.decode(options or "{}", type=Program)
        text = code.replace("\n", described.line_end)
        yield msgspec.structs.replace(described, language=language, topic=file.stem, name=name, code=text)

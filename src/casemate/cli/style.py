"""How output looks: colours where somebody sees them, columns that fit."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Final, TextIO

import msgspec

WIDTH_MAX: Final = 100
WIDTH_MIN: Final = 40
GAP: Final = "  "
COLUMN_MIN: Final = 20
_CODES: Final = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}


class Style(msgspec.Struct, frozen=True, kw_only=True):
    """What a place of output can show."""

    colour: bool = False
    unicode: bool = True
    width: int = 80

    def paint(self, text: str, *kinds: str) -> str:
        """The text in one or more of: bold, dim, red, green, yellow, cyan."""
        if not self.colour or not text:
            return text
        return f"\x1b[{';'.join(_CODES[kind] for kind in kinds)}m{text}\x1b[0m"

    def mark(self, *, good: bool | None) -> str:
        """A tick, a cross, or a dash for what is neither."""
        if good is None:
            return self.paint("\u2013" if self.unicode else "-", "dim")
        if good:
            return self.paint("✓" if self.unicode else "+", "green")
        return self.paint("✗" if self.unicode else "x", "red", "bold")


def style_for(file: TextIO, environment: Mapping[str, str] = os.environ) -> Style:
    """The style of a file: colours only on a terminal, and never with NO_COLOR."""
    terminal = file.isatty()
    plain = bool(environment.get("NO_COLOR")) or environment.get("TERM") == "dumb"
    encoding = (file.encoding or "").lower().replace("-", "")
    return Style(colour=terminal and not plain, unicode=encoding == "utf8", width=_width(file if terminal else None))


def _width(terminal: TextIO | None) -> int:
    try:
        columns = os.get_terminal_size(terminal.fileno()).columns if terminal else 0
    except OSError:
        columns = 0
    return max(WIDTH_MIN, min(WIDTH_MAX, columns or 80))


def columns_of(text: str) -> int:
    """How wide a text is on a terminal; escape sequences of ours take no place."""
    width = 0
    inside = False
    for character in text:
        if inside or character == "\x1b":
            inside = character != "m"
        elif not unicodedata.combining(character):
            width += 2 if unicodedata.east_asian_width(character) in "WF" else 1
    return width


def pad(text: str, width: int) -> str:
    """The text with spaces up to a width."""
    return text + " " * (width - columns_of(text))


def wrap(text: str, width: int) -> list[str]:
    """Lines of at most `width` columns, broken between words; a longer word stands alone."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".lstrip()
        if columns_of(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def hang(head: str, text: str, *, indent: int, width: int) -> list[str]:
    """A head and a text beside it that is wrapped below itself; a head that is too wide gets its own line."""
    lines = wrap(text, max(COLUMN_MIN, width - indent))
    first = head
    if columns_of(head) + len(GAP) > indent:
        return [head, *(" " * indent + line for line in lines)]
    return [(pad(first, indent) + lines[0]).rstrip(), *(" " * indent + line for line in lines[1:])]


def row(cells: Sequence[str], widths: Sequence[int]) -> list[str]:
    """Cells beside each other, each wrapped within its own column."""
    wrapped = [wrap(cell, width) for cell, width in zip(cells, widths, strict=True)]
    lines = []
    for at in range(max(map(len, wrapped))):
        parts = [column[at] if at < len(column) else "" for column in wrapped]
        lines.append(GAP.join(pad(part, width) for part, width in zip(parts, widths, strict=True)).rstrip())
    return lines


def table(style: Style, head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as their cells; the last one is wrapped into what is left of the width."""
    widths = [max(columns_of(cells[at]) for cells in [head, *rows]) for at in range(len(head) - 1)]
    left = style.width - sum(widths) - len(GAP) * len(widths)
    titles = [style.paint(title, "bold") for title in head]
    return [line for cells in [titles, *rows] for line in row(cells, [*widths, max(COLUMN_MIN, left)])]

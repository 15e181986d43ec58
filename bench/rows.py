"""One line of the report each: what was measured, what was asked for, and whether that is met."""

from __future__ import annotations

from typing import Final

import msgspec

WIDTH: Final = 58


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A measured value with its unit. `bound` is the most that was asked for; None: only for comparison.

    `more` are other numbers of the same measurement, by names that end in their units.
    """

    group: str
    name: str
    value: float
    unit: str
    bound: float | None = None
    note: str = ""
    more: dict[str, float] = {}

    @property
    def met(self) -> bool | None:
        return None if self.bound is None else self.value <= self.bound


def text(row: Row) -> str:
    """One line of the table."""
    value = f"{row.value:10.2f} {row.unit:<7}"
    asked = "" if row.bound is None else f"≤ {row.bound:g} {row.unit}".ljust(16) + ("met" if row.met else "NOT MET")
    told = [row.note, *(f"{name} {number:.4g}" for name, number in row.more.items())]
    note = f"  ({', '.join(each for each in told if each)})" if any(told) else ""
    return f"  {row.name:<{WIDTH}} {value} {asked}{note}".rstrip()


def table(rows: list[Row]) -> str:
    """All lines under the names of their groups."""
    lines: list[str] = []
    group = ""
    for row in rows:
        if row.group != group:
            group = row.group
            lines += ["", group]
        lines.append(text(row))
    return "\n".join(lines)


def as_json(rows: list[Row]) -> bytes:
    """The same as data."""
    return msgspec.json.format(msgspec.json.encode([{**msgspec.to_builtins(row), "met": row.met} for row in rows]))

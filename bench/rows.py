"""One line of the report each: what was measured, what was asked for, and whether that is met."""

from __future__ import annotations

from typing import Final

import msgspec

WIDTH: Final = 58


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A measured value with its unit. `bound` is the most that was asked for; None: only for comparison."""

    group: str
    name: str
    value: float
    unit: str
    bound: float | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        return None if self.bound is None else self.value <= self.bound


def text(row: Row) -> str:
    """One line of the table."""
    value = f"{row.value:10.2f} {row.unit:<7}"
    asked = "" if row.bound is None else f"≤ {row.bound:g} {row.unit}".ljust(16) + ("met" if row.met else "NOT MET")
    note = f"  ({row.note})" if row.note else ""
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

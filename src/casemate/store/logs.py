"""What functions print: lines of logs, each with the call that it came from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import ColumnElement, Connection, delete, insert, select

from casemate.errors import InvalidInput
from casemate.service_limits import (
    FUNCTION_LOG_TEXT_MAX_CHARS,
    ITEM_ID_MAX_CHARS,
    LOG_LINES_A_WRITE_MAX,
    PAGE_DEFAULT_COUNT,
    SWEEP_MAX_COUNT,
)
from casemate.store.pages import Page, check_limit, cursor_of, place_of
from casemate.store.schema import function_logs as table
from casemate.store.schema import tenants

STDOUT: Final = "stdout"
STDERR: Final = "stderr"


class NewLine(msgspec.Struct, frozen=True, kw_only=True):
    """What is written down. Its text is cut to FUNCTION_LOG_TEXT_MAX_CHARS."""

    tenant_id: str
    runtime: str
    function: str
    execution_id: str
    stream: str
    text: str
    at_us: int
    version: int | None = None
    item_id: str = ""


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One line. Ids grow in the order in which lines were written down."""

    id: int
    tenant_id: str
    runtime: str
    function: str
    version: int | None
    execution_id: str
    item_id: str
    stream: str
    text: str
    at_us: int


class Filters(msgspec.Struct, frozen=True, kw_only=True):
    """What a list is narrowed to: `since_us` ≤ time < `until_us`."""

    function: str | None = None
    runtime: str | None = None
    execution_id: str | None = None
    version: int | None = None
    stream: str | None = None
    since_us: int | None = None
    until_us: int | None = None


EVERY: Final = Filters()
_LINE: Final = "line"
"""Says of a cursor which list it belongs to."""


def insert_lines(connection: Connection, lines: Sequence[NewLine]) -> None:
    """Write down many at once, except those of tenants that are gone. Raises InvalidInput for too many."""
    if len(lines) > LOG_LINES_A_WRITE_MAX:
        raise InvalidInput("lines", f"more than {LOG_LINES_A_WRITE_MAX} at once")
    owners = select(tenants.c.id).where(tenants.c.id.in_({line.tenant_id for line in lines}))
    there = set(connection.execute(owners).scalars())
    rows = [_row(line) for line in lines if line.tenant_id in there]
    if rows:
        connection.execute(insert(table), rows)


def list_lines(
    connection: Connection,
    tenant_id: str,
    filters: Filters = EVERY,
    *,
    limit: int = PAGE_DEFAULT_COUNT,
    cursor: str | None = None,
) -> Page[Line]:
    """A tenant's lines, the last first."""
    query = select(table).where(table.c.tenant_id == tenant_id, *_matching(filters))
    if cursor is not None:
        query = query.where(table.c.id < _place_of(cursor))
    found = connection.execute(query.order_by(table.c.id.desc()).limit(check_limit(limit) + 1)).mappings()
    rows = [Line(**row) for row in found]
    following = cursor_of(rows[limit - 1].id, _LINE) if len(rows) > limit else None
    return Page(items=tuple(rows[:limit]), next_cursor=following)


def sweep(connection: Connection, *, before_us: int) -> int:
    """Delete some that were written before that time, and say how many; 0: there are no more."""
    old = select(table.c.id).where(table.c.at_us < before_us).limit(SWEEP_MAX_COUNT)
    return connection.execute(delete(table).where(table.c.id.in_(old.scalar_subquery()))).rowcount


def _place_of(cursor: str) -> int:
    number, kind = place_of(cursor)
    if kind != _LINE:
        raise InvalidInput("cursor", "is none that this list has given")
    return number


def _row(line: NewLine) -> dict[str, Any]:
    text = _storable(line.text[:FUNCTION_LOG_TEXT_MAX_CHARS])
    return msgspec.structs.asdict(line) | {"text": text, "item_id": _storable(line.item_id[:ITEM_ID_MAX_CHARS])}


def _storable(text: str) -> str:
    """Programs print halves of characters and zeros, too, which no database takes."""
    return text.encode(errors="replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")


def _matching(filters: Filters) -> list[ColumnElement[bool]]:
    wanted = msgspec.structs.asdict(filters)
    since, until = wanted.pop("since_us"), wanted.pop("until_us")
    exact = [table.c[name] == value for name, value in wanted.items() if value is not None]
    after = [] if since is None else [table.c.at_us >= since]
    before = [] if until is None else [table.c.at_us < until]
    return [*exact, *after, *before]

"""What sandboxes have tried to reach: one row an attempt, with what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import ColumnElement, Connection, delete, func, insert, select

from casemate import network_limits as bound
from casemate.errors import InvalidInput
from casemate.model.flow import Flow
from casemate.model.units import SECOND_US
from casemate.service_limits import PAGE_DEFAULT_COUNT
from casemate.store.pages import Page, check_limit, cursor_of, place_of
from casemate.store.schema import flows as table
from casemate.store.schema import tenants

_FLOW: Final = "flow"
"""Says of a cursor which list it belongs to."""


class NewFlow(msgspec.Struct, frozen=True, kw_only=True):
    """What is written down of an attempt, and whose it was."""

    tenant_id: str
    job_id: str
    attempt: int
    flow: Flow


class StoredFlow(msgspec.Struct, frozen=True, kw_only=True):
    """One row. Ids grow in the order in which flows were written down."""

    id: int
    tenant_id: str
    job_id: str
    attempt: int
    at_us: int
    host: str
    port: int
    address: str
    protocol: str
    allowed: bool
    reason: str
    problem: str
    sent_bytes: int
    received_bytes: int
    wall_us: int


class Filters(msgspec.Struct, frozen=True, kw_only=True):
    """What a list is narrowed to: `since_us` ≤ time < `until_us`."""

    job_id: str | None = None
    host: str | None = None
    allowed: bool | None = None
    since_us: int | None = None
    until_us: int | None = None


EVERY: Final = Filters()


def insert_flows(connection: Connection, new: Sequence[NewFlow]) -> None:
    """Write down many at once, except those of tenants that are gone."""
    assert len(new) <= bound.FLOWS_A_WRITE_MAX  # noqa: S101
    owners = select(tenants.c.id).where(tenants.c.id.in_({each.tenant_id for each in new}))
    there = set(connection.execute(owners).scalars())
    rows = [_row(each) for each in new if each.tenant_id in there]
    if rows:
        connection.execute(insert(table), rows)


def list_flows(
    connection: Connection,
    tenant_id: str,
    filters: Filters = EVERY,
    *,
    limit: int = PAGE_DEFAULT_COUNT,
    cursor: str | None = None,
) -> Page[StoredFlow]:
    """A tenant's flows, the last first."""
    query = select(table).where(table.c.tenant_id == tenant_id, *_matching(filters))
    if cursor is not None:
        query = query.where(table.c.id < _place_of(cursor))
    found = connection.execute(query.order_by(table.c.id.desc()).limit(check_limit(limit) + 1)).mappings()
    rows = [StoredFlow(**row) for row in found]
    following = cursor_of(rows[limit - 1].id, _FLOW) if len(rows) > limit else None
    return Page(items=tuple(rows[:limit]), next_cursor=following)


def flows_after(
    connection: Connection, tenant_id: str, filters: Filters, *, after_id: int, limit: int
) -> list[StoredFlow]:
    """A tenant's flows after that one, in their order."""
    query = select(table).where(table.c.tenant_id == tenant_id, table.c.id > after_id, *_matching(filters))
    return [StoredFlow(**row) for row in connection.execute(query.order_by(table.c.id).limit(limit)).mappings()]


def last_id(connection: Connection) -> int:
    """After which flow those come that are written down from now on."""
    return int(connection.execute(select(func.coalesce(func.max(table.c.id), 0))).scalar_one())


def sweep(connection: Connection, *, before_us: int) -> int:
    """Delete some that began before that time, and say how many; 0: there are no more."""
    old = select(table.c.id).where(table.c.at_us < before_us).limit(bound.FLOW_SWEEP_MAX_COUNT)
    return connection.execute(delete(table).where(table.c.id.in_(old.scalar_subquery()))).rowcount


def _place_of(cursor: str) -> int:
    number, kind = place_of(cursor)
    if kind != _FLOW:
        raise InvalidInput("cursor", "is none that this list has given")
    return number


def _row(new: NewFlow) -> dict[str, Any]:
    flow = new.flow
    return {
        "tenant_id": new.tenant_id,
        "job_id": new.job_id,
        "attempt": new.attempt,
        "at_us": flow.at_us,
        "host": _storable(flow.host, bound.HOST_MAX_CHARS),
        "port": flow.port,
        "address": _storable(flow.address, bound.FLOW_WORD_MAX_CHARS),
        "protocol": _storable(flow.protocol, bound.FLOW_WORD_MAX_CHARS),
        "allowed": flow.allowed,
        "reason": _storable(flow.reason, bound.FLOW_WORD_MAX_CHARS),
        "problem": _storable(flow.problem, bound.FLOW_PROBLEM_MAX_CHARS),
        "sent_bytes": flow.sent_bytes,
        "received_bytes": flow.received_bytes,
        "wall_us": int(flow.wall_s * SECOND_US),
    }


def _storable(text: str, most: int) -> str:
    """A guest has had its part in it: halves of characters and zeros are what no database takes."""
    return text[:most].encode(errors="replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")


def _matching(filters: Filters) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if filters.job_id is not None:
        found.append(table.c.job_id == filters.job_id)
    if filters.host is not None:
        found.append(table.c.host == filters.host)
    if filters.allowed is not None:
        found.append(table.c.allowed.is_(filters.allowed))
    if filters.since_us is not None:
        found.append(table.c.at_us >= filters.since_us)
    if filters.until_us is not None:
        found.append(table.c.at_us < filters.until_us)
    return found

"""Schedules of jobs, as rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, delete, func, insert, select, update

from casemate.errors import NotFound, TooManyRequests
from casemate.model.job import JobSpec
from casemate.service_limits import PAGE_DEFAULT_COUNT
from casemate.store.pages import Page, newest_first, page_of
from casemate.store.schema import schedules as table

_SPEC: Final = msgspec.json.Decoder(JobSpec)
_RETRY_S: Final = 60.0
_BY_ID: Final = "it is found by its id, not by its name"


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """A job that is made again and again. `next_us`: when next; None: never again.

    `refused_…`: the last time at which no job could be made, why, and how often that was.
    """

    id: str
    tenant_id: str
    key_id: str
    name: str
    cron: str
    zone: str
    missed: str
    spec: JobSpec
    is_paused: bool = False
    created_us: int = 0
    next_us: int | None = None
    last_us: int | None = None
    last_job_id: str = ""
    refused_us: int | None = None
    refused_why: str = ""
    refused_count: int = 0


def insert_schedule(connection: Connection, row: Schedule, *, most: int) -> None:
    """Add one. Raises TooManyRequests where the tenant has so many."""
    count = connection.execute(select(func.count()).where(table.c.tenant_id == row.tenant_id)).scalar_one()
    if count >= most:
        raise TooManyRequests(f"this tenant has {most} schedules already", retry_after_s=_RETRY_S)
    connection.execute(insert(table), _row(row))


def get(connection: Connection, tenant_id: str, schedule_id: str, *, to_change: bool = False) -> Schedule:
    """One; if it is to be changed, until the end of the transaction for us alone. Raises NotFound."""
    query = select(table).where(table.c.tenant_id == tenant_id, table.c.id == schedule_id)
    row = connection.execute(query.with_for_update() if to_change else query).mappings().one_or_none()
    if row is None:
        raise NotFound(f"there is no schedule {schedule_id!r}", hint=_BY_ID)
    return _schedule(row)


def list_schedules(
    connection: Connection, tenant_id: str, *, limit: int = PAGE_DEFAULT_COUNT, cursor: str | None = None
) -> Page[Schedule]:
    """Newest first."""
    query = newest_first(select(table).where(table.c.tenant_id == tenant_id), table, limit=limit, cursor=cursor)
    found = [_schedule(row) for row in connection.execute(query).mappings()]
    return page_of(found, limit, [(each.created_us, each.id) for each in found])


def put(connection: Connection, row: Schedule) -> None:
    """Write it as it is now."""
    connection.execute(update(table).where(table.c.id == row.id).values(_row(row)))


def remove(connection: Connection, tenant_id: str, schedule_id: str) -> None:
    """Delete it; its jobs stay. Raises NotFound."""
    gone = connection.execute(delete(table).where(table.c.tenant_id == tenant_id, table.c.id == schedule_id))
    if not gone.rowcount:
        raise NotFound(f"there is no schedule {schedule_id!r}", hint=_BY_ID)


def due(connection: Connection, *, at_us: int, limit: int) -> list[Schedule]:
    """Some whose time has come, until the end of the transaction for us alone."""
    query = (
        select(table)
        .where(table.c.next_us <= at_us, table.c.is_paused.is_(False))
        .order_by(table.c.next_us)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return [_schedule(row) for row in connection.execute(query).mappings()]


def next_due_us(connection: Connection) -> int | None:
    """When the first of all is due."""
    found: int | None = connection.execute(
        select(func.min(table.c.next_us)).where(table.c.is_paused.is_(False))
    ).scalar()
    return found


def _row(row: Schedule) -> dict[str, Any]:
    return {**msgspec.structs.asdict(row), "spec": msgspec.json.encode(row.spec)}


def _schedule(row: Mapping[Any, Any]) -> Schedule:
    return Schedule(**{**row, "spec": _SPEC.decode(row["spec"])})

"""Executions: every run of code, of a function, of a batch; recorded before it starts, ended exactly once.

Every statement takes the tenant whose executions it is about; None means all tenants, for the operator's eyes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from sqlalchemy import BigInteger, ColumnElement, Connection, bindparam, delete, func, insert, select, update

from casemate.errors import NotFound
from casemate.service_limits import PAGE_DEFAULT_COUNT, PRIORITY_DEFAULT, STATISTICS_ROWS_MAX, SWEEP_MAX_COUNT
from casemate.store.pages import Page, has_labels, newest_first, page_of
from casemate.store.schema import executions as table

QUEUED: Final = "queued"
RUNNING: Final = "running"
ENDED: Final = "ended"
LOST: Final = "lost"
FAILED: Final = "failed"


class Execution(msgspec.Struct, frozen=True, kw_only=True):
    """One row. `spec` and `result` are bytes that only the caller reads; lists leave them out."""

    id: str
    tenant_id: str
    key_id: str
    kind: str
    runtime: str
    created_us: int
    epoch: int
    function: str = ""
    version: int | None = None
    priority: int = PRIORITY_DEFAULT
    state: str = QUEUED
    status: str | None = None
    reason: str | None = None
    labels: dict[str, str] = {}
    request_id: str = ""
    started_us: int | None = None
    ended_us: int | None = None
    wall_us: int | None = None
    cpu_us: int | None = None
    memory_peak_bytes: int | None = None
    error_category: str | None = None
    spec: bytes | None = None
    result: bytes | None = None


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """How an execution ended."""

    status: str
    reason: str
    ended_us: int
    wall_us: int | None = None
    cpu_us: int | None = None
    memory_peak_bytes: int | None = None
    error_category: str | None = None
    result: bytes | None = None


class Filters(msgspec.Struct, frozen=True, kw_only=True):
    """What a list is narrowed to. Times are those at which executions were accepted: `since` ≤ time < `until`."""

    state: str | None = None
    status: str | None = None
    reason: str | None = None
    kind: str | None = None
    runtime: str | None = None
    function: str | None = None
    key_id: str | None = None
    labels: dict[str, str] = {}
    since_us: int | None = None
    until_us: int | None = None


EVERY: Final = Filters()


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What statistics are made of: one ended execution."""

    tenant_id: str
    kind: str
    runtime: str
    function: str
    status: str
    reason: str
    created_us: int
    started_us: int | None
    ended_us: int
    wall_us: int | None
    cpu_us: int | None
    memory_peak_bytes: int | None
    error_category: str | None


class Lost(msgspec.Struct, frozen=True, kw_only=True):
    """An execution that had not ended when its service did."""

    id: str
    tenant_id: str


_LISTED: Final = [column for column in table.c if column.name not in {"spec", "result"}]
# What every execution needs is put together once: that takes longer than carrying it out.
_THIS: Final = (table.c.id == bindparam("of_id"), table.c.tenant_id == bindparam("of_tenant"))
_INSERT: Final = insert(table)
_START: Final = (
    update(table).where(*_THIS, table.c.state == QUEUED).values(state=RUNNING, started_us=bindparam("started_us"))
)
_END: Final = (
    update(table)
    .where(*_THIS, table.c.state != ENDED)
    .values(
        state=ENDED,
        started_us=func.coalesce(table.c.started_us, bindparam("began_us", type_=BigInteger)),
        **{name: bindparam(name) for name in Ending.__struct_fields__},
    )
)
_MEASURED: Final = [table.c[name] for name in Measured.__struct_fields__]


def insert_execution(connection: Connection, execution: Execution) -> None:
    """Accept an execution. From here on it has an end, whatever happens."""
    connection.execute(_INSERT, msgspec.structs.asdict(execution))


def start(connection: Connection, tenant_id: str, execution_id: str, *, at_us: int) -> bool:
    """Note that it runs. False if it has ended already, or runs."""
    values = {"of_tenant": tenant_id, "of_id": execution_id, "started_us": at_us}
    return connection.execute(_START, values).rowcount == 1


def end(
    connection: Connection, tenant_id: str, execution_id: str, ending: Ending, *, started_us: int | None = None
) -> bool:
    """Note how it ended, and when it began if that is not noted yet.

    False if it has ended already: the first end counts.
    """
    values = {"of_tenant": tenant_id, "of_id": execution_id, "began_us": started_us, **msgspec.structs.asdict(ending)}
    return connection.execute(_END, values).rowcount == 1


def get(connection: Connection, tenant_id: str | None, execution_id: str) -> Execution:
    """One, with all of it. Raises NotFound, also for another tenant's."""
    row = connection.execute(select(table).where(*_one(tenant_id, execution_id))).mappings().one_or_none()
    if row is None:
        raise NotFound(f"there is no execution {execution_id!r}")
    return Execution(**row)


def list_executions(
    connection: Connection,
    tenant_id: str | None,
    filters: Filters = EVERY,
    *,
    limit: int = PAGE_DEFAULT_COUNT,
    cursor: str | None = None,
) -> Page[Execution]:
    """Newest first, without `spec` and `result`."""
    query = newest_first(
        select(*_LISTED).where(*_of(tenant_id), *_matching(filters)), table, limit=limit, cursor=cursor
    )
    rows = [Execution(**row) for row in connection.execute(query).mappings()]
    return page_of(rows, limit, [(row.created_us, row.id) for row in rows])


def unfinished(connection: Connection, tenant_id: str | None) -> int:
    """How many have not ended."""
    query = select(func.count()).select_from(table).where(table.c.state != ENDED, *_of(tenant_id))
    return connection.execute(query).scalar_one()


def mark_lost(connection: Connection, *, epoch: int, at_us: int, result: bytes | None = None) -> tuple[Lost, ...]:
    """End those that a service of another epoch has left behind, and say which they were.

    Of another and not of an earlier: a clock that was set back must not leave any without an end.
    """
    abandoned = [table.c.state != ENDED, table.c.epoch != epoch]
    rows = connection.execute(select(table.c.id, table.c.tenant_id).where(*abandoned)).all()
    ending = Ending(status=FAILED, reason=LOST, ended_us=at_us, error_category=LOST, result=result)
    connection.execute(update(table).where(*abandoned).values(state=ENDED, **msgspec.structs.asdict(ending)))
    return tuple(Lost(id=row.id, tenant_id=row.tenant_id) for row in rows)


def statistics_rows(
    connection: Connection,
    tenant_id: str | None,
    *,
    since_us: int,
    until_us: int,
    limit: int = STATISTICS_ROWS_MAX,
) -> tuple[Measured, ...]:
    """Executions that ended in a time range, the latest first; no more than `limit` of them."""
    in_range = (table.c.ended_us >= since_us, table.c.ended_us < until_us)
    query = select(*_MEASURED).where(*_of(tenant_id), *in_range).order_by(table.c.ended_us.desc()).limit(limit)
    return tuple(Measured(**row) for row in connection.execute(query).mappings())


def delete_older(connection: Connection, tenant_id: str | None, *, ended_before_us: int) -> int:
    """Delete some that ended before that time, and say how many; 0: there are no more."""
    old = select(table.c.id).where(*_of(tenant_id), table.c.ended_us < ended_before_us).limit(SWEEP_MAX_COUNT)
    return connection.execute(delete(table).where(table.c.id.in_(old.scalar_subquery()))).rowcount


# Conditions ---------------------------------------------------------------------------------------


def _of(tenant_id: str | None) -> list[ColumnElement[bool]]:
    return [] if tenant_id is None else [table.c.tenant_id == tenant_id]


def _one(tenant_id: str | None, execution_id: str) -> list[ColumnElement[bool]]:
    return [table.c.id == execution_id, *_of(tenant_id)]


def _matching(filters: Filters) -> list[ColumnElement[bool]]:
    wanted: Mapping[str, Any] = msgspec.structs.asdict(filters)
    exact = [
        table.c[name] == wanted[name]
        for name in ("state", "status", "reason", "kind", "runtime", "function", "key_id")
        if wanted[name] is not None
    ]
    since = [] if filters.since_us is None else [table.c.created_us >= filters.since_us]
    until = [] if filters.until_us is None else [table.c.created_us < filters.until_us]
    return [*exact, *since, *until, *has_labels(table, filters.labels)]

"""What moves jobs through their queue, as statements. Each function is a part of one transaction.

How many of a tenant's jobs stand where is counted in a row of its own, which changes in the same transaction as they:
so nothing here takes longer because many are waiting.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import BigInteger, ColumnElement, Connection, bindparam, case, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from casemate.errors import Conflict, NotFound, TooManyRequests
from casemate.job_limits import DUE_MAX, EXPIRED_MAX, QUEUE_RETRY_S
from casemate.model.job import Job, Standing
from casemate.store import settings
from casemate.store.dialect import dialect_of
from casemate.store.jobs import MOVED, insert_transitions, job_of, row_of
from casemate.store.prepared import Prepared
from casemate.store.schema import JOB_IS_DELAYED, JOB_IS_LEASED, JOB_IS_READY, QUEUE_IS_READY, job_queues, tenants
from casemate.store.schema import jobs as table
from casemate.store.schema import settings as settings_table
from casemate.store.tenants import ACTIVE

READY: Final = "ready"
DELAYED: Final = "delayed"
LEASED: Final = "leased"
OUT: Final = "out"
PAUSED: Final = "jobs.paused"
"""The setting that holds back all jobs."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A job without its result, and where it stands in the queue; of a lease its token, holder and end."""

    job: Job
    place: str
    token: str | None = None
    holder: str | None = None
    lease_until_us: int | None = None


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of a row. `detail` is noted with the new state; the result is written where an attempt `ends`."""

    was: Row
    now: Row
    detail: str = ""
    ends: bool = False


_PLACE: Final = ("place", "token", "holder", "lease_until_us")
_ROW: Final = [*MOVED, *(table.c[name] for name in _PLACE)]
_THIS: Final = (table.c.tenant_id == bindparam("of_tenant"), table.c.id == bindparam("of_id"))
_SAME: Final = frozenset({"id", "tenant_id", "key_id", "schedule_id", "request_id", "spec", "created_us", "result"})
_CHANGED: Final = [name for name in (*Job.__struct_fields__, *_PLACE) if name not in _SAME]
_CHANGE: Final = Prepared(update(table).where(*_THIS).values({name: bindparam(name) for name in _CHANGED}))
_END: Final = Prepared(update(table).where(*_THIS).values({name: bindparam(name) for name in (*_CHANGED, "result")}))
_INSERT: Final = Prepared(insert(table).values({each.name: bindparam(each.name) for each in table.c}))
_FIND: Final = Prepared(select(*_ROW).where(*_THIS).with_for_update())
_HELD: Final = Prepared(select(*_ROW).where(table.c.token == bindparam("of_token"), JOB_IS_LEASED).with_for_update())
_QUEUE: Final = job_queues.c.tenant_id == bindparam("of_tenant")
_FREE: Final = job_queues.c.ready + job_queues.c.delayed < bindparam("queue_max")
_COUNT: Final = (
    update(job_queues)
    .where(_QUEUE)
    .values(
        ready=job_queues.c.ready + bindparam("more_ready"),
        delayed=job_queues.c.delayed + bindparam("more_delayed"),
        leased=job_queues.c.leased + bindparam("more_leased"),
        since_us=func.coalesce(
            bindparam("served_us", type_=BigInteger),
            case((QUEUE_IS_READY, job_queues.c.since_us), else_=bindparam("at_us", type_=BigInteger)),
        ),
    )
)
_COUNTED: Final = Prepared(_COUNT)
_COUNTED_IF_FREE: Final = Prepared(_COUNT.where(_FREE))
_PAUSED: Final = select(settings_table.c.value).where(settings_table.c.name == PAUSED)
_STANDINGS: Final = Prepared(
    select(*(job_queues.c[name] for name in ("tenant_id", "ready", "leased", "since_us")), tenants.c.concurrency_max)
    .join(tenants, tenants.c.id == job_queues.c.tenant_id)
    .where(
        QUEUE_IS_READY,
        job_queues.c.is_paused.is_(False),
        tenants.c.state == ACTIVE,
        job_queues.c.leased < tenants.c.concurrency_max,
    )
    .order_by(job_queues.c.leased, job_queues.c.since_us, job_queues.c.tenant_id)
    .limit(bindparam("count"))
    .with_for_update(of=job_queues)
)
_NEXT: Final = Prepared(
    select(*_ROW)
    .where(table.c.tenant_id == bindparam("of_tenant"), JOB_IS_READY)
    .order_by(table.c.priority.desc(), table.c.due_us, table.c.id)
    .limit(bindparam("count"))
    .with_for_update(skip_locked=True)
)
_DUE: Final = Prepared(
    select(*_ROW)
    .where(JOB_IS_DELAYED, table.c.due_us <= bindparam("at_us"))
    .order_by(table.c.due_us)
    .limit(DUE_MAX)
    .with_for_update(skip_locked=True)
)
_LATEST: Final = Prepared(select(func.max(job_queues.c.since_us)))
_NEXT_DUE: Final = Prepared(select(func.min(table.c.due_us)).where(JOB_IS_DELAYED))


# Coming in ----------------------------------------------------------------------------------------


def accept(connection: Connection, job: Job, *, queue_max: int, at_us: int) -> Row | None:
    """Add a job to the queue. None: it is there already, with the same spec.

    Raises Conflict where another has its id, NotFound without the tenant, and TooManyRequests where `queue_max` wait.
    """
    there = find(connection, job.tenant_id, job.id)
    if there is not None:
        _check_same(there.job, job)
        return None
    row = Row(job=job, place=DELAYED if job.due_us > at_us else READY)
    _count_in(connection, row, queue_max=queue_max, at_us=at_us)
    try:
        _INSERT.run(connection, _inserted(row))
    except IntegrityError as error:  # another process was quicker
        raise _conflict(job.id) from error
    insert_transitions(connection, [(job, "")], at_us=at_us)
    dialect_of(connection).notify(connection)
    return row


def _check_same(there: Job, job: Job) -> None:
    if there.spec != job.spec:
        raise _conflict(job.id)


def _conflict(job_id: str) -> Conflict:
    return Conflict(f"there is another job {job_id!r} already", hint="give it another id, or none")


def _count_in(connection: Connection, row: Row, *, queue_max: int, at_us: int) -> None:
    tenant_id = row.job.tenant_id
    values = {**_counted({row.place: 1}), "of_tenant": tenant_id, "queue_max": queue_max, "at_us": at_us}
    if _COUNTED_IF_FREE.run(connection, values).rowcount:
        return
    if not has_queue(connection, tenant_id):
        make_queue(connection, tenant_id)
        if _COUNTED_IF_FREE.run(connection, values).rowcount:
            return
    raise _full(queue_max)


def _full(queue_max: int) -> TooManyRequests:
    return TooManyRequests(f"{queue_max} jobs of this tenant are waiting already", retry_after_s=QUEUE_RETRY_S)


def check_free(connection: Connection, tenant_id: str, *, queue_max: int) -> None:
    """Raise TooManyRequests where so many wait; until the end of the transaction nobody else adds one."""
    query = select(job_queues.c.ready + job_queues.c.delayed).where(_QUEUE).with_for_update()
    if (connection.execute(query, {"of_tenant": tenant_id}).scalar() or 0) >= queue_max:
        raise _full(queue_max)


def has_queue(connection: Connection, tenant_id: str) -> bool:
    """Whether a tenant has ever had a job, or was paused."""
    query = select(job_queues.c.tenant_id).where(_QUEUE)
    return connection.execute(query, {"of_tenant": tenant_id}).one_or_none() is not None


def make_queue(connection: Connection, tenant_id: str) -> None:
    """The row in which a tenant's jobs are counted. Raises NotFound without the tenant, Conflict if it is there."""
    if connection.execute(select(tenants.c.id).where(tenants.c.id == tenant_id)).one_or_none() is None:
        raise NotFound(f"there is no tenant {tenant_id!r}")
    row = {"tenant_id": tenant_id, "ready": 0, "delayed": 0, "leased": 0, "since_us": 0, "is_paused": False}
    try:
        connection.execute(insert(job_queues), row)
    except IntegrityError as error:  # another process was quicker
        raise Conflict(f"the queue of {tenant_id!r} is being made") from error


# Looking ------------------------------------------------------------------------------------------


def find(connection: Connection, tenant_id: str, job_id: str) -> Row | None:
    """One, until the end of the transaction for us alone."""
    row = _FIND.run(connection, {"of_tenant": tenant_id, "of_id": job_id}).first
    return None if row is None else _row(row)


def held(connection: Connection, token: str) -> Row | None:
    """The one that is leased by that token."""
    row = _HELD.run(connection, {"of_token": token}).first
    return None if row is None else _row(row)


def is_held(connection: Connection, *, token: str) -> bool:
    """Whether a job is leased by that token."""
    return connection.execute(select(table.c.id).where(table.c.token == token, JOB_IS_LEASED)).first() is not None


def due(connection: Connection, *, at_us: int) -> list[Row]:
    """Some that are not delayed any more, the longest due first."""
    return [_row(row) for row in _DUE.run(connection, {"at_us": at_us}).rows]


def next_due_us(connection: Connection) -> int | None:
    """When the first of those that are delayed is due."""
    found: int | None = _NEXT_DUE.run(connection, {}).value
    return found


def standings(connection: Connection, *, count: int) -> tuple[Standing, ...]:
    """Tenants that may be served, who is next first: of so many turns, no other tenant than these gets one."""
    rows = _STANDINGS.run(connection, {"count": count}).rows
    return tuple(Standing(leased_max=row.pop("concurrency_max"), **row) for row in rows)


def after_all_us(connection: Connection, *, at_us: int) -> int:
    """Now, or a later time at which nobody has had a turn yet: the clock may have been set back."""
    return max(at_us, (_LATEST.run(connection, {}).value or 0) + 1)


def ready(connection: Connection, tenant_id: str, *, count: int) -> list[Row]:
    """A tenant's next."""
    found = _NEXT.run(connection, {"of_tenant": tenant_id, "count": count})
    return [_row(row) for row in found.rows]


def abandoned(connection: Connection, *, at_us: int, holder: str) -> list[Row]:
    """Some whose leases are over, or are `holder`'s."""
    over: ColumnElement[bool] = table.c.lease_until_us < at_us
    if holder:
        over |= table.c.holder == holder
    query = select(*_ROW).where(JOB_IS_LEASED, over).limit(EXPIRED_MAX).with_for_update(skip_locked=True)
    return [_row(row) for row in connection.execute(query).mappings()]


def renew(connection: Connection, tokens: Sequence[str], *, until_us: int) -> dict[str, bool]:
    """Of those that are still held: whether they are to be cancelled."""
    these = (JOB_IS_LEASED, table.c.token.in_(tokens))
    connection.execute(update(table).where(*these).values(lease_until_us=until_us))
    rows = connection.execute(select(table.c.token, table.c.cancel_asked).where(*these))
    return {row.token: row.cancel_asked for row in rows}


# Changing -----------------------------------------------------------------------------------------


def record(connection: Connection, changes: Sequence[Change], *, at_us: int, served_us: int = 0) -> None:
    """Write down what becomes of rows that were found in this transaction, and count them anew.

    `served_us`: when those that are leased by it got their turn, as far as fairness cares: see `after_all_us`.
    """
    if not changes:
        return
    for change in changes:
        if change.ends:
            _END.run(connection, _changed(change.now) | {"result": change.now.job.result})
        else:
            _CHANGE.run(connection, _changed(change.now))
    told = [(change.now.job, change.detail) for change in changes if change.now.job.state is not change.was.job.state]
    if told:
        insert_transitions(connection, told, at_us=at_us)
    _recount(connection, changes, at_us=at_us, served_us=served_us)
    if any(change.now.place in {READY, DELAYED} or change.was.place == LEASED for change in changes):
        dialect_of(connection).notify(connection)  # of jobs, or of room for them


def _recount(connection: Connection, changes: Sequence[Change], *, at_us: int, served_us: int) -> None:
    more: dict[str, dict[str, int]] = {}
    served: dict[str, int] = {}
    for index, change in enumerate(changes):
        if change.was.place == change.now.place:
            continue
        tenant_id = change.now.job.tenant_id
        counts = more.setdefault(tenant_id, {})
        counts[change.was.place] = counts.get(change.was.place, 0) - 1
        counts[change.now.place] = counts.get(change.now.place, 0) + 1
        if change.now.place == LEASED:
            served[tenant_id] = served_us + index
    for tenant_id in sorted(more):
        values = {"of_tenant": tenant_id, "at_us": at_us, "served_us": served.get(tenant_id)}
        _COUNTED.run(connection, _counted(more[tenant_id]) | values)


def _counted(places: dict[str, int]) -> dict[str, int | None]:
    more: dict[str, int | None] = {f"more_{place}": places.get(place, 0) for place in (READY, DELAYED, LEASED)}
    return more | {"served_us": None}


def _changed(row: Row) -> dict[str, object]:
    job = row.job
    values = {name: _plain(getattr(job, name)) for name in _CHANGED if name not in _PLACE}
    return values | _place_of(row) | {"of_tenant": job.tenant_id, "of_id": job.id}


def _plain(value: object) -> object:
    """Drivers of databases have their own ideas of enumerations."""
    return str(value) if isinstance(value, str) else value


def _inserted(row: Row) -> dict[str, object]:
    found = row_of(row.job) | _place_of(row)
    return {**found, "labels": msgspec.json.encode(found["labels"]).decode()}


def _place_of(row: Row) -> dict[str, object]:
    return {name: getattr(row, name) for name in _PLACE}


def _row(found: Mapping[Any, Any]) -> Row:
    """Drivers know no truth but numbers, where the database does not."""
    job = job_of({**found, "cancel_asked": bool(found["cancel_asked"])})
    return Row(job=job, **{name: found[name] for name in _PLACE})


# Holding back -------------------------------------------------------------------------------------


def is_paused(connection: Connection, tenant_id: str | None = None) -> bool:
    """Whether nothing of that tenant is leased; None: of nobody."""
    if tenant_id is None:
        return bool(connection.execute(_PAUSED).scalar())
    query = select(job_queues.c.is_paused).where(_QUEUE)
    return bool(connection.execute(query, {"of_tenant": tenant_id}).scalar())


def set_paused(connection: Connection, tenant_id: str | None, *, paused: bool) -> None:
    """Begin or end that. Raises NotFound without the tenant."""
    if tenant_id is None:
        settings.put_setting(connection, PAUSED, paused)
        dialect_of(connection).notify(connection)
        return
    if not has_queue(connection, tenant_id):
        make_queue(connection, tenant_id)
    connection.execute(update(job_queues).where(job_queues.c.tenant_id == tenant_id).values(is_paused=paused))
    dialect_of(connection).notify(connection)

"""Jobs, as rows: found, listed, counted and deleted. What moves them through the queue is in `leases`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import ColumnElement, Connection, Select, bindparam, delete, func, insert, select, tuple_, update

from casemate.errors import Conflict, NotFound
from casemate.job_limits import SPECS_A_PAGE_MAX_BYTES, TRANSITIONS_READ_MAX
from casemate.model.job import ACTIVE, ENDED, Job, JobSpec, JobState, Transition
from casemate.service_limits import PAGE_DEFAULT_COUNT, SWEEP_MAX_COUNT
from casemate.store.pages import Page, cursor_of, has_labels, newest_first
from casemate.store.prepared import Prepared
from casemate.store.schema import JOB_IS_DEAD, JOB_IS_LEASED, job_queues
from casemate.store.schema import job_transitions as moves
from casemate.store.schema import jobs as table


class Filters(msgspec.Struct, frozen=True, kw_only=True):
    """What a list is narrowed to. Times are those at which jobs were accepted: `since` ≤ time < `until`."""

    state: JobState | None = None
    status: str | None = None
    reason: str | None = None
    schedule_id: str | None = None
    key_id: str | None = None
    labels: dict[str, str] = {}
    since_us: int | None = None
    until_us: int | None = None


EVERY: Final = Filters()
FIELDS: Final = tuple(name for name in Job.__struct_fields__ if name != "result")
MOVED: Final = [table.c[name] for name in FIELDS]
"""All of a job but the document of its result, which may be large."""

_MOVE: Final = ("tenant_id", "job_id", "state", "at_us", "attempt", "detail")
_INSERT_MOVES: Final = Prepared(insert(moves).inline().values({name: bindparam(name) for name in _MOVE}))
_SPEC: Final = msgspec.json.Decoder(JobSpec)


def job_of(row: Mapping[Any, Any]) -> Job:
    """A row as a job; a column more or less makes no difference."""
    values = {name: row[name] for name in Job.__struct_fields__ if name in row}
    return Job(**values | {"spec": _SPEC.decode(row["spec"]), "state": JobState(row["state"])})


def row_of(job: Job) -> dict[str, Any]:
    """A job as a row, but for its place in the queue."""
    values = {name: getattr(job, name) for name in Job.__struct_fields__}
    return values | {
        "spec": msgspec.json.encode(job.spec),
        "state": job.state.value,
        "priority": job.spec.priority,
        "labels": job.spec.labels,
    }


def get(connection: Connection, tenant_id: str | None, job_id: str) -> Job:
    """One, with all of it. Raises NotFound, also for another tenant's."""
    row = connection.execute(select(table).where(*_one(tenant_id, job_id)).limit(1)).mappings().one_or_none()
    if row is None:
        raise NotFound(f"there is no job {job_id!r}")
    return job_of(row)


def list_jobs(
    connection: Connection,
    tenant_id: str | None,
    filters: Filters = EVERY,
    *,
    limit: int = PAGE_DEFAULT_COUNT,
    cursor: str | None = None,
) -> Page[Job]:
    """Newest first, without `result`. A page is shorter where the jobs in it are large."""
    query = newest_first(select(*MOVED).where(*_of(tenant_id), *_matching(filters)), table, limit=limit, cursor=cursor)
    items: list[Job] = []
    room_bytes = SPECS_A_PAGE_MAX_BYTES
    for row in connection.execute(query).mappings():
        room_bytes -= len(row["spec"])
        if items and (len(items) == limit or room_bytes < 0):
            return Page(items=tuple(items), next_cursor=cursor_of(items[-1].created_us, items[-1].id))
        items.append(job_of(row))
    return Page(items=tuple(items))


def put_spec(connection: Connection, job: Job) -> None:
    """Write down what is to be run from now on."""
    connection.execute(update(table).where(*_one(job.tenant_id, job.id)).values(spec=msgspec.json.encode(job.spec)))


def transitions(connection: Connection, tenant_id: str, job_id: str) -> tuple[Transition, ...]:
    """What became of a job, in order; of very many the last."""
    query = _moves_of(tenant_id, job_id).order_by(moves.c.id.desc()).limit(TRANSITIONS_READ_MAX)
    return _transitions(connection, query)[::-1]


def transitions_after(connection: Connection, tenant_id: str, job_id: str, *, count: int) -> tuple[Transition, ...]:
    """What became of a job after its first `count` transitions, in order; of very many the first."""
    query = _moves_of(tenant_id, job_id).order_by(moves.c.id).offset(count).limit(TRANSITIONS_READ_MAX)
    return _transitions(connection, query)


def _moves_of(tenant_id: str, job_id: str) -> Select[Any]:
    columns = (moves.c[name] for name in Transition.__struct_fields__)
    return select(*columns).where(moves.c.tenant_id == tenant_id, moves.c.job_id == job_id)


def _transitions(connection: Connection, query: Select[Any]) -> tuple[Transition, ...]:
    rows = connection.execute(query).mappings()
    return tuple(Transition(**{**row, "state": JobState(row["state"])}) for row in rows)


def insert_transitions(connection: Connection, jobs: list[tuple[Job, str]], *, at_us: int) -> None:
    """Note the states that jobs have come to, each with a word about it."""
    rows = [
        {
            "tenant_id": job.tenant_id,
            "job_id": job.id,
            "state": job.state.value,
            "at_us": at_us,
            "attempt": job.attempt,
            "detail": detail,
        }
        for job, detail in jobs
    ]
    _insert_moves(connection, rows)


def _insert_moves(connection: Connection, rows: list[dict[str, Any]]) -> None:
    for row in rows:
        _INSERT_MOVES.run(connection, row)


def insert_steps(connection: Connection, job: Job, steps: Sequence[Transition]) -> None:
    """Note states that a job came to earlier, each at its own time."""
    place = {"tenant_id": job.tenant_id, "job_id": job.id}
    if steps:
        rows = [msgspec.structs.asdict(step) | {"state": step.state.value} | place for step in steps]
        _insert_moves(connection, rows)


def delete_job(connection: Connection, tenant_id: str, job_id: str) -> Job:
    """Forget one that has ended. Raises NotFound, and Conflict for one that has not."""
    found = get(connection, tenant_id, job_id)
    if found.state not in ENDED:
        raise Conflict(f"the job {job_id!r} has not ended", hint="cancel it first")
    connection.execute(delete(table).where(*_one(tenant_id, job_id)))
    return found


def delete_older(connection: Connection, tenant_id: str | None, *, ended_before_us: int) -> int:
    """Delete some that ended before that time, and say how many; 0: there are no more."""
    old = select(table.c.tenant_id, table.c.id).where(*_of(tenant_id), table.c.ended_us < ended_before_us)
    these = tuple_(table.c.tenant_id, table.c.id).in_(old.limit(SWEEP_MAX_COUNT))
    return connection.execute(delete(table).where(these)).rowcount


def counts(connection: Connection) -> dict[str, dict[JobState, int]]:
    """Of each tenant how many jobs wait, are being carried out, and are dead. It takes no longer for many that wait."""
    found: dict[str, dict[JobState, int]] = {}
    waiting = select(job_queues.c.tenant_id, job_queues.c.ready + job_queues.c.delayed)
    for tenant_id, count in connection.execute(waiting):
        found[tenant_id] = {JobState.QUEUED: count}
    dead = select(table.c.tenant_id, func.count()).where(JOB_IS_DEAD).group_by(table.c.tenant_id)
    for tenant_id, count in connection.execute(dead):
        found.setdefault(tenant_id, {})[JobState.DEAD] = count
    leased = select(table.c.tenant_id, table.c.state).where(
        JOB_IS_LEASED
    )  # few, and grouped would be looked for in all
    for (tenant_id, state), count in Counter(tuple(row) for row in connection.execute(leased)).items():
        found.setdefault(tenant_id, {})[JobState(state)] = count
    return found


# Conditions ---------------------------------------------------------------------------------------


def _of(tenant_id: str | None) -> list[ColumnElement[bool]]:
    return [] if tenant_id is None else [table.c.tenant_id == tenant_id]


def _one(tenant_id: str | None, job_id: str) -> list[ColumnElement[bool]]:
    return [table.c.id == job_id, *_of(tenant_id)]


def _matching(filters: Filters) -> list[ColumnElement[bool]]:
    wanted: Mapping[str, Any] = msgspec.structs.asdict(filters)
    exact = [
        table.c[name] == wanted[name]
        for name in ("status", "reason", "schedule_id", "key_id")
        if wanted[name] is not None
    ]
    since = [] if filters.since_us is None else [table.c.created_us >= filters.since_us]
    until = [] if filters.until_us is None else [table.c.created_us < filters.until_us]
    return [*_in_state(filters.state), *exact, *since, *until, *has_labels(table, filters.labels)]


def _in_state(state: JobState | None) -> list[ColumnElement[bool]]:
    """Said so that the index of the few that are leased, or dead, is used."""
    if state is None:
        return []
    if state is JobState.DEAD:
        return [JOB_IS_DEAD]
    return [table.c.state == state.value, *([JOB_IS_LEASED] if state in ACTIVE else [])]

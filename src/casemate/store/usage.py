"""What tenants have used: sums for each day, kind of run, key and set of labels, kept up as runs end."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import ColumnElement, Connection, bindparam, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from casemate.account_limits import USAGE_FOLDED_MAX_COUNT, USAGE_READ_MAX_COUNT, USAGE_ROWS_A_DAY_MAX
from casemate.errors import InvalidInput
from casemate.model.accounting import first_day
from casemate.store.account_schema import job_usage
from casemate.store.account_schema import usage as table
from casemate.store.pages import has_labels
from casemate.store.prepared import Prepared

NO_LABELS: Final = ""
AMOUNTS: Final = (
    "runs",
    "failed",
    "cpu_us",
    "wall_us",
    "memory_kib_ms",
    "disk_bytes",
    "sent_bytes",
    "received_bytes",
    "cost_nano",
)


class Used(msgspec.Struct, frozen=True, kw_only=True):
    """What was used, by whom and for what; of a sum, the parts that it is not divided by are empty."""

    tenant_id: str = ""
    day: int = 0
    kind: str = ""
    key_id: str = ""
    labels: dict[str, str] = {}
    runs: int = 0
    failed: int = 0
    cpu_us: int = 0
    wall_us: int = 0
    memory_kib_ms: int = 0
    disk_bytes: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0
    cost_nano: int = 0


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """Whose usage, and of which: `first_day` ≤ day ≤ `last_day`. None: all tenants, any kind, any key."""

    tenant_id: str | None
    first_day: int
    last_day: int
    kind: str | None = None
    key_id: str | None = None
    labels: dict[str, str] = {}


# What every end of a run needs is put together once.
_THIS: Final = tuple(
    table.c[name] == bindparam(f"of_{name}") for name in ("tenant_id", "day", "kind", "key_id", "labels_digest")
)
_ADD: Final = Prepared(
    update(table).where(*_THIS).values({name: table.c[name] + bindparam(f"more_{name}") for name in AMOUNTS})
)
_ADD_JOB: Final = Prepared(
    update(job_usage)
    .where(job_usage.c.tenant_id == bindparam("of_tenant_id"), job_usage.c.job_id == bindparam("of_job_id"))
    .values({name: job_usage.c[name] + bindparam(f"more_{name}") for name in AMOUNTS})
)
_FIRST_OF_JOB: Final = Prepared(insert(job_usage).values({each.name: bindparam(each.name) for each in job_usage.c}))
_SUMS: Final = [func.coalesce(func.sum(table.c[name]), 0).label(name) for name in AMOUNTS]


def add(connection: Connection, used: Used) -> None:
    """Count it. One statement, unless it is the first of its kind on that day."""
    place = _place(used, _digest(used.labels))
    if _added(connection, used, place):
        return
    of_day = (table.c.tenant_id == used.tenant_id, table.c.day == used.day)
    if connection.execute(select(func.count()).select_from(table).where(*of_day)).scalar_one() >= USAGE_ROWS_A_DAY_MAX:
        used = msgspec.structs.replace(used, key_id="", labels={})
        place = _place(used, NO_LABELS)
        if _added(connection, used, place):
            return
    try:
        with connection.begin_nested():
            row = {**msgspec.structs.asdict(used), "labels_digest": place["of_labels_digest"]}
            connection.execute(insert(table), row)
    except IntegrityError:  # somebody else was the first
        _added(connection, used, place)


def add_job(connection: Connection, job_id: str, used: Used) -> None:
    """Count what an attempt has used as its job's, too. It goes with the job."""
    this = {"of_tenant_id": used.tenant_id, "of_job_id": job_id}
    amounts = {name: getattr(used, name) for name in AMOUNTS}
    if not _ADD_JOB.run(connection, {**this, **{f"more_{name}": each for name, each in amounts.items()}}).rowcount:
        _FIRST_OF_JOB.run(connection, {"tenant_id": used.tenant_id, "job_id": job_id, **amounts})


def of_job(connection: Connection, tenant_id: str, job_id: str) -> Used:
    """What all attempts at a job have used together."""
    this = (job_usage.c.tenant_id == tenant_id, job_usage.c.job_id == job_id)
    row = connection.execute(select(*(job_usage.c[name] for name in AMOUNTS)).where(*this)).mappings().one_or_none()
    return Used() if row is None else Used(**row)


def _place(used: Used, digest: str) -> dict[str, Any]:
    found = {f"of_{name}": getattr(used, name) for name in ("tenant_id", "day", "kind", "key_id")}
    return {**found, "of_labels_digest": digest}


def _added(connection: Connection, used: Used, place: dict[str, Any]) -> bool:
    more = {f"more_{name}": getattr(used, name) for name in AMOUNTS}
    return _ADD.run(connection, {**place, **more}).rowcount == 1


def _digest(labels: dict[str, str]) -> str:
    """One for each set of labels; none for none."""
    if not labels:
        return NO_LABELS
    return hashlib.blake2b(msgspec.json.encode(labels, order="sorted"), digest_size=16).hexdigest()


def total(connection: Connection, asked: Asked) -> Used:
    """All of it together."""
    return Used(**connection.execute(select(*_SUMS).where(*_matching(asked))).mappings().one())


def by_columns(connection: Connection, asked: Asked, names: Sequence[str]) -> tuple[Used, ...]:
    """Sums for each value of these columns: `day`, `kind`, `key_id`, `tenant_id`. In their order."""
    columns = [table.c[name] for name in names]
    query = select(*columns, *_SUMS).where(*_matching(asked)).group_by(*columns).order_by(*columns)
    rows = connection.execute(query.limit(USAGE_READ_MAX_COUNT + 1)).mappings().all()
    return tuple(Used(**row) for row in _bounded(rows))


def by_label(connection: Connection, asked: Asked, name: str) -> dict[str, Used]:
    """Sums for each value of a label; what lacks it is under the empty name."""
    columns = [table.c.labels, *(table.c[amount] for amount in AMOUNTS)]
    rows = connection.execute(select(*columns).where(*_matching(asked)).limit(USAGE_READ_MAX_COUNT + 1)).mappings()
    found: dict[str, Used] = {}
    for row in _bounded(rows.all()):
        value = row["labels"].get(name, "")
        found[value] = summed(found.get(value, Used()), Used(**{each: row[each] for each in AMOUNTS}))
    return dict(sorted(found.items()))


def summed(one: Used, other: Used) -> Used:
    """The first one with the amounts of the other added."""
    return msgspec.structs.replace(one, **{name: getattr(one, name) + getattr(other, name) for name in AMOUNTS})


def fold(connection: Connection, *, before_day: int) -> int:
    """Put some of what is older into one row a month, without keys and labels, and say how many; 0: there are no more.

    So what a tenant has used stays known for ever in little room.
    """
    is_old = (table.c.day < before_day, (table.c.key_id != "") | (table.c.labels_digest != NO_LABELS))
    rows = connection.execute(select(table).where(*is_old).limit(USAGE_FOLDED_MAX_COUNT)).mappings().all()
    for row in rows:
        this = [table.c[name] == row[name] for name in ("tenant_id", "day", "kind", "key_id", "labels_digest")]
        connection.execute(delete(table).where(*this))
        used = Used(**{name: row[name] for name in Used.__struct_fields__ if name != "labels"})
        add(connection, msgspec.structs.replace(used, day=first_day("month", used.day), key_id=""))
    return len(rows)


def _bounded(rows: Sequence[Any]) -> Sequence[Any]:
    if len(rows) > USAGE_READ_MAX_COUNT:
        raise InvalidInput("since", "is too much to be added up at once", hint="ask for a shorter time")
    return rows


def _matching(asked: Asked) -> list[ColumnElement[bool]]:
    within: list[ColumnElement[bool]] = [table.c.day >= asked.first_day, table.c.day <= asked.last_day]
    exact = [
        table.c[name] == getattr(asked, name)
        for name in ("tenant_id", "kind", "key_id")
        if getattr(asked, name) is not None
    ]
    return [*within, *exact, *has_labels(table, asked.labels)]

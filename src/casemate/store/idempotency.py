"""Requests that may come twice: what was asked under a key, and what was answered."""

from __future__ import annotations

from enum import Enum
from typing import Final

import msgspec
from sqlalchemy import ColumnElement, Connection, delete, insert, select, update

from casemate.service_limits import SWEEP_MAX_COUNT
from casemate.store.schema import idempotency as table

BEGUN: Final = "begun"
DONE: Final = "done"
_EXECUTION: Final = "execution"
"""Stands where the answer's headers will stand."""


class Begun(Enum):
    """What to do with a request that has not been answered under this key."""

    NEW = "new"
    IN_PROGRESS = "in_progress"
    CONFLICT = "conflict"


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """What was answered, to be answered again."""

    status_code: int
    headers: dict[str, str]
    body: bytes


class Left(msgspec.Struct, frozen=True):
    """The execution of a request that a service of another epoch has left unanswered."""

    execution_id: str


def begin(
    connection: Connection, tenant_id: str, key: str, *, route: str, body_digest: bytes, epoch: int, at_us: int
) -> Begun | Answered | Left:
    """Note that a request is under way, unless one with its key is or was: then what that was answered.

    What a service of another epoch has left unanswered is under way no more: it is begun again, unless an execution
    was accepted for it. That has an end, and is not done twice.
    """
    row = connection.execute(select(table).where(*_one(tenant_id, key))).one_or_none()
    values = {"route": route, "body_digest": body_digest, "state": BEGUN, "epoch": epoch, "created_us": at_us}
    if row is None:
        connection.execute(insert(table), {"tenant_id": tenant_id, "key": key, **values})
        return Begun.NEW
    if row.route != route or row.body_digest != body_digest:
        return Begun.CONFLICT
    if row.state == DONE:
        return Answered(status_code=row.status_code, headers=row.headers, body=row.body)
    if row.epoch == epoch:
        return Begun.IN_PROGRESS
    if row.headers:
        return Left(row.headers[_EXECUTION])
    connection.execute(update(table).where(*_one(tenant_id, key)).values(**values))
    return Begun.NEW


def note_execution(connection: Connection, tenant_id: str, key: str, execution_id: str) -> None:
    """Note what was accepted for a request that is under way; belongs into the transaction that accepts it."""
    begun = update(table).where(*_one(tenant_id, key), table.c.state == BEGUN)
    connection.execute(begun.values(headers={_EXECUTION: execution_id}))


def finish(connection: Connection, tenant_id: str, key: str, answered: Answered) -> bool:
    """Keep what was answered. False if nothing was under way."""
    begun = update(table).where(*_one(tenant_id, key), table.c.state == BEGUN)
    return connection.execute(begun.values(state=DONE, **msgspec.structs.asdict(answered))).rowcount == 1


def forget(connection: Connection, tenant_id: str, key: str) -> None:
    """Have the request done again when it comes again, as after an error of ours. What was answered before stays."""
    connection.execute(delete(table).where(*_one(tenant_id, key), table.c.state == BEGUN))


def sweep(connection: Connection, *, before_us: int) -> int:
    """Delete some that began before that time, and say how many; 0: there are no more."""
    place = (table.c.tenant_id, table.c.key)
    old = select(*place).where(table.c.created_us < before_us).limit(SWEEP_MAX_COUNT)
    rows = connection.execute(old).all()
    for row in rows:
        connection.execute(delete(table).where(*_one(row.tenant_id, row.key)))
    return len(rows)


def _one(tenant_id: str, key: str) -> tuple[ColumnElement[bool], ...]:
    return table.c.tenant_id == tenant_id, table.c.key == key

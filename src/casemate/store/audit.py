"""The audit log, as rows: each carries a code over itself and the one before, so that none can be changed or left out.

How a code is made is the caller's: `seal` is given the last code and a record. The two ends of the log have codes of
their own, so that neither its youngest nor its oldest records can be cut off.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

import msgspec
from sqlalchemy import Connection, bindparam, delete, insert, select, update

from casemate.model.ids import new_id
from casemate.service_limits import PAGE_DEFAULT_COUNT, SWEEP_MAX_COUNT
from casemate.store.pages import Page, newest_first, page_of
from casemate.store.prepared import Prepared
from casemate.store.schema import audit as table
from casemate.store.schema import audit_ends as ends

LAST: Final = "last"
BEFORE: Final = "before"
START: Final = bytes(32)
"""The code before the first record of all."""


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be recorded. `action` is such as `jobs.submit`; `target` what it was done to."""

    tenant_id: str
    key_id: str
    action: str
    target: str
    detail: str
    request_id: str
    created_us: int


class AuditRecord(Note, frozen=True, kw_only=True):
    """One record. `seq` counts all of them, of whatever tenant."""

    seq: int
    id: str
    digest: bytes = b""


class End(msgspec.Struct, frozen=True, kw_only=True):
    """One end of the log: the number and code of a record, and a code over both."""

    name: str
    seq: int
    digest: bytes
    code: bytes


_LAST: Final = Prepared(select(ends.c.seq, ends.c.digest).where(ends.c.name == LAST).with_for_update())
_INSERT: Final = Prepared(insert(table).values({each.name: bindparam(each.name) for each in table.c}))
_MOVE: Final = Prepared(
    update(ends)
    .where(ends.c.name == bindparam("of_name"))
    .values({name: bindparam(name) for name in ("seq", "digest", "code")})
)

Seal: TypeAlias = Callable[[bytes, AuditRecord], bytes]
SealEnd: TypeAlias = Callable[[str, int, bytes], bytes]


def begin(connection: Connection, seal_end: SealEnd) -> None:
    """Make the ends of a log that has none."""
    if connection.execute(select(ends.c.name).where(ends.c.name == LAST)).first() is None:
        for name in (BEFORE, LAST):
            values = {"name": name, "seq": 0, "digest": START, "code": seal_end(name, 0, START)}
            connection.execute(insert(ends), values)


def append(connection: Connection, note: Note, seal: Seal, seal_end: SealEnd) -> AuditRecord:
    """Add a record behind the last; whoever else wants to waits for the end of this transaction."""
    last = _LAST.run(connection, {}).rows[0]
    record = AuditRecord(**msgspec.structs.asdict(note), seq=last["seq"] + 1, id=new_id("aud"))
    record = msgspec.structs.replace(record, digest=seal(last["digest"], record))
    _INSERT.run(connection, msgspec.structs.asdict(record))
    _move(connection, LAST, record, seal_end)
    return record


def _move(connection: Connection, name: str, record: AuditRecord, seal_end: SealEnd) -> None:
    code = seal_end(name, record.seq, record.digest)
    _MOVE.run(connection, {"of_name": name, "seq": record.seq, "digest": record.digest, "code": code})


def list_records(
    connection: Connection,
    tenant_id: str | None,
    *,
    action: str = "",
    limit: int = PAGE_DEFAULT_COUNT,
    cursor: str | None = None,
) -> Page[AuditRecord]:
    """Of a tenant, or of all; newest first. `action`: what it begins with."""
    query = select(table)
    if tenant_id is not None:
        query = query.where(table.c.tenant_id == tenant_id)
    if action:
        query = query.where(table.c.action.startswith(action, autoescape=True))
    query = newest_first(query, table, limit=limit, cursor=cursor)
    rows = [AuditRecord(**row) for row in connection.execute(query).mappings()]
    return page_of(rows, limit, [(row.created_us, row.id) for row in rows])


def records_behind(connection: Connection, seq: int, *, limit: int) -> list[AuditRecord]:
    """Of all tenants, in the order in which they were made."""
    query = select(table).where(table.c.seq > seq).order_by(table.c.seq).limit(limit)
    return [AuditRecord(**row) for row in connection.execute(query).mappings()]


def ends_of(connection: Connection) -> dict[str, End]:
    """Both, by their names."""
    return {row["name"]: End(**row) for row in connection.execute(select(ends)).mappings()}


def sweep(connection: Connection, seal_end: SealEnd, *, before_us: int) -> int:
    """Delete some of the oldest that are older than that, and say how many; 0: there are no more."""
    found: list[Any] = []
    for record in records_behind(connection, ends_of(connection)[BEFORE].seq, limit=SWEEP_MAX_COUNT):
        if record.created_us >= before_us:
            break
        found.append(record)
    if found:
        connection.execute(delete(table).where(table.c.seq <= found[-1].seq))
        _move(connection, BEFORE, found[-1], seal_end)
    return len(found)

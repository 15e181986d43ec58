"""What jobs print: pieces of lines that are compressed, each with the words in it, and of each job how far its log is.

What is in a piece is for `jobs` to say; here it is bytes, which are in the row or, of a log that was moved, in an
object. Numbers of lines (`seq`) go on over all attempts of a job. `place` counts what lines cost of what is kept of one
log: what lies between the beginning and the end that are kept is deleted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Select, bindparam, delete, func, insert, select, tuple_, update

from casemate.job_limits import LOG_GROUP_MAX_COUNT, LOG_SWEEP_MAX_COUNT
from casemate.store.dialect import dialect_of
from casemate.store.job_log_words import as_words
from casemate.store.schema import job_log_pieces as pieces
from casemate.store.schema import job_logs as table
from casemate.store.schema import tenants


class NewPiece(msgspec.Struct, frozen=True, kw_only=True):
    """Lines of one job that are written down together. `total_bytes`: all that was printed since the piece before.

    `words` is None for what is likely to be deleted soon.
    """

    tenant_id: str
    job_id: str
    runtime: str
    kind: str
    attempt: int
    first_seq: int
    last_seq: int
    next_before: int
    lines: int
    size_bytes: int
    cost_bytes: int
    total_bytes: int
    first_at_us: int
    last_at_us: int
    data: bytes
    words: frozenset[str] | None = None


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """How much is kept of one log: what its lines cost, from its beginning and from its end."""

    head_bytes: int
    tail_bytes: int


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """How far a log is. `is_ours`: with this piece; otherwise somebody else has written, and nothing is recorded."""

    is_ours: bool
    next_seq: int = 1
    place: int = 0


class Log(msgspec.Struct, frozen=True, kw_only=True):
    """A job's log as a whole. `lines` and `size_bytes` are what is kept of it."""

    job_id: str
    runtime: str
    kind: str
    next_seq: int
    total_bytes: int
    lines: int
    size_bytes: int
    is_moved: bool
    last_at_us: int


class Piece(msgspec.Struct, frozen=True, kw_only=True):
    """Lines as they are kept: `data`, or a part of an object."""

    id: int
    tenant_id: str
    job_id: str
    attempt: int
    first_seq: int
    last_seq: int
    lines: int
    size_bytes: int
    begin_place: int
    end_place: int
    first_at_us: int
    last_at_us: int
    data: bytes | None
    object_key: str | None
    object_offset: int
    data_bytes: int


class Moved(msgspec.Struct, frozen=True, kw_only=True):
    """Pieces that have become one, in an object. The first of `ids` stands for all of them.

    `words` is None where the index has them already.
    """

    ids: tuple[int, ...]
    lines: int
    size_bytes: int
    last: Piece
    object_key: str
    object_offset: int
    data_bytes: int
    words: frozenset[str] | None


class Filters(msgspec.Struct, frozen=True, kw_only=True):
    """Which pieces a search looks into: those that may hold what was printed since ≤ time < until."""

    job_id: str | None = None
    runtime: str | None = None
    kind: str | None = None
    since_us: int | None = None
    until_us: int | None = None
    words: tuple[str, ...] = ()


_Key = tuple[str, str]
_NOBODY: Final = Written(is_ours=False)

# Writing ------------------------------------------------------------------------------------------


def append(connection: Connection, new: Sequence[NewPiece], kept: Kept) -> list[Written]:
    """Write down a piece of each of several logs. Of a tenant that is gone nothing is written."""
    assert len(new) <= LOG_GROUP_MAX_COUNT  # noqa: S101
    owners = select(tenants.c.id).where(tenants.c.id.in_({each.tenant_id for each in new}))
    there = set(connection.execute(owners).scalars())
    heads = _heads(connection, [(each.tenant_id, each.job_id) for each in new])
    found = [_fitting(each, heads) if each.tenant_id in there else _NOBODY for each in new]
    ours = [(each, written) for each, written in zip(new, found, strict=True) if written.is_ours]
    if ours:
        _put_heads(connection, ours, heads)
        _put_pieces(connection, ours)
        for each, written in ours:
            if written.place > kept.head_bytes + kept.tail_bytes:
                _trim(connection, each, kept, written.place)
    return found


def _heads(connection: Connection, keys: list[_Key]) -> dict[_Key, tuple[int, int]]:
    of_those = tuple_(table.c.tenant_id, table.c.job_id).in_(keys)
    query = select(table.c.tenant_id, table.c.job_id, table.c.next_seq, table.c.place).where(of_those)
    return {(row.tenant_id, row.job_id): (row.next_seq, row.place) for row in connection.execute(query)}


def _fitting(new: NewPiece, heads: Mapping[_Key, tuple[int, int]]) -> Written:
    next_seq, place = heads.get((new.tenant_id, new.job_id), (1, 0))
    if new.next_before != next_seq:
        return Written(is_ours=False, next_seq=next_seq, place=place)
    return Written(is_ours=True, next_seq=new.last_seq + 1, place=place + new.cost_bytes)


def _put_heads(
    connection: Connection, ours: Sequence[tuple[NewPiece, Written]], heads: Mapping[_Key, tuple[int, int]]
) -> None:
    made, changed = [], []
    for new, written in ours:
        row = {
            "next_seq": written.next_seq,
            "place": written.place,
            "last_at_us": new.last_at_us,
            "is_moved": False,
        }
        if (new.tenant_id, new.job_id) in heads:
            changed.append({**row, "of_tenant": new.tenant_id, "of_job": new.job_id, "more_bytes": new.total_bytes})
        else:
            own = {"tenant_id": new.tenant_id, "job_id": new.job_id, "runtime": new.runtime, "kind": new.kind}
            made.append({**row, **own, "total_bytes": new.total_bytes})
    if made:
        connection.execute(insert(table), made)
    if changed:
        of_that = (table.c.tenant_id == bindparam("of_tenant"), table.c.job_id == bindparam("of_job"))
        more = {"total_bytes": table.c.total_bytes + bindparam("more_bytes")}
        names: dict[str, Any] = {name: bindparam(name) for name in ("next_seq", "place", "last_at_us", "is_moved")}
        connection.execute(update(table).where(*of_that).values(**names, **more), changed)


def _put_pieces(connection: Connection, ours: Sequence[tuple[NewPiece, Written]]) -> None:
    rows = [_row(new, written) for new, written in ours]
    query = insert(pieces).returning(pieces.c.id, sort_by_parameter_order=True)
    ids = connection.execute(query, rows).scalars().all()
    words = {
        key: as_words(new.tenant_id, new.words)
        for key, (new, _) in zip(ids, ours, strict=True)
        if new.words is not None
    }
    dialect_of(connection).words.add(connection, words)


def _row(new: NewPiece, written: Written) -> dict[str, Any]:
    return {
        "tenant_id": new.tenant_id,
        "job_id": new.job_id,
        "attempt": new.attempt,
        "first_seq": new.first_seq,
        "last_seq": new.last_seq,
        "lines": new.lines,
        "size_bytes": new.size_bytes,
        "begin_place": written.place - new.cost_bytes,
        "end_place": written.place,
        "first_at_us": new.first_at_us,
        "last_at_us": new.last_at_us,
        "data": new.data,
        "object_offset": 0,
        "data_bytes": len(new.data),
    }


def _trim(connection: Connection, new: NewPiece, kept: Kept, place: int) -> None:
    """Delete what is neither of the beginning nor of the end."""
    between = (pieces.c.begin_place >= kept.head_bytes, pieces.c.end_place <= place - kept.tail_bytes)
    query = select(pieces.c.id).where(*_of(new.tenant_id, new.job_id), *between)
    ids = connection.execute(query.limit(LOG_SWEEP_MAX_COUNT)).scalars().all()
    _forget(connection, ids)


def _of(tenant_id: str, job_id: str) -> tuple[Any, Any]:
    return pieces.c.tenant_id == tenant_id, pieces.c.job_id == job_id


def _forget(connection: Connection, ids: Sequence[int]) -> None:
    if ids:
        dialect_of(connection).words.forget(connection, ids)
        connection.execute(delete(pieces).where(pieces.c.id.in_(ids)))


# Reading ------------------------------------------------------------------------------------------


def find(connection: Connection, tenant_id: str, job_id: str) -> Log | None:
    """A job's log; None: it has printed nothing, or nothing of it is kept any more."""
    of_that = (table.c.tenant_id == tenant_id, table.c.job_id == job_id)
    row = connection.execute(select(table).where(*of_that)).mappings().first()
    if row is None:
        return None
    sums = select(func.sum(pieces.c.lines), func.sum(pieces.c.size_bytes)).where(*_of(tenant_id, job_id))
    lines, size_bytes = connection.execute(sums).one()
    own = {name: row[name] for name in Log.__struct_fields__ if name in row}
    return Log(**own, lines=int(lines or 0), size_bytes=int(size_bytes or 0))


def next_seq(connection: Connection, tenant_id: str, job_id: str) -> int:
    """The number that the next line of a job gets."""
    of_that = (table.c.tenant_id == tenant_id, table.c.job_id == job_id)
    return connection.execute(select(table.c.next_seq).where(*of_that)).scalar() or 1


def pieces_after(connection: Connection, tenant_id: str, job_id: str, seq: int, *, limit: int) -> list[Piece]:
    """The pieces of a job that hold lines after that one, in their order."""
    query = select(pieces).where(*_of(tenant_id, job_id), pieces.c.last_seq > seq)
    return _pieces(connection, query.order_by(pieces.c.first_seq).limit(limit))


def pieces_before(connection: Connection, tenant_id: str, job_id: str, seq: int, *, limit: int) -> list[Piece]:
    """The pieces of a job that hold lines before that one, the last first."""
    query = select(pieces).where(*_of(tenant_id, job_id), pieces.c.first_seq < seq)
    return _pieces(connection, query.order_by(pieces.c.first_seq.desc()).limit(limit))


def search(connection: Connection, tenant_id: str, filters: Filters, *, before_id: int, limit: int) -> list[Piece]:
    """Pieces of a tenant in which there may be what is looked for, the youngest first, from before an id on.

    Within a single job they are not narrowed by words: the last of its pieces may have none in the index.
    """
    query = select(pieces).where(pieces.c.tenant_id == tenant_id, pieces.c.id < before_id)
    if filters.since_us is not None:
        query = query.where(pieces.c.last_at_us >= filters.since_us)
    if filters.until_us is not None:
        query = query.where(pieces.c.first_at_us < filters.until_us)
    query = _of_kind(query, filters)
    if filters.job_id is not None:
        query = query.where(pieces.c.job_id == filters.job_id).order_by(pieces.c.id.desc())
    elif filters.words:
        query = dialect_of(connection).words.narrowed(query, tenant_id, filters.words)
    else:
        query = query.order_by(pieces.c.id.desc())
    return _pieces(connection, query.limit(limit))


def _of_kind(query: Select[Any], filters: Filters) -> Select[Any]:
    wanted = {"runtime": filters.runtime, "kind": filters.kind}
    conditions = [table.c[name] == value for name, value in wanted.items() if value is not None]
    if not conditions:
        return query
    same = (table.c.tenant_id == pieces.c.tenant_id) & (table.c.job_id == pieces.c.job_id)
    return query.join(table, same).where(*conditions)


def _pieces(connection: Connection, query: Select[Any]) -> list[Piece]:
    return [Piece(**row) for row in connection.execute(query).mappings()]


# Moving and forgetting ----------------------------------------------------------------------------


def unmoved(connection: Connection, *, before_us: int, limit: int) -> list[_Key]:
    """Logs, of some tenant each, to which nothing has come since that time, and that are not in objects yet."""
    query = select(table.c.tenant_id, table.c.job_id).where(table.c.is_moved.is_(False), table.c.last_at_us < before_us)
    return [(row.tenant_id, row.job_id) for row in connection.execute(query.order_by(table.c.last_at_us).limit(limit))]


def unmoved_pieces(connection: Connection, tenant_id: str, job_id: str, *, after_seq: int, limit: int) -> list[Piece]:
    """What of a log is not in an object yet, in its order."""
    query = select(pieces).where(*_of(tenant_id, job_id), pieces.c.data.is_not(None), pieces.c.first_seq > after_seq)
    return _pieces(connection, query.order_by(pieces.c.first_seq).limit(limit))


def moved(connection: Connection, tenant_id: str, job_id: str, done: Sequence[Moved], *, next_seq: int) -> bool:
    """Say of pieces that they are in objects now. False: the log was deleted.

    It is moved as a whole if nothing has come to it meanwhile.
    """
    if not _heads(connection, [(tenant_id, job_id)]):
        return False
    for each in done:
        _forget(connection, each.ids[1:])
        values = {
            "last_seq": each.last.last_seq,
            "end_place": each.last.end_place,
            "last_at_us": each.last.last_at_us,
            "lines": each.lines,
            "size_bytes": each.size_bytes,
            "data": None,
            "object_key": each.object_key,
            "object_offset": each.object_offset,
            "data_bytes": each.data_bytes,
        }
        is_there = connection.execute(update(pieces).where(pieces.c.id == each.ids[0]).values(**values)).rowcount
        if is_there and each.words is not None:
            index = dialect_of(connection).words
            index.forget(connection, each.ids[:1])
            index.add(connection, {each.ids[0]: as_words(tenant_id, each.words)})
    of_that = (table.c.tenant_id == tenant_id, table.c.job_id == job_id, table.c.next_seq == next_seq)
    connection.execute(update(table).where(*of_that).values(is_moved=True))
    return True


def objects_of(connection: Connection, tenant_id: str, job_id: str) -> list[str]:
    """The keys of the objects that a log is in."""
    query = select(pieces.c.object_key).where(*_of(tenant_id, job_id), pieces.c.object_key.is_not(None)).distinct()
    return [str(key) for key in connection.execute(query).scalars()]


def remove(connection: Connection, tenant_id: str, job_id: str) -> bool:
    """Forget a log. Its objects go first. Idempotent."""
    dialect_of(connection).words.forget_log(connection, tenant_id, job_id)
    connection.execute(delete(pieces).where(*_of(tenant_id, job_id)))
    of_that = (table.c.tenant_id == tenant_id, table.c.job_id == job_id)
    return connection.execute(delete(table).where(*of_that)).rowcount > 0


def forget_tenant(connection: Connection, tenant_id: str) -> None:
    """What does not go by itself with a tenant that is about to be deleted."""
    dialect_of(connection).words.forget_tenant(connection, tenant_id)


def sorts(connection: Connection) -> list[tuple[str, str]]:
    """The runtimes and kinds of which there are logs."""
    query = select(table.c.runtime, table.c.kind).distinct()
    return [(row.runtime, row.kind) for row in connection.execute(query)]


def older(connection: Connection, runtime: str, kind: str, *, before_us: int) -> list[_Key]:
    """Some logs of one sort to which nothing has come since that time."""
    of_sort = (table.c.runtime == runtime, table.c.kind == kind, table.c.last_at_us < before_us)
    query = select(table.c.tenant_id, table.c.job_id).where(*of_sort).limit(LOG_SWEEP_MAX_COUNT)
    return [(row.tenant_id, row.job_id) for row in connection.execute(query)]

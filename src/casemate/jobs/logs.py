"""The logs of all jobs: opened by attempts, followed, looked through, moved to the objects and forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from functools import partial
from typing import Final
from weakref import WeakValueDictionary

import msgspec

from casemate import job_limits as limits
from casemate.blobs.protocol import Blobs
from casemate.errors import InvalidInput, NotFound, RecordsDamaged, TooManyRequests
from casemate.jobs.log_attempt import AttemptLog, Key
from casemate.jobs.log_pieces import unpacked
from casemate.jobs.log_writer import LogWriter
from casemate.limits import KIB
from casemate.model.job import Job
from casemate.model.job_log import JobLine, asked_words, has_words
from casemate.store import job_logs as rows
from casemate.store.database import Database
from casemate.store.job_logs import Filters, Log, Piece
from casemate.store.pages import Page, cursor_of, place_of

_FIRST_LOOK_S: Final = 0.01
_ID_MAX: Final = 2**62
_PIECES_A_READ: Final = 8


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which lines are looked for. `text`: words that begin words of the line; `since_us` ≤ time < `until_us`."""

    text: str = ""
    job_id: str | None = None
    runtime: str | None = None
    kind: str | None = None
    stream: str | None = None
    level: str | None = None
    since_us: int | None = None
    until_us: int | None = None


class Found(msgspec.Struct, frozen=True):
    """A line, and whose it is."""

    job_id: str
    line: JobLine


class Logs:
    """Implements JobLogs, and is asked by everybody who wants to see what jobs print."""

    def __init__(self, database: Database, writer: LogWriter, blobs: Blobs) -> None:
        self._database = database
        self._writer = writer
        self._blobs = blobs
        self._searching: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def open(self, job: Job, attempt: int) -> AttemptLog:
        """The log of an attempt that begins. Nothing is written until something is printed."""
        return self._writer.open(job, attempt)

    async def find(self, tenant_id: str, job_id: str) -> Log | None:
        """A job's log as a whole; None: there is nothing of it."""
        return await self._database.read(lambda records: rows.find(records, tenant_id, job_id))

    # Reading --------------------------------------------------------------------------------------

    async def after(self, tenant_id: str, job_id: str, seq: int, *, limit: int) -> list[JobLine]:
        """The lines of a job after that one, in their order."""
        found: list[JobLine] = []
        while len(found) < limit:
            pieces = await self._database.read(
                partial(rows.pieces_after, tenant_id=tenant_id, job_id=job_id, seq=seq, limit=_PIECES_A_READ)
            )
            for piece in pieces:
                if len(found) < limit:
                    found += [line for line in await self._lines(piece) if line.seq > seq]
                    seq = piece.last_seq
            if not pieces:
                break
        return found[:limit]

    async def last(self, tenant_id: str, job_id: str, count: int) -> list[JobLine]:
        """The last lines of a job, in their order."""
        found: list[JobLine] = []
        before = _ID_MAX
        while len(found) < count:
            pieces = await self._database.read(
                partial(rows.pieces_before, tenant_id=tenant_id, job_id=job_id, seq=before, limit=_PIECES_A_READ)
            )
            for piece in pieces:
                before = piece.first_seq
                if len(found) < count:
                    found = [*await self._lines(piece), *found]
            if not pieces:
                break
        return found[-count:] if count else []

    async def follow(
        self, tenant_id: str, job_id: str, seq: int, has_ended: Callable[[], Awaitable[bool]]
    ) -> AsyncGenerator[list[JobLine], None]:
        """The lines of a job after that one as they come, some at a time, until it has ended and all are told."""
        if self._writer.followers_count >= limits.LOG_FOLLOWERS_MAX:
            raise TooManyRequests(f"more than {limits.LOG_FOLLOWERS_MAX} logs are followed", retry_after_s=1)
        key = (tenant_id, job_id)
        self._writer.follow(key)
        try:
            async for lines in self._following(key, seq, has_ended):
                yield lines
        finally:
            self._writer.unfollow(key)

    async def _following(
        self, key: Key, seq: int, has_ended: Callable[[], Awaitable[bool]]
    ) -> AsyncGenerator[list[JobLine], None]:
        look_s = _FIRST_LOOK_S
        ended = False
        while True:
            change = self._writer.next_change(key)
            lines = self._writer.recent(key, seq)
            if lines is None:
                lines = await self.after(*key, seq, limit=limits.LOG_LINES_A_READ_MAX)
            if lines:
                seq, look_s = lines[-1].seq, _FIRST_LOOK_S
                yield lines
            elif ended:
                return
            elif self._writer.is_open(key):
                await asyncio.wait([change], timeout=limits.LOG_LOOK_S)
            else:
                # All that an attempt has printed is recorded before its end is: so look once more.
                ended = await has_ended()
                if not ended:
                    await asyncio.wait([change], timeout=look_s)
                    look_s = min(2 * look_s, limits.LOG_LOOK_S)

    async def _lines(self, piece: Piece) -> list[JobLine]:
        """What is in a piece; nothing, if its object was deleted meanwhile."""
        data = piece.data
        if data is None:
            try:
                data = await self._part(piece)
            except NotFound:
                return []
        return unpacked(data) if len(data) < KIB else await asyncio.to_thread(unpacked, data)

    async def _part(self, piece: Piece) -> bytes:
        found = bytearray()
        pieces = self._blobs.get(piece.object_key or "", offset=piece.object_offset)
        async with aclosing(pieces) as source:  # type: ignore[type-var]
            async for data in source:
                found += data[: piece.data_bytes - len(found)]
                if len(found) == piece.data_bytes:
                    return bytes(found)
        raise RecordsDamaged("damaged", "the object of a job's log is shorter than it was")

    # Searching ------------------------------------------------------------------------------------

    async def search(self, tenant_id: str, wanted: Wanted, *, limit: int, cursor: str | None = None) -> Page[Found]:
        """Lines of a tenant's jobs, the last ones that were written first.

        A page may have fewer lines than there is room for, even none, and still be followed by others. Raises
        InvalidInput. One of a tenant at a time: the work is a processor's, and others wait for it.
        """
        async with self._searching.setdefault(tenant_id, asyncio.Lock()):
            return await self._search(tenant_id, wanted, limit, cursor)

    async def _search(self, tenant_id: str, wanted: Wanted, limit: int, cursor: str | None) -> Page[Found]:
        words = asked_words(wanted.text) if wanted.text else ()
        found: list[Found] = []
        before_id, before_seq = _search_place(cursor)
        async for piece in self._searched(tenant_id, _filters(wanted, words), before_id):
            if piece is None:
                return Page(items=tuple(found), next_cursor=cursor_of(before_id, "0"))
            lines = await asyncio.to_thread(_wanted_of, await self._lines(piece), wanted, words)
            if before_seq and piece.id == before_id - 1:
                lines = [line for line in lines if line.seq < before_seq]
            before_seq = 0
            for line in reversed(lines):
                if len(found) == limit:
                    return Page(items=tuple(found), next_cursor=cursor_of(piece.id + 1, str(found[-1].line.seq)))
                found.append(Found(piece.job_id, line))
            if len(found) == limit:
                return Page(items=tuple(found), next_cursor=cursor_of(piece.id, "0"))
            before_id = piece.id
        return Page(items=tuple(found))

    async def _searched(self, tenant_id: str, filters: Filters, before_id: int) -> AsyncGenerator[Piece | None, None]:
        """The pieces that may hold something; None: there may be more than are looked into."""
        for _ in range(limits.LOG_PIECES_A_SEARCH_MAX // _PIECES_A_READ):
            pieces = await self._database.read(
                partial(rows.search, tenant_id=tenant_id, filters=filters, before_id=before_id, limit=_PIECES_A_READ)
            )
            for piece in pieces:
                before_id = piece.id
                yield piece
            if len(pieces) < _PIECES_A_READ:
                return
        yield None

    async def holding(self, tenant_id: str, text: str, *, limit: int) -> Sequence[str]:
        """The jobs of a tenant, youngest first, in whose logs a text is to be found. A search, as any other."""
        async with self._searching.setdefault(tenant_id, asyncio.Lock()):
            return await self._holding(tenant_id, asked_words(text), limit)

    async def _holding(self, tenant_id: str, words: tuple[str, ...], limit: int) -> Sequence[str]:
        found: dict[str, None] = {}
        async for piece in self._searched(tenant_id, Filters(words=words), _ID_MAX):
            if piece is None or len(found) == limit:
                break
            if piece.job_id in found:
                continue
            if await asyncio.to_thread(_is_any_with, await self._lines(piece), words):
                found[piece.job_id] = None
        return tuple(found)

    # Forgetting -----------------------------------------------------------------------------------

    async def delete(self, tenant_id: str, job_id: str) -> None:
        """Forget what a job has printed. Idempotent."""
        for key in await self._database.read(lambda records: rows.objects_of(records, tenant_id, job_id)):
            await self._blobs.delete(key)
        await self._database.write(lambda records: rows.remove(records, tenant_id, job_id))


def _search_place(cursor: str | None) -> tuple[int, int]:
    """Before which piece, and before which line of the piece that stands just before it."""
    if cursor is None:
        return _ID_MAX, 0
    before_id, seq = place_of(cursor)
    if not (seq.isascii() and seq.isdecimal()):
        raise InvalidInput("cursor", "is none that this list has given")
    return before_id, int(seq)


def _filters(wanted: Wanted, words: tuple[str, ...]) -> Filters:
    return Filters(
        job_id=wanted.job_id,
        runtime=wanted.runtime,
        kind=wanted.kind,
        since_us=wanted.since_us,
        until_us=wanted.until_us,
        words=words,
    )


def _wanted_of(lines: list[JobLine], wanted: Wanted, words: tuple[str, ...]) -> list[JobLine]:
    return [line for line in lines if _is_wanted(line, wanted, words)]


def _is_wanted(line: JobLine, wanted: Wanted, words: tuple[str, ...]) -> bool:
    if wanted.stream is not None and line.stream != wanted.stream:
        return False
    if wanted.since_us is not None and line.at_us < wanted.since_us:
        return False
    if wanted.until_us is not None and line.at_us >= wanted.until_us:
        return False
    if words and not has_words(line.readable, words):
        return False
    return wanted.level is None or line.level == wanted.level


def _is_any_with(lines: Iterable[JobLine], words: tuple[str, ...]) -> bool:
    return any(has_words(line.readable, words) for line in lines)

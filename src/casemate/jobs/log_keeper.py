"""What becomes of logs when nobody writes them any more: they are moved to the objects, and at last forgotten.

A log that is moved is a file of JSON lines in the job's area `logs`, compressed by gzip. Its rows in the records say
where in it which lines are.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final, Self

from casemate import job_limits as limits
from casemate.blobs.keys import LOGS, job_key
from casemate.blobs.protocol import Blobs
from casemate.clock import now_us
from casemate.errors import CasemateError
from casemate.jobs.log_attempt import Key
from casemate.jobs.log_pieces import packed, size_of, unpacked, words_in
from casemate.jobs.log_rules import LogRules
from casemate.jobs.log_writer import LogWriter
from casemate.jobs.logs import Logs
from casemate.model.units import SECOND_US
from casemate.recurring import Recurring
from casemate.store import job_logs as rows
from casemate.store.database import Database, Records
from casemate.store.job_logs import Moved, Piece

_LOG: Final = logging.getLogger(__name__)
_DAY_US: Final = 24 * 3600 * SECOND_US
_PIECES_A_READ: Final = 32


class LogKeeper:
    """Moves and forgets, for as long as it is open."""

    def __init__(self, database: Database, writer: LogWriter, blobs: Blobs, logs: Logs, rules: LogRules) -> None:
        self._database = database
        self._writer = writer
        self._blobs = blobs
        self._logs = logs
        self._rules = rules
        self._swept_s = -limits.LOG_SWEEP_PERIOD_S
        self._keeping = Recurring(self._keep, name="keeping the logs of jobs", pause_s=limits.LOG_MOVE_PERIOD_S)

    async def __aenter__(self) -> Self:
        self._keeping.begin()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._keeping.end()

    async def _keep(self) -> None:
        await self.move(before_us=now_us() - int(limits.LOG_MOVE_AFTER_S * SECOND_US))
        if time.monotonic() - self._swept_s >= limits.LOG_SWEEP_PERIOD_S:
            self._swept_s = time.monotonic()
            await self.sweep(now_us())
        await asyncio.sleep(limits.LOG_MOVE_PERIOD_S)

    # Forgetting -----------------------------------------------------------------------------------

    async def sweep(self, at_us: int) -> int:
        """Delete the logs that are older than they are to be kept, and say how many they were."""
        count = 0
        for runtime, kind in await self._database.read(rows.sorts):
            before_us = at_us - self._rules.kept_days(runtime, kind) * _DAY_US
            older = partial(rows.older, runtime=runtime, kind=kind, before_us=before_us)
            while found := [key for key in await self._database.read(older) if not self._writer.is_open(key)]:
                forgotten = sum([await self._forget(key) for key in found])
                count += forgotten
                if not forgotten:
                    break
        return count

    async def _forget(self, key: Key) -> bool:
        """Delete one log. One that cannot be deleted stays until a later turn, and holds up no other."""
        try:
            await self._logs.delete(*key)
        except CasemateError as error:
            _LOG.warning("the log of job %s could not be deleted: %s", key[1], error)
            return False
        return True

    # Moving ---------------------------------------------------------------------------------------

    async def move(self, *, before_us: int) -> int:
        """Move the logs to which nothing has come since that time, and say how many they were."""
        count = 0
        while True:
            limit = limits.LOG_MOVES_A_TURN_MAX + self._writer.open_count
            unmoved = partial(rows.unmoved, before_us=before_us, limit=limit)
            found = [key for key in await self._database.read(unmoved) if not self._writer.is_open(key)]
            moved = 0
            for at in range(0, len(found), limits.LOG_MOVES_AT_ONCE):
                moved += sum(await asyncio.gather(*map(self._move, found[at : at + limits.LOG_MOVES_AT_ONCE])))
            count += moved
            if not moved:
                return count

    async def _move(self, key: Key) -> bool:
        """Move one log, as far as it is not moved yet."""
        try:
            moving = _Moving(self._database, key, head_bytes=self._writer.kept.head_bytes)
            await moving.put(self._blobs)
            done = partial(rows.moved, tenant_id=key[0], job_id=key[1], done=moving.done, next_seq=moving.next_seq)
            if not await self._database.write(done):
                await moving.undo(self._blobs)
        except CasemateError as error:
            _LOG.warning("the log of job %s could not be moved: %s", key[1], error)
            return False
        return True


class _Moving:
    """One log on its way into an object, a segment at a time."""

    def __init__(self, database: Database, key: Key, *, head_bytes: int) -> None:
        self._database = database
        self._head_bytes = head_bytes
        self._key = key
        self._object = ""
        self._offset = 0
        self._pieces: list[Piece] = []
        self.next_seq = 0
        self.done: list[Moved] = []

    async def put(self, blobs: Blobs) -> None:
        """Write the object; nothing, if there is nothing to be moved."""
        self.next_seq, pieces = await self._database.read(self._begin)
        if pieces:
            self._object = job_key(*self._key, LOGS, f"{pieces[0].first_seq:012d}.jsonl.gz")
            await blobs.put(self._object, self._segments(pieces), size_max_bytes=limits.LOG_OBJECT_MAX_BYTES)

    async def undo(self, blobs: Blobs) -> None:
        """The log was deleted meanwhile, and its object is not to stay."""
        if self._object:
            await blobs.delete(self._object)

    def _begin(self, records: Records) -> tuple[int, list[Piece]]:
        """How far the log is, and the first pieces that are not moved."""
        return rows.next_seq(records, *self._key), self._after(records, 0)

    def _after(self, records: Records, seq: int) -> list[Piece]:
        return rows.unmoved_pieces(records, *self._key, after_seq=seq, limit=_PIECES_A_READ)

    async def _segments(self, pieces: list[Piece]) -> AsyncIterator[bytes]:
        while pieces:
            for piece in pieces:
                cost_bytes = sum(each.end_place - each.begin_place for each in [*self._pieces, piece])
                if self._pieces and cost_bytes > limits.LOG_SEGMENT_MAX_BYTES:
                    yield await asyncio.to_thread(self._segment)
                self._pieces.append(piece)
            more = partial(self._after, seq=pieces[-1].first_seq)
            pieces = await self._database.read(more) if len(pieces) == _PIECES_A_READ else []
        if self._pieces:
            yield await asyncio.to_thread(self._segment)

    def _segment(self) -> bytes:
        pieces, self._pieces = self._pieces, []
        lines = [line for piece in pieces for line in unpacked(piece.data or b"")]
        is_indexed = len(pieces) == 1 and pieces[0].begin_place < self._head_bytes
        data = packed(lines, is_final=True)
        self.done.append(
            Moved(
                ids=tuple(piece.id for piece in pieces),
                lines=len(lines),
                size_bytes=size_of(lines),
                last=pieces[-1],
                object_key=self._object,
                object_offset=self._offset,
                data_bytes=len(data),
                words=None if is_indexed else words_in(lines),
            )
        )
        self._offset += len(data)
        return data


@asynccontextmanager
async def open_logs(
    database: Database,
    blobs: Blobs,
    *,
    kept_max_bytes: int = limits.LOG_KEPT_MAX_BYTES,
    rules: LogRules | None = None,
    on_mistake: Callable[[], None] = lambda: None,
) -> AsyncIterator[Logs]:
    """The logs of all jobs, written down, moved and forgotten for as long as they are open."""
    async with LogWriter(database, kept_max_bytes=kept_max_bytes, on_mistake=on_mistake) as writer:
        logs = Logs(database, writer, blobs)
        async with LogKeeper(database, writer, blobs, logs, rules or LogRules()):
            yield logs

"""What jobs print, on its way into the records: lines of many jobs are written down together, and told when they are.

Nothing is told that is not recorded, so whoever was told a line finds it again, whatever becomes of this process. A
job's output waits where its lines are not written down as fast as they come; when it has printed more than is kept of
its beginning, what cannot be kept anyway is left out instead.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final, Self

from casemate import job_limits as limits
from casemate.errors import CasemateError
from casemate.jobs.log_attempt import AttemptLog, Key, Portion
from casemate.jobs.log_pieces import packed, words_in
from casemate.limits import KIB
from casemate.model.job import Job
from casemate.model.job_log import JobLine
from casemate.recurring import Recurring
from casemate.store import job_logs as rows
from casemate.store.database import Database
from casemate.store.job_logs import Kept, NewPiece, Written

_LOG: Final = logging.getLogger(__name__)
_INLINE_MAX_BYTES: Final = 32 * KIB
"""What is compressed in less time than it takes to ask another thread."""


class LogWriter:
    """Opens logs and writes them down, for as long as it is open itself."""

    def __init__(
        self,
        database: Database,
        *,
        kept_max_bytes: int = limits.LOG_KEPT_MAX_BYTES,
        on_mistake: Callable[[], None] = lambda: None,
    ) -> None:
        self._database = database
        self.kept = Kept(head_bytes=kept_max_bytes // 2, tail_bytes=kept_max_bytes - kept_max_bytes // 2)
        self._open: dict[Key, AttemptLog] = {}
        self._due_s: dict[AttemptLog, float] = {}
        self._loop = asyncio.get_running_loop()
        self._work = asyncio.Event()
        self._urgent = asyncio.Event()
        self._followed: dict[Key, int] = {}
        self._changes: dict[Key, asyncio.Future[None]] = {}
        self._on_mistake = on_mistake
        self._writing = Recurring(self._write_some, name="logs of jobs", pause_s=limits.LOG_WRITE_PAUSE_S)

    async def __aenter__(self) -> Self:
        self._writing.begin()
        return self

    async def __aexit__(self, *_: object) -> None:
        for log in list(self._open.values()):
            await log.close()
        await self._writing.end()

    def open(self, job: Job, attempt: int) -> AttemptLog:
        """The log of an attempt that begins. Nothing is written until something is printed."""
        log = AttemptLog(job, attempt, head_bytes=self.kept.head_bytes, on_change=self._changed)
        self._open[log.key] = log
        return log

    def is_open(self, key: Key) -> bool:
        """Whether an attempt may still print, as far as this process knows."""
        return key in self._open

    @property
    def open_count(self) -> int:
        return len(self._open)

    def recent(self, key: Key, after_seq: int) -> list[JobLine] | None:
        """The lines after that one, if they are the last ones that were written down; None: they are to be read."""
        log = self._open.get(key)
        return None if log is None else log.recent_after(after_seq)

    # For those who follow -------------------------------------------------------------------------

    def follow(self, key: Key) -> None:
        """Somebody waits for the lines of this job: they are written down at once."""
        self._followed[key] = self._followed.get(key, 0) + 1

    def unfollow(self, key: Key) -> None:
        """The opposite of `follow`."""
        left = self._followed.pop(key) - 1
        if left:
            self._followed[key] = left
        else:
            self._changes.pop(key, None)

    @property
    def followers_count(self) -> int:
        return sum(self._followed.values())

    def next_change(self, key: Key) -> asyncio.Future[None]:
        """Done when a job's log has more lines from now on, or its attempt has ended."""
        waiter = self._changes.get(key)
        if waiter is None:
            waiter = self._changes[key] = asyncio.get_running_loop().create_future()
        return waiter

    def _tell(self, key: Key) -> None:
        waiter = self._changes.pop(key, None)
        if waiter is not None:
            waiter.set_result(None)

    # Writing down ---------------------------------------------------------------------------------

    def _changed(self, log: AttemptLog) -> None:
        """Something is to be written, or the log is to be closed."""
        is_urgent = log.is_closing or log.is_full or log.key in self._followed
        due_s = 0.0 if is_urgent else self._loop.time() + log.gather_s
        self._due_s[log] = min(due_s, self._due_s.get(log, due_s))
        self._work.set()
        if is_urgent:
            self._urgent.set()

    async def _write_some(self) -> None:
        await self._work.wait()
        self._urgent.clear()
        wait_s = min(self._due_s.values(), default=0.0) - self._loop.time()
        if wait_s > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._urgent.wait(), wait_s)
        await self._write_group(self._next_group())
        if not self._due_s:
            self._work.clear()

    def _next_group(self) -> list[AttemptLog]:
        """Those whose time has come; of one job no two attempts."""
        now_s = self._loop.time()
        found: dict[Key, AttemptLog] = {}
        for log, due_s in self._due_s.items():
            if due_s <= now_s and len(found) < limits.LOG_GROUP_MAX_COUNT:
                found.setdefault(log.key, log)
        for log in found.values():
            del self._due_s[log]
        return list(found.values())

    async def _write_group(self, group: list[AttemptLog]) -> None:
        """A portion of each log that has something, in one transaction. What is wrong with one is no other's matter."""
        made: list[tuple[AttemptLog, Portion, NewPiece | None]] = []
        for log in group:
            with self._contained(log):
                portion = log.portion()
                if portion is not None:
                    made.append((log, portion, await self._piece(log, portion)))
        written = iter(await self._recorded([piece for _, _, piece in made if piece is not None]))
        for log, portion, piece in made:
            each = None if piece is None else next(written)
            with self._contained(log):
                log.settle(portion, each)
        for log in group:
            with self._contained(log):
                self._after(log)

    @contextmanager
    def _contained(self, log: AttemptLog) -> Iterator[None]:
        """A mistake of ours with one log is the end of that one: its job goes on, and so do the logs of all others."""
        try:
            yield
        except Exception:  # noqa: BLE001  (whatever it is)
            _LOG.exception("a log is given up", extra={"job": log.key[1], "attempt": log.attempt})
            self._on_mistake()
            self._due_s.pop(log, None)
            if self._open.get(log.key) is log:
                del self._open[log.key]
            log.give_up()
            self._tell(log.key)

    async def _piece(self, log: AttemptLog, portion: Portion) -> NewPiece | None:
        """None: it cannot be made, and these lines are left out."""
        try:
            if portion.cost_bytes <= _INLINE_MAX_BYTES:
                return _made(log, portion)
            return await asyncio.to_thread(_made, log, portion)
        except Exception:  # noqa: BLE001  (whatever it is)
            _LOG.exception("lines of a job are left out", extra={"job": log.key[1], "attempt": log.attempt})
            self._on_mistake()
            return None

    async def _recorded(self, pieces: list[NewPiece]) -> list[Written | None]:
        fitting = [at for at, each in enumerate(pieces) if self._database.stored.takes(each.tenant_id, len(each.data))]
        found: list[Written | None] = [None] * len(pieces)
        try:
            for at, written in zip(fitting, await self._written([pieces[at] for at in fitting]), strict=True):
                found[at] = written
        except Exception:  # noqa: BLE001  (whatever it is: jobs go on, and their logs are closed)
            _LOG.exception("lines of %d jobs could not be written down", len(pieces))
        return found

    async def _written(self, pieces: list[NewPiece]) -> Sequence[Written | None]:
        """Tried again for a while: the disk may be full, and then have room. What is not written is None."""
        for left in reversed(range(limits.LOG_WRITE_TRIES if pieces else 0)):
            try:
                return await self._database.write(lambda records: rows.append(records, pieces, self.kept))
            except CasemateError as error:
                _LOG.warning("lines of %d jobs could not be written down: %s", len(pieces), error)
                if not error.retryable:
                    break
                if left:
                    await asyncio.sleep(limits.LOG_WRITE_PAUSE_S)
        # What is wrong with one of them is no reason to lose the others.
        return [None] if len(pieces) == 1 else [(await self._written([each]))[0] for each in pieces]

    def _after(self, log: AttemptLog) -> None:
        if log.has_more:
            self._changed(log)
        elif log.is_closing:
            if self._open.get(log.key) is log:
                del self._open[log.key]
            log.done()
        self._tell(log.key)


def _made(log: AttemptLog, portion: Portion) -> NewPiece:
    lines = portion.lines
    return NewPiece(
        tenant_id=log.key[0],
        job_id=log.key[1],
        runtime=log.runtime,
        kind=log.kind,
        attempt=log.attempt,
        first_seq=lines[0].seq,
        last_seq=lines[-1].seq,
        next_before=portion.next_before,
        lines=len(lines),
        size_bytes=portion.size_bytes,
        cost_bytes=portion.cost_bytes,
        total_bytes=portion.total_bytes,
        first_at_us=lines[0].at_us,
        last_at_us=lines[-1].at_us,
        data=packed(lines),
        words=None if portion.is_tail else words_in(lines),
    )

"""The log of one attempt, until it is written down: bytes become lines, lines become portions. No I/O."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, TypeAlias

import msgspec

from casemate import job_limits as limits
from casemate.clock import now_us
from casemate.jobs.log_lines import Cut, Splitter
from casemate.jobs.log_pieces import kind_of
from casemate.model.job import Job
from casemate.model.job_log import JobLine, line_of
from casemate.model.result import Chunk
from casemate.store.job_logs import Written

Key: TypeAlias = tuple[str, str]
"""A tenant and a job."""

_Ready: TypeAlias = tuple[str, int, Cut]
_STREAMS: Final = ("stdout", "stderr")


class Portion(msgspec.Struct, frozen=True, kw_only=True):
    """Lines that are to be written down together, where the log was at `next_before`."""

    next_before: int
    ready: list[_Ready]
    lines: list[JobLine]
    cost_bytes: int
    size_bytes: int
    total_bytes: int
    is_tail: bool


class AttemptLog:
    """What one attempt prints. See `JobLog`."""

    def __init__(self, job: Job, attempt: int, *, head_bytes: int, on_change: Callable[[AttemptLog], None]) -> None:
        self.key: Key = (job.tenant_id, job.id)
        self.runtime = job.spec.runtime
        self.kind = kind_of(job)
        self.attempt = attempt
        self.is_closing = False
        self._head_bytes = head_bytes
        self._on_change = on_change
        self._loop = asyncio.get_running_loop()
        self._opened_s = self._loop.time()
        self._splitters = {name: Splitter() for name in _STREAMS}
        self._held_since_s: dict[str, float] = {}
        self._ring: deque[tuple[str, int, Chunk]] = deque()
        self._ring_bytes = 0
        self._ready: deque[_Ready] = deque()
        self._ready_bytes = 0
        self._fed_bytes = 0
        self._left_out = 0
        self._next_seq = 1
        self._place = 0
        self._is_fresh = True
        self._is_lost = False
        self._recent: list[JobLine] = []
        self._recent_from = 1
        self._room = asyncio.Event()
        self._done = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    # What comes in --------------------------------------------------------------------------------

    async def feed(self, chunk: Chunk, at_us: int) -> None:
        """Take a piece, which came at that time. Waits while there is more to be written than is to be held."""
        if self.is_closing or self._is_lost:
            return
        self._fed_bytes += len(chunk.data)
        for at in range(0, len(chunk.data), limits.LOG_SLICE_BYTES):
            data = chunk.data[at : at + limits.LOG_SLICE_BYTES]
            slice_ = Chunk(chunk.stream, data, chunk.offset + at)
            if self._place + self._ready_bytes < self._head_bytes:
                self._take(slice_, at_us)
                if not await self._has_room():
                    return
            else:
                self._put_by(slice_, at_us)
        self._wake()

    async def close(self) -> None:
        """The attempt prints no more. Comes back when all of it is written down. Idempotent."""
        if not self.is_closing:
            self.is_closing = True
            self._on_change(self)
        await self._done.wait()

    def _take(self, chunk: Chunk, at_us: int) -> None:
        """Into lines."""
        name = chunk.stream
        splitter = self._splitters[name]
        held_bytes = splitter.held_bytes
        cuts = list(splitter.feed(chunk.data, chunk.offset))
        self._add(name, at_us, cuts)
        if not splitter.held_bytes:
            self._held_since_s.pop(name, None)
        elif cuts or not held_bytes:
            self._held_since_s[name] = self._loop.time()

    def _add(self, name: str, at_us: int, cuts: Iterable[Cut]) -> None:
        for cut in cuts:
            self._ready.append((name, at_us, cut))
            self._ready_bytes += cut.cost_bytes

    async def _has_room(self) -> bool:
        """Wait for it. False: nothing more is written down."""
        while self._ready_bytes > limits.LOG_PENDING_MAX_BYTES and not self._is_lost:
            self._room.clear()
            self._on_change(self)
            await self._room.wait()
        return not self._is_lost

    def _put_by(self, chunk: Chunk, at_us: int) -> None:
        """For later; what has no room then is left out. It costs next to nothing, however much it is."""
        self._ring.append((chunk.stream, at_us, chunk))
        self._ring_bytes += len(chunk.data)
        while self._ring_bytes > limits.LOG_RING_MAX_BYTES:
            name, then_us, oldest = self._ring.popleft()
            self._ring_bytes -= len(oldest.data)
            skipped = self._splitters[name].skip(oldest.offset + len(oldest.data), lines=oldest.data.count(b"\n"))
            self._add(name, then_us, skipped)

    def _wake(self) -> None:
        """Have it written down now, or soon."""
        if self._ready:
            self._on_change(self)
        if (self._ring or self._held_since_s) and self._timer is None:
            self._timer = self._loop.call_later(min(limits.LOG_RING_PERIOD_S, limits.LOG_PARTIAL_S), self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        self._drain()
        for name, since_s in list(self._held_since_s.items()):
            if self._loop.time() - since_s >= limits.LOG_PARTIAL_S:
                self._release(name, whole=False)
        if not self.is_closing:
            self._wake()

    def _drain(self) -> None:
        while self._ring and self._ready_bytes <= limits.LOG_PENDING_MAX_BYTES:
            _, at_us, chunk = self._ring.popleft()
            self._ring_bytes -= len(chunk.data)
            self._take(chunk, at_us)

    def _release(self, name: str, *, whole: bool) -> None:
        self._held_since_s.pop(name, None)
        self._add(name, self._ready[-1][1] if self._ready else now_us(), self._splitters[name].release(whole=whole))

    # What goes out --------------------------------------------------------------------------------

    @property
    def gather_s(self) -> float:
        """For how long lines are gathered that nobody follows: short at first, longer for what prints for long."""
        age_s = self._loop.time() - self._opened_s
        return min(limits.LOG_GATHER_MAX_S, max(limits.LOG_GATHER_MIN_S, age_s / limits.LOG_GATHER_SHARE))

    @property
    def is_full(self) -> bool:
        """Whether its output waits for what it has printed to be written down."""
        return self._ready_bytes > limits.LOG_PENDING_MAX_BYTES

    @property
    def has_more(self) -> bool:
        held = any(splitter.held_bytes for splitter in self._splitters.values())
        return bool(self._ready) or (self.is_closing and not self._is_lost and (bool(self._ring) or held))

    def portion(self) -> Portion | None:
        """What is to be written down next. It is settled before another one is asked for."""
        if self.is_closing:
            self._drain()
            for name in () if self._ring else _STREAMS:
                self._release(name, whole=True)
        ready: list[_Ready] = []
        cost_bytes = 0
        while self._ready and (not ready or cost_bytes + self._ready[0][2].cost_bytes <= limits.LOG_PIECE_MAX_BYTES):
            ready.append(self._ready.popleft())
            cost_bytes += ready[-1][2].cost_bytes
        if not ready:
            return None
        total_bytes, self._fed_bytes = self._fed_bytes, 0
        return Portion(
            next_before=self._next_seq,
            ready=ready,
            lines=self._numbered(ready),
            cost_bytes=cost_bytes,
            size_bytes=sum(len(cut.data) + (not cut.partial) for _, _, cut in ready),
            total_bytes=total_bytes,
            is_tail=self._place >= self._head_bytes,
        )

    def _numbered(self, ready: list[_Ready]) -> list[JobLine]:
        seq = self._next_seq + self._left_out
        lines = []
        for name, at_us, cut in ready:
            seq += cut.left_out
            place = {"seq": seq, "attempt": self.attempt, "at_us": at_us, "offset": cut.offset}
            lines.append(line_of(cut.data, stream=name, partial=cut.partial, **place))
            seq += 1
        return lines

    def settle(self, portion: Portion, written: Written | None) -> None:
        """What came of it. None: it could not be written down, and is left out."""
        if written is None:
            self._left_out += portion.lines[-1].seq - portion.next_before + 1
            self._fed_bytes += portion.total_bytes
        elif written.is_ours:
            self._is_fresh = False
            self._next_seq, self._place, self._left_out = written.next_seq, written.place, 0
            self._recent, self._recent_from = portion.lines, portion.next_before
        elif self._is_fresh and written.next_seq > self._next_seq:
            # An earlier attempt has printed, too: its numbers go on.
            self._is_fresh = False
            self._next_seq, self._place = written.next_seq, written.place
            self._ready.extendleft(reversed(portion.ready))
            self._fed_bytes += portion.total_bytes
            return
        else:
            self._lose()
        self._ready_bytes -= portion.cost_bytes
        if not self.is_full:
            self._room.set()

    def _lose(self) -> None:
        """Somebody else writes this log now, or its tenant is gone: what comes from here is of no attempt."""
        self._is_lost = True
        self._ready_bytes -= sum(cut.cost_bytes for _, _, cut in self._ready)
        self._ready.clear()
        self._ring.clear()
        self._room.set()

    def give_up(self) -> None:
        """Nothing more is written down, for a mistake of ours; whoever prints, or waits for the end, goes on."""
        self.is_closing = True
        self._lose()
        self._ready_bytes = 0
        self.done()

    def done(self) -> None:
        """All of it is written down, or given up."""
        if self._timer is not None:
            self._timer.cancel()
        self._done.set()

    def recent_after(self, seq: int) -> list[JobLine] | None:
        """The lines after that one, as far as they are written down; None: only the records know."""
        if self._is_fresh or seq + 1 < self._recent_from:
            return None
        return [line for line in self._recent if line.seq > seq]

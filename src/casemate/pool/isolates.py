"""The pool of workers: each is bound to one tenant and serves one execution at a time.

Whoever finds no idle worker starts one itself, or waits in line where there are as many as there may be. A thread
ends workers that have been idle for long, notices those that have died, and replaces those that were busy lately;
it sleeps until one of these is due, and is gone when there is nothing to look after.
"""

from __future__ import annotations

import itertools
import os
import select
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from casemate import limits
from casemate.errors import CasemateError, SandboxClosed
from casemate.isolation.waiting import Steps, Wait
from casemate.model.workers import WorkerGroup, WorkerInfo, WorkerKind, WorkerState
from casemate.pool import decide
from casemate.pool.decide import Retirement
from casemate.pool.line import Demand, Waiter
from casemate.pool.ready import PoolStatistics
from casemate.pool.worker import Kind, Worker, WorkersStatus, info_of, status_of

_NOTHING: Final = None
KINDS: Final = {"isolates": WorkerKind.ISOLATE, "runners": WorkerKind.RUNNER}
UNEXPECTED: Final = frozenset({Retirement.CRASHED, Retirement.SILENT, Retirement.LEAK, Retirement.DISTRUSTED})
"""Ends that somebody may want to look into."""


class WorkerPool:
    """Hands out workers and takes them back. Safe to use from many threads and tasks."""

    def __init__(
        self,
        start: Callable[[Kind], Steps[Worker]],
        start_here: Callable[[Kind], Worker],
        *,
        most: int,
        label: str = "isolates",
        prepares: bool = True,
    ) -> None:
        """`start` makes a worker in the steps of whoever needs it, `start_here` in the calling thread.

        `prepares`: a worker that has answered needs a moment to be ready for more.
        """
        self._prepares = prepares
        self._label = label
        self._start = start
        self._start_here = start_here
        self._most = most
        self._lock = threading.Lock()
        self._idle: list[Worker] = []
        self._busy: set[Worker] = set()
        self._noticed: set[Worker] = set()  # busy ones that have died; whoever uses them finds that out
        self._starting = 0
        self._waiting: deque[Waiter] = deque()
        self._turns: dict[str, int] = {}  # when a tenant was last let in from the line, oldest first
        self._counted = itertools.count(1)
        self._demand: dict[Kind, Demand] = {}
        self._retired: dict[str, int] = {}
        self._hits = self._misses = self._begun = self._restarted = 0
        self._ended: deque[WorkerInfo] = deque(maxlen=limits.WORKERS_ENDED_KEPT)
        self._closed = self._resting = False
        self._wake = -1
        self._thread: threading.Thread | None = None

    # For those who need a worker ------------------------------------------------------------------

    def take(self, kind: Kind) -> Steps[Worker]:
        """An idle worker, a new one, or one that somebody gives back. Raises what starting one raises."""
        found = self._ask(kind)
        if isinstance(found, Waiter):
            found = yield from self._line_up(found)
        return found if found is not None else (yield from self._started(kind))

    def give_back(self, worker: Worker, retire: Retirement | None = None) -> None:
        """The execution is over; `retire` says why the worker must not serve another one.

        One that is merely old serves on until another one has taken its place.
        """
        now_s = time.monotonic()
        old = decide.retirement(age_s=now_s - worker.started_s, runs=worker.runs, samples=worker.samples)
        with self._lock:
            self._busy.discard(worker)
            self._noticed.discard(worker)
            worker.idle_since_s = now_s
            is_news = retire is not None or (worker.retiring is None and old is not None) or self._thread is None
            worker.retiring = worker.retiring or old
            why = retire or (Retirement.CLOSED if self._closed else None)
            doomed = [(worker, why)] if why is not None else []
            doomed += self._pass_on(_NOTHING if why is not None else worker)
            if is_news:
                self._keep()
        self._end(doomed)

    @property
    def is_crowded(self) -> bool:
        """Whether somebody waits in line."""
        return bool(self._waiting)

    def status(self) -> WorkersStatus:
        """What there is and what happened."""
        now_s = time.monotonic()
        with self._lock:
            states = [*((worker, "busy") for worker in self._busy), *((worker, "idle") for worker in self._idle)]
            return WorkersStatus(
                workers=tuple(status_of(worker, state, now_s) for worker, state in states),
                starting=self._starting,
                waiting=len(self._waiting),
                most=self._most,
                hits=self._hits,
                misses=self._misses,
                retired=dict(self._retired),
            )

    def report(self) -> tuple[tuple[WorkerInfo, ...], tuple[WorkerGroup, ...]]:
        """The same for the operator, with those that ended lately; nothing if there never was a worker."""
        now_s = time.monotonic()
        with self._lock:
            if not self._misses:
                return (), ()
            idle = [(worker, WorkerState.IDLE) for worker in self._idle]
            present = [*idle, *((worker, WorkerState.BUSY) for worker in self._busy)]
            infos = [self._info(worker, _shown(worker, state), now_s, worker.retiring) for worker, state in present]
            group = WorkerGroup(
                kind=KINDS[self._label],
                label=self._label,
                most=self._most,
                starting=self._starting,
                idle=len(self._idle),
                busy=len(self._busy),
                waiting=len(self._waiting),
                hits=self._hits,
                misses=self._misses,
                started=self._begun,
                restarted=self._restarted,
                retired=dict(self._retired),
            )
            return (*infos, *self._ended), (group,)

    def _info(self, worker: Worker, state: WorkerState, now_s: float, ended: Retirement | None) -> WorkerInfo:
        return info_of(worker, KINDS[self._label], self._label, state, now_s, ended or "")

    def statistics(self) -> tuple[PoolStatistics, ...]:
        """The same in short, all tenants together; nothing if there never was a worker."""
        found = self.status()
        if not found.misses:
            return ()
        states = Counter(worker.state for worker in found.workers)
        return (
            PoolStatistics(
                label=self._label,
                ready=states["idle"],
                starting=found.starting,
                busy=states["busy"],
                hits=found.hits,
                misses=found.misses,
                memory_bytes=sum(worker.memory_bytes for worker in found.workers),
            ),
        )

    def clear(self) -> None:
        """End all idle workers now, also those that are being made beforehand, and forget what was needed lately."""
        with self._lock:
            self._resting = True
            doomed = [(worker, Retirement.IDLE) for worker in self._idle]
            self._idle.clear()
            self._demand.clear()
            thread = None if self._busy else self._thread
            self._signal()
        self._end(doomed)
        if thread is not None:
            thread.join(limits.WORKER_START_TIMEOUT_S)
        with self._lock:
            self._resting = False

    def close(self) -> None:
        """End all workers, also those at work. Idempotent."""
        with self._lock:
            self._closed = True
            doomed = [(worker, Retirement.CLOSED) for worker in self._idle]
            self._idle.clear()
            for worker in self._busy:
                worker.sandbox.kill()  # whoever uses it sees that and gives it back
            while self._waiting:
                self._starting += 1  # as everybody does who is let go on without a worker
                self._waiting.popleft().grant(_NOTHING)
            thread = self._thread
            self._signal()
        self._end(doomed)
        if thread is not None:
            thread.join(limits.KILL_TIMEOUT_S)

    # Who gets what --------------------------------------------------------------------------------

    @property
    def _prepares_s(self) -> float:
        return limits.WORKER_PREPARES_S if self._prepares else 0.0

    def _ask(self, kind: Kind) -> Worker | Waiter | None:
        doomed: list[tuple[Worker, Retirement]] = []
        try:
            with self._lock:
                self._require_open()
                return self._choose(kind, doomed)
        finally:
            self._end(doomed)

    def _choose(self, kind: Kind, doomed: list[tuple[Worker, Retirement]]) -> Worker | Waiter | None:
        worker = self._find(kind, doomed)
        found: Worker | Waiter | None = worker
        if worker is not None:
            self._hits += 1
            self._busy.add(worker)
        else:
            self._misses += 1
            if not self._reserve(doomed):
                found = Waiter(kind)
                self._waiting.append(found)
        is_early = worker is not None and time.monotonic() - worker.idle_since_s < self._prepares_s
        self._note_demand(kind, more=worker is None or is_early)
        return found

    def _require_open(self) -> None:
        if self._closed:
            raise SandboxClosed("the engine is closed")

    def _find(self, kind: Kind, doomed: list[tuple[Worker, Retirement]]) -> Worker | None:
        """The worker of that kind that was used last; those found dead on the way to it are doomed."""
        now_s = time.monotonic()
        own = [each for each in self._idle if each.kind == kind]
        order = [own[at] for at in decide.idle_order([now_s - each.idle_since_s for each in own], self._prepares_s)]
        for worker in sorted(order, key=lambda each: each.retiring is not None):
            self._idle.remove(worker)
            if worker.is_alive():
                return worker
            doomed.append((worker, Retirement.CRASHED))
        return None

    def _reserve(self, doomed: list[tuple[Worker, Retirement]]) -> bool:
        """Room for one more worker; another tenant's idle one makes way."""
        if self._total() >= self._most:
            if not self._idle:
                return False
            oldest = min(self._idle, key=lambda worker: worker.idle_since_s)
            self._idle.remove(oldest)
            doomed.append((oldest, Retirement.EVICTED))
        self._starting += 1
        return True

    def _line_up(self, waiter: Waiter) -> Steps[Worker | None]:
        try:
            while not waiter.granted:
                yield Wait(read=(waiter.fd,))
        except BaseException:
            self._step_aside(waiter)
            raise
        finally:
            os.close(waiter.fd)
        return waiter.worker

    def _step_aside(self, waiter: Waiter) -> None:
        with self._lock:
            if not waiter.granted:
                self._waiting.remove(waiter)
                return
            if waiter.worker is None:
                self._starting -= 1
                self._pass_on(_NOTHING)
        if waiter.worker is not None:
            self.give_back(waiter.worker)

    def _started(self, kind: Kind) -> Steps[Worker]:
        worker = None
        try:
            self._require_open()
            worker = yield from self._start(kind)
        finally:
            with self._lock:
                self._starting -= 1
                if worker is None:
                    self._pass_on(_NOTHING)
                else:
                    self._begun += 1
                    self._busy.add(worker)
                    self._keep()
        return worker

    def _pass_on(self, worker: Worker | None) -> list[tuple[Worker, Retirement]]:
        """A free worker, or free room, to whoever is next in line; returns a worker that has to make room."""
        now_s = time.monotonic()
        same = [worker is not None and waiter.kind == worker.kind for waiter in self._waiting]
        turns = [self._turns.get(waiter.kind.tenant, 0) for waiter in self._waiting]
        place = decide.next_waiter(same, [now_s - waiter.since_s for waiter in self._waiting], turns)
        if place is None:
            if worker is not None:
                self._idle.append(worker)
            return []
        waiter = self._waiting[place]
        del self._waiting[place]
        self._note_turn(waiter.kind.tenant)
        if same[place] and worker is not None:
            self._busy.add(worker)
            waiter.grant(worker)
            return []
        self._starting += 1
        waiter.grant(_NOTHING)
        return [(worker, Retirement.EVICTED)] if worker is not None else []

    def _note_turn(self, tenant: str) -> None:
        """Those let in longest ago may be forgotten: that is as if they had never been."""
        self._turns.pop(tenant, None)
        self._turns[tenant] = next(self._counted)
        if len(self._turns) > limits.TENANT_TURNS_KEPT:
            del self._turns[next(iter(self._turns))]

    def _end(self, doomed: list[tuple[Worker, Retirement]]) -> None:
        for worker, why in doomed:
            info = self._info(worker, WorkerState.ENDED, time.monotonic(), why)
            worker.close()
            with self._lock:
                self._count(why)
                self._ended.append(info)
            if why in UNEXPECTED:
                _log_end(info)

    def _count(self, why: Retirement) -> None:
        self._retired[why] = self._retired.get(why, 0) + 1

    # Looking after idle workers -------------------------------------------------------------------

    def _note_demand(self, kind: Kind, *, more: bool) -> None:
        """Those that have only just answered count as busy: one more spares the next execution their preparing."""
        now_s = time.monotonic()
        just = sum(each.kind == kind and now_s - each.idle_since_s < self._prepares_s for each in self._idle)
        busy = more + just + sum(worker.kind == kind for worker in self._busy)
        demand = self._demand.setdefault(kind, Demand())
        demand.note(now_s, min(busy, self._most))
        if demand.peak(now_s) > self._serving(kind) + self._starting:
            self._signal()

    def _keep(self) -> None:
        """Have the thread look again, or start it. Without a thread workers end with the engine."""
        if self._thread is not None:
            self._signal()
            return
        try:
            self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        except OSError:
            return
        self._thread = threading.Thread(target=self._look_after, name="casemate-workers", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            self._thread = None
            os.close(self._wake)

    def _signal(self) -> None:
        if self._thread is not None:
            os.eventfd_write(self._wake, 1)

    def _look_after(self) -> None:
        while True:
            now_s = time.monotonic()
            with self._lock:
                doomed = self._overdue(now_s)
                missing = self._missing(now_s)
                if not (doomed or missing or self._idle or self._busy or self._starting) or self._closed:
                    self._thread = None
                    os.close(self._wake)
                    break
                self._starting += len(missing)
                watched = {worker.channel.fileno(): worker for worker in (*self._idle, *self._busy - self._noticed)}
                idle_since_s = min([now_s, *(worker.idle_since_s for worker in self._idle)])
            self._end(doomed)
            for kind in missing:
                self._replace(kind)
            if not doomed and not missing:
                dead = self._sleep(watched, idle_since_s + limits.WORKER_IDLE_MAX_S)
                with self._lock:
                    self._noticed.update(dead & self._busy)
        self._end(doomed)

    def _overdue(self, now_s: float) -> list[tuple[Worker, Retirement]]:
        doomed = [(worker, why) for worker in self._idle if (why := self._why_overdue(worker, now_s))]
        for worker, _ in doomed:
            self._idle.remove(worker)
        return doomed

    def _why_overdue(self, worker: Worker, now_s: float) -> Retirement | None:
        if not worker.is_alive():
            return Retirement.CRASHED
        if now_s - worker.idle_since_s >= limits.WORKER_IDLE_MAX_S:
            return Retirement.IDLE
        if worker.retiring and (self._serving(worker.kind) or self._total() >= self._most):
            return worker.retiring
        return None

    def _serving(self, kind: Kind) -> int:
        return sum(worker.kind == kind and not worker.retiring for worker in (*self._idle, *self._busy))

    def _total(self) -> int:
        return len(self._idle) + len(self._busy) + self._starting

    def _missing(self, now_s: float) -> list[Kind]:
        wanted: list[Kind] = []
        if self._hits + self._misses < limits.WORKERS_KEPT_AFTER_RUNS:
            return wanted
        total = self._total()
        for kind, demand in list(self._demand.items()):
            peak = demand.peak(now_s)
            if peak == 0:
                del self._demand[kind]
            room = decide.missing_workers(
                present=self._serving(kind) + self._starting,
                demand=peak,
                waiting=len(self._waiting),
                total=total,
                most=self._most,
            )
            wanted += [kind] * room
            total += room
        return wanted

    def _replace(self, kind: Kind) -> None:
        """Start one beforehand. If that fails, whoever needs it next is told why."""
        worker = None
        with suppress(CasemateError, OSError):
            worker = self._start_here(kind)
        with self._lock:
            self._starting -= 1
            is_late = self._closed or self._resting
            doomed = [(worker, Retirement.CLOSED)] if worker and is_late else self._pass_on(worker)
            if worker is None:
                self._demand.pop(kind, None)
            else:
                self._begun += 1
                self._restarted += bool(self._retired)
        self._end(doomed)

    def _sleep(self, watched: dict[int, Worker], until_s: float) -> set[Worker]:
        """Until there is news, or it is time; returns the workers that have died."""
        poll = select.poll()
        for fd in (self._wake, *watched):
            poll.register(fd, select.POLLIN)
        ready = poll.poll(max(0, int((until_s - time.monotonic()) * 1000) + 1))
        with suppress(BlockingIOError):
            os.eventfd_read(self._wake)
        return {watched[fd] for fd, _ in ready if fd in watched}


def _shown(worker: Worker, state: WorkerState) -> WorkerState:
    return WorkerState.RETIRING if worker.retiring is not None and state is WorkerState.IDLE else state


def _log_end(info: WorkerInfo) -> None:
    import logging  # takes longer to import than a run takes

    logging.getLogger("casemate").warning(
        "worker %s of tenant %r has ended after %d runs: %s", info.id, info.tenant, info.runs, info.ended
    )

"""One worker: a resident process in a sandbox of its own that runs one execution after the other."""

from __future__ import annotations

import itertools
import os
import select
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Final

import msgspec

from casemate import limits
from casemate.clock import now_us
from casemate.isolation.native import NativeSandbox
from casemate.model.spec import SandboxSpec
from casemate.model.workers import WorkerInfo, WorkerKind, WorkerMoment, WorkerState
from casemate.pool.decide import Retirement

_numbers: Final = itertools.count(1)


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """What workers are alike in: whose they are, what they run, their sandbox, what they are told at their start."""

    tenant: str
    argv: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    spec: SandboxSpec
    setup: bytes = b""


class Worker:
    """The worker and our ends of its pipes. `channel` becomes readable when it ends."""

    def __init__(
        self,
        kind: Kind,
        sandbox: NativeSandbox,
        channel: socket.socket,
        fds: tuple[int, int, int, int],
        bury: Callable[[NativeSandbox], None],
    ) -> None:
        """`fds`: its stdout and stderr, where it takes requests, and where it answers."""
        self.number = next(_numbers)
        self.kind = kind
        self.sandbox = sandbox
        self.channel = channel
        self.stdout_fd, self.stderr_fd, self.request_fd, self.reply_fd = fds
        for fd in fds:
            os.set_blocking(fd, False)
        self.started_s = self.idle_since_s = time.monotonic()
        self.retiring: Retirement | None = None
        self.runs = 0
        self.samples: list[int] = []
        self.memory_bytes = 0
        self.cpu_s = 0.0
        self.heard_s = self.started_s
        self.trend: deque[WorkerMoment] = deque(maxlen=limits.WORKER_TREND_SAMPLES)
        self._trend_s = 0.0
        self._bury = bury
        self._closed = False

    def heard(self) -> None:
        """Note a sign of life."""
        self.heard_s = time.monotonic()

    def served(self, memory_bytes: int, cpu_s: float = 0.0) -> None:
        """Note the end of an execution, and now and then how much memory and processor time the worker has used."""
        self.memory_bytes = memory_bytes
        self.cpu_s += cpu_s
        now_s = time.monotonic()
        if now_s - self._trend_s >= limits.WORKER_TREND_PERIOD_S:
            self._trend_s = now_s
            self.trend.append(WorkerMoment(at_us=now_us(), memory_bytes=memory_bytes, cpu_s=self.cpu_s))
        if self.runs % limits.WORKER_SAMPLE_RUNS == 0:
            self.samples = [*self.samples, memory_bytes][-limits.LEAK_SAMPLES :]
        self.runs += 1

    @property
    def id(self) -> str:
        """Its name in this process and in what is told of it."""
        return f"worker-{self.number}"

    def is_alive(self) -> bool:
        """Whether it still runs, as far as we have been told."""
        poll = select.poll()
        poll.register(self.channel.fileno(), select.POLLIN)
        return not poll.poll(0)

    def close(self) -> None:
        """Kill it; the sandbox is released when it is dead. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._bury(self.sandbox)
        self.channel.close()
        for fd in (self.stdout_fd, self.stderr_fd, self.request_fd, self.reply_fd):
            os.close(fd)


class WorkerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One worker as it is now. `samples` are its memory now and then, oldest first."""

    number: int
    tenant: str
    state: str
    runs: int
    age_s: float
    memory_bytes: int
    samples: tuple[int, ...]


class WorkersStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The pool as it is now, and what it has done since it was made."""

    workers: tuple[WorkerStatus, ...]
    starting: int
    waiting: int
    most: int
    hits: int
    misses: int
    retired: dict[str, int]


def status_of(worker: Worker, state: str, now_s: float) -> WorkerStatus:
    """One worker, which is `busy` or `idle`."""
    return WorkerStatus(
        number=worker.number,
        tenant=worker.kind.tenant,
        state=state,
        runs=worker.runs,
        age_s=now_s - worker.started_s,
        memory_bytes=worker.memory_bytes,
        samples=tuple(worker.samples),
    )


def info_of(  # noqa: PLR0917 - what the pool knows of it
    worker: Worker, kind: WorkerKind, label: str, state: WorkerState, now_s: float, ended: str
) -> WorkerInfo:
    """One worker for the operator."""
    wanted = worker.kind.spec.limits
    return WorkerInfo(
        id=worker.id,
        kind=kind,
        label=label,
        state=state,
        tenant=worker.kind.tenant,
        age_s=now_s - worker.started_s,
        runs=worker.runs,
        memory_bytes=worker.memory_bytes,
        cpu_s=worker.cpu_s,
        heartbeat_age_s=now_s - worker.heard_s if state is WorkerState.BUSY else None,
        memory_limit_bytes=wanted.memory_bytes,
        cpus=wanted.cpus,
        ended=ended,
        trend=tuple(worker.trend),
    )

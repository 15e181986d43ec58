"""Runners: resident sandboxes in which a source is compiled once, and every item runs in a fork of its own.

A runner belongs to one tenant and one source. It keeps items apart and clears up after each; what it cannot do, because
an item has stopped or killed it, is done here by ending it.
"""

from __future__ import annotations

import errno
import os
import struct
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from enum import IntEnum
from typing import Final

import msgspec

from casemate import limits
from casemate.engine.drive import drive
from casemate.engine.engine import Engine
from casemate.engine.execution import start_process
from casemate.engine.program import Command
from casemate.engine.supervise import Supervisor
from casemate.errors import CasemateError, InvalidInput, LaunchError
from casemate.isolation.protocol import ReportKind, expect_report
from casemate.isolation.waiting import Ready, Steps, Wait
from casemate.model.resources import Limits
from casemate.model.result import GuestError, Reason
from casemate.model.spec import WORK_DIRECTORY
from casemate.model.values import FRAME_HEAD, ExceptionReply, NoneReply, parse_body
from casemate.pool import decide
from casemate.pool.isolates import WorkerPool
from casemate.pool.worker import Kind, Worker

_HEAD: Final = struct.Struct("<IIIIQII")
_END: Final = struct.Struct("<IiiIII7Q")
_MICROSECONDS: Final = 1_000_000
_MILLISECONDS: Final = 1000


class Frame(IntEnum):
    """What a runner says; the numbers are those of native/runner.c."""

    BEGUN = 1
    ANSWER = 2
    STDOUT = 3
    STDERR = 4
    END = 5
    READY = 6


STOPPED: Final = {1: Reason.TIMEOUT, 2: Reason.OUTPUT, 3: Reason.VALIDATION}


class NotCompiled(InvalidInput):
    """The source cannot be compiled; `error` is what its language says, or what kept it from saying anything."""

    def __init__(self, error: GuestError, reason: Reason = Reason.VALIDATION) -> None:
        super().__init__("source", f"cannot be compiled: {error.type}")
        self.error = error
        self.reason = reason


class End(msgspec.Struct, frozen=True, kw_only=True):
    """How an item has ended, as its runner saw it. `left`: something that the runner could not remove."""

    wait_status: int
    error: int
    stopped: Reason | None
    left: int
    wall_s: float
    user_s: float
    system_s: float
    memory_bytes: int
    stdout_bytes: int
    stderr_bytes: int


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """What was observed of one item. `end` is None if its runner has ended instead, or had to be ended."""

    begun: bool
    end: End | None
    stopped: Reason | None
    oom_kills: int
    answer: bytes
    stdout: bytes
    stderr: bytes
    wall_s: float
    is_clean: bool


# Starting ---------------------------------------------------------------------------------------


def make_pool(engine: Engine, announce: Callable[[], None]) -> WorkerPool:
    """The pool of an engine. `announce` is called before a runner is made."""
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

    def start(kind: Kind) -> Steps[Worker]:
        announce()
        return start_runner(engine, kind)

    most = decide.most_workers(len(os.sched_getaffinity(0)), memory_bytes)
    return WorkerPool(start, lambda kind: drive(start(kind)), most=most, label="runners", prepares=False)


def start_runner(engine: Engine, kind: Kind) -> Steps[Worker]:
    """A runner that has compiled its source. Raises NotCompiled, or what starting a sandbox does."""
    try:
        return (yield from _ready_runner(engine, kind))
    except CasemateError:
        engine.check_open()  # closing it ends what is being made, which then has no reason of its own
        raise


def _ready_runner(engine: Engine, kind: Kind) -> Steps[Worker]:
    sandbox = yield from engine.start(kind.spec)
    with ExitStack() as stack:
        stack.callback(engine.backend.bury, sandbox)
        command = Command(argv=kind.argv, environment=dict(kind.environment), cwd=WORK_DIRECTORY, request=b"")
        channel, spawned = (yield from start_process(sandbox, command)).hand_over()
        stack.pop_all()
    stdout, stderr, request, reply = spawned.fds
    worker = Worker(kind, sandbox, channel, (stdout, stderr, request, reply), engine.backend.bury)
    try:
        yield from _set_up(worker)
    except BaseException:
        worker.close()
        raise
    return worker


def _set_up(worker: Worker) -> Steps[None]:
    """Give it its source, and wait for its word on that."""
    frames = RunnerFrames(worker)
    pending = memoryview(FRAME_HEAD.pack(len(worker.kind.setup)) + worker.kind.setup)
    deadline_s = time.monotonic() + limits.RUNNER_START_TIMEOUT_S
    while (found := frames.next()) is None:
        if frames.problem:
            raise LaunchError("start of the runner", errno.EPROTO, frames.problem)
        ready = yield Wait((*frames.fds, worker.channel.fileno()), (worker.request_fd,) if pending else (), deadline_s)
        pending = _written(worker.request_fd, pending)
        if worker.reply_fd in ready:
            frames.read()
        elif worker.channel.fileno() in ready:
            raise _compiler_ended(worker)
        elif not ready:
            error = GuestError(type="Timeout", message="compiling the source takes too long")
            raise NotCompiled(error, Reason.TIMEOUT)
    kind, body = found
    reply = parse_body(body)
    if isinstance(reply, ExceptionReply):
        raise NotCompiled(reply.error)
    if kind is not Frame.READY or not isinstance(reply, NoneReply):
        raise LaunchError("start of the runner", errno.EPROTO, "what it says makes no sense")


def _compiler_ended(worker: Worker) -> NotCompiled:
    """For want of memory, as far as anybody counts that; or else the source is more than the compiler can bear."""
    said = b""
    with suppress(BlockingIOError):
        said = os.read(worker.stderr_fd, limits.ERROR_TEXT_MAX_CHARS)
    cgroup = worker.sandbox.cgroup
    if cgroup is not None and cgroup.counters().oom_kills:
        error = GuestError(type="MemoryLimit", message="the memory limit leaves no room for the interpreter")
        return NotCompiled(error, Reason.MEMORY)
    message = "the interpreter has ended while it compiled the source"
    return NotCompiled(GuestError(type="CompilerEnded", message=message, traceback=said.decode("utf-8", "replace")))


def _written(fd: int, pending: memoryview) -> memoryview:
    """What is left of it after as much as there is room for was written."""
    try:
        while pending:
            pending = pending[os.write(fd, pending[: limits.READ_CHUNK_BYTES]) :]
    except BlockingIOError:
        return pending
    except BrokenPipeError:
        return memoryview(b"")  # it has ended, as its channel will say
    return pending


class RunnerFrames:
    """What a runner says, frame by frame. Hostile, as everything from inside."""

    def __init__(self, worker: Worker) -> None:
        self._fd = worker.reply_fd
        self._data = bytearray()
        self.problem = ""
        self.fds: tuple[int, ...] = (self._fd,)
        """Where to wait for more: nowhere, once the pipe is at its end, where it would always be ready."""

    def read(self) -> None:
        with suppress(BlockingIOError):
            data = os.read(self._fd, limits.READ_CHUNK_BYTES)
            self._data += data
            self.fds = self.fds if data else ()

    @property
    def is_empty(self) -> bool:
        return not self._data

    def next(self) -> tuple[Frame, bytes] | None:
        """The next whole frame; None if there is none, or never will be one."""
        if self.problem or len(self._data) <= FRAME_HEAD.size:
            return None
        (length,) = FRAME_HEAD.unpack_from(self._data)
        if not 1 <= length <= limits.RUNNER_FRAME_MAX_BYTES or self._data[FRAME_HEAD.size] not in tuple(Frame):
            self.problem = "what the runner says makes no sense"
            return None
        end = FRAME_HEAD.size + length
        if len(self._data) < end:
            return None
        kind, body = Frame(self._data[FRAME_HEAD.size]), bytes(self._data[FRAME_HEAD.size + 1 : end])
        del self._data[:end]
        return kind, body


# One item ---------------------------------------------------------------------------------------


class RunnerItem:
    """One item in a runner: from its request to its end, or to the runner's."""

    def __init__(self, worker: Worker, number: int, request: bytes, wanted: Limits) -> None:
        self._worker = worker
        self._number = number
        self._limits = wanted
        head = _HEAD.pack(
            number,
            max(1, round(wanted.wall_s * _MILLISECONDS)),
            limits.ITEM_KEPT_BYTES,
            limits.VALUE_MAX_BYTES + FRAME_HEAD.size,
            wanted.output_bytes,
            len(request),
            0,
        )
        self._pending = memoryview(head + request)
        self._frames = RunnerFrames(worker)
        self._said: dict[Frame, bytearray] = {kind: bytearray() for kind in (Frame.ANSWER, Frame.STDOUT, Frame.STDERR)}
        self._begun = False
        self._end: End | None = None
        self._stopped: Reason | None = None
        self._is_lost = False

    def run(self) -> Steps[Ended]:
        """See it through. Leaving early is for the caller to notice: the runner is then of no use."""
        worker = self._worker
        supervisor = Supervisor(worker.sandbox, self._limits)
        started_s = time.monotonic()
        grace_s = limits.ITEM_GRACE_S / min(1.0, self._limits.cpus)
        deadline_s = started_s + self._limits.wall_s + grace_s
        try:
            self._pending = _written(worker.request_fd, self._pending)
            while not self._is_over():
                ready = yield self._wait(min(deadline_s, supervisor.next_look_s))
                self._transfer(ready)
                if not self._is_over() and worker.reply_fd not in ready:
                    self._judge(ready, supervisor, deadline_s)
            if self._end is None:
                worker.sandbox.kill()
            return self._ended(time.monotonic() - started_s, supervisor)
        finally:
            supervisor.close()

    def _is_over(self) -> bool:
        return self._end is not None or self._stopped is not None or self._is_lost

    def _wait(self, deadline_s: float) -> Wait:
        worker = self._worker
        write = (worker.request_fd,) if self._pending else ()
        return Wait((worker.channel.fileno(), *self._frames.fds), write, deadline_s)

    def _transfer(self, ready: Ready) -> None:
        if self._worker.request_fd in ready:
            self._pending = _written(self._worker.request_fd, self._pending)
        if self._worker.reply_fd in ready:
            self._frames.read()
            while not self._is_over() and (found := self._frames.next()) is not None:
                self._take(*found)
            self._is_lost = self._is_lost or bool(self._frames.problem)

    def _take(self, kind: Frame, body: bytes) -> None:
        if kind is Frame.BEGUN and not self._begun:
            self._begun = True
        elif kind in self._said and self._begun:
            self._said[kind] += body
            most = limits.VALUE_MAX_BYTES + FRAME_HEAD.size if kind is Frame.ANSWER else limits.ITEM_KEPT_BYTES
            self._is_lost = len(self._said[kind]) > most
        elif kind is Frame.END and len(body) == _END.size:
            self._finish(_END.unpack(body))
        else:
            self._is_lost = True

    def _finish(self, fields: tuple[int, ...]) -> None:
        number, status, error, stopped, left, _, wall, user, system, memory, stdout, stderr, _ = fields
        self._is_lost = number != self._number
        self._end = End(
            wait_status=status,
            error=error,
            stopped=STOPPED.get(stopped),
            left=left,
            wall_s=wall / _MICROSECONDS,
            user_s=user / _MICROSECONDS,
            system_s=system / _MICROSECONDS,
            memory_bytes=memory,
            stdout_bytes=stdout,
            stderr_bytes=stderr,
        )

    def _judge(self, ready: Ready, supervisor: Supervisor, deadline_s: float) -> None:
        """Whether it has to be ended from here."""
        if self._worker.channel.fileno() in ready:
            expect_report(self._worker.channel, ReportKind.EXITED)
            self._is_lost = True
            return
        now_s = time.monotonic()
        if now_s >= supervisor.next_look_s:
            self._stopped = supervisor.look()
        if self._stopped is None and now_s >= deadline_s:
            self._stopped = Reason.TIMEOUT

    def _ended(self, wall_s: float, supervisor: Supervisor) -> Ended:
        end = None if self._is_lost else self._end
        was_killed = end is None or (end.stopped is None and os.WIFSIGNALED(end.wait_status))
        oom_kills = supervisor.read().oom_kills if was_killed else 0
        is_clean = end is not None and not end.left and not self._pending and self._frames.is_empty
        return Ended(
            begun=self._begun,
            end=end,
            stopped=self._stopped,
            oom_kills=oom_kills,
            answer=bytes(self._said[Frame.ANSWER]),
            stdout=bytes(self._said[Frame.STDOUT]),
            stderr=bytes(self._said[Frame.STDERR]),
            wall_s=wall_s,
            is_clean=is_clean,
        )

"""One process in a sandbox from its start to its end, with everything it says and every limit it meets."""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Final

import msgspec

from casemate import limits
from casemate.engine.cancel import CancelToken, until_cancelled
from casemate.engine.program import STREAMS, Command, NeverBegan
from casemate.engine.stdin import BytesOrFd, Feeder, unread_bytes
from casemate.engine.supervise import Counted, Supervisor
from casemate.engine.valve import Valve
from casemate.errors import (
    CapacityError,
    CasemateError,
    FileTransferError,
    InvalidInput,
    LaunchError,
    SandboxClosed,
)
from casemate.isolation.native import NativeSandbox
from casemate.isolation.protocol import Report, ReportKind, SpawnFlag, encode_spawn, expect_report
from casemate.isolation.waiting import Ready, Steps, Wait
from casemate.kernel.descriptors import own_end
from casemate.model.capture import Capture
from casemate.model.resources import Limits
from casemate.model.result import Chunk, Reason, Stream
from casemate.model.values import FAREWELL_HEAD, long_frame, split_farewell

REPLY: Final = "reply"
NOTHING_READY: Final[Ready] = frozenset()
EXIT_STATUS_SHIFT: Final = 8
"""In the kernel's word on a process that has ended by itself."""

PROCESS_STEP: Final = "start of the process"
TOO_LARGE_TOGETHER: Final = "arguments and environment are too large together"
GUEST_ERRNOS: Final = frozenset(
    {errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENOEXEC, errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.EAGAIN}
)
"""Answers to an exec that are about the program, not about us."""


class Waiting(msgspec.Struct):
    """A process that has been started and waits for its request: where it reports, and its descriptors."""

    channel: socket.socket
    spawned: Report
    is_ours: bool = True

    def is_alive(self) -> bool:
        poll = select.poll()
        poll.register(self.channel, select.POLLIN)
        return not poll.poll(0)

    def hand_over(self) -> tuple[socket.socket, Report]:
        """To an execution, which closes everything."""
        self.is_ours = False
        return self.channel, self.spawned

    def close(self) -> None:
        """Idempotent; nothing is left to do once it is handed over."""
        if self.is_ours:
            self.is_ours = False
            self.channel.close()
            for fd in self.spawned.fds:
                os.close(fd)


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What was observed of one process. `stopped` says why we ended it, if we did; `problem` what failed us."""

    stopped: Reason | None
    wait_status: int | None
    exec_errno: int
    stdout: Stream
    stderr: Stream
    reply: bytes
    reply_overflow: bool
    wall_s: float
    counted: Counted
    problem: str = ""
    program: str = ""


NEVER_RAN: Final = Outcome(
    stopped=Reason.CANCELLED,
    wait_status=None,
    exec_errno=0,
    stdout=Stream(),
    stderr=Stream(),
    reply=b"",
    reply_overflow=False,
    wall_s=0.0,
    counted=Counted(),
)
"""Of a process that was cancelled before it was started."""


class Execution:
    """The state of one running process; `run` drives it."""

    def __init__(
        self,
        sandbox: NativeSandbox,
        command: Command,
        wanted: Limits,
        *,
        cancel: CancelToken | None = None,
        alone: bool = True,
        waiting: Waiting | None = None,
        on_start: Callable[[], None] | None = None,
        valve: Valve | None = None,
    ) -> None:
        """`alone`: the sandbox exists for this process only, so stopping one is killing the other.

        `waiting`: the process has been started already, with all pipes, and waits for the command's request.
        `on_start` is called when it has its request, or as much of it as it takes at once. While the `valve` is shut
        nothing that the process prints is taken, and sooner or later it waits; its limits hold on.
        """
        self._sandbox = sandbox
        self._waiting = waiting
        self._id = 0 if waiting else sandbox.next_id()
        self._alone = alone
        self._fds: set[int] = set()
        self._command = command
        self._limits = wanted
        self._cancel = cancel
        self._on_start = on_start
        self._valve = valve
        self._captures = {name: Capture() for name in STREAMS}
        self._reply = bytearray()
        self._reply_overflow = False
        self._received_bytes = 0
        self._output_bytes = 0
        self._readers: dict[int, str] = {}
        self._feeders: list[Feeder] = []
        self._request: Feeder | None = None
        self._request_fd = -1
        self._exited: Report | None = None
        self._left: int | None = None
        self._stopped: Reason | None = None
        self._problem = ""

    def run(self) -> Steps[Outcome]:
        """Start the process and see it through. Leaving early kills the sandbox. May raise NeverBegan."""
        with ExitStack() as stack:
            stack.callback(self._close_all)
            # Before the request: the program may be at its end before this thread runs again.
            supervisor = Supervisor(self._sandbox, self._limits)
            stack.callback(supervisor.close)
            started_s = time.monotonic()
            channel, waiting = self._waiting.hand_over() if self._waiting else ((yield from self._ask()), None)
            stack.callback(channel.close)
            try:
                spawned = self._own(waiting) if waiting else (yield from self._spawned(channel))
                if not spawned.error:
                    yield from self._see_through(spawned, channel, supervisor, started_s + self._limits.wall_s)
            except BaseException:
                self._abandon()
                raise
            if waiting and (yield from self._never_began()):
                raise NeverBegan("the process that waited has ended")
            return self._outcome(spawned.error, time.monotonic() - started_s, self._counted(supervisor))

    def _see_through(
        self, spawned: Report, channel: socket.socket, supervisor: Supervisor, wall_deadline_s: float
    ) -> Steps[None]:
        """From a program that runs to all that it had to say."""
        try:
            self._adopt(spawned)
            if self._on_start is not None:
                self._on_start()
            yield from self._watch(channel, supervisor, wall_deadline_s)
            if self._exited is not None:
                supervisor.note_end()
        except (OSError, CasemateError) as error:
            self._fail(error)
        if self._stopped is not None:
            yield from self._stop(channel)
        elif self._alone:
            self._sandbox.kill()  # early: it dies while we read what is left in the pipes
        yield from self._drain()

    def _counted(self, supervisor: Supervisor) -> Counted:
        try:
            return supervisor.read()
        except (OSError, CasemateError) as error:
            self._fail(error)
            return supervisor.latest

    def _fail(self, error: OSError | CasemateError) -> None:
        """We cannot go on. What has begun ends in a Result nevertheless; a sandbox that nobody can watch ends, too."""
        self._stopped = self._stopped or Reason.INTERNAL
        self._problem = error.message if isinstance(error, CasemateError) else _unwatched(error)
        if not isinstance(error, FileTransferError):
            self._sandbox.kill()

    def _never_began(self) -> Steps[bool]:
        """Whether a process that had waited was killed while some of its request was unread: then no line of it ran.

        What was taken from a descriptor of the caller's cannot be taken again, and what was heard not be unheard.
        """
        is_lost = self._exited is None and self._stopped is Reason.LOST
        was_killed = self._exited is not None and self._stopped is None and os.WIFSIGNALED(self._exited.value)
        if not (is_lost or was_killed) or self._received_bytes or any(feeder.has_taken for feeder in self._feeders):
            return False
        if is_lost and not (yield from self._sandbox.ends(limits.KILL_SOON_S)):
            return False
        return self._request is not None and (self._request.is_refused or unread_bytes(self._request_fd) > 0)

    def _ask(self) -> Steps[socket.socket]:
        try:
            return (yield from until_cancelled(self._sandbox.ask(spawn_message(self._id, self._command)), self._cancel))
        except SandboxClosed as error:
            raise NeverBegan(error.message) from error

    def _own(self, report: Report) -> Report:
        self._fds.update(report.fds)
        return report

    def _spawned(self, channel: socket.socket) -> Steps[Report]:
        answer = await_report(channel, self._sandbox, ReportKind.SPAWNED, fds=self._command.pipes)
        report = self._own((yield from until_cancelled(answer, self._cancel)))
        if report.error == errno.E2BIG:
            raise InvalidInput("args", TOO_LARGE_TOGETHER)
        raise_if_exhausted(report.error)
        if report.error and report.error not in GUEST_ERRNOS:
            raise LaunchError(PROCESS_STEP, report.error, os.strerror(report.error))
        return report

    def _adopt(self, spawned: Report) -> None:
        fds = list(spawned.fds)
        if self._command.stdin is not None or self._waiting is not None:
            self._feed(fds.pop(0), b"" if self._command.stdin is None else self._command.stdin)
        self._readers = {fds[0]: STREAMS[0], fds[1]: STREAMS[1]}
        if self._command.request is not None:
            request = self._command.request
            if self._waiting is not None:
                request = long_frame(request)
                self._request_fd = os.dup(fds[2])
                self._fds.add(self._request_fd)
            self._request = self._feed(fds[2], request)
            self._readers[fds[3]] = REPLY
        for fd in self._readers:
            os.set_blocking(fd, False)

    def _feed(self, fd: int, source: BytesOrFd) -> Feeder:
        feeder = Feeder(fd, source)
        self._feeders.append(feeder)
        self._fds.discard(fd)
        feeder.advance(NOTHING_READY)
        return feeder

    def _close_all(self) -> None:
        for feeder in self._feeders:
            feeder.close()
        while self._fds:
            os.close(self._fds.pop())

    def _watch(self, channel: socket.socket, supervisor: Supervisor, wall_deadline_s: float) -> Steps[None]:
        """Until the process ends or has to be stopped, or takes its leave: what it does then, nobody can notice."""
        while self._exited is None and self._stopped is None:
            ready = yield self._wait(channel, min(wall_deadline_s, supervisor.next_look_s))
            yield from self._transfer(ready)
            if channel.fileno() in ready:
                self._exited = expect_report(channel, ReportKind.EXITED)
                if self._exited is None:
                    self._stopped = supervisor.look() or Reason.LOST
                return
            if self._left is not None:
                return
            now_s = time.monotonic()
            if self._cancel is not None and self._cancel.fd in ready:
                self._stopped = Reason.CANCELLED
            if self._stopped is None and now_s >= supervisor.next_look_s:
                self._stopped = supervisor.look()
            if self._stopped is None and now_s >= wall_deadline_s:
                self._stopped = Reason.TIMEOUT

    def _stop(self, channel: socket.socket) -> Steps[None]:
        """Kill the process, and the sandbox with it if there is nothing else in it."""
        self._abandon()
        if self._alone or self._exited is not None:
            return
        if (yield Wait((channel.fileno(),), (), _soon_s())):
            self._exited = expect_report(channel, ReportKind.EXITED)
        else:
            self._sandbox.kill()  # init does not do it, and a Result is not to lie about what still runs

    def _abandon(self) -> None:
        """Kill the process, or everything where init cannot be told. Never raises: an error is on its way already."""
        if self._alone or self._stopped is Reason.MEMORY or not self._sandbox.signal(self._id, signal.SIGKILL):
            self._sandbox.kill()

    def _wait(self, channel: socket.socket, deadline_s: float) -> Wait:
        read = [channel.fileno(), *self._heard()]
        write: list[int] = []
        if self._cancel is not None:
            read.append(self._cancel.fd)
        for feeder in self._feeders:
            read += feeder.reads
            write += feeder.writes
        return Wait(tuple(read), tuple(write), deadline_s)

    def _heard(self) -> Iterable[int]:
        if self._valve is None or self._valve.is_open:
            return self._readers
        return [self._valve.fd, *(fd for fd, name in self._readers.items() if name == REPLY)]

    def _transfer(self, ready: Ready) -> Steps[None]:
        for feeder in self._feeders:
            feeder.advance(ready)
        for fd in [fd for fd in self._readers if fd in ready]:
            yield from self._read(fd)

    def _read(self, fd: int) -> Steps[bool]:
        """Take one piece; False when there is none now, or never again."""
        try:
            data = os.read(fd, limits.READ_CHUNK_BYTES)
        except BlockingIOError:
            return False
        self._received_bytes += len(data)
        name = self._readers[fd]
        if not data:
            del self._readers[fd]
        elif name == REPLY:
            self._take_reply(data)
        elif kept := self._within_limit(data):
            chunk = Chunk(name, kept, self._captures[name].total_bytes)
            self._captures[name].feed(kept)
            yield chunk
        return bool(data)

    def _within_limit(self, data: bytes) -> bytes:
        """What of it the limit on output lets through; the rest is nobody's."""
        room = max(0, self._limits.output_bytes - self._output_bytes)
        self._count_output(len(data))
        return data[:room]

    def _take_reply(self, data: bytes) -> None:
        """Beyond its bound a reply is invalid, and what is thrown away counts as output: it costs us as much."""
        room = limits.VALUE_MAX_BYTES + 4 - len(self._reply)
        self._reply += data[:room]
        if len(data) > room:
            self._reply_overflow = True
            self._count_output(len(data) - room)
        elif self._alone and data[-len(FAREWELL_HEAD) - 1 : -1] == FAREWELL_HEAD and self._sandbox.cgroup is not None:
            # Without a control group the report of the end brings numbers that nobody else has.
            _, self._left = split_farewell(bytes(self._reply))

    def _count_output(self, size_bytes: int) -> None:
        self._output_bytes += size_bytes
        if self._output_bytes > self._limits.output_bytes:
            self._stopped = self._stopped or Reason.OUTPUT

    def _drain(self) -> Steps[None]:
        """What the process had written before its end is in the pipes; orphans get no more time.

        Counted in bytes and in pieces, not by the clock: the listener's time is not the program's.
        """
        until_bytes = self._received_bytes + limits.DRAIN_MAX_BYTES
        for fd in list(self._readers):
            for _ in range(limits.DRAIN_READS_MAX):
                if not (yield from self._read(fd)) or fd not in self._readers or self._received_bytes > until_bytes:
                    break

    def _outcome(self, exec_errno: int, wall_s: float, counted: Counted) -> Outcome:
        exited = self._exited
        reply, _ = split_farewell(bytes(self._reply))
        if self._sandbox.cgroup is None and exited is not None:
            counted = _at_least(counted, exited)
        return Outcome(
            stopped=self._stopped,
            wait_status=exited.value if exited else self._left_status(),
            exec_errno=exec_errno,
            stdout=self._captures["stdout"].finish(),
            stderr=self._captures["stderr"].finish(),
            reply=reply,
            reply_overflow=self._reply_overflow,
            wall_s=wall_s,
            counted=counted,
            problem=self._problem,
            program=self._command.argv[0],
        )

    def _left_status(self) -> int | None:
        """As the kernel would tell it. A program that takes its leave could as well have ended by itself with it."""
        return None if self._left is None else self._left << EXIT_STATUS_SHIFT


def spawn_message(number: int, command: Command) -> bytes:
    """The request to start a command. Raises InvalidInput if arguments and environment are too large together."""
    flags = SpawnFlag.NONE
    if command.stdin is not None:
        flags |= SpawnFlag.STDIN
    if command.request is not None:
        flags |= SpawnFlag.CHANNEL
    if command.socket:
        flags |= SpawnFlag.SOCKET
    if command.forked:
        flags |= SpawnFlag.FORK
    environment = [f"{name}={value}" for name, value in command.environment.items()]
    message = encode_spawn(number, command.argv, environment, cwd=command.cwd, flags=flags)
    if len(message) > limits.MESSAGE_MAX_BYTES:
        raise InvalidInput("args", TOO_LARGE_TOGETHER)
    return message


def _at_least(counted: Counted, exited: Report) -> Counted:
    """Without a cgroup a short process may end between two looks; its own rusage is the lower bound."""
    return msgspec.structs.replace(
        counted,
        cpu_user_s=max(counted.cpu_user_s, exited.user_s),
        cpu_system_s=max(counted.cpu_system_s, exited.system_s),
        memory_peak_bytes=max(counted.memory_peak_bytes or 0, exited.maxrss_bytes),
        processes_peak=max(counted.processes_peak or 0, 1),
    )


def await_report(channel: socket.socket, sandbox: NativeSandbox, kind: ReportKind, *, fds: int) -> Steps[Report]:
    """The answer to a request. Raises SandboxClosed if init has ended, CapacityError if it had no room."""
    if not (yield Wait(read=(channel.fileno(),), deadline_s=_soon_s())):
        raise LaunchError("request to the sandbox", errno.ETIMEDOUT, "no answer")
    report = expect_report(channel, kind, fds=fds)
    if report is None:
        if (yield from sandbox.ends(limits.DYING_S)):
            raise SandboxClosed("the sandbox has ended")
        raise CapacityError("the sandbox has no free descriptor for another request")
    return report


def start_process(sandbox: NativeSandbox, command: Command) -> Steps[Waiting]:
    """Start a process that gets its request later. If it raises, none of its descriptors is left open."""
    channel = yield from sandbox.ask(spawn_message(sandbox.next_id(), command))
    with ExitStack() as stack:
        stack.callback(channel.close)
        spawned = yield from await_report(channel, sandbox, ReportKind.SPAWNED, fds=command.pipes)
        with ExitStack() as sent:
            for fd in spawned.fds:
                sent.callback(os.close, fd)
            raise_if_exhausted(spawned.error)
            if spawned.error:
                raise LaunchError(PROCESS_STEP, spawned.error, os.strerror(spawned.error))
            if command.forked:
                spawned = msgspec.structs.replace(spawned, fds=_own_ends(spawned.fds, command))
            else:
                sent.pop_all()
        stack.pop_all()
    return Waiting(channel, spawned)


def _own_ends(fds: tuple[int, ...], command: Command) -> tuple[int, ...]:
    """Of a fork's pipes: by its zygote, which may keep or be what it likes. Raises LaunchError."""
    written = {0} if command.stdin is not None else set()
    written |= {len(fds) - 2} if command.request is not None else set()
    with ExitStack() as stack:
        ours = []
        for at, fd in enumerate(fds):
            try:
                ours.append(own_end(fd, os.O_WRONLY if at in written else os.O_RDONLY))
            except OSError as error:
                raise LaunchError(PROCESS_STEP, error.errno or 0, "what it hands over are not its pipes") from error
            stack.callback(os.close, ours[-1])
        stack.pop_all()
    return tuple(ours)


def raise_if_exhausted(number: int) -> None:
    """Raise CapacityError if the sandbox had no room for another process of ours."""
    if number in {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC}:
        raise CapacityError(f"the sandbox cannot start a process: {os.strerror(number)}")


def _unwatched(error: OSError) -> str:
    return f"the running program cannot be watched: {os.strerror(error.errno or 0)}"


def _soon_s() -> float:
    return time.monotonic() + limits.REQUEST_TIMEOUT_S

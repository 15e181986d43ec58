"""A program on a terminal inside a sandbox."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
import struct
import termios
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import msgspec

from casemate import limits
from casemate.engine.execution import GUEST_ERRNOS, await_report, raise_if_exhausted
from casemate.engine.results import exec_error
from casemate.errors import FileTransferError, InvalidInput, LaunchError, SandboxClosed
from casemate.isolation.native import NativeSandbox
from casemate.isolation.protocol import ReportKind, SpawnFlag, encode_spawn, expect_report
from casemate.isolation.waiting import Ready, Steps, Wait, open_event

PROGRAM_STEP = "start of the program"
"""The step of the LaunchError about a program that is not there or may not be executed."""


class TerminalSession:
    """The steps behind `Terminal` and `AsyncTerminal`; `fd` is the leading side of the pseudo-terminal.

    Safe to use from many threads and tasks: closing it ends every wait, and the descriptors stay open until the last
    user is gone, for closed ones could soon be other files of ours. `hung_up` is an event of its own.
    """

    def __init__(self, channel: socket.socket, fd: int, hung_up: int) -> None:
        self.fd = fd
        self._channel = channel
        self._hung_up = hung_up
        self._lock = threading.RLock()  # a signal handler may resize in the middle of anything
        self._users = 0
        self._status: int | None = None
        self._closed = False
        self.on_close: Callable[[], None] | None = None
        self.ended = False
        """Whether the last program on the terminal has closed it and all that it wrote is read."""

    @property
    def exit_fd(self) -> int:
        """Becomes readable when the program has ended, which `wait` then tells at once."""
        return self._channel.fileno()

    def read(self, timeout_s: float | None = None) -> Steps[bytes]:
        """The next output; empty when the time is over, or at the end, and then `ended` is true."""
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        with self._in_use():
            if not (yield from self._until(Wait(read=(self.fd,), deadline_s=deadline_s))):
                return b""
            try:
                return os.read(self.fd, limits.READ_CHUNK_BYTES)
            except BlockingIOError:
                return b""
            except OSError as error:
                if error.errno == errno.EIO:  # Linux: the last program on the terminal has closed it
                    self.ended = True
                    return b""
                raise FileTransferError(f"terminal: {error.strerror}") from error

    def write(self, data: bytes) -> Steps[None]:
        """Type something, waiting while the buffer is full. Raises SandboxClosed if nobody is left to read it."""
        view = memoryview(data)
        with self._in_use():
            while view:
                yield from self._until(Wait(write=(self.fd,)))
                written = self.write_some(view)
                if not written and _is_hung_up(self.fd):
                    raise SandboxClosed("the program on the terminal has ended")
                view = view[written:]

    def write_some(self, data: bytes | memoryview) -> int:
        """Type as much as there is room for, without waiting; how many bytes that was."""
        with self._in_use():
            try:
                return os.write(self.fd, data)
            except BlockingIOError:
                return 0
            except OSError as error:
                raise SandboxClosed("the program on the terminal has ended") from error

    def resize(self, rows: int, columns: int) -> None:
        """Tell the program the new size of the window."""
        check_size(rows, columns)
        with self._in_use():
            fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def wait(self) -> Steps[int]:
        """The program's exit code, or minus the number of a signal. Raises SandboxClosed if the sandbox ends first."""
        if self._status is not None:
            return self._status
        with self._in_use():
            yield from self._until(Wait(read=(self._channel.fileno(),)))
            return self._take_status()

    def close(self) -> None:
        """Hang up. Idempotent."""
        with self._lock:
            if not self._closed:
                self._closed = True
                if self.on_close is not None:
                    self.on_close()
                os.eventfd_write(self._hung_up, 1)
                self._release()

    def _until(self, wait: Wait) -> Steps[Ready]:
        """What of this is ready. Raises SandboxClosed as soon as the terminal is closed."""
        ready = yield msgspec.structs.replace(wait, read=(*wait.read, self._hung_up))
        self._check_open()
        return ready

    def _take_status(self) -> int:
        """The report comes once, however many wait for it."""
        with self._lock:
            if self._status is None:
                report = expect_report(self._channel, ReportKind.EXITED)
                if report is None:
                    raise SandboxClosed("the sandbox has ended")
                self._status = os.waitstatus_to_exitcode(report.value)
            return self._status

    @contextmanager
    def _in_use(self) -> Iterator[None]:
        with self._lock:
            self._check_open()
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                self._release()

    def _release(self) -> None:
        if self._closed and not self._users:
            self._channel.close()
            os.close(self.fd)
            os.close(self._hung_up)

    def _check_open(self) -> None:
        if self._closed:
            raise SandboxClosed("the terminal is closed")


def _start_error(number: int, program: str) -> LaunchError:
    error = exec_error(number, program) if number in GUEST_ERRNOS else None
    if error is None:
        return LaunchError("start of the terminal", number, os.strerror(number))
    return LaunchError(PROGRAM_STEP, number, error.message)


def _is_hung_up(fd: int) -> bool:
    """Whether nobody has the other side open. What was typed and not read stays, so that there is no room any more."""
    poll = select.poll()
    poll.register(fd, 0)
    return any(events & select.POLLHUP for _, events in poll.poll(0))


def check_size(rows: int, columns: int) -> None:
    """A window that can exist. Raises InvalidInput."""
    if not (0 < rows <= limits.TERMINAL_SIDE_MAX_CHARS and 0 < columns <= limits.TERMINAL_SIDE_MAX_CHARS):
        raise InvalidInput("size", f"{rows} by {columns} is no size of a terminal")


def open_terminal(
    sandbox: NativeSandbox,
    argv: Sequence[str],
    environment: Mapping[str, str],
    *,
    cwd: str,
    rows: int,
    columns: int,
) -> Steps[TerminalSession]:
    """Start a program on a new terminal. Raises LaunchError if it cannot be executed."""
    check_size(rows, columns)
    number = sandbox.next_id()
    words = [f"{name}={value}" for name, value in environment.items()]
    message = encode_spawn(number, argv, words, cwd=cwd, flags=SpawnFlag.PTY, rows=rows, columns=columns)
    with ExitStack() as stack:
        channel = stack.enter_context((yield from sandbox.ask(message)))
        report = yield from await_report(channel, sandbox, ReportKind.SPAWNED, fds=1)
        raise_if_exhausted(report.error)
        if report.error:
            raise _start_error(report.error, argv[0])
        stack.callback(os.close, report.fds[0])
        os.set_blocking(report.fds[0], False)
        session = TerminalSession(channel, report.fds[0], open_event())
        stack.pop_all()
    return session

"""A program on a terminal inside a sandbox."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import struct
import termios
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

from casemate import limits
from casemate.engine.execution import GUEST_ERRNOS, await_report, raise_if_exhausted
from casemate.errors import FileTransferError, InvalidInput, LaunchError, SandboxClosed
from casemate.isolation.native import NativeSandbox
from casemate.isolation.protocol import SpawnFlag, encode_signal, encode_spawn, receive_report
from casemate.isolation.waiting import Steps, Wait


class TerminalSession:
    """The steps behind `Terminal` and `AsyncTerminal`; `fd` is the leading side of the pseudo-terminal."""

    def __init__(self, sandbox: NativeSandbox, number: int, channel: socket.socket, fd: int) -> None:
        self.fd = fd
        self._sandbox = sandbox
        self._number = number
        self._channel = channel
        self._status: int | None = None
        self._closed = False

    @property
    def exit_fd(self) -> int:
        """Becomes readable when the program has ended, which `wait` then tells at once."""
        return self._channel.fileno()

    def read(self, timeout_s: float | None = None) -> Steps[bytes]:
        """The next output; empty at the end of the program or when the time is over."""
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        self._check_open()
        if not (yield Wait(read=(self.fd,), deadline_s=deadline_s)):
            return b""
        try:
            return os.read(self.fd, limits.READ_CHUNK_BYTES)
        except BlockingIOError:
            return b""
        except OSError as error:
            if error.errno == errno.EIO:  # Linux: the last program on the terminal has closed it
                return b""
            raise FileTransferError(f"terminal: {error.strerror}") from error

    def write(self, data: bytes) -> Steps[None]:
        """Type something. Waits while the terminal's buffer is full."""
        view = memoryview(data)
        while view:
            self._check_open()
            yield Wait(write=(self.fd,))
            view = view[self.write_some(view) :]

    def write_some(self, data: bytes | memoryview) -> int:
        """Type as much as there is room for, without waiting; how many bytes that was."""
        self._check_open()
        try:
            return os.write(self.fd, data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise SandboxClosed("the program on the terminal has ended") from error

    def resize(self, rows: int, columns: int) -> None:
        """Tell the program the new size of the window."""
        check_size(rows, columns)
        self._check_open()
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def wait(self) -> Steps[int]:
        """The program's wait status. Raises SandboxClosed if the sandbox ends first."""
        if self._status is None:
            self._check_open()
            yield Wait(read=(self._channel.fileno(),))
            report = receive_report(self._channel)
            if report is None:
                raise SandboxClosed("the sandbox has ended")
            self._status = report.value
        return self._status

    def kill(self) -> None:
        """Kill the program's process group."""
        if self._status is None and not self._closed:
            self._sandbox.request(encode_signal(self._number, signal.SIGKILL)).close()

    def close(self) -> None:
        """Hang up. Idempotent."""
        if not self._closed:
            self._closed = True
            self._channel.close()
            os.close(self.fd)

    def _check_open(self) -> None:
        if self._closed:
            raise SandboxClosed("the terminal is closed")


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
        channel = stack.enter_context(sandbox.request(message))
        report = yield from await_report(channel, sandbox)
        raise_if_exhausted(report.error)
        if report.error:
            what = f"start of {argv[0]!r}" if report.error in GUEST_ERRNOS else "start of the terminal"
            raise LaunchError(what, report.error, os.strerror(report.error))
        os.set_blocking(report.fds[0], False)
        stack.pop_all()
    return TerminalSession(sandbox, number, channel, report.fds[0])

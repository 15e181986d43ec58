"""Between the user's terminal and one inside: bytes both ways, the size of the window, the end."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import struct
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from casemate import limits
from casemate.engine.drive import drive
from casemate.engine.terminal import TerminalSession

STDIN: Final = 0
STDOUT: Final = 1
SIZE_FALLBACK: Final = (24, 80)


def window_size() -> tuple[int, int]:
    """Rows and columns of the user's terminal."""
    try:
        rows, columns, _, _ = struct.unpack("HHHH", fcntl.ioctl(STDIN, termios.TIOCGWINSZ, bytes(8)))
    except OSError:
        return SIZE_FALLBACK
    if rows == 0 or columns == 0:
        return SIZE_FALLBACK
    return min(rows, limits.TERMINAL_SIDE_MAX_CHARS), min(columns, limits.TERMINAL_SIDE_MAX_CHARS)


@contextmanager
def raw_terminal() -> Iterator[None]:
    """Keys go inside as they are, Ctrl-C too. The terminal is given back as it was, whatever happens."""
    before = termios.tcgetattr(STDIN)
    tty.setraw(STDIN, termios.TCSADRAIN)
    try:
        yield
    finally:
        termios.tcsetattr(STDIN, termios.TCSADRAIN, before)


@contextmanager
def following_size(terminal: TerminalSession) -> Iterator[None]:
    """The window inside has the size of the one outside."""
    before = signal.signal(signal.SIGWINCH, lambda *_: terminal.resize(*window_size()))
    terminal.resize(*window_size())
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)


class Relay:
    """Copies until the program inside ends."""

    def __init__(self, terminal: TerminalSession, *, timeout_s: float | None = None) -> None:
        self._terminal = terminal
        self._deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        self._typed = b""
        self._stdin_open = True
        self._output_open = True

    def run(self) -> bool:
        """True when the program has ended, False when the time was over first."""
        while True:
            ready = self._wait()
            if ready is None:
                return False
            if STDIN in ready:
                self._take_keys()
            if self._typed and self._output_open:
                self._typed = self._typed[self._terminal.write_some(self._typed) :]
            if self._terminal.fd in ready:
                self._show()
            if self._terminal.exit_fd in ready:
                self._show_rest()
                return True

    def _wait(self) -> set[int] | None:
        poll = select.poll()
        poll.register(self._terminal.exit_fd, select.POLLIN)
        if self._output_open:
            poll.register(self._terminal.fd, select.POLLIN | (select.POLLOUT if self._typed else 0))
        if self._stdin_open and len(self._typed) < limits.TYPED_AHEAD_MAX_BYTES:
            poll.register(STDIN, select.POLLIN)
        left_s = None if self._deadline_s is None else max(0.0, self._deadline_s - time.monotonic())
        events = poll.poll(None if left_s is None else left_s * 1000)
        return {fd for fd, event in events if event != select.POLLOUT} if events else None

    def _take_keys(self) -> None:
        data = os.read(STDIN, limits.READ_CHUNK_BYTES)
        self._stdin_open = bool(data)
        self._typed += data

    def _show(self) -> int:
        """Pass on one piece of output; its size, 0 when there is no more."""
        data = drive(self._terminal.read(0))
        self._output_open = bool(data)
        view = memoryview(data)
        while view:
            view = view[os.write(STDOUT, view) :]
        return len(data)

    def _show_rest(self) -> None:
        """What a program that lives on writes after this is not waited for."""
        left_bytes = limits.DRAIN_MAX_BYTES
        while self._output_open and left_bytes > 0:
            left_bytes -= self._show()

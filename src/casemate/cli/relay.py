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
PLAIN_AGAIN: Final = b"\x1b[0m" + b"".join(
    b"\x1b[?%d%c" % mode for mode in ((25, b"h"), (1047, b"l"), (1000, b"l"), (1002, b"l"), (1003, b"l"), (2004, b"l"))
)
"""No colours; a cursor; the ordinary screen; no reports of the mouse, no brackets around what is pasted."""

TILDE: Final = ord("~")
LEAVE: Final = ord(".")
LINE_ENDS: Final = b"\r\n"


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
    """Keys go inside as they are, Ctrl-C too. The terminal is given back as it was, whatever happens.

    What the program may have left behind in it, such as a colour, is undone, too.
    """
    before = termios.tcgetattr(STDIN)
    tty.setraw(STDIN, termios.TCSADRAIN)
    try:
        yield
    finally:
        if os.isatty(STDOUT):
            os.write(STDOUT, PLAIN_AGAIN)
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


class Left(Exception):
    """The user has typed the way out."""


class Escapes:
    """Finds `~.` at the start of a line in what is typed; `~~` there is one `~`, as with ssh."""

    def __init__(self) -> None:
        self._at_start = True
        self._held = False

    def filter(self, data: bytes) -> bytes:
        """What is to go inside. Raises Left."""
        passed = bytearray()
        for key in data:
            if self._held:
                if key == LEAVE:
                    raise Left
                if key != TILDE:
                    passed.append(TILDE)
                self._held = False
            elif self._at_start and key == TILDE:
                self._held = True
                continue
            passed.append(key)
            self._at_start = key in LINE_ENDS
        return bytes(passed)


class Relay:
    """Copies until the program inside ends."""

    def __init__(self, terminal: TerminalSession, *, timeout_s: float | None = None) -> None:
        self._terminal = terminal
        self._deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        self._typed = b""
        self._escapes = Escapes()
        self._stdin_open = True
        self._output_open = True

    def run(self) -> bool:
        """True when the program has ended, False when the time was over first. Raises Left."""
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
        self._typed += self._escapes.filter(data)

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

"""Live output of a program to our own stdout and stderr, byte for byte, never holding up the supervision."""

from __future__ import annotations

import os
import select
import stat
import threading
from collections import deque
from typing import Final

from casemate.errors import FileTransferError
from casemate.model.result import Chunk

PIPE_PIECE_BYTES: Final = select.PIPE_BUF
"""What a pipe that is ready takes without making us wait."""

FILE_PIECE_BYTES: Final = 1024 * 1024


class Outlet:
    """Writes what comes to one descriptor. If its reader is slow, a thread goes on writing.

    What waits for the reader is bounded by the run's limit on output, and the run's limit on time holds
    whatever the reader does.
    """

    def __init__(self, fd: int, name: str) -> None:
        self._fd = fd
        self._name = name
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)
        self._piece_bytes = FILE_PIECE_BYTES if stat.S_ISREG(os.fstat(fd).st_mode) else PIPE_PIECE_BYTES
        self._waiting: deque[bytes] = deque()
        self._more = threading.Condition()
        self._thread: threading.Thread | None = None
        self._failure: OSError | None = None
        self._ended = False
        self.last = b""

    def write(self, data: bytes) -> None:
        """Write now what can be, the rest later. Raises BrokenPipeError once nobody reads any more."""
        self.last = data[-1:]
        try:
            if self._thread is None:
                data = self._write_ready(data)
        except OSError as error:
            self._failure = error
        self._check()
        if data:
            self._write_later(data)

    def finish(self) -> None:
        """Wait until everything is written. Raises BrokenPipeError or FileTransferError if it cannot be."""
        if self._thread is not None:
            with self._more:
                self._ended = True
                self._more.notify()
            self._thread.join()
        self._check()

    def _check(self) -> None:
        if isinstance(self._failure, BrokenPipeError):
            raise self._failure
        if self._failure is not None:
            raise FileTransferError(f"{self._name}: {self._failure.strerror}") from self._failure

    def _write_ready(self, data: bytes) -> bytes:
        view = memoryview(data)
        while view and self._poll.poll(0):
            view = view[os.write(self._fd, view[: self._piece_bytes]) :]
        return bytes(view)

    def _write_later(self, data: bytes) -> None:
        with self._more:
            self._waiting.append(data)
            self._more.notify()
        if self._thread is None:
            self._thread = threading.Thread(target=self._write_waiting, daemon=True)
            self._thread.start()

    def _write_waiting(self) -> None:
        while self._failure is None:
            with self._more:
                self._more.wait_for(lambda: self._waiting or self._ended)
                if not self._waiting:
                    return
                view = memoryview(self._waiting.popleft())
            try:
                while view:
                    view = view[os.write(self._fd, view) :]
            except OSError as error:
                self._failure = error


class Outlets:
    """stdout and stderr."""

    def __init__(self) -> None:
        self._outlets = {name: Outlet(fd, name) for name, fd in (("stdout", 1), ("stderr", 2))}

    def take(self, chunk: Chunk) -> None:
        """One piece of the program's output."""
        self._outlets[chunk.stream].write(chunk.data)

    def finish(self) -> None:
        """Everything is written."""
        for outlet in self._outlets.values():
            outlet.finish()

    def ends_in_line(self, name: str) -> bool:
        """Whether what follows on that stream starts a line of its own."""
        return self._outlets[name].last in {b"", b"\n"}

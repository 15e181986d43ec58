"""What a program reads: bytes, or a descriptor of ours that is copied while the program runs."""

from __future__ import annotations

import fcntl
import os
import sys
import termios
from typing import Final

from casemate import limits
from casemate.errors import FileTransferError

BytesOrFd = bytes | int
_EOF: Final = b""


def unread_bytes(pipe_fd: int) -> int:
    """What was written to a pipe, of which this is either end, and not read yet; also when nobody reads any more."""
    number = bytearray(4)
    fcntl.ioctl(pipe_fd, termios.FIONREAD, number)
    return int.from_bytes(number, sys.byteorder)


class Feeder:
    """Copies from a source into the guest's pipe without ever blocking; a program that does not read is fine."""

    def __init__(self, pipe_fd: int, source: BytesOrFd) -> None:
        """`has_taken`: something of a descriptor was read. `is_refused`: nobody can read the rest any more."""
        os.set_blocking(pipe_fd, False)
        self.pipe_fd = pipe_fd
        self._pending = memoryview(source if isinstance(source, bytes) else _EOF)
        self._source_fd = source if isinstance(source, int) else -1
        self.done = False
        self.has_taken = False
        self.is_refused = False
        self._settle()

    @property
    def reads(self) -> tuple[int, ...]:
        """Descriptors to wait for until they can be read."""
        waits = not self.done and not self._pending and self._source_fd >= 0
        return (self._source_fd,) if waits else ()

    @property
    def writes(self) -> tuple[int, ...]:
        """Descriptors to wait for until they can be written."""
        return (self.pipe_fd,) if not self.done and self._pending else ()

    def advance(self, ready: frozenset[int]) -> None:
        """Read and write what can be without waiting."""
        if self.done:
            return
        if not self._pending and self._source_fd in ready:
            self._read()
        if self._pending:
            self._write()
        self._settle()

    def close(self) -> None:
        """Give the program its end of file. Idempotent."""
        if not self.done:
            self.done = True
            os.close(self.pipe_fd)

    def _read(self) -> None:
        """Raises FileTransferError: half of an input must not pass for the whole."""
        try:
            self._pending = memoryview(os.read(self._source_fd, limits.READ_CHUNK_BYTES))
        except BlockingIOError:  # somebody else who reads there was faster
            return
        except OSError as error:
            raise FileTransferError(f"standard input cannot be read: {error.strerror}") from error
        self.has_taken = self.has_taken or bool(self._pending)
        if not self._pending:
            self._source_fd = -1

    def _write(self) -> None:
        try:
            written = os.write(self.pipe_fd, self._pending[: limits.READ_CHUNK_BYTES])
        except BlockingIOError:
            return
        except BrokenPipeError:
            self.is_refused = True
            self.close()
            return
        self._pending = self._pending[written:]

    def _settle(self) -> None:
        if not self._pending and self._source_fd < 0:
            self.close()

"""Owning descriptors, sending them though guests have used up what their user may have, and what was sent to us."""

from __future__ import annotations

import errno
import os
import resource
import socket
import stat
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

_lock = threading.Lock()


class Owned:
    """Descriptors that are to be closed by whoever has them, until somebody takes them over. For many threads."""

    def __init__(self, fds: Iterable[int] = ()) -> None:
        self._lock = threading.Lock()
        self._fds = tuple(fds)

    def take(self) -> tuple[int, ...]:
        """All of them; they are the caller's to close from here on. None the second time."""
        with self._lock:
            fds, self._fds = self._fds, ()
            return fds

    def close(self) -> None:
        """Close what nobody has taken. Idempotent."""
        for fd in self.take():
            os.close(fd)


def send_descriptors(channel: socket.socket, message: bytes, fds: Sequence[int]) -> None:
    """Send one message. Raises OSError.

    The kernel counts descriptors that were sent and not taken yet for the whole user, which an ordinary user shares
    with all guests, and compares the number with the sender's limit on open files.
    """
    try:
        socket.send_fds(channel, [message], fds)
    except OSError as error:
        if error.errno != errno.ETOOMANYREFS:
            raise
        with _all_that_is_allowed():
            socket.send_fds(channel, [message], fds)


@contextmanager
def _all_that_is_allowed() -> Iterator[None]:
    """For a moment the limit on open files of this process is the highest that it may set."""
    with _lock:
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)


def own_end(fd: int, flags: int) -> int:
    """An end of the pipe behind a descriptor that never blocks: whoever has sent us the descriptor may have kept it.

    What two have is one file: the other could let it block again. Raises OSError, also for anything but a pipe.
    """
    if not stat.S_ISFIFO(os.fstat(fd).st_mode):
        raise OSError(errno.EPROTO, os.strerror(errno.EPROTO))
    return os.open(f"/proc/self/fd/{fd}", flags | os.O_NONBLOCK | os.O_CLOEXEC)

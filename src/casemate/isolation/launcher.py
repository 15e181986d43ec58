"""The resident launcher process of an engine: started when first needed, started anew when it died."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from casemate import limits
from casemate.errors import CapacityError, LaunchError, SandboxClosed
from casemate.isolation.waiting import Steps, Wait
from casemate.kernel.descriptors import send_descriptors

PROGRAM: Final = Path(__file__).parent.parent / "_native" / "casemate-launcher"
LAUNCHER_FD: Final = 3
NEUTRAL_NAME: Final = "init"
"""Becomes the command line of every sandbox's PID 1, and the name of its program."""

MFD_EXEC: Final = 0x10
F_SEAL_EXEC: Final = 0x20
SEALS: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE

ENDS_HINT: Final = (
    "if every start ends so: this process must not be protected from being killed (OOMScoreAdjust below 0)"
)
"""An ordinary user's launcher cannot take that protection from guests, and refuses to start any."""

_DEAD: Final = frozenset({errno.EPIPE, errno.ECONNRESET})
NO_ROOM: Final = frozenset({errno.ETOOMANYREFS, errno.ENOBUFS, errno.ENOMEM})
"""Answers of the kernel when too much is on its way already."""


class Launcher:
    """Starts and feeds the launcher. Safe to use from many threads."""

    def __init__(self, program: Path = PROGRAM, *, copy: bool = True) -> None:
        """`copy`: run a sealed copy, so that nothing which runs in a sandbox is a file of the host.

        Without, `program` may also be a script that runs the launcher under an instrument.
        """
        self._program = program
        self._copy = copy
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._pid = 0
        self._pidfd = -1
        self._closed = False

    @property
    def pid(self) -> int:
        """The launcher's process id, 0 when it does not run."""
        return self._pid

    def hand_over(self, plan: bytes, fds: Sequence[int]) -> Steps[None]:
        """Hand over a plan, waiting while the launcher is behind with earlier ones. Raises LaunchError in the end."""
        deadline_s = time.monotonic() + limits.LAUNCH_TIMEOUT_S
        while (full_fd := self.send(plan, fds)) is not None:
            now_s = time.monotonic()
            if now_s >= deadline_s:
                raise LaunchError("launcher", errno.ETIMEDOUT, f"it takes nothing for {limits.LAUNCH_TIMEOUT_S} s")
            # Not for long: another thread may find the launcher dead and replace it, and the socket with it.
            yield Wait(write=(full_fd,), deadline_s=min(deadline_s, now_s + limits.LAUNCH_RETRY_S))

    def send(self, plan: bytes, fds: Sequence[int]) -> int | None:
        """Send a plan without waiting, or return the socket that has no room for it now.

        A launcher that died is replaced once; nothing had started then.
        """
        with self._lock:
            if self._closed:
                raise SandboxClosed("the engine is closed")
            try:
                try:
                    send_descriptors(self._channel(), plan, fds)
                except OSError as error:
                    if error.errno not in _DEAD:
                        raise
                    self._end()
                    send_descriptors(self._channel(), plan, fds)
            except BlockingIOError:
                return self._channel().fileno()
            except OSError as error:
                raise _unsent(error) from error
        return None

    def close(self) -> None:
        """End the launcher, and with it every sandbox that it started. Idempotent."""
        with self._lock:
            self._closed = True
            self._end()

    def _channel(self) -> socket.socket:
        if self._socket is None:
            self._socket = self._start()
        return self._socket

    def _end(self) -> None:
        """Killed and not only hung up on: one that was stopped, or hangs, would never be waited for."""
        if self._socket is None:
            return
        self._socket.close()
        self._socket = None
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._pid, 0)
        os.close(self._pidfd)
        self._pid, self._pidfd = 0, -1

    def _start(self) -> socket.socket:
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as error:
            raise CapacityError(f"no descriptor for the launcher: {error.strerror}") from error
        with theirs:
            try:
                self._pid = self._spawn(theirs.fileno())
                self._pidfd = self._watch()
            except OSError as error:
                ours.close()
                raise _unstarted(error) from error
        ours.settimeout(0)
        return ours

    def _spawn(self, fd: int) -> int:
        # The socket first: where our own standard descriptors are closed it may be one of the three.
        place = (os.POSIX_SPAWN_DUP2, fd, LAUNCHER_FD)
        nothing = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in range(LAUNCHER_FD)]
        with sealed_copy(self._program) if self._copy else contextlib.nullcontext(self._program) as program:
            return os.posix_spawn(program, [NEUTRAL_NAME], {}, file_actions=[place, *nothing])

    def _watch(self) -> int:
        """A descriptor of the launcher just started, so that its id cannot come to mean somebody else."""
        try:
            return os.pidfd_open(self._pid)
        except OSError:
            with contextlib.suppress(ChildProcessError):
                os.kill(self._pid, signal.SIGKILL)
                os.waitpid(self._pid, 0)
            self._pid = 0
            raise


@contextlib.contextmanager
def sealed_copy(program: Path) -> Iterator[str]:
    """A path, good inside the context, of a copy in memory that nobody can change any more."""
    fd = _memory_copy(program)
    try:
        with contextlib.suppress(OSError):  # since Linux 6.3
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, F_SEAL_EXEC)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


def _memory_copy(program: Path) -> int:
    """The kernel copies: bytes of this process would each cost a page of it first."""
    with program.open("rb", buffering=0) as original:
        fd = _memory_file()
        try:
            while os.sendfile(fd, original.fileno(), None, limits.READ_CHUNK_BYTES):
                continue
        except OSError:
            os.close(fd)
            raise
        return fd


def _memory_file() -> int:
    """Away from the numbers that the launcher's own descriptors get."""
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        fd = os.memfd_create(NEUTRAL_NAME, flags | MFD_EXEC)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        fd = os.memfd_create(NEUTRAL_NAME, flags)  # before Linux 6.3 every one could be executed
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, LAUNCHER_FD + 1)
    finally:
        os.close(fd)


def _unstarted(error: OSError) -> Exception:
    hints = {
        errno.ENOENT: "run `make setup`, which builds it",
        errno.EACCES: "the launcher must be readable, and programs in memory allowed: sysctl vm.memfd_noexec=1 or 0",
    }
    hint = hints.get(error.errno or 0, "")
    return LaunchError("launcher", error.errno or 0, f"cannot start: {error.strerror}", hint=hint)


def _unsent(error: OSError) -> Exception:
    if error.errno in NO_ROOM:
        return CapacityError(f"no room for another launch plan: {error.strerror}")
    if error.errno in _DEAD:
        return LaunchError("launcher", error.errno or 0, "it ends as soon as it is started", hint=ENDS_HINT)
    return LaunchError("launcher", error.errno or 0, f"cannot reach it: {error.strerror}")

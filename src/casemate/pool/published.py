"""The statistics of an engine's pools, told to other processes of the same user when they ask.

An engine listens on a socket in a directory that nobody else may enter; a thread of its sleeps until somebody connects,
and answers with one JSON document. Whoever reads trusts no more than that it came from a process of the same user.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
import stat
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Annotated, Final

import msgspec

from casemate import limits
from casemate.kernel.processes import command_line
from casemate.pool.ready import PoolStatistics

_NAME: Final = re.compile(r"(\d{1,10})-[0-9a-f]{16}", re.ASCII)
_CREDENTIALS: Final = struct.Struct("3i")
_BACKLOG: Final = 8
_SOON_S: Final = 0.001
_RIGHTS_OF_OTHERS: Final = 0o077
"""Of which the directory gives none."""


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine answers."""

    pools: Annotated[tuple[PoolStatistics, ...], msgspec.Meta(max_length=limits.POOL_KINDS_MAX + 1)]


class EngineStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """One engine of this user: its process, and its pools, or the problem with asking it."""

    pid: int
    program: str
    pools: tuple[PoolStatistics, ...] = ()
    problem: str = ""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """All engines that could be found, and which places could not be looked into."""

    engines: tuple[EngineStatistics, ...]
    problems: tuple[str, ...] = ()


_decoder: Final = msgspec.json.Decoder(Published, strict=True)


def places(uid: int) -> tuple[Path, ...]:
    """Where engines of a user may listen: the first that can be had. The second is for who has no first."""
    usual = Path("/run/casemate/engines") if uid == 0 else Path(f"/run/user/{uid}/casemate")
    return usual, Path(f"/tmp/casemate-{uid}")  # noqa: S108 - used only if it is this user's alone


# Telling ----------------------------------------------------------------------------------------------


class Publisher:
    """Answers for one engine until it is closed. Raises OSError or RuntimeError if that cannot be had."""

    def __init__(self, statistics: Callable[[], tuple[PoolStatistics, ...]]) -> None:
        self._statistics = statistics
        self._trusted = {0, os.geteuid()}
        self._closed = threading.Event()
        self._listener, self._path = _listen(places(os.geteuid()))
        self._thread = threading.Thread(target=self._serve, name="casemate-statistics", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            self._release()
            raise

    def close(self) -> None:
        """Answer nobody any more. Idempotent and bounded in time."""
        if self._closed.is_set():
            return
        self._closed.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread
        self._thread.join(2 * limits.PUBLISHED_TIMEOUT_S)
        self._release()

    def _release(self) -> None:
        self._path.unlink(missing_ok=True)
        self._listener.close()

    def _serve(self) -> None:
        while not self._closed.is_set():
            try:
                channel, _ = self._listener.accept()
            except OSError:  # closed, or no descriptor is left: then who asks waits for one
                self._closed.wait(limits.PUBLISHED_RETRY_S)
                continue
            with channel, suppress(OSError):
                self._answer(channel)

    def _answer(self, channel: socket.socket) -> None:
        channel.settimeout(limits.PUBLISHED_TIMEOUT_S)
        if _peer(channel)[1] in self._trusted:
            channel.sendall(msgspec.json.encode(Published(pools=self._statistics())))


def _listen(candidates: Iterable[Path]) -> tuple[socket.socket, Path]:
    problem = OSError("there is no place for it")
    for place in candidates:
        try:
            place.mkdir(mode=0o700, parents=os.geteuid() == 0, exist_ok=True)
            with _opened(place) as directory:
                _sweep(directory)
                return _bound(directory, place)
        except OSError as error:
            problem = error
    raise problem


def _bound(directory: int, place: Path) -> tuple[socket.socket, Path]:
    name = f"{os.getpid()}-{secrets.token_hex(8)}"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(f"/proc/self/fd/{directory}/{name}")
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        (place / name).unlink(missing_ok=True)
        raise
    return listener, place / name


# Asking -----------------------------------------------------------------------------------------------


def find_engines(candidates: Iterable[Path] | None = None) -> Found:
    """Ask every engine of this user. Bounded in number, size and time."""
    deadline_s = time.monotonic() + limits.PUBLISHED_ALL_TIMEOUT_S
    engines: list[EngineStatistics] = []
    problems: list[str] = []
    for place in places(os.geteuid()) if candidates is None else candidates:
        try:
            with _opened(place) as directory:
                engines += _ask_all(directory, deadline_s)
        except FileNotFoundError:
            continue
        except OSError as error:
            problems.append(f"{place}: {error.strerror or error}")
    return Found(engines=tuple(sorted(engines, key=lambda engine: engine.pid)), problems=tuple(problems))


def _ask_all(directory: int, deadline_s: float) -> Iterator[EngineStatistics]:
    for name in _names(directory):
        until_s = min(deadline_s, time.monotonic() + limits.PUBLISHED_TIMEOUT_S)
        try:
            pid, data = _ask(directory, name, until_s)
            yield EngineStatistics(pid=pid, program=command_line(pid), pools=_decoder.decode(data).pools)
        except ConnectionRefusedError:  # just closed, or about to listen, or dead
            _remove_if_dead(directory, name)
        except OSError as error:
            if _has_process(name):
                yield _silent(name, f"does not answer: {error.strerror or error}")
        except (msgspec.MsgspecError, ValueError, RecursionError):
            yield _silent(name, "answers with something else than statistics")


def _silent(name: str, problem: str) -> EngineStatistics:
    pid = _process_of(name)
    return EngineStatistics(pid=pid, program=command_line(pid), problem=problem)


def _ask(directory: int, name: str, deadline_s: float) -> tuple[int, bytes]:
    """The answer, and whose it is. Raises OSError."""
    with _connected(directory, name, max(_SOON_S, deadline_s - time.monotonic())) as channel:
        pid, uid, _ = _peer(channel)
        if uid != os.geteuid():
            raise OSError("it belongs to another user")
        return pid, _received(channel, deadline_s)


@contextmanager
def _connected(directory: int, name: str, within_s: float) -> Iterator[socket.socket]:
    """A connection, if it is a socket; no link is followed. Raises OSError."""
    found = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        if not stat.S_ISSOCK(os.fstat(found).st_mode):
            raise OSError("it is no socket")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
            channel.settimeout(within_s)
            channel.connect(f"/proc/self/fd/{found}")
            yield channel
    finally:
        os.close(found)


def _received(channel: socket.socket, deadline_s: float) -> bytes:
    data = bytearray()
    while piece := channel.recv(limits.READ_CHUNK_BYTES):
        data += piece
        if len(data) > limits.PUBLISHED_MAX_BYTES:
            raise OSError("its answer is too long")
        if time.monotonic() > deadline_s:
            raise OSError("its answer takes too long")
        channel.settimeout(max(_SOON_S, deadline_s - time.monotonic()))
    return bytes(data)


def _peer(channel: socket.socket) -> tuple[int, int, int]:
    """Process, user and group at the other end, by the kernel's word."""
    data = channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(data)
    return pid, uid, gid


# The directory ----------------------------------------------------------------------------------------


@contextmanager
def _opened(place: Path) -> Iterator[int]:
    """The directory itself, if it is this user's and nobody else's. Raises OSError."""
    directory = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(directory)
        if found.st_uid != os.geteuid() or found.st_mode & _RIGHTS_OF_OTHERS:
            raise OSError("it does not belong to this user alone")
        yield directory
    finally:
        os.close(directory)


def _names(directory: int) -> list[str]:
    with os.scandir(directory) as entries:
        found = (entry.name for entry in islice(entries, limits.PUBLISHED_ENTRIES_MAX) if _NAME.fullmatch(entry.name))
        return sorted(found)[: limits.PUBLISHED_ENGINES_MAX]


def _process_of(name: str) -> int:
    found = _NAME.fullmatch(name)
    return int(found[1]) if found else 0


def _sweep(directory: int) -> None:
    """Remove what dead engines have left, without waiting for anybody."""
    for name in _names(directory):
        if _has_process(name):
            continue
        with suppress(OSError):
            try:
                with _connected(directory, name, _SOON_S):
                    continue
            except ConnectionRefusedError:
                _remove_if_dead(directory, name)


def _remove_if_dead(directory: int, name: str) -> None:
    """For one where nobody listens. The number alone proves nothing: a container counts its processes on its own."""
    if not _has_process(name):
        with suppress(OSError):
            os.unlink(name, dir_fd=directory)


def _has_process(name: str) -> bool:
    return Path(f"/proc/{_process_of(name)}").exists()

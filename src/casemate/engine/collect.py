"""Taking files out of a work directory that a hostile program has filled.

Runs when every process of the sandbox is dead or, in a sandbox that lives on, beside them; either way
each step goes through `openat2` beneath the directory, follows no link, opens only regular files
without blocking, and is bounded in count, depth, bytes and time.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Final

import msgspec

from casemate import limits
from casemate.engine.paths import check_pattern, display_name
from casemate.isolation.waiting import Steps, Turn
from casemate.kernel.openat2 import open_beneath
from casemate.model.globs import matches
from casemate.model.result import Event, OutputFile

NOT_COLLECTED: Final = "not-collected"
"""The kind of the event that says what was left out."""

NOTHING_MATCHED: Final = "nothing-matched"
LINK: Final = "symbolic link"
NO_FILE: Final = "not a regular file"
_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY


class Collected(msgspec.Struct, frozen=True):
    """The files, and what was left out and why."""

    files: tuple[OutputFile, ...]
    events: tuple[Event, ...]


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """How much is collected at most. `matching_s`: of the time, for comparing names, in which everybody else waits."""

    files: int
    total_bytes: int
    time_s: float
    matching_s: float = limits.COLLECT_TIME_MAX_S


class Full(Exception):
    """A bound is reached; what was collected so far stands."""


class Collector:
    """One collection from one directory."""

    def __init__(
        self,
        directory_fd: int,
        patterns: Sequence[str],
        bounds: Bounds | None = None,
        *,
        passed_over: frozenset[str] = frozenset(),
    ) -> None:
        """`passed_over`: links and directories at the top that are no concern of anybody's."""
        self._bounds = bounds or Bounds(
            files=limits.COLLECT_FILES_MAX,
            total_bytes=limits.COLLECT_TOTAL_MAX_BYTES,
            time_s=limits.COLLECT_TIME_MAX_S,
        )
        self._passed_over = passed_over
        self._directory_fd = directory_fd
        self._patterns = [check_pattern(pattern, field="collect") for pattern in patterns]
        self._files: list[OutputFile] = []
        self._skipped: dict[str, int] = {}
        self._matched: set[int] = set()
        self._full = ""
        self._complete = False
        self._count = 0
        self._bytes = 0
        self._entries = 0
        self._turn = Turn()
        self._permitted: set[tuple[bytes, ...]] = set()
        self._deadline_s = 0.0
        self._matching_s = 0.0

    def run(self) -> Steps[Collected]:
        """All files that match, in the order of their names. Never raises for what a guest did."""
        self._deadline_s = time.monotonic() + self._bounds.time_s
        try:
            if self._patterns:
                yield from self._walk()
        except Full as full:
            self._full = str(full)
        else:
            self._complete = True
        return self.collected()

    def collected(self) -> Collected:
        """What there is until now, for whoever does not wait for the rest."""
        events = [_event(f"{count} left out: {why}") for why, count in self._skipped.items()]
        if self._full:
            events.append(_event(f"the rest left out: {self._full}"))
        if self._complete:
            events += self._without_match()
        return Collected(tuple(self._files), tuple(events[: limits.EVENTS_MAX]))

    def _without_match(self) -> list[Event]:
        return [
            Event(kind="nothing-matched", detail=repr("/".join(pattern)))
            for at, pattern in enumerate(self._patterns)
            if at not in self._matched
        ]

    def give_up(self, why: str) -> None:
        """Take nothing more."""
        self._full = why

    def _skip(self, why: str) -> None:
        self._skipped[why] = self._skipped.get(why, 0) + 1

    def _walk(self) -> Steps[None]:
        """Depth first without recursion: a guest may nest as deep as it likes."""
        pending: list[tuple[bytes, ...]] = [()]
        while pending:
            parents = pending.pop()
            directories = []
            for name, mode in (yield from self._entries_of(parents)):
                path = (*parents, name)
                if not parents and not stat.S_ISREG(mode) and display_name(name) in self._passed_over:
                    continue
                if stat.S_ISDIR(mode):
                    directories.append(path)
                elif self._wanted(path):
                    yield from self._take(path, mode)
                yield from self._turn.pause()
            if len(parents) + 1 < limits.COLLECT_DEPTH_MAX:
                pending.extend(reversed(directories))
            elif directories:
                self._skip("directory too deep")

    def _entries_of(self, path: tuple[bytes, ...]) -> Steps[list[tuple[bytes, int]]]:
        found = []
        try:
            with opened(self._directory_fd, path, _DIRECTORY_FLAGS, self._permitted) as fd:
                make_searchable(fd)
                for name in (yield from names_in(fd, self._turn)):
                    self._count_entry()
                    found.append((name, os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode))
                    yield from self._turn.pause()
        except OSError as error:
            self._skip(f"directory: {os.strerror(error.errno or 0)}")
        return found

    def _count_entry(self) -> None:
        self._entries += 1
        if self._entries > limits.COLLECT_ENTRIES_MAX:
            raise Full("too many entries")
        self._check_time()

    def _check_time(self) -> None:
        if time.monotonic() > self._deadline_s:
            raise Full("took too long")

    def _wanted(self, path: tuple[bytes, ...]) -> bool:
        began_s = time.monotonic()
        names = [display_name(part) for part in path]
        found = [at for at, pattern in enumerate(self._patterns) if matches(names, pattern)]
        self._matched.update(found)
        self._matching_s += time.monotonic() - began_s
        if self._matching_s > self._bounds.matching_s:
            raise Full("comparing names took too long")
        return bool(found)

    def _take(self, path: tuple[bytes, ...], mode: int) -> Steps[None]:
        self._check_time()
        if not stat.S_ISREG(mode):
            self._skip(LINK if stat.S_ISLNK(mode) else NO_FILE)
            return
        if self._count >= self._bounds.files:
            raise Full("too many files")
        try:
            with opened(self._directory_fd, path, os.O_RDONLY, self._permitted) as fd:
                size_bytes = self._size(fd)
                if size_bytes is not None:
                    yield from self._keep("/".join(map(display_name, path)), fd, size_bytes)
        except OSError as error:
            self._skip(f"file: {os.strerror(error.errno or 0)}")

    def _size(self, fd: int) -> int | None:
        """The apparent size decides before a byte is read, so holes cost nothing."""
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            self._skip(NO_FILE)
            return None
        if self._bytes + status.st_size > self._bounds.total_bytes:
            self._skip("too large")
            return None
        return status.st_size

    def _keep(self, path: str, fd: int, size_bytes: int) -> Steps[None]:
        data = []
        for piece in self._pieces(fd, size_bytes, limits.READ_CHUNK_BYTES):
            data.append(piece)
            yield from self._turn.pause()
        self._count += 1
        self._files.append(OutputFile(path=path, data=b"".join(data)))

    def _pieces(self, fd: int, size_bytes: int, most_bytes: int) -> Iterator[bytes]:
        """At most as much as was there, whatever happens to the file meanwhile."""
        while size_bytes > 0:
            data = os.read(fd, min(size_bytes, most_bytes))
            if not data:
                return
            size_bytes -= len(data)
            self._bytes += len(data)
            self._check_time()
            yield data


@contextmanager
def opened(
    directory_fd: int, path: tuple[bytes, ...], flags: int, permitted: set[tuple[bytes, ...]] | None = None
) -> Iterator[int]:
    """A file beneath the directory, also where a guest has taken its own rights away. Raises OSError.

    Directories in `permitted` have their rights back already; more are added.
    """
    try:
        fd = open_beneath(directory_fd, b"/".join(path) or b".", flags)
    except PermissionError:
        _permit(directory_fd, path, set() if permitted is None else permitted)
        fd = open_beneath(directory_fd, b"/".join(path) or b".", flags)
    try:
        yield fd
    finally:
        os.close(fd)


def _permit(directory_fd: int, path: tuple[bytes, ...], permitted: set[tuple[bytes, ...]]) -> None:
    """As the same user we give the rights back, parents first."""
    make_searchable(directory_fd)
    for length in range(1, len(path) + 1):
        if path[:length] in permitted:
            continue
        if length < len(path):
            permitted.add(path[:length])
        fd = open_beneath(directory_fd, b"/".join(path[:length]), os.O_PATH)
        try:
            mode = stat.S_IMODE(os.fstat(fd).st_mode)
            Path(f"/proc/self/fd/{fd}").chmod(mode | stat.S_IRWXU)
        finally:
            os.close(fd)


def names_in(directory_fd: int, turn: Turn) -> Steps[list[bytes]]:
    """The names in a directory, sorted; one more than the bound says that there are too many to sort at all."""
    found = []
    with os.scandir(directory_fd) as entries:
        for entry in islice(entries, limits.COLLECT_ENTRIES_MAX + 1):
            found.append(os.fsencode(entry.name))
            yield from turn.pause()
    return sorted(found)


def lost(events: Iterable[Event]) -> bool:
    """Whether one of the events says that files were left out which are to be collected: not links and the like."""
    return any(event.kind == NOT_COLLECTED and not event.detail.endswith((LINK, NO_FILE)) for event in events)


def _event(detail: str) -> Event:
    return Event(kind="not-collected", detail=detail)


def make_searchable(directory_fd: int) -> None:
    """Give the owner all rights to a directory."""
    mode = stat.S_IMODE(os.fstat(directory_fd).st_mode)
    if mode & stat.S_IRWXU != stat.S_IRWXU:
        os.fchmod(directory_fd, mode | stat.S_IRWXU)


def is_full(directory_fd: int) -> bool:
    """Whether the disk limit is reached: (nearly) no free byte or inode.

    Nearly, because a program that cannot write gives something back when it ends, its temporary directory for one.
    """
    status = os.statvfs(directory_fd)
    free_bytes = status.f_bavail * status.f_frsize
    return free_bytes <= limits.DISK_FULL_SLACK_BYTES or status.f_favail <= limits.DISK_FULL_SLACK_INODES


def used_bytes(directory_fd: int) -> int:
    """What the writable directories hold."""
    status = os.statvfs(directory_fd)
    return (status.f_blocks - status.f_bfree) * status.f_frsize

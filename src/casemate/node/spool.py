"""What was staged for runs that are to come: files in a directory of the node's own, swept when it starts.

Names come from far away and are checked here again; on the disk nothing is followed, and no tenant's name becomes that
of a run's directory.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from casemate import job_limits as bound
from casemate import limits
from casemate.errors import CapacityError, ConfigError, Conflict, InvalidInput, NodeUnavailable
from casemate.kernel.openat2 import open_beneath
from casemate.model.spec import WORK_DIRECTORY, Mount

AREAS: Final = ("input", "shared")
GONE: Final = "what was staged before is not there any more"
STAGE_AGAIN: Final = "nothing has run; stage all of it again"
RESERVED: Final = frozenset({*AREAS, "output"})
"""Names in the work directory that are no links to inputs."""

_OURS: Final = 0o700
_READABLE: Final = 0o444
_EXECUTABLE: Final = 0o555
_SEARCHABLE: Final = 0o755
"""The mount is read-only for the program; we have to be able to remove what is in there."""

_ANY_EXECUTE: Final = 0o111


def staged_parts(area: str, path: str) -> tuple[str, ...]:
    """The names of a path below an area. Raises InvalidInput for whatever could mean another place, or none."""
    if area not in AREAS:
        raise InvalidInput("area", f"{area[:80]!r} is none", hint="known: " + ", ".join(AREAS))
    shown = repr(path[:80])
    try:
        encoded = path.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput("files", f"{shown} is no valid Unicode text") from error
    parts = tuple(path.split("/"))
    if not path or b"\0" in encoded or not {"", ".", ".."}.isdisjoint(parts):
        raise InvalidInput("files", f"{shown} is no path to a file below {area}", hint="names and single slashes")
    too_long = any(len(part.encode()) > limits.FILE_NAME_MAX_BYTES for part in parts)
    if too_long or len(encoded) > limits.PATH_MAX_BYTES or len(parts) > bound.STAGED_DEPTH_MAX:
        raise InvalidInput("files", f"{shown} is too long or too deep")
    return parts


class Staged:
    """The files of one run. `root` is its directory."""

    def __init__(self, root: Path, tenant: str) -> None:
        self.root = root
        self.tenant = tenant
        self.lock = threading.Lock()
        self.touched_s = time.monotonic()
        self.is_taken = False
        self._files: dict[tuple[str, ...], tuple[int, int]] = {}
        self._total_bytes = 0

    @property
    def count(self) -> int:
        return len(self._files)

    @property
    def cost_bytes(self) -> int:
        """What it counts for."""
        return self._total_bytes + len(self._files) * bound.STAGED_OVERHEAD_BYTES

    @property
    def areas(self) -> list[str]:
        """Those that have files."""
        found = {parts[0] for parts in self._files}
        return [area for area in AREAS if area in found]

    def links(self) -> list[tuple[str, str]]:
        """For each name at the top of the inputs a link in the work directory, as many as there may be."""
        names = sorted({parts[1] for parts in self._files if parts[0] == "input"} - RESERVED)
        found, total_bytes = [], 0
        for name in names[: bound.LINKS_MAX]:
            total_bytes += 2 * len(name.encode())
            if total_bytes <= bound.LINKS_TOTAL_MAX_BYTES:
                found.append((name, f"input/{name}"))
        return found

    def write(self, parts: tuple[str, ...], offset: int, data: bytes, mode: int) -> int:
        """One piece. Raises InvalidInput, Conflict or CapacityError, and NodeUnavailable if earlier ones are gone."""
        size_bytes, _ = self._files.get(parts, (0, 0))
        if offset and parts not in self._files:
            raise NodeUnavailable(GONE, hint=STAGE_AGAIN)
        if offset not in {0, size_bytes}:
            raise Conflict(f"the next piece of that file begins at {size_bytes}, not at {offset}")
        self._check_bounds(parts, len(data) - (size_bytes if offset == 0 else 0))
        with _opened(self.root, parts, is_new=offset == 0) as fd:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
        self._total_bytes += offset + len(data) - size_bytes
        self._files[parts] = offset + len(data), mode
        self.touched_s = time.monotonic()
        return offset + len(data)

    def _check_bounds(self, parts: tuple[str, ...], more_bytes: int) -> None:
        if parts not in self._files and len(self._files) >= bound.STAGED_FILES_MAX:
            raise InvalidInput("files", f"more than {bound.STAGED_FILES_MAX}")
        if self._total_bytes + more_bytes > bound.STAGED_TOTAL_MAX_BYTES:
            raise InvalidInput("files", f"more than {bound.STAGED_TOTAL_MAX_BYTES} bytes together")

    def seal(self) -> None:
        """As the program will see them: whoever it is on this machine, it may read and not write."""
        for parts, (_, mode) in self._files.items():
            (self.root.joinpath(*parts)).chmod(_EXECUTABLE if mode & _ANY_EXECUTE else _READABLE)
        for area in self.areas:
            for directory, _, _ in os.walk(self.root / area):
                Path(directory).chmod(_SEARCHABLE)


class Spool:
    """The directory of all that is staged. Safe to use from many threads; two nodes must not share one."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._runs: dict[str, Staged] = {}

    def open(self) -> None:
        """Make the directory, and remove what an earlier node has left there. Raises ConfigError."""
        try:
            self._directory.mkdir(mode=_OURS, parents=True, exist_ok=True)
            self._directory.chmod(_OURS)
            for path in self._directory.iterdir():
                _remove(path)
        except OSError as error:
            raise ConfigError("service.data", f"{self._directory} cannot be used: {error.strerror}") from error

    def stage(self, run: str, place: tuple[str, str], offset: int, data: bytes, *, mode: int, tenant: str) -> int:
        """Keep a piece of a file of a tenant's run at an area and a path in it; where it ends.

        Raises InvalidInput, Conflict or CapacityError.
        """
        area, path = place
        parts = (area, *staged_parts(area, path))
        if len(data) > bound.PIECE_MAX_BYTES or offset < 0:
            raise InvalidInput("data", f"a piece has at most {bound.PIECE_MAX_BYTES} bytes")
        self._check_room(tenant, len(data))
        staged = self._staged(tenant, run)
        with staged.lock:
            if staged.is_taken:
                raise Conflict("that run has begun, or was forgotten")
            try:
                return staged.write(parts, offset, data, mode)
            except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
                raise InvalidInput("files", f"{path[:80]!r} would be a file and a directory") from error
            except OSError as error:
                raise CapacityError(f"the node cannot keep the file: {error.strerror}") from error

    def _check_room(self, tenant: str, more_bytes: int) -> None:
        """Raise CapacityError where the disk has no room, or that tenant has its share of it."""
        found = os.statvfs(self._directory)
        free_bytes = found.f_bavail * found.f_frsize - bound.SPOOL_FREE_MIN_BYTES
        if free_bytes < more_bytes or (found.f_files and found.f_favail < bound.SPOOL_FREE_MIN_FILES):
            raise CapacityError("the node's disk is full", hint="try again when other jobs have ended")
        with self._lock:
            held_bytes = sum(each.cost_bytes for each in self._runs.values() if each.tenant == tenant)
        if held_bytes + more_bytes > bound.SPOOL_TENANT_FREE_SHARE * (free_bytes - more_bytes):
            problem = f"the files of this tenant's jobs take its share of the node's disk: {held_bytes} bytes"
            raise CapacityError(
                problem, hint="try again when other jobs of the tenant have ended, or with smaller files"
            )

    def _staged(self, tenant: str, run: str) -> Staged:
        with self._lock:
            if run in self._runs:
                return self._runs[run]
        self._forget_old()
        with self._lock:
            if len(self._runs) >= bound.STAGED_RUNS_MAX:
                raise CapacityError("the node keeps files for as many runs as it can")
            if run not in self._runs:
                root = self._directory / hashlib.sha256(run.encode("utf-8", "surrogatepass")).hexdigest()
                root.mkdir(mode=_OURS)
                self._runs[run] = Staged(root, tenant)
            return self._runs[run]

    def _forget_old(self) -> None:
        """A service that has stopped neither runs nor unstages what it has sent."""
        before_s = time.monotonic() - bound.STAGED_AGE_MAX_S
        with self._lock:
            old = [run for run, each in self._runs.items() if not each.is_taken and each.touched_s < before_s]
        for run in old:
            self.forget(run)

    def __contains__(self, run: str) -> bool:
        """Whether there is anything of a run."""
        with self._lock:
            return run in self._runs

    def check_count(self, run: str, count: int | None) -> None:
        """Raise NodeUnavailable if other than so many files are there; None: any number will do."""
        with self._lock:
            there = self._runs[run].count if run in self._runs else 0
        if count is not None and count != there:
            raise NodeUnavailable(f"{count} files were staged for the run, and {there} are there", hint=STAGE_AGAIN)

    def take(self, run: str, count: int | None) -> tuple[list[Mount], list[tuple[str, str]]]:
        """The directories that a run gets, and its links; from now on nothing is added.

        `count`: how many files there have to be. Raises NodeUnavailable, or Conflict.
        """
        self.check_count(run, count)
        with self._lock:
            staged = self._runs.get(run)
        if staged is None:
            return [], []
        with staged.lock:
            if staged.is_taken:
                raise Conflict("that run has begun, or was forgotten")
            staged.is_taken = True
            staged.seal()
        kin = str(self._directory)
        mounts = [Mount(str(staged.root / area), f"{WORK_DIRECTORY}/{area}", kin) for area in staged.areas]
        return mounts, staged.links()

    def forget(self, run: str) -> None:
        """Remove what was staged for a run. Idempotent."""
        with self._lock:
            staged = self._runs.get(run)
        if staged is None:
            return
        with staged.lock:
            staged.is_taken = True
            _remove(staged.root)
        with self._lock:
            if self._runs.get(run) is staged:
                del self._runs[run]


@contextmanager
def _opened(root: Path, parts: tuple[str, ...], *, is_new: bool) -> Iterator[int]:
    """The end of a file below the run's directory, with the directories on the way. Raises OSError."""
    directory_fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts[:-1]:
            directory_fd = _entered(directory_fd, part)
        name = parts[-1].encode()
        if is_new:
            made = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=directory_fd)
            os.ftruncate(made, 0)
            os.close(made)
        fd = open_beneath(directory_fd, name, os.O_WRONLY | os.O_APPEND)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise NotADirectoryError
            yield fd
        finally:
            os.close(fd)
    finally:
        os.close(directory_fd)


def _entered(directory_fd: int, name: str) -> int:
    """The directory of that name, made if it is missing, in the place of the one that it is in."""
    with suppress(FileExistsError):
        os.mkdir(name, _OURS, dir_fd=directory_fd)
    inner = open_beneath(directory_fd, name.encode(), os.O_RDONLY | os.O_DIRECTORY)
    os.close(directory_fd)
    return inner


def _remove(path: Path) -> None:
    """A file, or a tree that is no deeper than what is staged may be. Whatever cannot be removed stays until later."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path, ignore_errors=True)

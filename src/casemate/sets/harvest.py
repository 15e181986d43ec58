"""Taking what an installation left in a dead sandbox: files and directories, nothing else, within bounds.

Every process of the sandbox is dead, so nothing changes any more. Each step goes through `openat2` beneath the
directory and follows no link. Owners, times and special bits stay behind.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from casemate import limits
from casemate.engine.paths import display_name
from casemate.errors import BuildFailed
from casemate.kernel.openat2 import open_beneath
from casemate.runtimes.tree import DIRECTORY_MODE, FILE_MODE, PROGRAM_MODE

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY


class Harvest:
    """One copy of the directory `below` of a sandbox's work directory to `target`, which is made."""

    def __init__(self, work_fd: int, below: str, target: Path, *, max_bytes: int) -> None:
        self._work_fd = work_fd
        self._below = os.fsencode(below)
        self._target = target
        self._left_bytes = max_bytes
        self._left_entries = limits.SET_FILES_MAX
        self.left_out: list[str] = []

    def run(self) -> None:
        """Copy. Raises BuildFailed where it is too much or cannot be read."""
        pending: list[tuple[bytes, ...]] = [()]
        try:
            while pending:
                pending += self._directory(pending.pop())
        except OSError as error:
            raise BuildFailed(f"what the installation left cannot be taken: {error.strerror}") from error

    def _directory(self, path: tuple[bytes, ...]) -> list[tuple[bytes, ...]]:
        if len(path) > limits.SET_DEPTH_MAX:
            raise BuildFailed(f"directories are nested more than {limits.SET_DEPTH_MAX} deep")
        make_directory(self._to(path))
        inner = []
        fd = self._open(path, _DIRECTORY)
        try:
            for name in sorted(os.fsencode(entry) for entry in os.listdir(fd)):  # noqa: PTH208 - a descriptor, not a path
                self._count()
                mode = os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode
                if stat.S_ISDIR(mode):
                    inner.append((*path, name))
                else:
                    self._entry((*path, name), mode)
        finally:
            os.close(fd)
        return inner

    def _count(self) -> None:
        self._left_entries -= 1
        if self._left_entries < 0:
            raise BuildFailed(f"the installation has more than {limits.SET_FILES_MAX} files")

    def _entry(self, path: tuple[bytes, ...], mode: int) -> None:
        if stat.S_ISREG(mode):
            self._file(path)
        elif len(self.left_out) < limits.SET_LEFT_OUT_MAX:
            kind = "a symbolic link" if stat.S_ISLNK(mode) else "no regular file"
            self.left_out.append(f"{display_name(b'/'.join(path))}: {kind}")

    def _file(self, path: tuple[bytes, ...]) -> None:
        """The apparent size counts, so holes and hard links save nobody anything."""
        fd = self._open(path, os.O_RDONLY)
        try:
            status = os.fstat(fd)
            self._left_bytes -= status.st_size
            if not stat.S_ISREG(status.st_mode) or self._left_bytes < 0:
                raise BuildFailed("the installation is larger than the disk limit")
            mode = PROGRAM_MODE if status.st_mode & stat.S_IXUSR else FILE_MODE
            copy_file(fd, self._to(path), status.st_size, mode)
        finally:
            os.close(fd)

    def _open(self, path: tuple[bytes, ...], flags: int) -> int:
        return open_beneath(self._work_fd, b"/".join((self._below, *path)), flags)

    def _to(self, path: tuple[bytes, ...]) -> Path:
        return self._target.joinpath(*map(os.fsdecode, path))


def make_directory(path: Path) -> None:
    """One directory that every guest can read, whatever our umask is."""
    path.mkdir()
    path.chmod(DIRECTORY_MODE)


def copy_file(source_fd: int, target: Path, size_bytes: int, mode: int) -> None:
    """At most so many bytes of an open file to a new one."""
    fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        while size_bytes > 0 and (count := os.sendfile(fd, source_fd, None, size_bytes)):
            size_bytes -= count
        os.fchmod(fd, mode)
    finally:
        os.close(fd)

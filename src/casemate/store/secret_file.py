"""Files of secrets for their owner alone: one that anybody else may have read is none, and is refused.

A file holds generations of one secret, the newest first, each of the same length.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_bytes
from typing import Final

import msgspec

from casemate.errors import ConfigError

DIRECTORY: Final = "secrets"
SECRET_BYTES: Final = 32
_DIRECTORY_MODE: Final = 0o700
_FILE_MODE: Final = 0o600
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_DIRECTORY_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class SecretFile(msgspec.Struct, frozen=True, kw_only=True):
    """One of them, below the service's data directory. `loss`: what it means that there is none any more."""

    data: Path
    name: str
    generations_max: int
    loss: str

    def opened(self) -> tuple[bytes, ...]:
        """The generations; the first is made when there is no file. Raises ConfigError for what is no secret."""
        with _directory(self.data) as directory_fd:
            with suppress(FileExistsError):
                if not _is_there(directory_fd, self.name):
                    self._write(directory_fd, token_bytes(SECRET_BYTES), replace=False)
            return self._read(directory_fd)

    def rotated(self) -> tuple[bytes, ...]:
        """The generations with a new one before them; the oldest goes where there are too many. Raises ConfigError."""
        with _directory(self.data) as directory_fd:
            held = self._read(directory_fd) if _is_there(directory_fd, self.name) else ()
            kept = held[: self.generations_max - 1]
            self._write(directory_fd, b"".join((token_bytes(SECRET_BYTES), *kept)), replace=True)
            return self._read(directory_fd)

    def is_there(self) -> bool:
        """Whether it has been made. Raises ConfigError for a directory that is not for its owner alone."""
        with _directory(self.data) as directory_fd:
            return _is_there(directory_fd, self.name)

    def _read(self, directory_fd: int) -> tuple[bytes, ...]:
        path = self.data / DIRECTORY / self.name
        fd = os.open(self.name, _READ_FLAGS, dir_fd=directory_fd)
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                raise ConfigError("data", f"{path} is no file")
            _check_own(path, found, _FILE_MODE)
            content = os.read(fd, self.generations_max * SECRET_BYTES + 1)
        finally:
            os.close(fd)
        count, rest = divmod(len(content), SECRET_BYTES)
        if rest or not 1 <= count <= self.generations_max:
            raise ConfigError("data", f"{path} is damaged", hint=f"put a backup in its place; without it {self.loss}")
        return tuple(content[start : start + SECRET_BYTES] for start in range(0, len(content), SECRET_BYTES))

    def _write(self, directory_fd: int, content: bytes, *, replace: bool) -> None:
        """Either all of it is there afterwards or nothing has changed, also when the power fails."""
        new = f"{self.name}.new"
        _remove(directory_fd, new)  # of one that was killed
        fd = os.open(new, _WRITE_FLAGS, _FILE_MODE, dir_fd=directory_fd)
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(fd)
        put = os.rename if replace else os.link
        try:
            put(new, self.name, src_dir_fd=directory_fd, dst_dir_fd=directory_fd)
        finally:
            _remove(directory_fd, new)
        os.fsync(directory_fd)


@contextmanager
def _directory(data: Path) -> Iterator[int]:
    """The directory of secrets, made when it is not there, and open so that nobody can put another in its place."""
    path = data / DIRECTORY
    try:
        with suppress(FileExistsError):
            path.mkdir(mode=_DIRECTORY_MODE)
        directory_fd = os.open(path, _DIRECTORY_FLAGS)
        try:
            _check_own(path, os.fstat(directory_fd), _DIRECTORY_MODE)
            yield directory_fd
        finally:
            os.close(directory_fd)
    except OSError as error:
        raise ConfigError("data", f"{path} cannot be used: {error.strerror}") from error


def _is_there(directory_fd: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _remove(directory_fd: int, name: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=directory_fd)


def _check_own(path: Path, found: os.stat_result, mode: int) -> None:
    if found.st_uid != os.geteuid():
        raise ConfigError("data", f"{path} belongs to another user ({found.st_uid})")
    if found.st_mode & _OTHERS:
        raise ConfigError(
            "data",
            f"{path} is open to others (mode {stat.S_IMODE(found.st_mode):04o})",
            hint=f"chmod {mode:o} {path}, and rotate the secret if anybody may have read it",
        )

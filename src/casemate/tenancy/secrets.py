"""The service's one secret, from which all others are derived: nothing that can sign stands in the records.

It is a file for its owner alone. A secret that anybody else may have read is none, and is refused.
"""

from __future__ import annotations

import hmac
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_bytes
from typing import Final

from casemate.errors import ConfigError

DIRECTORY: Final = "secrets"
NAME: Final = "signing.key"
SECRET_BYTES: Final = 32
GENERATIONS_MAX: Final = 2
"""Those in use: the one that signs, and the one before, which still is believed."""

_NEW: Final = f"{NAME}.new"
_DIRECTORY_MODE: Final = 0o700
_FILE_MODE: Final = 0o600
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_DIRECTORY_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Signing:
    """Secrets for each purpose: HMAC-SHA256 of the purpose's name, so that one tells nothing about another."""

    def __init__(self, generations: tuple[bytes, ...]) -> None:
        self._generations = generations

    def __repr__(self) -> str:
        return f"Signing({len(self._generations)} generations)"

    def webhook_secret(self, key_id: str) -> bytes:
        """What a key signs its requests with."""
        return self.webhook_secrets(key_id)[0]

    def webhook_secrets(self, key_id: str) -> tuple[bytes, ...]:
        """What signed requests of a key are believed with, the present secret first."""
        return self._derived(f"webhook:{key_id}".encode())

    def sign_session(self, payload: bytes) -> bytes:
        """The code that shows that a session is one of ours."""
        return _code(self._derived(b"session")[0], payload)

    def is_session(self, payload: bytes, code: bytes) -> bool:
        """Whether we have signed that, lately enough. All generations are tried, so that time tells nothing."""
        return any([hmac.compare_digest(_code(secret, payload), code) for secret in self._derived(b"session")])  # noqa: C419 - all of them

    def _derived(self, purpose: bytes) -> tuple[bytes, ...]:
        return tuple(_code(secret, purpose) for secret in self._generations)


def webhook_text(secret: bytes) -> bytes:
    """The secret of a webhook as its sender is given it, and signs with it: in hexadecimal."""
    return secret.hex().encode("ascii")


def open_signing(data: Path) -> Signing:
    """The secret in the data directory; made when it is not there. Raises ConfigError for one that is not a secret."""
    with _directory(data) as directory_fd:
        with suppress(FileExistsError):
            if not _is_there(directory_fd):
                _write(directory_fd, token_bytes(SECRET_BYTES), replace=False)
        return _read(data, directory_fd)


def rotate_signing(data: Path) -> Signing:
    """Sign with a new secret from now on. What the last one has signed is believed until the next time."""
    with _directory(data) as directory_fd:
        held = _read(data, directory_fd) if _is_there(directory_fd) else Signing(())
        kept = held._generations[: GENERATIONS_MAX - 1]  # noqa: SLF001 - the file that it is of
        _write(directory_fd, b"".join((token_bytes(SECRET_BYTES), *kept)), replace=True)
        return _read(data, directory_fd)


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


def _is_there(directory_fd: int) -> bool:
    try:
        os.stat(NAME, dir_fd=directory_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _read(data: Path, directory_fd: int) -> Signing:
    path = data / DIRECTORY / NAME
    fd = os.open(NAME, _READ_FLAGS, dir_fd=directory_fd)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise ConfigError("data", f"{path} is no file")
        _check_own(path, found, _FILE_MODE)
        content = os.read(fd, GENERATIONS_MAX * SECRET_BYTES + 1)
    finally:
        os.close(fd)
    count, rest = divmod(len(content), SECRET_BYTES)
    if rest or not 1 <= count <= GENERATIONS_MAX:
        raise ConfigError(
            "data", f"{path} is damaged", hint="put a backup in its place; without it no signature is ours"
        )
    return Signing(tuple(content[start : start + SECRET_BYTES] for start in range(0, len(content), SECRET_BYTES)))


def _write(directory_fd: int, content: bytes, *, replace: bool) -> None:
    """Either all of it is there afterwards or nothing has changed, also when the power fails."""
    _remove_new(directory_fd)  # of one that was killed
    fd = os.open(_NEW, _WRITE_FLAGS, _FILE_MODE, dir_fd=directory_fd)
    with os.fdopen(fd, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(fd)
    put = os.rename if replace else os.link
    try:
        put(_NEW, NAME, src_dir_fd=directory_fd, dst_dir_fd=directory_fd)
    finally:
        _remove_new(directory_fd)
    os.fsync(directory_fd)


def _remove_new(directory_fd: int) -> None:
    with suppress(FileNotFoundError):
        os.unlink(_NEW, dir_fd=directory_fd)


def _check_own(path: Path, found: os.stat_result, mode: int) -> None:
    if found.st_uid != os.geteuid():
        raise ConfigError("data", f"{path} belongs to another user ({found.st_uid})")
    if found.st_mode & _OTHERS:
        raise ConfigError(
            "data",
            f"{path} is open to others (mode {stat.S_IMODE(found.st_mode):04o})",
            hint=f"chmod {mode:o} {path}, and rotate the secret if anybody may have read it",
        )


def _code(secret: bytes, message: bytes) -> bytes:
    return hmac.digest(secret, message, "sha256")

"""The file of a backup: a plain tar, written and read by us alone.

It holds regular files and nothing else, under names of few characters. The first says what it is, the last how many
files stand between and what their digest is, so that one that was cut off, or changed by accident, is refused. What is
read is hostile: a name is checked before anything is made, nothing is followed, and nothing takes more room than it
does in the archive.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Final, TypeVar

import msgspec

from casemate.account_limits import BACKUP_DEPTH_MAX, BACKUP_HEAD_MAX_BYTES, BACKUP_PIECE_BYTES
from casemate.errors import FileTransferError, InvalidInput, RecordsDamaged

T = TypeVar("T")
FORMAT: Final = 1
HEAD: Final = "casemate-backup.json"
END: Final = "end.json"
_BLOCK: Final = 512
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", re.ASCII)
_OCTAL: Final = re.compile(rb"[0-7]{11}\0", re.ASCII)
_OCTAL_MAX: Final = 8**11 - 1
_BINARY: Final = 0x80
_PREFIX_MAX_BYTES: Final = 155
_SIZE: Final = slice(124, 136)
_SUM: Final = slice(148, 156)
_MAGIC: Final = b"ustar\x0000"
_FILE: Final = b"0"
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """What an archive is. `schema` is that of the records, empty without any; `has`: which parts are in it."""

    format: int
    version: str
    schema: str
    made_at: str
    has: tuple[str, ...]


class End(msgspec.Struct, frozen=True, kw_only=True):
    """How it ends: how many files and bytes there are, and the digest of all names, sizes and contents."""

    files: int
    size_bytes: int
    digest: str


class Tally:
    """Counts what goes into an archive, or comes out of it."""

    def __init__(self) -> None:
        self._files = 0
        self._size_bytes = 0
        self._digest = hashlib.sha256()

    def add(self, name: str, size_bytes: int, digest: bytes) -> None:
        """One file more."""
        self._files += 1
        self._size_bytes += size_bytes
        self._digest.update(f"{name}\0{size_bytes}\0".encode() + digest)

    def end(self) -> End:
        """What the last file says."""
        return End(files=self._files, size_bytes=self._size_bytes, digest=self._digest.hexdigest())


def check_name(name: str) -> str:
    """Raise InvalidInput for what no file of a backup is called."""
    parts = name.split("/")
    is_deep = len(parts) > BACKUP_DEPTH_MAX or len(name) - len(parts[-1]) > _PREFIX_MAX_BYTES
    if is_deep or not all(_NAME.fullmatch(part) for part in parts):
        raise InvalidInput("backup", f"{name[:200]!r} is no name of a file in a backup")
    return name


# Writing ------------------------------------------------------------------------------------------


class Archive:
    """An archive that is being written."""

    def __init__(self, file: IO[bytes], head: Head) -> None:
        self._file = file
        self._tally = Tally()
        self._add_bytes(HEAD, msgspec.json.encode(head))

    def add(self, name: str, path: Path) -> bool:
        """Add a file as it is when it is opened. False: there is none any more."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        with os.fdopen(fd, "rb") as source:
            self._add(name, os.fstat(fd).st_size, source)
        return True

    def end(self) -> End:
        """Say that this was all."""
        found = self._tally.end()
        self._add_bytes(END, msgspec.json.encode(found))
        self._file.write(bytes(2 * _BLOCK))
        return found

    def _add_bytes(self, name: str, content: bytes) -> None:
        self._add(name, len(content), io.BytesIO(content))

    def _add(self, name: str, size_bytes: int, source: IO[bytes]) -> None:
        self._file.write(header(check_name(name), size_bytes))
        digest = hashlib.sha256()
        left = size_bytes
        while left:
            piece = source.read(min(left, BACKUP_PIECE_BYTES))
            if not piece:
                raise FileTransferError(f"{name} has become shorter while it was read")
            digest.update(piece)
            self._file.write(piece)
            left -= len(piece)
        self._file.write(bytes(-size_bytes % _BLOCK))
        self._tally.add(name, size_bytes, digest.digest())


def header(name: str, size_bytes: int) -> bytes:
    """A block of tar, in the form that all readers know; sizes beyond 8 GiB as GNU writes them."""
    prefix, _, base = name.rpartition("/")
    size = f"{size_bytes:011o}\0".encode() if size_bytes <= _OCTAL_MAX else _binary(size_bytes)
    block = bytearray(
        base.encode().ljust(100, b"\0") + b"0000600\0" + b"0000000\0" * 2 + size + b"00000000000\0" + b" " * 8 + _FILE
    )
    block += bytes(100) + _MAGIC + bytes(64) + b"0000000\0" * 2 + prefix.encode().ljust(155, b"\0")
    block += bytes(_BLOCK - len(block))
    block[_SUM] = f"{sum(block):06o}\0 ".encode()
    return bytes(block)


def _binary(size_bytes: int) -> bytes:
    found = bytearray(size_bytes.to_bytes(12, "big"))
    found[0] |= _BINARY
    return bytes(found)


# Reading ------------------------------------------------------------------------------------------


class Entry:
    """A file of an archive: its name, its size, and its bytes, which are read once, before the next entry."""

    def __init__(self, file: IO[bytes], name: str, size_bytes: int) -> None:
        self._file = file
        self._left = size_bytes
        self._digest = hashlib.sha256()
        self.name = name
        self.size_bytes = size_bytes

    def pieces(self) -> Iterator[bytes]:
        """Its content. Raises RecordsDamaged where the archive ends within it."""
        while self._left:
            piece = _read(self._file, min(self._left, BACKUP_PIECE_BYTES))
            self._left -= len(piece)
            self._digest.update(piece)
            yield piece
        _read(self._file, -self.size_bytes % _BLOCK)

    def content(self) -> bytes:
        """All of it, of one that is small. Raises RecordsDamaged."""
        if self.size_bytes > BACKUP_HEAD_MAX_BYTES:
            raise _damaged(f"{self.name} is too large")
        return b"".join(self.pieces())

    def digest(self) -> bytes:
        return self._digest.digest()


class Reader:
    """An archive that is being read. Its head is known from the beginning, its end once everything has been read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._tally = Tally()
        first = self._next()
        if first.name != HEAD:
            raise InvalidInput("backup", "is no backup of Casemate's")
        self.head = _decoded(first.content(), Head)
        if self.head.format != FORMAT:
            raise InvalidInput(
                "backup",
                f"has the format {self.head.format}, of which this version knows nothing",
                hint="use a newer one",
            )
        self._tally.add(first.name, first.size_bytes, first.digest())

    def entries(self) -> Iterator[Entry]:
        """The files between head and end; the pieces of each have to be read. Raises RecordsDamaged."""
        while True:
            entry = self._next()
            if entry.name == END:
                self._check_end(_decoded(entry.content(), End))
                return
            yield entry
            self._tally.add(entry.name, entry.size_bytes, entry.digest())

    def _check_end(self, told: End) -> None:
        if told != self._tally.end():
            raise _damaged("it is not what was written")

    def _next(self) -> Entry:
        block = _read(self._file, _BLOCK)
        name, size_bytes = parsed(block)
        return Entry(self._file, name, size_bytes)


def parsed(block: bytes) -> tuple[str, int]:
    """The name and size that a header tells. Raises RecordsDamaged and InvalidInput for what we never write."""
    name = _text(block[:100])
    prefix = _text(block[345:500])
    size = block[_SIZE]
    if _OCTAL.fullmatch(size):
        size_bytes = int(size[:-1], 8)
    elif size[0] == _BINARY:
        size_bytes = int.from_bytes(size[1:], "big")
    else:
        raise _damaged("a header makes no sense")
    full = check_name(f"{prefix}/{name}" if prefix else name)
    if header(full, size_bytes) != block:  # whatever else it might say: links, devices, owners, extensions
        raise _damaged("it has something that no backup has")
    return full, size_bytes


def _text(field: bytes) -> str:
    try:
        return field.rstrip(b"\0").decode("ascii")
    except UnicodeDecodeError as error:
        raise _damaged("a header makes no sense") from error


def _read(file: IO[bytes], size: int) -> bytes:
    found = file.read(size)
    if len(found) < size:
        raise _damaged("it ends before its end")
    return found


def _decoded(content: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _damaged("it is not what was written") from error


def _damaged(why: str) -> RecordsDamaged:
    return RecordsDamaged("damaged", f"the backup is damaged: {why}", hint="take another one")


# Files of our own ---------------------------------------------------------------------------------


def new_file(path: Path) -> IO[bytes]:
    """A file that was not there, for its owner alone. Raises OSError."""
    return os.fdopen(os.open(path, _NEW, 0o600), "wb")


def unpack(entry: Entry, target: Path) -> None:
    """Write a file below a directory in which nobody else writes."""
    path = target / entry.name
    directory = target
    for part in entry.name.split("/")[:-1]:
        directory /= part
        with suppress(FileExistsError):
            directory.mkdir(mode=0o700)
    with new_file(path) as file:
        for piece in entry.pieces():
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())

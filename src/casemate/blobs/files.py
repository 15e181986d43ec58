"""Files of sealed objects: written apart, put in their place whole, read from whatever chunk on. Blocking."""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import EDQUOT, EEXIST, ENOSPC, ENOTEMPTY
from pathlib import Path
from typing import Final

from casemate.blobs.envelope import MasterKeys
from casemate.blobs.keys import JOBS, UPLOADS
from casemate.blobs.protocol import Blob
from casemate.blobs.sealed import (
    HEAD_MAX_BYTES,
    SEALED_CHUNK_BYTES,
    ChunkOpener,
    ChunkSealer,
    Head,
    chunk_count,
    head_size_bytes,
    opened_head,
    sealed_head,
)
from casemate.errors import InvalidInput, NotFound, RecordsDamaged, RecordsUnavailable
from casemate.object_limits import OBJECT_BATCH_BYTES, OBJECT_CHUNK_BYTES, OBJECT_PLACING_MAX

_LOG: Final = logging.getLogger(__name__)
DIRECTORY_MODE: Final = 0o700
_FILE_MODE: Final = 0o600
_NAME_CHARS: Final = 40
_READ_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_WRITE_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_BATCH_CHUNKS: Final = OBJECT_BATCH_BYTES // OBJECT_CHUNK_BYTES


class Writing:
    """A file that is not in its place yet. It is gone when this is closed, unless it was kept."""

    def __init__(self, directory: Path, key: str, keys: MasterKeys) -> None:
        self._key = key
        self._data_key = keys.new_key()
        self._sealer = ChunkSealer(self._data_key)
        self._digest = hashlib.sha256()
        self._size_bytes = 0
        self._path = directory / secrets.token_hex(16)
        with told():
            self._file = os.fdopen(os.open(self._path, _WRITE_FLAGS, _FILE_MODE), "wb", buffering=0)
        self._file.seek(head_size_bytes(key))

    def write(self, data: bytes) -> None:
        self._digest.update(data)
        self._size_bytes += len(data)
        with told():
            self._write_all(self._sealer.seal(data))

    def keep(self, path: Path, modified_us: int) -> Blob:
        """Put it in its place."""
        digest = self._digest.hexdigest()
        blob = Blob(key=self._key, size_bytes=self._size_bytes, digest=digest, modified_us=modified_us)
        with told():
            self._write_all(self._sealer.end())
            self._file.seek(0)
            self._write_all(sealed_head(blob, self._data_key))
            os.fdatasync(self._file.fileno())
            _place(self._path, path)
        return blob

    def close(self) -> None:
        """Idempotent."""
        self._file.close()
        with suppress(FileNotFoundError), told():
            self._path.unlink()

    def _write_all(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]


class Reading:
    """An object that is being read: the file that was there then, whatever takes its place."""

    def __init__(self, path: Path, key: str, keys: MasterKeys, offset: int) -> None:
        try:
            with told():
                self._fd = os.open(path, _READ_FLAGS)
        except FileNotFoundError as error:
            raise NotFound("there is no such object") from error
        try:
            self.head = self._checked(key, keys)
            self._begin(offset)
        except BaseException:
            os.close(self._fd)
            raise

    def _checked(self, key: str, keys: MasterKeys) -> Head:
        with told():
            head = opened_head(os.pread(self._fd, HEAD_MAX_BYTES, 0), keys)
            size_bytes = os.fstat(self._fd).st_size
        if head.blob.key != key or size_bytes != head.sealed_size_bytes():
            raise RecordsDamaged("damaged", "an object is not what was written", hint="put a backup in its place")
        return head

    def _begin(self, offset: int) -> None:
        if not 0 <= offset <= self.head.blob.size_bytes:
            raise InvalidInput("offset", f"must be from 0 to {self.head.blob.size_bytes}")
        self._chunk, self._skipped_bytes = divmod(offset, OBJECT_CHUNK_BYTES)
        self._opener = ChunkOpener(self.head.key, self._chunk)

    def read(self) -> bytes:
        """The next bytes; none: that was all."""
        if self._chunk >= chunk_count(self.head.blob.size_bytes):
            return b""
        with told():
            data = os.pread(self._fd, _BATCH_CHUNKS * SEALED_CHUNK_BYTES, self.head.chunk_offset(self._chunk))
        self._chunk += _BATCH_CHUNKS
        piece = self._opener.open(data)[self._skipped_bytes :]
        self._skipped_bytes = 0
        if not piece and self._chunk < chunk_count(self.head.blob.size_bytes):
            raise RecordsDamaged("damaged", "an object ends before its end")
        return piece

    def close(self) -> None:
        os.close(self._fd)


def group_of(key: str) -> str:
    """What is in one directory: a job, an upload, or all that a tenant shares."""
    parts = key.split("/")
    return "/".join(parts[: 3 if parts[1:2] in ([JOBS], [UPLOADS]) else 2])


def hidden(name: str) -> str:
    """A name of a file or directory, which says nothing to who does not know what it stands for."""
    return hashlib.sha256(name.encode()).hexdigest()[:_NAME_CHARS]


def entries(directory: Path) -> list[Path]:
    """What is in a directory; nothing where there is none."""
    try:
        return [Path(each.path) for each in os.scandir(directory)]
    except FileNotFoundError:
        return []


def _place(new: Path, path: Path) -> None:
    """Directories that were empty may go away meanwhile, so it is tried more than once."""
    for _ in range(OBJECT_PLACING_MAX):
        with suppress(FileNotFoundError):
            for directory in (path.parent.parent, path.parent):
                with suppress(FileExistsError):
                    directory.mkdir(mode=DIRECTORY_MODE)
            new.rename(path)
            return
    raise RecordsUnavailable("busy", "an object finds no place")


def delete(path: Path) -> bool:
    """Remove an object, and the directories that are empty without it. False: it was not there."""
    with told():
        try:
            path.unlink()
        except FileNotFoundError:
            return False
        for directory in (path.parent, path.parent.parent):
            try:
                directory.rmdir()
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno not in {ENOTEMPTY, EEXIST}:
                    raise
                break
    return True


@contextmanager
def told() -> Iterator[None]:
    """What is wrong with the disk, in errors of ours; that a file is missing is for the caller to say."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno in {ENOSPC, EDQUOT}:
            raise RecordsUnavailable("full", "the disk of the objects is full", hint="make room") from error
        raise RecordsUnavailable("io", f"an object cannot be read or written: {error.strerror}") from error


def blob_at(path: Path, keys: MasterKeys) -> Blob | None:
    """What a file's head tells. One that is damaged is passed over: the others are to be found all the same."""
    try:
        with told():
            fd = os.open(path, _READ_FLAGS)
    except FileNotFoundError:
        return None
    try:
        blob = opened_head(os.pread(fd, HEAD_MAX_BYTES, 0), keys).blob
    except RecordsDamaged as error:
        _LOG.error("an object is damaged: %s", error, extra={"file": path.name})
        return None
    finally:
        os.close(fd)
    return blob if path.name == hidden(blob.key) else None


def blobs_in(group: Path, keys: MasterKeys) -> list[Blob]:
    """All of one directory, in the order of their keys."""
    found = [blob for path in entries(group) if (blob := blob_at(path, keys))]
    return sorted(found, key=lambda blob: blob.key)


def groups_in(directory: Path, prefix: str, keys: MasterKeys, but_for: str) -> list[tuple[str, Path]]:
    """The directories that may have keys with that beginning, each with what its keys begin with, in their order."""
    tenant, has_tenant, _ = prefix.partition("/")
    group = group_of(prefix)
    if has_tenant and prefix.startswith(f"{group}/"):
        return [(f"{group}/", directory / hidden(tenant) / hidden(group))]
    tenants = [each for each in entries(directory) if each.name != but_for]
    if has_tenant:
        tenants = [directory / hidden(tenant)]
    groups = [each for found in tenants for each in entries(found)]
    named = [(name, each) for each in groups if (name := _name_of(each, keys))]
    return sorted((name, each) for name, each in named if name.startswith(prefix) or prefix.startswith(name))


def _name_of(group: Path, keys: MasterKeys) -> str:
    """What the keys in a directory begin with; empty: none is there."""
    for path in entries(group):
        if blob := blob_at(path, keys):
            return f"{group_of(blob.key)}/"
    return ""

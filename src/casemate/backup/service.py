"""What a backup of a service has, and in which order: records, objects, secrets.

The records are copied first: an object that they know is there when it is copied, unless it was deleted meanwhile.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Final

import msgspec

from casemate import __version__
from casemate.backup.archive import FORMAT, Archive, End, Head, Reader, new_file, unpack
from casemate.errors import Conflict, FileTransferError, InvalidInput, RecordsDamaged
from casemate.store.copies import check_records, copy_records, is_known

RECORDS: Final = "records"
OBJECTS: Final = "objects"
SECRETS: Final = "secrets"
PARTS: Final = (RECORDS, OBJECTS, SECRETS)
RECORDS_FILE: Final = "records.sqlite"
UNFINISHED: Final = "new"
"""Below the objects: what is being written, and is none yet."""

_DIRECTORIES: Final = frozenset({OBJECTS, SECRETS})


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """What was copied, or put back."""

    path: str
    parts: tuple[str, ...]
    files: int
    size_bytes: int


def back_up(data: Path, target: Path, parts: tuple[str, ...] = PARTS) -> Made:
    """Copy a service's directory into a new file, also while it runs.

    Raises Conflict where the file is there already, FileTransferError, RecordsUnavailable.
    """
    if target.exists():
        raise Conflict(f"{target} is there already")
    try:
        with tempfile.TemporaryDirectory(prefix=".casemate-backup-", dir=target.parent) as directory:
            unfinished = Path(directory) / "unfinished"
            with new_file(unfinished) as file:
                end = _written(data, file, Path(directory) / RECORDS_FILE, parts)
                file.flush()
                os.fsync(file.fileno())
            os.link(unfinished, target)  # and not over what has come there meanwhile
            _sync(target.parent)
    except FileExistsError as error:
        raise Conflict(f"{target} is there already") from error
    except OSError as error:
        raise FileTransferError(f"the backup cannot be written: {error.strerror}", errno=error.errno or 0) from error
    return Made(path=str(target), parts=parts, files=end.files, size_bytes=end.size_bytes)


def _written(data: Path, file: IO[bytes], copy: Path, parts: tuple[str, ...]) -> End:
    """`copy` is where the records may be in between."""
    schema = ""
    if RECORDS in parts:
        new_file(copy).close()
        schema = copy_records(data / RECORDS_FILE, copy)
    made_at = datetime.now(UTC).isoformat(timespec="seconds")
    archive = Archive(file, Head(format=FORMAT, version=__version__, schema=schema, made_at=made_at, has=parts))
    if RECORDS in parts:
        archive.add(RECORDS_FILE, copy)
        copy.unlink()
    for part in parts:
        if part in _DIRECTORIES:
            for name in _files(data, part):
                archive.add(name, data / name)
    return archive.end()


def _files(data: Path, below: str) -> Iterator[str]:
    """The names of all files below, a directory at a time; what goes away meanwhile is passed over."""
    entries: list[os.DirEntry[str]] = []
    with suppress(FileNotFoundError), os.scandir(data / below) as found:
        entries = sorted(found, key=lambda each: each.name)
    for entry in entries:
        name = f"{below}/{entry.name}"
        if entry.is_dir(follow_symlinks=False):
            if name != f"{OBJECTS}/{UNFINISHED}":
                yield from _files(data, name)
        elif entry.is_file(follow_symlinks=False) and not entry.name.endswith(".new"):
            yield name


def _sync(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


# Putting back -------------------------------------------------------------------------------------


def restore(source: Path, data: Path) -> Made:
    """Make a service's directory of a backup: whole, or not at all.

    Raises Conflict where there is something already, InvalidInput for what is no backup, RecordsDamaged.
    """
    if data.exists() and (not data.is_dir() or any(data.iterdir())):
        raise Conflict(f"{data} is not empty", hint="a backup is put back where nothing is")
    try:
        data.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{data.name}-", dir=data.parent))
        try:
            made = _unpacked(source, beside)
            for directory, _, _ in os.walk(beside):
                _sync(Path(directory))
            beside.rename(data)
            _sync(data.parent)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else error.strerror or error
        raise FileTransferError(f"the backup cannot be put back: {what}", errno=error.errno or 0) from error
    return msgspec.structs.replace(made, path=str(data))


def _unpacked(source: Path, target: Path) -> Made:
    files = size_bytes = 0
    with source.open("rb") as file:
        reader = Reader(file)
        _check_head(reader.head)
        for entry in reader.entries():
            _check_place(entry.name, reader.head)
            unpack(entry, target)
            files += 1
            size_bytes += entry.size_bytes
    if RECORDS in reader.head.has:
        found = check_records(target / RECORDS_FILE) if (target / RECORDS_FILE).is_file() else ""
        if found != reader.head.schema:
            raise RecordsDamaged("damaged", "the backup has no records, or others than it says")
    return Made(path=str(target), parts=reader.head.has, files=files, size_bytes=size_bytes)


def _check_head(head: Head) -> None:
    if not set(head.has) <= set(PARTS):
        raise InvalidInput("backup", "has parts of which this version knows nothing", hint="use a newer one")
    if RECORDS in head.has and not is_known(head.schema):
        raise InvalidInput(
            "backup", f"has records of the schema {head.schema[:40]!r} of a newer version", hint="use that one"
        )


def _check_place(name: str, head: Head) -> None:
    """Nothing is put where a service would take it for something else. Raises InvalidInput."""
    top, slash, _ = name.partition("/")
    is_known_place = name == RECORDS_FILE and RECORDS in head.has if not slash else top in _DIRECTORIES & set(head.has)
    if not is_known_place:
        raise InvalidInput("backup", f"{name[:200]!r} belongs to no part of it")

"""What a directory of packages holds, as one digest: of every byte, or only of what a change cannot leave as it was."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from casemate.errors import SetDamaged

DIRECTORY_MODE: Final = 0o755
FILE_MODE: Final = 0o444
PROGRAM_MODE: Final = 0o555
_END: Final = b"\0"


class Summary(msgspec.Struct, frozen=True):
    """The digest of all content, and how much that is."""

    digest: str
    files: int
    size_bytes: int


def summarize(directory: str) -> Summary:
    """Read everything. Raises SetDamaged for what is neither a file nor a directory, OSError if it cannot be read."""
    whole = hashlib.sha256()
    files = size_bytes = 0
    for path, status in _entries(directory):
        name = os.fsencode(os.path.relpath(path, directory))
        if stat.S_ISDIR(status.st_mode):
            whole.update(b"d " + name + _END)
            continue
        files += 1
        size_bytes += status.st_size
        kind = b"x " if status.st_mode & stat.S_IXUSR else b"f "
        whole.update(kind + _content(path) + b" " + name + _END)
    return Summary(whole.hexdigest(), files, size_bytes)


def fingerprint(directory: str) -> str:
    """A digest of names, sizes, times, owners and numbers: no write, and no exchange, leaves all of them as they were.

    Fast, as nothing is read. A copy has another one, though it holds the same.
    """
    whole = hashlib.blake2b(digest_size=32)
    for path, status in _entries(directory):
        times = f"{status.st_mtime_ns} {status.st_ctime_ns}" if stat.S_ISREG(status.st_mode) else ""
        facts = f"{status.st_mode} {status.st_uid} {status.st_ino} {status.st_size} {times} "
        whole.update(facts.encode() + os.fsencode(path) + _END)
    return whole.hexdigest()


def _entries(directory: str) -> Iterator[tuple[str, os.stat_result]]:
    """Everything below, in one order, with directories before what they hold; no link is followed."""
    pending = [directory]
    while pending:
        with os.scandir(pending.pop()) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        inner = []
        for entry in found:
            status = entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                inner.append(entry.path)
            elif not stat.S_ISREG(status.st_mode):
                raise SetDamaged(f"{entry.path!r} is neither a file nor a directory")
            yield entry.path, status
        pending += reversed(inner)


def _content(path: str) -> bytes:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest().encode()

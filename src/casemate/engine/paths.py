"""Paths as callers write them and as guests made them: checked once, pure."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Final

from casemate import limits
from casemate.errors import InvalidInput
from casemate.model.spec import WORK_DIRECTORY, WRITABLE_DIRECTORIES

_LIKE_AN_ESCAPE: Final = rb"\\(?=x(?:[89a-f][0-9a-f]|5c))"


def encoded_name(name: object, *, field: str) -> bytes:
    """A name or word as the kernel gets it; bytes that text only carries (surrogate escapes) go as they came."""
    if not isinstance(name, str):
        raise InvalidInput(field, f"must be text, not {type(name).__name__}")
    try:
        return name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise InvalidInput(field, "is no valid Unicode text") from error


def inside_path(path: str, *, field: str) -> PurePosixPath:
    """The absolute path inside the sandbox that a caller means; relative ones start in the work directory.

    Only the writable directories can be named, and nothing climbs out of them. Raises InvalidInput.
    """
    size_bytes = len(encoded_name(path, field=field))
    if not path or path in {".", ".."}:
        raise InvalidInput(field, "the path is empty")
    if "\0" in path or size_bytes > limits.PATH_MAX_BYTES:
        raise InvalidInput(field, "the path is too long or holds a NUL character")
    full = PurePosixPath(WORK_DIRECTORY, path)
    if ".." in full.parts:
        raise InvalidInput(field, f"{path[:80]!r} leaves the sandbox's directories with '..'")
    if any(len(encoded_name(part, field=field)) > limits.FILE_NAME_MAX_BYTES for part in full.parts):
        raise InvalidInput(field, f"a name in {path[:80]!r} is longer than {limits.FILE_NAME_MAX_BYTES} bytes")
    if not any(full.is_relative_to(directory) for directory in WRITABLE_DIRECTORIES):
        allowed = ", ".join(WRITABLE_DIRECTORIES)
        raise InvalidInput(field, f"{path[:80]!r} is not in a writable directory", hint=f"use one below {allowed}")
    return full


def new_file_path(path: str, *, field: str) -> PurePosixPath:
    """As `inside_path`, for a file to be made: it must have a name below one of the directories."""
    full = inside_path(path, field=field)
    if path.endswith("/") or str(full) in WRITABLE_DIRECTORIES:
        raise InvalidInput(field, f"{path[:80]!r} names a directory, not a file")
    return full


def check_pattern(pattern: str, *, field: str) -> tuple[str, ...]:
    """A glob relative to the work directory as its parts: `*`, `?`, `[…]` in a name, `**` for any depth."""
    size_bytes = len(encoded_name(pattern, field=field))
    parts = tuple(part for part in pattern.split("/") if part not in {"", "."})
    if pattern.startswith("/"):
        if parts[:1] != (WORK_DIRECTORY[1:],):
            raise InvalidInput(field, f"{pattern[:80]!r} is outside the work directory")
        parts = parts[1:]
    too_long = size_bytes > limits.PATH_MAX_BYTES or len(parts) > limits.COLLECT_DEPTH_MAX
    if not parts or ".." in parts or "\0" in pattern or too_long:
        raise InvalidInput(field, f"{pattern[:80]!r} is not a pattern relative to the work directory")
    return parts


def display_name(raw: bytes) -> str:
    r"""A guest's file name as text. Bytes that are no UTF-8 become escapes like `\xff`.

    No two names look the same: a backslash that begins such an escape by itself becomes `\x5c`.
    """
    return re.sub(_LIKE_AN_ESCAPE, rb"\\x5c", raw).decode("utf-8", errors="backslashreplace")

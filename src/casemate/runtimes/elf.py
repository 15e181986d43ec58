"""Where a program looks for its own libraries: the run path written in an ELF file of 64 bits. Pure parsing."""

from __future__ import annotations

import struct
from mmap import mmap
from typing import Final

MAGIC: Final = b"\x7fELF\x02\x01"
_HEADER: Final = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT: Final = struct.Struct("<IIQQQQQQ")
_ENTRY: Final = struct.Struct("<QQ")
_LOAD: Final = 1
_DYNAMIC: Final = 2
_STRING_TABLE: Final = 5
_RPATH: Final = 15
_RUNPATH: Final = 29
_END: Final = 0


def run_path(data: bytes | mmap) -> tuple[str, ...]:
    """The directories of the run path, empty where there is none or the file is no such program."""
    try:
        return _run_path(data) if data[: len(MAGIC)] == MAGIC else ()
    except struct.error:  # cut short: then there is nothing to learn from it
        return ()


def _run_path(data: bytes | mmap) -> tuple[str, ...]:
    header = _HEADER.unpack_from(data)
    segments = [_SEGMENT.unpack_from(data, header[5] + header[9] * number) for number in range(header[10])]
    entries = [entry for segment in segments if segment[0] == _DYNAMIC for entry in _entries(data, segment[2])]
    table = next((_offset(segments, value) for tag, value in entries if tag == _STRING_TABLE), None)
    if table is None:
        return ()
    texts = [
        data[table + value : data.find(b"\0", table + value)] for tag, value in entries if tag in {_RPATH, _RUNPATH}
    ]
    return tuple(path for text in texts for path in text.decode("utf-8", "surrogateescape").split(":"))


def _entries(data: bytes | mmap, offset: int) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    while True:
        tag, value = _ENTRY.unpack_from(data, offset)
        if tag == _END:
            return found
        found.append((tag, value))
        offset += _ENTRY.size


def _offset(segments: list[tuple[int, ...]], address: int) -> int | None:
    """The place in the file of what is loaded at an address."""
    for kind, _, offset, start, _, size, _, _ in segments:
        if kind == _LOAD and start <= address < start + size:
            return offset + address - start
    return None

"""Streams of bytes in the sizes in which they are worth handling, and never more than is allowed."""

from __future__ import annotations

from collections.abc import AsyncIterator

from casemate.errors import InvalidInput
from casemate.object_limits import OBJECT_BATCH_BYTES


async def batches(data: AsyncIterator[bytes], size_max_bytes: int) -> AsyncIterator[bytes]:
    """The same bytes in larger pieces. Raises InvalidInput where there are more than that."""
    found = bytearray()
    size_bytes = 0
    async for piece in data:
        size_bytes += len(piece)
        if size_bytes > size_max_bytes:
            raise InvalidInput("body", f"has more than {size_max_bytes} bytes")
        found += piece
        if len(found) >= OBJECT_BATCH_BYTES:
            yield bytes(found)
            found.clear()
    if found:
        yield bytes(found)


async def pieces_of(data: bytes) -> AsyncIterator[bytes]:
    """What is in memory, as a stream."""
    for start in range(0, len(data), OBJECT_BATCH_BYTES):
        yield data[start : start + OBJECT_BATCH_BYTES]

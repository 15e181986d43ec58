"""Keeping the head and the tail of an output stream in bounded memory."""

from __future__ import annotations

from casemate import limits
from casemate.model.result import Stream


class Capture:
    """Takes any number of bytes, keeps the first `head_bytes` and the last `tail_bytes` of them."""

    def __init__(
        self, head_bytes: int = limits.CAPTURE_HEAD_BYTES, tail_bytes: int = limits.CAPTURE_TAIL_BYTES
    ) -> None:
        self._head_bytes = head_bytes
        self._tail_bytes = tail_bytes
        self._head = bytearray()
        self._tail = bytearray()
        self.total_bytes = 0

    def feed(self, data: bytes) -> None:
        self.total_bytes += len(data)
        room = self._head_bytes - len(self._head)
        self._head += data[:room]
        self._tail += data[room:] if room else data
        # Cut only when twice as much has gathered, so that each byte is moved about once.
        if len(self._tail) > 2 * self._tail_bytes:
            del self._tail[: -self._tail_bytes or None]

    def skip(self, count: int) -> None:
        """Bytes that there were and that nobody has: what is kept ends before them or begins after them."""
        if count > 0:
            self._head_bytes = len(self._head)
            self._tail.clear()
            self.total_bytes += count

    def after(self, offset: int, most: int) -> tuple[bytes, int]:
        """At most `most` of the kept bytes at or after an offset, and the offset where they begin."""
        if offset < len(self._head):
            return bytes(self._head[offset : offset + most]), offset
        tail_begin = self.total_bytes - len(self._tail)
        begin = min(max(offset, tail_begin), max(offset, self.total_bytes))
        return bytes(self._tail[begin - tail_begin : begin - tail_begin + most]), begin

    def finish(self) -> Stream:
        """What was kept."""
        tail = bytes(self._tail[-self._tail_bytes :]) if self._tail_bytes else b""
        dropped = self.total_bytes - len(self._head) - len(tail)
        return Stream(head=bytes(self._head), tail=tail, truncated_bytes=dropped)

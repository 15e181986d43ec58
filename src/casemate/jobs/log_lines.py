"""From bytes to lines: pieces of one stream, cut where lines end. Pure."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from casemate.executions.live import whole_characters
from casemate.job_limits import LOG_LINE_COST_BYTES, LOG_LINE_MAX_BYTES


class Cut(msgspec.Struct, frozen=True):
    """A line without its end, or a part of one. `left_out`: lines before it that were never seen, at least."""

    offset: int
    data: bytes
    partial: bool
    left_out: int = 0

    @property
    def cost_bytes(self) -> int:
        return len(self.data) + LOG_LINE_COST_BYTES


class Splitter:
    """One stream of one attempt. What it holds is the beginning of a line whose end is still to come."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._offset = 0
        self._left_out = 0
        self._has_skipped = False

    @property
    def held_bytes(self) -> int:
        return len(self._held)

    @property
    def next_offset(self) -> int:
        """The place of the byte that is to come next."""
        return self._offset + len(self._held)

    def feed(self, data: bytes, offset: int) -> Iterator[Cut]:
        """The lines that end here. What has come before comes no second time; what has not come at all shows."""
        if offset > self.next_offset:
            yield from self.skip(offset, lines=1)
        data = data[self.next_offset - offset :]
        *ended, rest = data.split(b"\n")
        for line in ended:
            self._held += line
            yield from self._long()
            yield self._cut(len(self._held), partial=False)
        self._held += rest
        yield from self._long()

    def skip(self, offset: int, *, lines: int) -> Iterator[Cut]:
        """Everything up to an offset is left out, with so many ends of lines; at least one number of a line is."""
        yield from self.release(whole=True)
        self._offset = offset
        self._left_out += lines
        self._has_skipped = True

    def release(self, *, whole: bool = False) -> Iterator[Cut]:
        """What is held, as a part of a line; without the beginning of a character, unless it is asked for whole."""
        count = len(self._held) if whole else len(whole_characters(bytes(self._held)))
        if count:
            yield self._cut(count, partial=True)

    def _long(self) -> Iterator[Cut]:
        while len(self._held) > LOG_LINE_MAX_BYTES:
            count = len(whole_characters(bytes(self._held[:LOG_LINE_MAX_BYTES])))
            yield self._cut(count or LOG_LINE_MAX_BYTES, partial=True)

    def _cut(self, count: int, *, partial: bool) -> Cut:
        left_out = max(1, self._left_out) if self._has_skipped else 0
        found = Cut(self._offset, bytes(self._held[:count]), partial, left_out)
        del self._held[:count]
        self._offset += count + (not partial)
        self._left_out = 0
        self._has_skipped = False
        return found

"""What is known of an execution while it goes on, for those who follow it, and the place from which they go on.

A follower reads from what is kept, at a pace of its own: nobody waits for it, and it is told how much it missed. The
place holds offsets in bytes, so that a stream can be resumed from the live execution and from its Result alike.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Iterable, Iterator
from typing import Final

import msgspec

from casemate import service_limits as limits
from casemate.errors import InvalidInput
from casemate.model.capture import Capture
from casemate.model.result import Chunk, Result, Stream

_PLACE: Final = r"(\d{1,15})\.(\d{1,15})\.([012])"
_STREAMS: Final = ("stdout", "stderr")
_UTF8_MAX_BYTES: Final = 4


class Place(msgspec.Struct, frozen=True):
    """How far somebody has followed: bytes of each stream, and how many of `started` and `ended` were told."""

    stdout: int = 0
    stderr: int = 0
    told: int = 0

    @classmethod
    def parse(cls, text: str) -> Place:
        """From the id of an event. Raises InvalidInput."""
        match = re.fullmatch(_PLACE, text, re.ASCII)
        if match is None:
            raise InvalidInput("Last-Event-ID", "is not the id of an event", hint="send the last id as it came")
        return cls(*map(int, match.groups()))

    def __str__(self) -> str:
        return f"{self.stdout}.{self.stderr}.{self.told}"


class Piece(msgspec.Struct, frozen=True):
    """Something to tell: a piece of a stream, that the program runs, or how it ended.

    `missed_bytes` stood before the data and are not kept.
    """

    place: Place
    kind: str
    data: bytes = b""
    offset: int = 0
    missed_bytes: int = 0


class Live:
    """One execution from its acceptance to its Result."""

    def __init__(self, identity: str, tenant: str) -> None:
        self.id = identity
        self.tenant = tenant
        self.has_started = False
        self.is_cancelled = False
        self.denied = ""
        self.followers = 0
        self.result: Result | None = None
        self._streams = {name: Capture() for name in _STREAMS}
        self._changed: asyncio.Future[None] | None = None
        self.changes = 0

    def start(self) -> None:
        self.has_started = True
        self._tell()

    def feed(self, chunk: Chunk) -> None:
        """A piece of output. One that was dropped on its way shows in the offset of the next."""
        capture = self._streams[chunk.stream]
        capture.skip(chunk.offset - capture.total_bytes)
        capture.feed(chunk.data)
        self._tell()

    def end(self, result: Result) -> None:
        self.result = result
        self._tell()

    def output(self) -> tuple[Capture | Stream, Capture | Stream]:
        """What it has printed so far; the Result knows best."""
        if self.result is not None:
            return self.result.stdout, self.result.stderr
        return self._streams["stdout"], self._streams["stderr"]

    def captured(self) -> tuple[Stream, Stream]:
        """What has been seen of its output."""
        return self._streams["stdout"].finish(), self._streams["stderr"].finish()

    async def changed(self, seen: int) -> None:
        """Until there is something new since there were `seen` changes; it may be there already."""
        if self.changes != seen:
            return
        if self._changed is None:
            self._changed = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._changed)

    async def ended(self) -> Result:
        """Until it has ended."""
        while self.result is None:
            await self.changed(self.changes)
        return self.result

    def _tell(self) -> None:
        self.changes += 1
        if self._changed is not None:
            self._changed.set_result(None)
            self._changed = None


async def follow(live: Live, place: Place) -> AsyncGenerator[Piece, None]:
    """Everything after a place, as it comes, up to the end."""
    live.followers += 1
    try:
        while place.told < len(_TOLD):
            # Whoever takes a piece may take a while, in which more comes: that is not to be waited for.
            seen = live.changes
            for piece in pieces(live.output(), place, has_started=live.has_started, has_ended=live.result is not None):
                place = piece.place
                yield piece
            if place.told < len(_TOLD):
                await live.changed(seen)
    finally:
        live.followers -= 1


_TOLD: Final = ("started", "ended")


def pieces(streams: Iterable[Capture | Stream], place: Place, *, has_started: bool, has_ended: bool) -> Iterator[Piece]:
    """What is to be told after a place. Pure.

    A character of several bytes is told whole, unless the program has ended within one.
    """
    if (has_started or has_ended) and not place.told:
        place = msgspec.structs.replace(place, told=1)
        yield Piece(place, "started")
    for name, stream in zip(_STREAMS, streams, strict=True):
        while True:
            piece = _next_piece(name, stream, place, has_ended=has_ended)
            if piece is None:
                break
            place = piece.place
            yield piece
    if has_ended and place.told < len(_TOLD):
        yield Piece(msgspec.structs.replace(place, told=len(_TOLD)), "ended")


def _next_piece(name: str, stream: Capture | Stream, place: Place, *, has_ended: bool) -> Piece | None:
    offset = getattr(place, name)
    data, begin = stream.after(offset, limits.EVENT_DATA_MAX_BYTES)
    if not has_ended and begin + len(data) == stream.total_bytes:
        data = whole_characters(data)
    if not data and begin == offset:
        return None
    next_place = msgspec.structs.replace(place, **{name: begin + len(data)})
    return Piece(next_place, name, data, begin, begin - offset)


def whole_characters(data: bytes) -> bytes:
    """Without the beginning of a character whose end is still to come."""
    for length in range(1, min(_UTF8_MAX_BYTES, len(data) + 1)):
        byte = data[-length]
        if byte & 0xC0 != 0x80:  # noqa: PLR2004  (the first byte of a character)
            needed = 1 + (byte >= 0xC0) + (byte >= 0xE0) + (byte >= 0xF0)  # noqa: PLR2004
            return data[:-length] if needed > length else data
    return data

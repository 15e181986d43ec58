"""Streams of the service, taken apart as their bytes come: lines, and server-sent events. Pure and bounded."""

from __future__ import annotations

import binascii
from collections.abc import Iterator
from typing import Final

import msgspec

from casemate.errors import ServiceError
from casemate.model.result import Chunk
from casemate.service_limits import SDK_ANSWER_MAX_BYTES

OUTPUTS: Final = frozenset({"stdout", "stderr"})


class Lines:
    """Takes bytes and gives whole lines, without their ends."""

    def __init__(self, max_bytes: int = SDK_ANSWER_MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._pieces: list[bytes] = []
        self._kept_bytes = 0

    @property
    def is_empty(self) -> bool:
        """Whether no line has begun."""
        return not self._kept_bytes

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The lines that end in this data. Raises ServiceError for one that is too long."""
        *ended, rest = data.split(b"\n")
        for piece in ended:
            whole = b"".join([*self._pieces, piece])
            self._pieces.clear()
            self._kept_bytes = 0
            yield whole.removesuffix(b"\r")
        self._keep(rest)

    def _keep(self, rest: bytes) -> None:
        self._kept_bytes += len(rest)
        if self._kept_bytes > self._max_bytes:
            raise ServiceError(f"the service sent a line of more than {self._max_bytes} bytes")
        if rest:
            self._pieces.append(rest)


class Event(msgspec.Struct, frozen=True):
    """One server-sent event."""

    kind: str
    data: bytes
    id: str


class Events:
    """Takes bytes and gives whole events. What is not whole when the stream ends is none."""

    def __init__(self, max_bytes: int = SDK_ANSWER_MAX_BYTES) -> None:
        self._lines = Lines(max_bytes)
        self._max_bytes = max_bytes
        self._kind = ""
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._id = ""

    def feed(self, data: bytes) -> Iterator[Event]:
        """The events that end in this data. Raises ServiceError for one that is too large."""
        for line in self._lines.feed(data):
            if line:
                self._take(line)
            elif self._kind or self._data:
                yield Event(self._kind or "message", b"\n".join(self._data), self._id)
                self._kind = ""
                self._data.clear()
                self._data_bytes = 0

    def _take(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"event":
            self._kind = value.decode("utf-8", "replace")
        elif name == b"id":
            self._id = value.decode("utf-8", "replace")
        elif name == b"data":
            self._data.append(value)
            self._data_bytes += len(value)
            if self._data_bytes > self._max_bytes:
                raise ServiceError(f"the service sent an event of more than {self._max_bytes} bytes")


class _Output(msgspec.Struct, frozen=True):
    offset: int
    text: str | None = None
    base64: str | None = None


def chunk_of(event: Event) -> Chunk:
    """The piece of output that an event is. Raises ServiceError."""
    try:
        found = msgspec.json.decode(event.data, type=_Output)
        data = (
            (found.text or "").encode() if found.base64 is None else binascii.a2b_base64(found.base64, strict_mode=True)
        )
    except (msgspec.DecodeError, UnicodeError, ValueError) as error:
        raise ServiceError("the service sent a piece of output that is none") from error
    return Chunk(event.kind, data, found.offset)

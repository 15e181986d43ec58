"""Server-sent events of an execution."""

from __future__ import annotations

import asyncio
import binascii
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import msgspec
from fastapi.sse import KEEPALIVE_COMMENT, EventSourceResponse, format_sse_event

from casemate import service_limits as limits
from casemate.executions.live import Piece
from casemate.model.document import is_text

HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


def event_stream(
    pieces: AsyncIterator[Piece], document: Callable[[], bytes], first: bytes = b"", location: str = ""
) -> EventSourceResponse:
    """A response that tells pieces as they come. `document` is the execution's, when it has ended.

    `first` is what it is at the beginning, and `location` where it can be followed again.
    """
    headers = {**HEADERS, "Location": location} if location else HEADERS
    return EventSourceResponse(with_pings(_told(pieces, document, first)), headers=headers)


async def _told(pieces: AsyncIterator[Piece], document: Callable[[], bytes], first: bytes) -> AsyncIterator[bytes]:
    if first:
        yield format_sse_event(event="accepted", data_str=first.decode(), id="0.0.0")
    async for piece in pieces:
        yield event_of(piece, document)


def event_of(piece: Piece, document: Callable[[], bytes]) -> bytes:
    """One event as it goes over the wire."""
    if piece.kind == "ended":
        return format_sse_event(event="result", data_str=document().decode(), id=str(piece.place))
    data = "{}" if piece.kind == "started" else msgspec.json.encode(_output(piece)).decode()
    return format_sse_event(event=piece.kind, data_str=data, id=str(piece.place))


def _output(piece: Piece) -> dict[str, Any]:
    found: dict[str, Any] = {"offset": piece.offset}
    if is_text(piece.data):
        found["text"] = piece.data.decode()
    else:
        found["base64"] = binascii.b2a_base64(piece.data, newline=False).decode()
    if piece.missed_bytes:
        found["missed_bytes"] = piece.missed_bytes
    return found


async def with_pings(events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """With a sign of life where there is nothing to tell for long."""
    coming: asyncio.Task[bytes] | None = None
    async with aclosing(events) as source:  # type: ignore[type-var]
        try:
            while True:
                coming = coming or asyncio.ensure_future(anext(source))
                done, _ = await asyncio.wait([coming], timeout=limits.EVENT_PING_S)
                if not done:
                    yield KEEPALIVE_COMMENT
                    continue
                found, coming = coming, None
                try:
                    yield found.result()
                except StopAsyncIteration:
                    return
        finally:
            if coming is not None:
                coming.cancel()
                await asyncio.gather(coming, return_exceptions=True)

"""Objects on their way in and out: streams, parts of them, and digests in headers (RFC 9110 and 9530)."""

from __future__ import annotations

import binascii
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from email.utils import formatdate
from typing import Any, Final
from urllib.parse import quote

import msgspec
from fastapi import Request
from starlette.requests import ClientDisconnect
from starlette.responses import Response, StreamingResponse

from casemate import object_limits as limits
from casemate.api.documents import moment
from casemate.api.problems import problem, request_id_of
from casemate.api.state import State, state_of
from casemate.api.waiting import ClientGone
from casemate.blobs.keys import name_in
from casemate.blobs.protocol import Blob
from casemate.errors import InvalidInput
from casemate.model.units import SECOND_US

DIGEST: Final = "Repr-Digest"
UPLOADS: Final = ("/v1/objects/", "/v1/jobs/", "/v1/uploads/", "/v1/signed/")
"""Where a PUT is one: its body is written while it comes, and may be as large as an object."""

_DIGEST_VALUE: Final = re.compile(r"(?:^|,)\s*sha-256=:([A-Za-z0-9+/]{43}=):\s*(?:,|$)")
_RANGE: Final = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
_NEVER_SHOWN: Final = {
    "Content-Security-Policy": "sandbox; default-src 'none'",
    "Cache-Control": "private, no-cache",
    "Accept-Ranges": "bytes",
}
_PARTIAL: Final = 206
_UNSATISFIABLE: Final = 416


def is_upload(scope: Mapping[str, Any]) -> bool:
    """Whether a request brings an object."""
    return bool(scope["method"] == "PUT") and str(scope["path"]).startswith(UPLOADS)


# In -----------------------------------------------------------------------------------------------


async def received(request: Request) -> AsyncIterator[bytes]:
    """The body as it comes. Raises ClientGone."""
    try:
        async for piece in request.stream():
            if piece:
                yield piece
    except ClientDisconnect as error:
        raise ClientGone from error


def hold(request: Request) -> State:
    """The parts of the service, for a transfer, which counts for the memory that it takes. Raises TooManyRequests."""
    parts = state_of(request)
    parts.load.hold(request.scope, limits.TRANSFER_HELD_BYTES)
    return parts


def digest_given(request: Request) -> str:
    """The digest that what comes is to have, in hexadecimal; empty: none is given. Raises InvalidInput."""
    text = request.headers.get(DIGEST, "")
    if not text:
        return ""
    found = _DIGEST_VALUE.search(text)
    if found is None:
        raise InvalidInput(DIGEST, "has no sha-256", hint="sha-256=:BASE64:")
    return binascii.a2b_base64(found[1]).hex()


# Out ----------------------------------------------------------------------------------------------


def object_document(tenant: str, blob: Blob) -> dict[str, Any]:
    """An object as it is answered."""
    return {
        "key": name_in(tenant, blob.key),
        "size_bytes": blob.size_bytes,
        "digest": blob.digest,
        "modified_at": moment(blob.modified_us),
    }


class Span(msgspec.Struct, frozen=True):
    """Which bytes are asked for."""

    start: int
    end: int
    is_part: bool = False


def span_of(text: str, size_bytes: int) -> Span | None:
    """What a Range header asks for; None: nothing that there is. What it does not understand, it ignores."""
    found = _RANGE.fullmatch(text.strip())
    if found is None or not (found[1] or found[2]):
        return Span(0, size_bytes)
    if not found[1]:
        count = min(int(found[2]), size_bytes)
        return Span(size_bytes - count, size_bytes, is_part=True) if count else None
    start = int(found[1])
    end = min(int(found[2]) + 1, size_bytes) if found[2] else size_bytes
    if found[2] and int(found[2]) < start:
        return Span(0, size_bytes)
    return Span(start, end, is_part=True) if start < end else None


def facts_of(blob: Blob) -> dict[str, str]:
    """The headers that tell of an object. Nothing shows it as a page, whatever somebody has put into it."""
    name = blob.key.rpartition("/")[2]
    headers = {
        **_NEVER_SHOWN,
        "Last-Modified": formatdate(blob.modified_us / SECOND_US, usegmt=True),
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}",
    }
    if blob.digest:
        text = binascii.b2a_base64(bytes.fromhex(blob.digest), newline=False).decode()
        headers |= {DIGEST: f"sha-256=:{text}:", "ETag": f'"{blob.digest}"'}
    return headers


async def told(blob: Blob) -> Response:
    """What is known of an object, without it."""
    headers = {**facts_of(blob), "Content-Length": str(blob.size_bytes)}
    return Response(headers=headers, media_type="application/octet-stream")


async def sent(request: Request, blob: Blob) -> Response:
    """An object, or the part of it that is asked for. What is wrong with it is said before its first byte."""
    parts = hold(request)
    headers = facts_of(blob)
    asked = request.headers.get("range", "")
    if request.headers.get("if-range", headers.get("ETag", "")) != headers.get("ETag", ""):
        asked = ""
    span = span_of(asked, blob.size_bytes)
    if span is None:
        refusal = problem(InvalidInput("Range", f"is behind the end, at {blob.size_bytes}"), request_id_of(request))
        refusal.status_code = _UNSATISFIABLE
        refusal.headers["Content-Range"] = f"bytes */{blob.size_bytes}"
        return refusal
    pieces = parts.storage.objects.get(blob, offset=span.start)
    first = await anext(pieces, b"")
    headers["Content-Length"] = str(span.end - span.start)
    if span.is_part:
        headers["Content-Range"] = f"bytes {span.start}-{span.end - 1}/{blob.size_bytes}"
    status = _PARTIAL if span.is_part else 200
    body = _exactly(first, pieces, span.end - span.start)
    return StreamingResponse(body, status, headers, "application/octet-stream")


async def _exactly(first: bytes, rest: AsyncIterator[bytes], count: int) -> AsyncIterator[bytes]:
    """So many bytes, and no more."""
    async with aclosing(rest) as pieces:  # type: ignore[type-var]
        yield first[:count]
        count -= len(first[:count])
        while count > 0 and (piece := await anext(pieces, b"")):
            yield piece[:count]
            count -= len(piece[:count])

"""Reading what a guest replied: hostile bytes, parsed once into typed values, never an exception.

A reply is one frame: four bytes of length (big endian) and a JSON text. Whatever else comes is a
`ReplyProblem`, which costs the guest its output and nothing more.
"""

from __future__ import annotations

import struct
from functools import cache
from typing import Final, TypeAlias

import msgspec

from casemate import limits
from casemate.model.debug import DebugRecord
from casemate.model.result import GuestError, JsonValue

FRAME_HEAD: Final = struct.Struct(">I")
READY_FRAME: Final = FRAME_HEAD.pack(0)
"""What a harness that waits for its request writes before it does."""
FAREWELL_HEAD: Final = b"\xff\xff\xff"
"""After its reply a harness may take its leave, with this and the exit status: no frame is as long as it would say."""

NO_DEBUG: Final = msgspec.Raw()
_FAREWELL_BYTES: Final = len(FAREWELL_HEAD) + 1
_QUOTES_AND_OPENINGS: Final = b'"[{'
_ALL_ELSE: Final = bytes(set(range(256)) - set(_QUOTES_AND_OPENINGS))


class ValueReply(msgspec.Struct, frozen=True, tag_field="kind", tag="value", forbid_unknown_fields=True):
    """The program has an output."""

    output: JsonValue
    debug: msgspec.Raw = NO_DEBUG


class NoneReply(msgspec.Struct, frozen=True, tag_field="kind", tag="none", forbid_unknown_fields=True):
    """The program has no output."""

    debug: msgspec.Raw = NO_DEBUG


class ExceptionReply(msgspec.Struct, frozen=True, tag_field="kind", tag="exception", forbid_unknown_fields=True):
    """The program ended with an error."""

    error: GuestError
    debug: msgspec.Raw = NO_DEBUG


class InvalidReply(msgspec.Struct, frozen=True, tag_field="kind", tag="invalid", forbid_unknown_fields=True):
    """The program's output cannot be written as JSON."""

    error: GuestError
    debug: msgspec.Raw = NO_DEBUG


class ReplyProblem(msgspec.Struct, frozen=True):
    """What came is no reply; `why` is in our own words."""

    why: str


Reply: TypeAlias = ValueReply | NoneReply | ExceptionReply | InvalidReply


@cache
def _decoder() -> msgspec.json.Decoder[Reply]:
    return msgspec.json.Decoder(Reply, strict=True)


@cache
def _debug_decoder() -> msgspec.json.Decoder[DebugRecord]:
    return msgspec.json.Decoder(DebugRecord, strict=True)


def parse_debug(raw: msgspec.Raw) -> DebugRecord | None:
    """What a harness has recorded, not yet held to any bound; None for what is no record."""
    try:
        return _debug_decoder().decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError, RecursionError):
        return None


def frame(value: JsonValue) -> bytes:
    """A value as one frame."""
    body = msgspec.json.encode(value)
    return FRAME_HEAD.pack(len(body)) + body


def long_frame(short: bytes) -> bytes:
    """One frame made so long that nobody can take it in one read, by spaces after its JSON text.

    A process that is killed while it waits for a request may still take one piece of it, without ever seeing it. What
    it leaves shows that it has not begun.
    """
    missing = limits.REQUEST_WAITED_FOR_MIN_BYTES - len(short)
    if missing <= 0:
        return short
    return FRAME_HEAD.pack(len(short) - FRAME_HEAD.size + missing) + short[FRAME_HEAD.size :] + b" " * missing


def split_farewell(data: bytes) -> tuple[bytes, int | None]:
    """What came beside a farewell, and the exit status that it tells; None if none has come."""
    frames = data.removeprefix(READY_FRAME)
    at = len(frames) - _FAREWELL_BYTES
    if at < FRAME_HEAD.size or frames[at:-1] != FAREWELL_HEAD:
        return data, None
    if FRAME_HEAD.unpack_from(frames)[0] != at - FRAME_HEAD.size:
        return data, None
    return data[:-_FAREWELL_BYTES], data[-1]


def parse_reply(data: bytes) -> Reply | ReplyProblem | None:
    """The one frame that a guest has written, beside its first word that it is ready; None if it wrote nothing."""
    data = data.removeprefix(READY_FRAME)
    if not data:
        return None
    if len(data) < FRAME_HEAD.size:
        return ReplyProblem("incomplete")
    (length,) = FRAME_HEAD.unpack_from(data)
    if length > limits.VALUE_MAX_BYTES:
        return ReplyProblem(f"larger than {limits.VALUE_MAX_BYTES} bytes")
    body = data[FRAME_HEAD.size :]
    if len(body) != length:
        return ReplyProblem("incomplete" if len(body) < length else "more than one frame")
    return parse_body(body)


def parse_body(body: bytes) -> Reply | ReplyProblem:
    """What the frame of a reply holds."""
    if has_too_many_containers(body):
        return ReplyProblem(f"more than {limits.VALUE_CONTAINERS_MAX} lists and objects")
    try:
        reply: Reply = _decoder().decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError, RecursionError):
        return ReplyProblem("not a reply")
    if isinstance(reply, ExceptionReply | InvalidReply):
        return type(reply)(_bounded(reply.error), reply.debug)
    if isinstance(reply, ValueReply) and is_too_deep(reply.output):
        return ReplyProblem(f"nested deeper than {limits.VALUE_DEPTH_MAX}")
    return reply


def has_too_many_containers(body: bytes) -> bool:
    """Whether a JSON text holds more lists and objects than we build: each costs us far more than its two bytes."""
    if _containers(body) <= limits.VALUE_CONTAINERS_MAX:
        return False
    return _containers_outside_texts(body) > limits.VALUE_CONTAINERS_MAX


def _containers_outside_texts(body: bytes) -> int:
    """Right as far as the text is JSON. In pieces, because what is taken apart costs twenty times its bytes."""
    plain = body.replace(rb"\\", b"").replace(rb"\"", b"").translate(None, _ALL_ELSE)
    found = inside = 0
    for start in range(0, len(plain), limits.READ_CHUNK_BYTES):
        piece = plain[start : start + limits.READ_CHUNK_BYTES]
        found += sum(map(len, piece.split(b'"')[inside::2]))
        inside ^= piece.count(b'"') & 1
    return found


def _containers(body: bytes) -> int:
    return body.count(b"[") + body.count(b"{")


def is_too_deep(value: JsonValue) -> bool:
    """Whether a JSON value nests deeper than the bound; without recursion, level by level."""
    level = [value]
    for _ in range(limits.VALUE_DEPTH_MAX):
        level = [inner for outer in level for inner in _children(outer)]
        if not level:
            return False
    return True


def _children(value: JsonValue) -> list[JsonValue]:
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [item for item in items if isinstance(item, dict | list)]


def _bounded(error: GuestError) -> GuestError:
    most = limits.ERROR_TEXT_MAX_CHARS
    return GuestError(type=error.type[:200], message=error.message[:most], traceback=error.traceback[-most:])


def parse_text_output(data: bytes) -> JsonValue:
    """The output of a program on a text channel: a JSON value if it is one, otherwise the text itself."""
    text = data.decode("utf-8", errors="replace").strip()
    if not text:
        return None
    if has_too_many_containers(data):
        return text
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return text
    return text if is_too_deep(value) else value


def encode_input(value: JsonValue) -> bytes:
    """A caller's input as JSON text. Raises ValueError or TypeError for what JSON has no form for."""
    import json  # a program without an input does not need it

    return json.dumps(value, allow_nan=False, ensure_ascii=False).encode("utf-8")

"""Messages as bytes: four bytes of length, the most significant first, and MessagePack. Pure, but for reading.

What comes is believed only as far as it is one of the messages: anything else is a BadFrame, after which the
connection it came on is of no use.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from typing import Any, Final, TypeAlias, TypeVar

import msgspec

from casemate import service_limits as bound
from casemate.cluster.messages import Answer, Message, Question

T = TypeVar("T")
FRAME_HEAD: Final = struct.Struct(">I")
_BIG_INTEGER: Final = 1
"""MessagePack's numbers have 64 bits, those of JSON and of programs any: the others travel as bytes."""


class Taken(Message, frozen=True, kw_only=True, tag="taken"):
    """That many bytes of a call's answers have been taken by whoever asked: as many more may come."""

    bytes_count: int


class GivenUp(Message, frozen=True, kw_only=True, tag="given_up"):
    """Nobody waits for the answers of that call any more: its work ends at once, and nothing is answered."""


ToNode: TypeAlias = Question | Taken | GivenUp


class BadFrame(Exception):
    """What came is no message, or too long for one."""


def encode(message: ToNode | Answer) -> bytes:
    """One frame. Raises BadFrame if the message is too long for one."""
    try:
        body = msgspec.msgpack.encode(message)
    except OverflowError:
        body = msgspec.msgpack.encode(_with_big_integers(msgspec.to_builtins(message, builtin_types=(bytes,))))
    if len(body) > bound.FRAME_MAX_BYTES:
        raise BadFrame(f"{len(body)} bytes are more than a frame holds, {bound.FRAME_MAX_BYTES}")
    return FRAME_HEAD.pack(len(body)) + body


def _with_big_integers(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """The same value with numbers of more than 64 bits in the form that they travel in. No deeper than values are."""
    if isinstance(value, dict):
        return {key: _with_big_integers(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_with_big_integers(inner) for inner in value]
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return msgspec.msgpack.Ext(_BIG_INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))
    return value


def _extension(code: int, data: memoryview) -> int:
    if code != _BIG_INTEGER:
        raise ValueError("unknown extension")
    return int.from_bytes(data, "big", signed=True)


_QUESTIONS: Final[msgspec.msgpack.Decoder[ToNode]] = msgspec.msgpack.Decoder(ToNode, strict=True, ext_hook=_extension)
_ANSWERS: Final[msgspec.msgpack.Decoder[Answer]] = msgspec.msgpack.Decoder(Answer, strict=True, ext_hook=_extension)


def decode_question(body: bytes) -> ToNode:
    """What a node is asked. Raises BadFrame."""
    return _decoded(_QUESTIONS.decode, body)


def decode_answer(body: bytes) -> Answer:
    """What a node answers. Raises BadFrame."""
    return _decoded(_ANSWERS.decode, body)


def _decoded(decode: Callable[[bytes], T], body: bytes) -> T:
    try:
        message = decode(body)
    except (msgspec.DecodeError, ValueError, TypeError, RecursionError) as error:
        raise BadFrame(f"no message: {error}") from error
    if not 0 < len(getattr(message, "id", "")) <= bound.CALL_ID_MAX_CHARS:
        raise BadFrame("the id of a call has 1 to 128 characters")
    return message


async def read_body(reader: asyncio.StreamReader) -> bytes | None:
    """The next frame without its head, or None at a tidy end. Raises BadFrame, and OSError of the connection."""
    try:
        head = await reader.readexactly(FRAME_HEAD.size)
        (length,) = FRAME_HEAD.unpack(head)
        if length > bound.FRAME_MAX_BYTES:
            raise BadFrame(f"a frame of {length} bytes")
        return await reader.readexactly(length)
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise BadFrame("the connection ended within a frame") from error
        return None

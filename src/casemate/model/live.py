"""Reading what an interpreter that stays has to say: frames of hostile bytes, parsed once, never an exception."""

from __future__ import annotations

from typing import Annotated, Final, TypeAlias

import msgspec

from casemate import limits
from casemate.model.display import Display
from casemate.model.values import (
    FRAME_HEAD,
    Reply,
    ReplyProblem,
    has_too_many_containers,
    is_too_deep,
    parse_body,
)

PID_MAX: Final = 1 << 22
_Pid: TypeAlias = Annotated[int, msgspec.Meta(gt=1, le=PID_MAX)]


class Taken(msgspec.Struct, frozen=True, tag_field="kind", tag="taken", forbid_unknown_fields=True):
    """The call has begun; from now on it can be interrupted."""

    id: str


class Shown(msgspec.Struct, frozen=True, tag_field="kind", tag="display", forbid_unknown_fields=True):
    """Something to show."""

    id: str
    display: Display


class _Done(msgspec.Struct, frozen=True, tag_field="kind", tag="done", forbid_unknown_fields=True):
    id: str
    exit_code: Annotated[int, msgspec.Meta(ge=0, le=255)]
    reply: msgspec.Raw


class Forked(msgspec.Struct, frozen=True, tag_field="kind", tag="forked", forbid_unknown_fields=True):
    """The copies, by their process ids inside."""

    id: str
    pids: Annotated[tuple[_Pid, ...], msgspec.Meta(max_length=limits.COPIES_MAX)]


class Done(msgspec.Struct, frozen=True):
    """The call has ended."""

    id: str
    exit_code: int
    reply: Reply | ReplyProblem


Said: TypeAlias = Taken | Shown | Done | Forked
_decoder: Final = msgspec.json.Decoder(Taken | Shown | _Done | Forked, strict=True)


def parse_said(body: bytes) -> Said | ReplyProblem:
    """What one frame says."""
    if has_too_many_containers(body):
        return ReplyProblem(f"more than {limits.VALUE_CONTAINERS_MAX} lists and objects")
    try:
        said = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError, RecursionError):
        return ReplyProblem("not a reply")
    if isinstance(said, Shown) and is_too_deep(said.display.json):
        return ReplyProblem(f"nested deeper than {limits.VALUE_DEPTH_MAX}")
    return Done(said.id, said.exit_code, parse_body(bytes(said.reply))) if isinstance(said, _Done) else said


class FrameReader:
    """Takes bytes as they come and gives whole frames."""

    def __init__(self) -> None:
        self._data = bytearray()

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left that belongs to no whole frame."""
        return not self._data

    def feed(self, data: bytes) -> None:
        self._data += data

    def next(self) -> bytes | ReplyProblem | None:
        """The next whole frame; None if there is none yet. A frame that is too large is never waited for."""
        if len(self._data) < FRAME_HEAD.size:
            return None
        (length,) = FRAME_HEAD.unpack_from(self._data)
        if length > limits.SESSION_FRAME_MAX_BYTES:
            return ReplyProblem(f"larger than {limits.SESSION_FRAME_MAX_BYTES} bytes")
        end = FRAME_HEAD.size + length
        if len(self._data) < end:
            return None
        body = bytes(self._data[FRAME_HEAD.size : end])
        del self._data[:end]
        return body

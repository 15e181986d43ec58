"""Messages as bytes: all of them arrive as they were, and nothing else is taken for one."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate import service_limits as limits
from casemate.cluster.calls import Inbox, Window
from casemate.cluster.frames import (
    FRAME_HEAD,
    BadFrame,
    GivenUp,
    Taken,
    decode_answer,
    decode_question,
    encode,
    read_body,
)
from casemate.cluster.messages import Answered, Ask, Cancel, Output, Refused, RunCode
from casemate.cluster.refusals import error_of, refused
from casemate.errors import (
    CasemateError,
    InternalError,
    LaunchError,
    LayerMissing,
    TooManyRequests,
    UnknownRuntime,
)
from casemate.model.result import Chunk

HEAD = FRAME_HEAD.size
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


async def read(data: bytes) -> bytes | None:
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    return await read_body(reader)


@given(VALUES)
def test_every_value_arrives_as_it_is(value: Any) -> None:
    message = Answered(id="a", value=value)
    assert decode_answer(encode(message)[HEAD:]) == message


@given(st.binary(), st.dictionaries(st.text(min_size=1), st.binary()), VALUES)
def test_questions_with_files_arrive_as_they_are(stdin: bytes, files: dict[str, bytes], value: Any) -> None:
    message = RunCode(
        id="a", tenant="t", request_id="r", runtime="r", code="c", stdin=stdin, files=files, options={"input": value}
    )
    assert decode_question(encode(message)[HEAD:]) == message


@given(st.binary())
def test_garbage_is_no_message(data: bytes) -> None:
    for decode in (decode_answer, decode_question):
        with pytest.raises(BadFrame):
            decode(data)


@given(VALUES)
def test_other_values_are_no_messages(value: Any) -> None:
    data = msgspec.msgpack.encode(value) if not _is_big(value) else b"\xc1"
    with pytest.raises(BadFrame):
        decode_question(data)


def _is_big(value: Any) -> bool:
    try:
        msgspec.msgpack.encode(value)
    except OverflowError:
        return True
    return False


@given(st.binary(), st.integers(0, 200))
def test_changed_frames_are_messages_or_refused(noise: bytes, place: int) -> None:
    frame = encode(RunCode(id="a", tenant="t", request_id="r", runtime="r", code="c", files={"f": b"x"}))[HEAD:]
    place %= len(frame)
    with suppress(BadFrame):
        decode_question(frame[:place] + noise + frame[place + len(noise) :])


@pytest.mark.parametrize(
    "data",
    [
        msgspec.msgpack.encode({"kind": "cancel", "id": "a", "more": 1}),
        msgspec.msgpack.encode({"kind": "cancel", "id": ""}),
        msgspec.msgpack.encode({"kind": "cancel", "id": "a" * (limits.CALL_ID_MAX_CHARS + 1)}),
        msgspec.msgpack.encode({"kind": "cancel", "id": 1}),
        msgspec.msgpack.encode({"kind": "cancel"}),
        msgspec.msgpack.encode({"kind": "started", "id": "a"}),
        msgspec.msgpack.encode({"kind": "taken", "id": "a", "bytes_count": "1"}),
        b"\x91" * 100_000,
        msgspec.msgpack.encode({"kind": "ask", "id": "a", "about": msgspec.msgpack.Ext(7, b"")}),
    ],
    ids=["field", "no id", "long id", "type", "missing", "answer", "strict", "deep", "extension"],
)
def test_what_is_nearly_a_question_is_refused(data: bytes) -> None:
    with pytest.raises(BadFrame):
        decode_question(data)


@pytest.mark.parametrize("message", [Cancel(id="a"), Ask(id="a", about="health"), Taken(id="a", bytes_count=3)])
def test_frames_are_read_one_by_one(message: Cancel) -> None:
    frame = encode(message)
    assert asyncio.run(read(frame + encode(GivenUp(id="b")))) == frame[HEAD:]


def test_a_tidy_end_is_no_error_and_any_other_is() -> None:
    assert asyncio.run(read(b"")) is None
    for cut in (b"\0", FRAME_HEAD.pack(9) + b"1234", FRAME_HEAD.pack(limits.FRAME_MAX_BYTES + 1)):
        with pytest.raises(BadFrame):
            asyncio.run(read(cut))


def test_a_message_that_is_too_long_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FRAME_MAX_BYTES", 1000)
    with pytest.raises(BadFrame):
        encode(Answered(id="a", value="x" * 1000))


@pytest.mark.parametrize(
    "error",
    [
        InternalError("x"),
        UnknownRuntime("cobol", ["python"]),
        LaunchError("mount", 1, "not permitted", hint="h"),
        LayerMissing(["cgroup"]),
        TooManyRequests("slower", retry_after_s=2),
    ],
    ids=lambda error: error.code,
)
def test_errors_arrive_as_what_they_were(error: CasemateError) -> None:
    copy = error_of(refused("a", error))
    assert type(copy) is type(error)
    assert (copy.message, copy.hint, copy.retryable) == (error.message, error.hint, error.retryable)


def test_an_error_of_an_unknown_code_is_internal() -> None:
    assert isinstance(error_of(Refused(id="a", code="other", message="m")), InternalError)


def test_a_window_drops_output_and_never_the_end() -> None:
    async def main() -> None:
        window = Window()
        output = Output(id="a", chunk=Chunk("stdout", b"", 0))
        assert await window.admit(output, limits.CALL_WINDOW_BYTES)
        assert not await window.admit(output, 1)
        assert await window.admit(Answered(id="a", value=None), 10)
        window.taken(limits.CALL_WINDOW_BYTES)
        assert await window.admit(output, 1)

    asyncio.run(main())


def test_an_inbox_takes_no_more_than_the_window() -> None:
    inbox = Inbox(lambda _: None)
    output = Output(id="a", chunk=Chunk("stdout", b"", 0))
    assert inbox.put(output, limits.CALL_WINDOW_BYTES)
    assert not inbox.put(output, 1)
    assert inbox.put(Answered(id="a", value=None), 1)

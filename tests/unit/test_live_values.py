"""What an interpreter that stays says: any bytes at all become values or a problem in our words, never an exception."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.unit.test_values import JSON

from casemate import limits
from casemate.model.display import Display
from casemate.model.live import PID_MAX, Done, Forked, FrameReader, Shown, Taken, parse_said
from casemate.model.values import FRAME_HEAD, ExceptionReply, NoneReply, ReplyProblem, ValueReply, frame

SAID = (Taken, Shown, Done, Forked, ReplyProblem)
FIELDS = st.dictionaries(
    st.sampled_from(["kind", "id", "display", "exit_code", "reply", "pids", "text", "png", "left_out"]),
    JSON,
    max_size=6,
)


def said(**fields: Any) -> Any:
    return parse_said(json.dumps(fields).encode())


def test_each_kind_is_read() -> None:
    assert said(kind="taken", id="a") == Taken("a")
    assert said(kind="forked", id="a", pids=[2, 3]) == Forked("a", (2, 3))
    assert said(kind="done", id="a", exit_code=0, reply={"kind": "none"}) == Done("a", 0, NoneReply())
    display = {"kind": "result", "text": "x", "png": base64.b64encode(b"\x89PNG").decode(), "left_out": ["svg"]}
    assert said(kind="display", id="a", display=display) == Shown(
        "a", Display(kind="result", text="x", png=b"\x89PNG", left_out=("svg",))
    )


@given(JSON)
def test_a_display_s_json_comes_back_as_it_was(value: Any) -> None:
    shown = said(kind="display", id="", display={"kind": "display", "json": value})
    assert shown.display.json == value


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "taken"},
        {"kind": "taken", "id": 1},
        {"kind": "taken", "id": "a", "more": 1},
        {"kind": "other", "id": "a"},
        {"kind": "forked", "id": "a", "pids": [1]},
        {"kind": "forked", "id": "a", "pids": [-2]},
        {"kind": "forked", "id": "a", "pids": [PID_MAX + 1]},
        {"kind": "forked", "id": "a", "pids": [2.0]},
        {"kind": "forked", "id": "a", "pids": [2] * (limits.COPIES_MAX + 1)},
        {"kind": "done", "id": "a", "exit_code": 256, "reply": {"kind": "none"}},
        {"kind": "done", "id": "a", "exit_code": -1, "reply": {"kind": "none"}},
        {"kind": "done", "id": "a", "exit_code": True, "reply": {"kind": "none"}},
        {"kind": "display", "id": "a", "display": {"kind": "window"}},
        {"kind": "display", "id": "a", "display": {"kind": "result", "text": 1}},
        {"kind": "display", "id": "a", "display": {"kind": "result", "png": "no base64!"}},
        {"kind": "display", "id": "a", "display": {"kind": "result", "script": "x"}},
        {"kind": "display", "id": "a", "display": {"kind": "result", "left_out": ["passwords"]}},
        {"kind": "display", "id": "a", "display": {"kind": "result", "left_out": ["svg"] * 9}},
    ],
)
def test_wrong_types_and_names_are_a_problem(fields: dict[str, Any]) -> None:
    assert said(**fields) == ReplyProblem("not a reply")


def test_what_nests_too_deeply_or_holds_too_much_is_a_problem() -> None:
    deep: Any = 1
    for _ in range(limits.VALUE_DEPTH_MAX + 1):
        deep = [deep]
    assert isinstance(said(kind="display", id="a", display={"kind": "result", "json": deep}), ReplyProblem)
    done = said(kind="done", id="a", exit_code=0, reply={"kind": "value", "output": deep})
    assert isinstance(done.reply, ReplyProblem)
    wide: Any = [[]] * (limits.VALUE_CONTAINERS_MAX + 1)
    assert isinstance(said(kind="display", id="a", display={"kind": "result", "json": wide}), ReplyProblem)
    assert isinstance(parse_said(b"[" * 100_000), ReplyProblem)


def test_the_reply_within_is_judged_by_itself() -> None:
    assert isinstance(said(kind="done", id="a", exit_code=0, reply={"kind": "what"}).reply, ReplyProblem)
    assert isinstance(said(kind="done", id="a", exit_code=0, reply=[]).reply, ReplyProblem)
    assert said(kind="done", id="a", exit_code=0, reply={"kind": "value", "output": 1}).reply == ValueReply(1)
    error = {"type": "E", "message": "m" * (limits.ERROR_TEXT_MAX_CHARS + 1), "traceback": ""}
    reply = said(kind="done", id="a", exit_code=1, reply={"kind": "exception", "error": error}).reply
    assert isinstance(reply, ExceptionReply)
    assert len(reply.error.message) == limits.ERROR_TEXT_MAX_CHARS


@given(st.binary(max_size=300) | FIELDS.map(lambda fields: json.dumps(fields).encode()))
@example(b'{"kind":"done","id":"a","exit_code":0,"reply":')
@example(b"\xff\xfe")
def test_any_bytes_are_a_value_or_a_problem(body: bytes) -> None:
    assert isinstance(parse_said(body), SAID)


@given(st.lists(st.binary(max_size=50), max_size=6), st.lists(st.integers(1, 20), max_size=30))
def test_frames_come_out_whole_however_they_come_in(bodies: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(FRAME_HEAD.pack(len(body)) + body for body in bodies)
    reader = FrameReader()
    found = []
    for cut in [*cuts, len(stream) + 1]:
        reader.feed(stream[:cut])
        stream = stream[cut:]
        while (body := reader.next()) is not None:
            found.append(body)
    assert (found, reader.is_empty) == (bodies, True)


@given(st.binary(max_size=200))
def test_any_stream_is_frames_an_unfinished_rest_or_a_problem(stream: bytes) -> None:
    reader = FrameReader()
    reader.feed(stream)
    length = 0
    while isinstance(body := reader.next(), bytes):
        length += FRAME_HEAD.size + len(body)
    assert length <= len(stream)


def test_a_frame_that_is_too_large_is_not_waited_for() -> None:
    reader = FrameReader()
    reader.feed(FRAME_HEAD.pack(limits.SESSION_FRAME_MAX_BYTES + 1))
    assert isinstance(reader.next(), ReplyProblem)


def test_a_frame_of_ours_is_one_of_theirs() -> None:
    reader = FrameReader()
    reader.feed(frame({"kind": "taken", "id": "x"}))
    body = reader.next()
    assert isinstance(body, bytes)
    assert parse_said(body) == Taken("x")

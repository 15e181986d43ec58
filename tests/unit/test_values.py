"""What a guest replies: any bytes at all become a value or a problem in our words, never an exception."""

from __future__ import annotations

import json
import math
import struct
import tracemalloc
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from casemate import limits
from casemate.model.values import (
    FRAME_HEAD,
    READY_FRAME,
    ExceptionReply,
    InvalidReply,
    NoneReply,
    ReplyProblem,
    ValueReply,
    encode_input,
    frame,
    has_too_many_containers,
    is_too_deep,
    long_frame,
    parse_reply,
    parse_text_output,
    split_farewell,
)

TEXTS = st.text(alphabet=st.characters(exclude_categories=["Cs"]))
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=15,
)
KINDS = (ValueReply, NoneReply, ExceptionReply, InvalidReply, ReplyProblem)


def framed(body: bytes) -> bytes:
    """As a harness that had waited for its request sends it."""
    return READY_FRAME + FRAME_HEAD.pack(len(body)) + body


def problem(data: bytes) -> str:
    parsed = parse_reply(data)
    assert isinstance(parsed, ReplyProblem), parsed
    return parsed.why


@given(JSON)
def test_a_request_that_is_made_longer_says_the_same(value: Any) -> None:
    """No interpreter that waits can take all of it in one read."""
    longer = long_frame(frame(value))
    (size,) = FRAME_HEAD.unpack_from(longer)
    body = longer[FRAME_HEAD.size :]
    assert size == len(body)
    assert len(longer) >= limits.REQUEST_WAITED_FOR_MIN_BYTES
    assert json.loads(body) == json.loads(frame(value)[FRAME_HEAD.size :])


def test_a_request_that_is_long_enough_stays_as_it_is() -> None:
    long = frame("x" * limits.REQUEST_WAITED_FOR_MIN_BYTES)
    assert long_frame(long) is long


@given(JSON)
def test_every_json_value_comes_back_as_it_was(value: Any) -> None:
    parsed = parse_reply(frame({"kind": "value", "output": value}))
    assert isinstance(parsed, ValueReply)
    assert parsed.output == value
    assert json.dumps(parsed.output, sort_keys=True) == json.dumps(value, sort_keys=True)


@given(JSON)
def test_the_standard_library_s_json_is_read_as_well(value: Any) -> None:
    body = json.dumps({"kind": "value", "output": value}).encode()
    parsed = parse_reply(framed(body))
    assert isinstance(parsed, ValueReply)
    assert parsed.output == value


@given(st.binary(max_size=200))
@example(b"\xff" * 8)
def test_any_bytes_are_a_reply_a_problem_or_nothing(data: bytes) -> None:
    parsed = parse_reply(data)
    assert parsed is None if not data else isinstance(parsed, KINDS)


@given(
    st.binary(max_size=100) | st.text(max_size=50).map(str.encode) | JSON.map(lambda value: json.dumps(value).encode())
)
def test_any_body_of_a_frame_is_a_reply_or_a_problem(body: bytes) -> None:
    assert isinstance(parse_reply(framed(body)), KINDS)


@given(st.integers(0, 2**32 - 1), st.binary(max_size=40))
def test_a_frame_is_as_long_as_it_says(length: int, body: bytes) -> None:
    if length != len(body):
        why = problem(READY_FRAME + struct.pack(">I", length) + body)
        assert why.startswith(("incomplete", "more than one frame", "larger than"))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"kind": "value"}',
        b'{"kind": "other"}',
        b'{"kind": "none", "more": 1}',
        b'{"kind": "exception", "error": "text"}',
        b'{"kind": "exception", "error": {"type": 1, "message": ""}}',
        b'{"kind": "value", "output": NaN}',
        b'{"kind": "value", "output": Infinity}',
        b'{"kind": "value", "output": 1} ,',
        b'{"kind": "value", "output": "\xff"}',
        b'{"kind": "value", "output": "\\ud800"}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
    ],
    ids=lambda body: repr(body[:30]),
)
def test_what_is_not_exactly_a_reply_is_a_problem(body: bytes) -> None:
    assert problem(framed(body)) == "not a reply"


def test_a_value_may_nest_up_to_the_bound_and_no_deeper() -> None:
    def reply(depth: int) -> bytes:
        return framed(b'{"kind": "value", "output": ' + b"[" * depth + b"]" * depth + b"}")

    assert isinstance(parse_reply(reply(limits.VALUE_DEPTH_MAX)), ValueReply)
    assert problem(reply(limits.VALUE_DEPTH_MAX + 1)).startswith("nested deeper")


def test_a_value_may_hold_many_lists_and_objects_but_not_any_number() -> None:
    def reply(count: int) -> bytes:
        return framed(b'{"kind":"value","output":[' + b"{}," * (count - 3) + b"[]]}")

    assert isinstance(parse_reply(reply(limits.VALUE_CONTAINERS_MAX)), ValueReply)
    assert problem(reply(limits.VALUE_CONTAINERS_MAX + 1)).startswith("more than")
    text = b"[" + b"[]," * limits.VALUE_CONTAINERS_MAX + b"0]"
    assert parse_text_output(text) == text.decode()


@pytest.mark.parametrize("text", [b"[", b'\\"{', b"\\\\["])
def test_brackets_in_texts_are_no_lists(text: bytes) -> None:
    body = b'{"kind":"value","output":"' + text * (limits.VALUE_CONTAINERS_MAX + 1) + b'"}'
    assert isinstance(parse_reply(framed(body)), ValueReply)


@pytest.mark.parametrize("text", [b'"', b'\\"', b'"\\', b'"\\"'])
def test_texts_without_an_end_take_no_longer_than_others(text: bytes) -> None:
    body = b"[" * (limits.VALUE_CONTAINERS_MAX + 1) + text * 1_000_000
    assert problem(framed(body)).startswith("more than")


def test_a_length_beyond_the_bound_is_refused_before_the_body_is_looked_at() -> None:
    assert problem(struct.pack(">I", limits.VALUE_MAX_BYTES + 1)).startswith("larger than")


@given(TEXTS, TEXTS, TEXTS)
def test_texts_of_an_error_are_kept_within_their_bounds(kind: str, message: str, traceback: str) -> None:
    factor = 1 + limits.ERROR_TEXT_MAX_CHARS // 3
    sent = {"type": kind * 100, "message": message * factor, "traceback": traceback * factor}
    parsed = parse_reply(frame({"kind": "exception", "error": sent}))
    assert isinstance(parsed, ExceptionReply)
    assert len(parsed.error.type) <= 200
    assert sent["message"].startswith(parsed.error.message)
    assert sent["traceback"].endswith(parsed.error.traceback)
    assert max(len(parsed.error.message), len(parsed.error.traceback)) <= limits.ERROR_TEXT_MAX_CHARS


def depth_of(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth_of, value.values()), default=0)
    return 1 + max(map(depth_of, value), default=0) if isinstance(value, list) else 0


@given(JSON, st.integers(0, 210))
def test_depth_is_judged_as_a_plain_walk_would(value: Any, more: int) -> None:
    for _ in range(more):
        value = {"a": value} if more % 2 else [value]
    assert is_too_deep(value) == (depth_of(value) > limits.VALUE_DEPTH_MAX)


# Text ---------------------------------------------------------------------------------------------


@given(JSON)
def test_text_that_is_json_is_that_value(value: Any) -> None:
    assert parse_text_output(json.dumps(value).encode() + b"\n") == value


@given(st.binary(max_size=100))
def test_any_text_is_a_value_or_itself(data: bytes) -> None:
    value = parse_text_output(data)
    text = data.decode(errors="replace").strip()
    assert value == text or (value is None and not text) or json.loads(text) == value


TEXT_OUTPUTS: list[tuple[bytes, Any]] = [(b"", None), (b" \n", None), (b"null", None), (b"hello\n", "hello")]
TEXT_OUTPUTS += [(b'"hello"', "hello"), (b"1 2", "1 2"), (b"NaN", "NaN"), (b"{'a': 1}", "{'a': 1}"), (b"[1,", "[1,")]
TEXT_OUTPUTS += [(b"\xff", "\N{REPLACEMENT CHARACTER}")]


@pytest.mark.parametrize(("data", "value"), TEXT_OUTPUTS)
def test_texts_as_people_write_them(data: bytes, value: object) -> None:
    assert parse_text_output(data) == value


def test_a_text_that_would_nest_too_deeply_stays_text() -> None:
    data = b"[" * 100_000
    assert parse_text_output(data) == data.decode()
    data = b"[" * 1000 + b"]" * 1000
    assert parse_text_output(data) == data.decode()


# Input --------------------------------------------------------------------------------------------


@given(JSON)
def test_an_input_reads_back_as_it_was(value: Any) -> None:
    assert json.loads(encode_input(value)) == value


@pytest.mark.parametrize("value", [math.nan, math.inf, {1, 2}, b"x", "\ud800"])
def test_what_json_has_no_form_for_is_refused(value: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        encode_input(value)


@given(JSON, st.integers(0, 8))
def test_lists_and_objects_in_texts_do_not_count(value: Any, most: int) -> None:
    body = json.dumps([value, '\\"[{', "\\", "["]).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "VALUE_CONTAINERS_MAX", most)
        patch.setattr(limits, "READ_CHUNK_BYTES", 3)
        assert has_too_many_containers(body) == (1 + containers(value) > most)


def containers(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return isinstance(value, dict | list) + sum(map(containers, inner))


def test_counting_lists_and_objects_costs_little_more_than_the_text() -> None:
    body = b"[" + b'"[",' * (limits.VALUE_MAX_BYTES // 4) + b"1]"
    tracemalloc.start()
    assert not has_too_many_containers(body)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 5 * len(body)


@pytest.mark.parametrize("before", [b"", bytes(4)])
@pytest.mark.parametrize("body", [b"", b'{"kind":"none"}', b"\xff\xff\xff\0"])
def test_a_farewell_after_the_one_reply_tells_the_exit_status(before: bytes, body: bytes) -> None:
    reply = before + len(body).to_bytes(4, "big") + body
    if body:  # an empty frame is the first word, not a reply
        assert split_farewell(reply + b"\xff\xff\xff\x07") == (reply, 7)


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"\xff\xff\xff\0",
        bytes(4) + b"\xff\xff\xff\0",
        b"\0\0\0\x03{}\xff\xff\xff\0",
        b"\0\0\0\x02{}\xff\xff\0",
        b"\0\0\0\x02{}\xff\xff\xff\0\0",
        b"\0\0\0\x06{}\xff\xff\xff\0",
    ],
)
def test_what_is_not_exactly_a_farewell_is_none(reply: bytes) -> None:
    assert split_farewell(reply) == (reply, None)

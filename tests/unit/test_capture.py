"""Head and tail of a stream in bounded memory, held against a plain slice of the whole."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from casemate import limits
from casemate.model.capture import Capture
from casemate.model.result import Isolation, Reason, Result, Status, Stream

PIECES = st.lists(st.binary(max_size=40), max_size=30)


def fed(pieces: list[bytes], head_bytes: int, tail_bytes: int) -> Capture:
    capture = Capture(head_bytes, tail_bytes)
    for piece in pieces:
        capture.feed(piece)
    return capture


@given(PIECES, st.integers(0, 50), st.integers(0, 50))
def test_what_is_kept_is_the_beginning_and_the_end_of_the_whole(pieces: list[bytes], head: int, tail: int) -> None:
    whole = b"".join(pieces)
    rest = whole[head:]
    stream = fed(pieces, head, tail).finish()
    assert stream.head == whole[:head]
    assert stream.tail == (rest[-tail:] if tail else b"")
    assert stream.truncated_bytes == len(rest) - len(stream.tail)
    assert stream.total_bytes == len(whole)


@given(PIECES, st.integers(0, 50), st.integers(0, 50))
def test_memory_stays_within_the_head_and_twice_the_tail(pieces: list[bytes], head: int, tail: int) -> None:
    capture = Capture(head, tail)
    for piece in pieces:
        capture.feed(piece)
        assert len(capture._head) <= head
        assert len(capture._tail) <= 2 * tail


@given(PIECES, st.integers(0, 50), st.integers(0, 50))
def test_finishing_twice_says_the_same(pieces: list[bytes], head: int, tail: int) -> None:
    capture = fed(pieces, head, tail)
    assert capture.finish() == capture.finish()


def test_nothing_is_dropped_up_to_both_bounds_and_everything_between_is_counted_beyond() -> None:
    kept = limits.CAPTURE_HEAD_BYTES + limits.CAPTURE_TAIL_BYTES
    capture = fed([b"x" * kept], limits.CAPTURE_HEAD_BYTES, limits.CAPTURE_TAIL_BYTES)
    assert capture.finish().truncated_bytes == 0
    capture.feed(b"y")
    assert capture.finish().truncated_bytes == 1
    assert capture.finish().tail.endswith(b"xy")


@given(st.binary(max_size=30), st.binary(max_size=30), st.integers(0, 1000))
def test_text_is_always_text_and_marks_a_gap(head: bytes, tail: bytes, truncated_bytes: int) -> None:
    text = Stream(head=head, tail=tail, truncated_bytes=truncated_bytes).text
    assert ("bytes left out" in text) == (truncated_bytes > 0)


def test_a_character_on_the_seam_of_head_and_tail_is_whole_when_nothing_is_missing() -> None:
    raw = "ä".encode()
    assert Stream(head=raw[:1], tail=raw[1:]).text == "ä"


def test_a_result_can_be_written_as_json_and_says_whether_it_went_well() -> None:
    isolation = Isolation(backend="native", layers=())
    result = Result(status=Status.SUCCEEDED, reason=Reason.EXIT, exit_code=0, output={"a": [1]}, isolation=isolation)
    assert result.ok
    assert msgspec.json.decode(msgspec.json.encode(result))["output"] == {"a": [1]}
    assert not msgspec.structs.replace(result, status=Status.FAILED).ok

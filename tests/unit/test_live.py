"""Following an execution: every byte once, from any place, whatever was cut in between."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.errors import InvalidInput
from casemate.executions.live import Live, Piece, Place, follow, pieces
from casemate.model.capture import Capture
from casemate.model.result import Chunk, Isolation, Reason, Result, Status, Stream

RESULT = Result(status=Status.SUCCEEDED, reason=Reason.EXIT, isolation=Isolation(backend="test", layers=()))
texts = st.text(max_size=30).map(lambda text: text.encode("utf-8", "replace"))


def told(stream: Stream, place: Place, *, has_ended: bool = True) -> list[Piece]:
    return list(pieces((stream, Stream()), place, has_started=True, has_ended=has_ended))


def test_everything_is_told_once_and_in_order() -> None:
    found = list(pieces((Stream(head=b"out"), Stream(head=b"err")), Place(), has_started=True, has_ended=True))
    assert [(piece.kind, piece.data) for piece in found] == [
        ("started", b""),
        ("stdout", b"out"),
        ("stderr", b"err"),
        ("ended", b""),
    ]
    assert (
        list(pieces((Stream(head=b"out"), Stream(head=b"err")), found[-1].place, has_started=True, has_ended=True))
        == []
    )


@given(data=st.lists(texts, max_size=6), at=st.integers(0, 7))
def test_whoever_goes_on_from_any_event_misses_nothing(data: list[bytes], at: int) -> None:
    stream = Stream(head=b"".join(data))
    first = told(stream, Place())[: at + 1]
    rest = told(stream, first[-1].place)
    assert b"".join(piece.data for piece in (*first, *rest)) == stream.head


def test_a_gap_is_counted_and_not_told_twice() -> None:
    stream = Stream(head=b"abc", tail=b"xyz", truncated_bytes=10)
    found = [piece for piece in told(stream, Place(told=1)) if piece.kind == "stdout"]
    assert [(piece.data, piece.offset, piece.missed_bytes) for piece in found] == [(b"abc", 0, 0), (b"xyz", 13, 10)]
    within = told(stream, Place(stdout=8, told=1))[0]
    assert (within.data, within.offset, within.missed_bytes) == (b"xyz", 13, 5)


@pytest.mark.parametrize("text", ["é", "€", "𝄞"])
def test_a_character_is_told_whole_unless_the_program_ends_within_it(text: str) -> None:
    encoded = text.encode()
    for length in range(1, len(encoded)):
        part = Stream(head=b"a" + encoded[:length])
        assert [piece.data for piece in told(part, Place(told=1), has_ended=False)] == [b"a"]
        assert told(part, Place(told=1))[0].data == b"a" + encoded[:length]
    assert told(Stream(head=encoded), Place(told=1), has_ended=False)[0].data == encoded


@given(data=st.binary(max_size=40))
def test_bytes_that_are_no_text_are_told_all_the_same(data: bytes) -> None:
    assert b"".join(piece.data for piece in told(Stream(head=data), Place())) == data


@given(chunks=st.lists(st.binary(max_size=9), max_size=9), offset=st.integers(0, 90), most=st.integers(1, 9))
def test_what_is_captured_reads_as_what_is_kept_of_it(chunks: list[bytes], offset: int, most: int) -> None:
    capture = Capture(head_bytes=8, tail_bytes=8)
    for chunk in chunks:
        capture.feed(chunk)
    data, begin = capture.after(offset, most)
    everything = b"".join(chunks)
    assert begin >= offset
    assert everything[begin : begin + len(data)] == data
    kept, kept_begin = capture.finish().after(offset, most)
    assert kept_begin >= begin
    assert everything[kept_begin : kept_begin + len(kept)] == kept


def test_output_that_was_dropped_on_its_way_is_a_gap() -> None:
    live = Live("exe_1", "ten_1")
    for offset, data in ((0, b"abc"), (10, b"xyz"), (13, b"!")):
        live.feed(Chunk(stream="stdout", data=data, offset=offset))
    found = list(pieces(live.output(), Place(told=1), has_started=True, has_ended=False))
    assert [(piece.data, piece.offset, piece.missed_bytes) for piece in found] == [(b"abc", 0, 0), (b"xyz!", 10, 7)]


def test_places_are_written_and_read() -> None:
    assert Place.parse(str(Place(5, 6, 1))) == Place(5, 6, 1)
    for text in ("", "1.2", "1.2.3", "-1.0.0", "1.2.1 ", "9" * 30 + ".0.0", "\u0661.0.0"):
        with pytest.raises(InvalidInput, match="Last-Event-ID"):
            Place.parse(text)


def test_followers_that_come_late_or_lag_see_the_same() -> None:
    async def watched(live: Live, place: Place) -> list[Piece]:
        return [piece async for piece in follow(live, place)]

    async def main() -> None:
        live = Live("exe_1", "ten_1")
        early = asyncio.create_task(watched(live, Place()))
        await asyncio.sleep(0)
        live.start()
        for number in range(5):
            live.feed(Chunk(stream="stdout", data=b"%d" % number, offset=number))
            await asyncio.sleep(0)
        live.end(msgspec.structs.replace(RESULT, stdout=live.captured()[0]))
        late = await watched(live, Place())
        seen = await early
        for found in (seen, late):
            assert b"".join(piece.data for piece in found) == b"01234"
            assert [found[0].kind, found[-1].kind] == ["started", "ended"]
            assert all(before.place != after.place for before, after in pairwise(found))
        assert (await live.ended()).stdout.text == "01234"

    asyncio.run(main())


def test_a_follower_that_takes_its_time_over_a_piece_misses_no_end() -> None:
    async def main() -> list[str]:
        live = Live("exe_1", "ten_1")
        live.start()
        live.feed(Chunk("stdout", b"one", 0))
        told = []
        async for piece in follow(live, Place()):
            told.append(piece.kind)
            if piece.kind == "stdout":
                live.end(msgspec.structs.replace(RESULT, stdout=Stream(head=b"one")))
        return told

    assert asyncio.run(asyncio.wait_for(main(), 5)) == ["started", "stdout", "ended"]

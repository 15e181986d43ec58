"""Conversations with the service, played by hand: what is asked, what is told, and nothing lost or twice."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import casemate
from casemate import service_limits as limits
from casemate.errors import FileTransferError, NotFound, ServiceError, ServiceUnavailable, TooManyRequests
from casemate.model.document import result_document
from casemate.model.function import Item
from casemate.model.result import Chunk, Isolation, Reason, Result, Status, Stream
from casemate.model.service import Execution
from casemate.sdk import calls, transfers
from casemate.sdk.events import Events, Lines
from casemate.sdk.exchange import (
    Context,
    Emit,
    End,
    Following,
    Open,
    Pause,
    Reply,
    Sent,
    Steps,
    advance,
    batch,
    carry_out,
    follow,
    pages,
    portions,
)
from casemate.sdk.items import sent_items
from casemate.sdk.options import execution_request
from casemate.sdk.requests import EVENTS, LINES, Failure, Head, Request
from casemate.sdk.retry import Policy

E = TypeVar("E")
T = TypeVar("T")
GONE = Failure(message="gone")
Script = Sequence[tuple[Head | Failure, Sequence[bytes | Failure]]]
"""What each request in turn is answered with."""


class Played:
    """A conversation that has ended: what was asked, waited and told."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.pauses: list[float] = []
        self.told: list[Any] = []
        self.value: Any = None


def context() -> Context:
    numbers = itertools.count(1)
    return Context(policy=Policy(), chance=lambda: 0.5, new_key=lambda: f"key-{next(numbers)}")


def play(steps: Steps[Any, Any], script: Script) -> Played:
    played = Played()
    scenes = iter(script)
    rest: Iterator[bytes | Failure] = iter(())
    reply: Reply = None
    while not isinstance(step := advance(steps, reply), End):
        reply = None
        if isinstance(step, Emit):
            played.told.append(step.value)
        elif isinstance(step, Pause):
            played.pauses.append(step.seconds)
        elif isinstance(step, Open):
            played.requests.append(step.request)
            reply, body = next(scenes)
            rest = iter(body)
        else:
            reply = next(rest, b"")
    played.value = step.value
    return played


def good(body: object) -> tuple[Head, list[bytes]]:
    return Head(status=200), [msgspec.json.encode(body)]


def bad(status: int, code: str) -> tuple[Head, list[bytes]]:
    return Head(status=status), [msgspec.json.encode({"code": code, "message": "no"})]


# One answer ----------------------------------------------------------------------------------------


def test_an_answer_may_come_in_pieces() -> None:
    played = play(carry_out(context(), calls.workers()), [(Head(status=200), [b'{"a', b'":1}'])])
    assert played.value == {"a": 1}


def test_a_post_has_one_key_in_all_its_attempts() -> None:
    script: Script = [
        (GONE, []),
        (Head(status=200), [b'{"id"', GONE]),
        bad(503, "unavailable"),
        good({"success": True}),
    ]
    played = play(carry_out(context(), calls.invoke("f", 1)), script)
    assert played.value.success
    assert {request.idempotency_key for request in played.requests} == {"key-1"}
    assert len(played.pauses) == 3


def test_a_key_of_the_caller_s_is_kept() -> None:
    played = play(carry_out(context(), calls.invoke("f", 1, idempotency_key="mine")), [good({"success": True})])
    assert played.requests[0].idempotency_key == "mine"


def test_attempts_end_with_the_error_of_the_last() -> None:
    script = [bad(429, "too_many_requests")] * limits.SDK_ATTEMPTS_MAX
    with pytest.raises(TooManyRequests):
        play(carry_out(context(), calls.me()), script)
    with pytest.raises(ServiceUnavailable, match="gone"):
        play(carry_out(context(), calls.me()), [(GONE, [])] * limits.SDK_ATTEMPTS_MAX)


def test_an_answer_that_is_none_is_an_error_of_its_own() -> None:
    with pytest.raises(ServiceError, match="Casemate"):
        play(carry_out(context(), calls.get_tenant("t")), [(Head(status=200), [b"<html>"])])


def test_answers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("casemate.sdk.requests.SDK_ANSWER_MAX_BYTES", 10)
    with pytest.raises(ServiceError, match="larger than 10"):
        play(carry_out(context(), calls.workers()), [(Head(status=200), itertools.repeat(b"xxx", 100))])  # type: ignore[list-item]


# Lists ---------------------------------------------------------------------------------------------


def test_a_list_is_asked_for_page_by_page() -> None:
    first = {"items": [{"id": "a"}, {"id": "b"}], "next_cursor": "c1"}
    played = play(
        pages(context(), calls.list_tenants()), [good(first), good({"items": [{"id": "c"}], "next_cursor": None})]
    )
    assert [tenant.id for tenant in played.told] == ["a", "b", "c"]
    assert [dict(request.query).get("cursor") for request in played.requests] == [None, "c1"]


def test_a_list_ends_at_its_limit() -> None:
    script = [good({"items": [{"id": "a"}], "next_cursor": "c"})] * 2
    played = play(pages(context(), calls.list_tenants(limit=2)), script)
    assert len(played.told) == 2
    assert [dict(request.query)["limit"] for request in played.requests] == ["2", "1"]
    assert play(pages(context(), calls.list_tenants(limit=0)), []).told == []


def test_a_newer_service_may_say_more() -> None:
    page = {"items": [{"id": "a", "mood": "good"}], "next_cursor": None, "total": 1}
    assert play(pages(context(), calls.list_tenants()), [good(page)]).told[0].id == "a"


# An execution, followed ----------------------------------------------------------------------------

ENDED = Result(
    status=Status.SUCCEEDED,
    reason=Reason.EXIT,
    exit_code=0,
    output={"a": 1},
    stdout=Stream(head=b"one\ntwo\n"),
    isolation=Isolation(backend="test", layers=()),
)
DOCUMENT = {"id": "exe_1", "state": "ended", "runtime": "python", "result": result_document(ENDED)}
STREAM_HEAD = Head(status=200, headers={"content-type": "text/event-stream; charset=utf-8"})


def event(kind: str, identity: str, data: object) -> bytes:
    return f"event: {kind}\ndata: {msgspec.json.encode(data).decode()}\nid: {identity}\n\n".encode()


EVENTS_OF_IT = [
    event("accepted", "0.0.0", {"id": "exe_1", "state": "queued", "runtime": "python", "result": None}),
    b": ping\n\n",
    event("started", "0.0.1", {}),
    event("stdout", "4.0.1", {"offset": 0, "text": "one\n"}),
    event("stderr", "4.2.1", {"offset": 0, "base64": "/w8="}),
    event("stdout", "8.2.1", {"offset": 4, "text": "two\n"}),
    event("result", "8.2.2", DOCUMENT),
]
IDS = ["0.0.0", "", "0.0.1", "4.0.1", "4.2.1", "8.2.1", "8.2.2"]


def after(identity: str) -> bytes:
    """What the service tells from an event on."""
    return b"".join(EVENTS_OF_IT[IDS.index(identity) + 1 :]) if identity else b"".join(EVENTS_OF_IT)


def told(chunks: Sequence[Chunk], stream: str) -> bytes:
    found = b""
    for chunk in chunks:
        if chunk.stream == stream:
            assert chunk.offset == len(found)
            found += chunk.data
    return found


def follow_through(cuts: Sequence[int]) -> Played:
    """Follow it while the connection is cut after that many bytes, time after time."""
    played = Played()
    steps = follow(context(), execution_request("1", "python", {}), Following())
    left = iter(cuts)
    rest: Iterator[bytes | Failure] = iter(())
    reply: Reply = None
    while not isinstance(step := advance(steps, reply), End):
        reply = None
        if isinstance(step, Emit):
            played.told.append(step.value)
        elif isinstance(step, Open):
            played.requests.append(step.request)
            body = after(step.request.last_event_id)
            cut = next(left, None)
            reply = STREAM_HEAD
            rest = iter([body]) if cut is None else iter([body[:cut], GONE])
        elif not isinstance(step, Pause):
            reply = next(rest, b"")
    played.value = step.value
    return played


@pytest.mark.parametrize("cut", range(len(after(""))))
def test_a_stream_that_is_cut_anywhere_loses_and_doubles_nothing(cut: int) -> None:
    played = follow_through([cut])
    assert played.value.result == ENDED
    assert told(played.told, "stdout") == b"one\ntwo\n"
    assert told(played.told, "stderr") == b"\xff\x0f"
    assert [request.method for request in played.requests] in (["POST", "GET"], ["POST", "POST"])
    assert len({request.idempotency_key for request in played.requests if request.method == "POST"}) == 1


@settings(max_examples=200)
@given(st.lists(st.integers(0, 1200), max_size=limits.SDK_ATTEMPTS_MAX - 1))
def test_a_stream_that_is_cut_again_and_again_goes_on(cuts: list[int]) -> None:
    played = follow_through(cuts)
    assert told(played.told, "stdout") == b"one\ntwo\n"
    assert played.value == Execution(id="exe_1", state="ended", runtime="python", result=ENDED)


def test_output_that_is_told_twice_is_passed_on_once() -> None:
    again = [*EVENTS_OF_IT[:4], event("stdout", "6.0.1", {"offset": 2, "text": "e\ntw"}), *EVENTS_OF_IT[3:]]
    played = play(follow(context(), execution_request("1", "python", {}), Following()), [(STREAM_HEAD, again)])
    assert told(played.told, "stdout") == b"one\ntwo\n"


def test_a_stream_without_progress_is_given_up() -> None:
    script: Script = [(STREAM_HEAD, [EVENTS_OF_IT[0], GONE]), *[(GONE, [])] * limits.SDK_ATTEMPTS_MAX]
    following = Following()
    with pytest.raises(ServiceUnavailable):
        play(follow(context(), execution_request("1", "python", {}), following), script)
    assert following.take_unended() == "exe_1"
    assert following.take_unended() == ""


def test_an_execution_that_was_begun_before_is_taken_up() -> None:
    begun = {"id": "exe_1", "state": "running", "runtime": "python", "result": None}
    script: Script = [(GONE, []), good(begun), (STREAM_HEAD, [after("")])]
    played = play(follow(context(), execution_request("1", "python", {}), Following()), script)
    assert played.value.result == ENDED
    assert [request.path for request in played.requests[2:]] == ["/v1/executions/exe_1/events"]


def test_a_stream_that_was_begun_before_is_found_where_the_service_says() -> None:
    elsewhere = Head(status=303, headers={"location": "/v1/executions/exe_1/events"})
    script: Script = [(GONE, []), (elsewhere, []), (STREAM_HEAD, [after("")])]
    played = play(follow(context(), execution_request("1", "python", {}), Following()), script)
    assert played.value.result == ENDED
    assert [request.path for request in played.requests[2:]] == ["/v1/executions/exe_1/events"]


def test_an_attempt_that_the_service_has_not_given_up_yet_is_waited_for() -> None:
    script: Script = [(GONE, []), bad(409, "conflict"), good({"success": True})]
    assert play(carry_out(context(), calls.invoke("f", 1)), script).value.success
    with pytest.raises(casemate.Conflict):
        play(carry_out(context(), calls.invoke("f", 1)), [bad(409, "conflict")])


def test_a_result_that_is_too_large_for_a_stream_is_asked_for() -> None:
    short = event("result", "8.2.2", {**DOCUMENT, "result": None})
    script: Script = [(STREAM_HEAD, [*EVENTS_OF_IT[:-1], short]), good(DOCUMENT)]
    played = play(follow(context(), execution_request("1", "python", {}), Following()), script)
    assert played.value.result == ENDED


def test_a_refusal_is_raised_as_what_it_is() -> None:
    with pytest.raises(casemate.UnknownRuntime):
        play(follow(context(), execution_request("1", "x", {}), Following()), [bad(422, "unknown_runtime")])
    script: Script = [(STREAM_HEAD, [EVENTS_OF_IT[0], GONE]), bad(404, "not_found")]
    with pytest.raises(NotFound):
        play(follow(context(), execution_request("1", "x", {}), Following()), script)


@pytest.mark.parametrize(
    "told_instead",
    [
        event("stdout", "1", {"offset": "x"}),
        event("stdout", "1", {"offset": 0, "base64": "*"}),
        event("result", "1", []),
    ],
)
def test_events_that_make_no_sense_are_errors_of_the_service(told_instead: bytes) -> None:
    with pytest.raises(ServiceError):
        play(follow(context(), execution_request("1", "x", {}), Following()), [(STREAM_HEAD, [told_instead])])


# Batches -------------------------------------------------------------------------------------------


def sent(count: int) -> list[Sent]:
    return list(sent_items([Item(id=f"i{number}", data=number) for number in range(count)]))


def build(items: Sequence[bytes]) -> Request:
    return calls.batch_request("f", items)


def answers(request: Request) -> bytes:
    items = msgspec.json.decode(request.body or b"")["items"]
    lines = ({"id": item["id"], "success": True, "output": item["data"]} for item in items)
    return b"".join(msgspec.json.encode(line) + b"\n" for line in lines)


def play_batch(count: int, cuts: Sequence[int | None]) -> Played:
    played = Played()
    steps = batch(context(), build, sent(count))
    left = iter(cuts)
    rest: Iterator[bytes | Failure] = iter(())
    reply: Reply = None
    while not isinstance(step := advance(steps, reply), End):
        reply = None
        if isinstance(step, Emit):
            played.told.append(step.value)
        elif isinstance(step, Open):
            played.requests.append(step.request)
            body = answers(step.request)
            cut = next(left, None)
            reply = Head(status=200, headers={"content-type": LINES})
            rest = iter([body]) if cut is None else iter([body[:cut], GONE])
        elif not isinstance(step, Pause):
            reply = next(rest, b"")
    return played


@given(st.integers(0, 12), st.lists(st.integers(60, 400), max_size=5))
def test_a_batch_that_is_cut_goes_on_with_the_items_that_are_left(count: int, cuts: list[int]) -> None:
    played = play_batch(count, cuts)
    assert [answer.output for answer in played.told] == list(range(count))


def test_what_is_left_of_a_batch_is_another_request() -> None:
    played = play_batch(3, [60])
    assert len({request.idempotency_key for request in played.requests}) == 2


def test_more_items_than_one_request_takes_are_sent_in_several() -> None:
    played = play_batch(limits.SDK_BATCH_ITEMS_MAX + 1, [])
    assert len(played.requests) == 2
    assert [answer.output for answer in played.told] == list(range(limits.SDK_BATCH_ITEMS_MAX + 1))


@given(st.lists(st.integers(1, limits.SDK_BATCH_BODY_MAX_BYTES), max_size=8))
def test_requests_are_bounded_in_bytes(sizes: list[int]) -> None:
    items = [Sent(str(place), bytes(size)) for place, size in enumerate(sizes)]
    found = list(portions(items))
    assert [item for portion in found for item in portion] == items
    assert all(sum(len(item.body) for item in portion) <= limits.SDK_BATCH_BODY_MAX_BYTES for portion in found)


@pytest.mark.parametrize("lines", [b'{"id":"x","success":true}\n', b"{}\n", b"no\n"])
def test_answers_that_are_not_those_of_the_items_are_refused(lines: bytes) -> None:
    with pytest.raises(ServiceError):
        play(batch(context(), build, sent(1)), [(Head(status=200), [lines])])


# Bytes ---------------------------------------------------------------------------------------------


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=6))
def test_lines_are_the_same_however_they_are_cut(data: bytes, cuts: list[int]) -> None:
    lines = Lines()
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    found = [line for begin, end in itertools.pairwise(edges) for line in lines.feed(data[begin:end])]
    assert found == [line.removesuffix(b"\r") for line in data.split(b"\n")[:-1]]
    assert lines.is_empty == (data.endswith(b"\n") or not data)


def test_lines_and_events_are_bounded() -> None:
    with pytest.raises(ServiceError, match="line"):
        list(Lines(10).feed(b"x" * 11))
    with pytest.raises(ServiceError, match="event"):
        list(Events(10).feed(b"data: 12345\n" * 3))


def test_events_are_read_as_the_standard_says() -> None:
    found = list(
        Events().feed(b"\n:x\nevent:a\ndata:1\ndata: 2\r\nid: 7\nretry: 3\n\ndata: b\n\nevent: lost\ndata: c\n")
    )
    assert [(each.kind, each.data, each.id) for each in found] == [("a", b"1\n2", "7"), ("message", b"b", "7")]
    assert EVENTS == "text/event-stream"


def test_a_list_that_has_no_pages_is_asked_for_as_a_whole() -> None:
    page = {"items": [{"to_version": 2}, {"to_version": 1}]}
    played = play(pages(context(), calls.history("f", limit=1)), [good(page)])
    assert [move.to_version for move in played.told] == [2]
    assert played.requests[0].query == ()


# Objects -------------------------------------------------------------------------------------------


def object_head(tag: str, size_bytes: int, **more: str) -> Head:
    named = {name.replace("_", "-"): value for name, value in more.items()}
    return Head(status=200, headers={"etag": tag, "content-length": str(size_bytes), **named})


def test_s2_72_a_download_that_breaks_off_before_its_first_byte_begins_again() -> None:
    cut = Failure(message="cut")
    script: Script = [
        (object_head('"old"', 3), [cut]),
        (object_head('"new"', 4), [b"ab", cut]),
        (object_head('"new"', 2, content_range="bytes 2-3/4"), [b"cd"]),
    ]
    played = play(transfers.download(context(), "/v1/objects/shared/a"), script)
    assert (b"".join(played.told), played.value) == (b"abcd", 4)
    assert [dict(request.own_headers) for request in played.requests] == [
        {},
        {},
        {"Range": "bytes=2-", "If-Range": '"new"'},
    ]


def test_a_disk_that_is_full_is_told_and_leaves_no_file(tmp_path: Path) -> None:
    (tmp_path / ".a.part").symlink_to("/dev/full")

    def write() -> None:
        with transfers.Target(tmp_path / "a") as target:
            target.write(b"what waits to be written when the next piece fails")
            target.write(bytes(100_000))

    with pytest.raises(FileTransferError, match="No space left"):
        write()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [".", "/", ""])
def test_a_directory_is_no_target_and_that_is_told_before_anything_comes(name: str, tmp_path: Path) -> None:
    with pytest.raises(FileTransferError, match="Is a directory"), transfers.Target(tmp_path / name):
        pass
    assert list(tmp_path.iterdir()) == []

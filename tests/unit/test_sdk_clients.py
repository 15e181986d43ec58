"""Both clients against a service that is played within this process."""

from __future__ import annotations

import asyncio
import inspect
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx2
import pytest
from tests.unit.test_sdk_exchange import ENDED, EVENTS_OF_IT, after, answers

import casemate
from casemate.errors import Conflict, SandboxClosed, ServiceUnavailable
from casemate.model.result import Chunk
from casemate.sdk.requests import Request
from casemate.service_limits import SDK_ATTEMPTS_MAX

EVENT_STREAM = {"content-type": "text/event-stream"}
Handler = Callable[[httpx2.Request], httpx2.Response]
pytestmark = pytest.mark.usefixtures("no_pauses")


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("casemate.sdk.exchange.pause_before_retry", impatient)


def impatient(*_: object, attempts: int, **__: object) -> float | None:
    return 0.0 if attempts < SDK_ATTEMPTS_MAX else None


class Body(httpx2.SyncByteStream, httpx2.AsyncByteStream):
    """Pieces of a body, and whether it breaks off."""

    def __init__(self, *pieces: bytes, breaks: bool = False) -> None:
        self.pieces = pieces
        self.breaks = breaks
        self.closed = False

    def __iter__(self) -> Iterator[bytes]:
        yield from self.pieces
        if self.breaks:
            raise httpx2.ReadError("cut")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece

    def close(self) -> None:
        self.closed = True

    async def aclose(self) -> None:
        self.closed = True


class Service:
    """Answers, and remembers what it was asked."""

    def __init__(self, answer: Handler) -> None:
        self.answer = answer
        self.requests: list[httpx2.Request] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        return self.answer(request)

    @property
    def asked(self) -> list[str]:
        return [f"{request.method} {request.url.raw_path.decode()}" for request in self.requests]

    def client(self, key: str = "cm_secret", url: str = "http://127.0.0.1:1/base", **options: Any) -> casemate.Client:
        return casemate.Client(url, key, transport=httpx2.MockTransport(self), **options)

    def aclient(self, key: str = "cm_secret", url: str = "http://127.0.0.1:1/base") -> casemate.AsyncClient:
        return casemate.AsyncClient(url, key, transport=httpx2.MockTransport(self))


def said(document: object) -> httpx2.Response:
    return httpx2.Response(200, stream=Body(json.dumps(document).encode()))


def events(request: httpx2.Request) -> httpx2.Response:
    """The execution, cut once in the middle."""
    if request.method == "DELETE":
        return said({"id": "exe_1", "state": "ended", "runtime": "python"})
    if request.method == "POST":
        return httpx2.Response(200, headers=EVENT_STREAM, stream=Body(*EVENTS_OF_IT[:4], breaks=True))
    return httpx2.Response(200, headers=EVENT_STREAM, stream=Body(after(request.headers["last-event-id"])))


def lines(request: httpx2.Request) -> httpx2.Response:
    """A batch."""
    body = answers(Request(method="POST", path="/", body=request.content))
    return httpx2.Response(200, stream=Body(body[:70], body[70:]))


def refused(_: httpx2.Request) -> httpx2.Response:
    raise httpx2.ConnectError("connection refused")


# Both ----------------------------------------------------------------------------------------------


def test_run_gives_the_result_and_its_output_though_the_connection_is_cut() -> None:
    service = Service(events)
    chunks: list[Chunk] = []
    with service.client() as client:
        assert client.run("print(1)", input=1, on_output=chunks.append) == ENDED
    assert [chunk.data for chunk in chunks] == [b"one\n", b"\xff\x0f", b"two\n"]
    assert service.asked == ["POST /base/v1/executions", "GET /base/v1/executions/exe_1/events"]
    assert service.requests[0].headers["authorization"] == "Bearer cm_secret"
    assert service.requests[0].headers["idempotency-key"]
    assert service.requests[1].headers["last-event-id"] == "4.0.1"


def test_the_same_for_asyncio() -> None:
    service = Service(events)
    chunks: list[Chunk] = []

    async def main() -> casemate.Result:
        async with service.aclient() as client:
            return await client.run("print(1)", input=1, on_output=chunks.append)

    assert asyncio.run(main()) == ENDED
    assert [chunk.data for chunk in chunks] == [b"one\n", b"\xff\x0f", b"two\n"]
    assert len(service.asked) == 2


def test_a_stream_that_is_left_early_ends_its_execution() -> None:
    service = Service(events)
    with service.client() as client:
        with client.stream("print(1)") as stream:
            assert next(stream).data == b"one\n"
            assert stream.id == "exe_1"
        assert service.asked[-1] == "DELETE /base/v1/executions/exe_1"
        with pytest.raises(SandboxClosed):
            stream.result  # noqa: B018
        stream.close()
    assert service.asked.count("DELETE /base/v1/executions/exe_1") == 1


def test_a_stream_that_has_ended_is_not_cancelled() -> None:
    service = Service(events)
    with service.client() as client, client.stream("print(1)") as stream:
        assert stream.result == ENDED
    assert not any(asked.startswith("DELETE") for asked in service.asked)


def test_a_task_that_is_cancelled_ends_its_execution() -> None:
    service = Service(events)

    async def main() -> None:
        async with service.aclient() as client, client.stream("print(1)") as stream:
            async for _ in stream:
                raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(main())
    assert service.asked[-1] == "DELETE /base/v1/executions/exe_1"


def test_an_error_of_whoever_listens_ends_the_execution() -> None:
    service = Service(events)

    def listen(_: Chunk) -> None:
        raise KeyError("mine")

    with service.client() as client, pytest.raises(KeyError, match="mine"):
        client.run("print(1)", on_output=listen)
    assert service.asked[-1].startswith("DELETE")


def test_a_batch_comes_in_order_and_says_how_far_it_is() -> None:
    told: list[tuple[int, int | None]] = []
    items = [{"id": str(number), "data": number} for number in range(3)]
    with Service(lines).client() as client:
        found = client.functions.batch("f", items, progress=lambda done, total: told.append((done, total)))
        assert [each.output for each in client.functions.stream("f", iter(items))] == [0, 1, 2]
    assert [each.output for each in found] == [0, 1, 2]
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_a_batch_may_show_a_bar(capfd: pytest.CaptureFixture[str]) -> None:
    async def main() -> int:
        async with Service(lines).aclient() as client:
            return len(await client.functions.batch("f", [{"data": 1}], progress=True))

    assert asyncio.run(main()) == 1
    assert capfd.readouterr().out == ""


def test_lists_are_iterators() -> None:
    service = Service(lambda _: said({"items": [{"id": "a"}], "next_cursor": None}))

    async def main() -> list[str]:
        async with service.aclient() as client:
            return [each.id async for each in client.tenants.list()]

    with service.client() as client:
        assert [each.id for each in client.tenants.list()] == ["a"]
    assert asyncio.run(main()) == ["a"]


# Trouble -------------------------------------------------------------------------------------------


def test_a_service_that_is_not_there_is_said_to_be_so() -> None:
    service = Service(refused)
    with service.client() as client, pytest.raises(ServiceUnavailable, match="casemate serve"):
        client.me()
    assert len(service.requests) == SDK_ATTEMPTS_MAX


def test_answers_that_are_errors_are_closed_and_raised() -> None:
    body = Body(b'{"code":"conflict","message":"is there"}')
    with (
        Service(lambda _: httpx2.Response(409, stream=body)).client() as client,
        pytest.raises(Conflict, match="is there"),
    ):
        client.tenants.create("a")
    assert body.closed


def test_redirections_are_not_followed() -> None:
    service = Service(lambda _: httpx2.Response(302, headers={"location": "http://elsewhere.example/"}, stream=Body()))
    with service.client() as client, pytest.raises(casemate.ServiceError, match="302"):
        client.me()
    assert {request.url.host for request in service.requests} == {"127.0.0.1"}


def test_a_key_is_shown_nowhere() -> None:
    with Service(refused).client() as client:
        assert "cm_secret" not in repr(client)
        assert "***" in repr(client)
        with pytest.raises(ServiceUnavailable) as caught:
            client.me()
    assert "cm_secret" not in repr(caught.value)


def test_an_unknown_option_is_refused_before_anything_is_sent() -> None:
    service = Service(refused)
    with service.client() as client, pytest.raises(casemate.InvalidInput, match="unknown option"):
        client.run("1", memory=3)  # type: ignore[call-arg]
    assert service.requests == []


# What they are made of -----------------------------------------------------------------------------


def test_both_clients_have_the_same_methods() -> None:
    one = Service(refused).client()
    other = Service(refused).aclient()
    for group in ("executions", "functions", "runners", "tenants", "keys"):
        ours, theirs = getattr(one, group), getattr(other, group)
        names = {name for name in dir(ours) if not name.startswith("_")}
        assert names == {name for name in dir(theirs) if not name.startswith("_")}
        for name in names:
            mine, twin = inspect.signature(getattr(ours, name)), inspect.signature(getattr(theirs, name))
            assert list(mine.parameters) == list(twin.parameters), name
            assert getattr(ours, name).__doc__
    one.close()
    asyncio.run(other.aclose())


def test_methods_say_what_they_take() -> None:
    with Service(refused).client() as client:
        assert list(inspect.signature(client.functions.diff).parameters) == ["name", "from_version", "to_version"]
        assert client.functions.diff.__doc__ == "What differs between two versions."
        assert inspect.signature(client.functions.diff).return_annotation == "Diff"
        assert inspect.signature(client.functions.list).return_annotation == "Iterator[Function]"


def test_importing_a_client_does_not_import_the_http_library() -> None:
    code = "import sys, casemate as c; c.Client, c.AsyncClient; print('httpx2' in sys.modules, 'rich' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"

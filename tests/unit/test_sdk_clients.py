"""Both clients against a service that is played within this process."""

from __future__ import annotations

import asyncio
import inspect
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx2
import msgspec
import pytest
from tests.unit.test_sdk_exchange import DOCUMENT, ENDED, EVENTS_OF_IT, after, answers

import casemate
from casemate.errors import Conflict, SandboxClosed, ServiceUnavailable
from casemate.limits import SDK_ATTEMPTS_MAX
from casemate.model.result import Chunk

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


def events(request: httpx2.Request) -> httpx2.Response:
    """The execution, cut once in the middle."""
    if request.method == "DELETE":
        return httpx2.Response(200, json={})
    if request.method == "POST":
        return httpx2.Response(200, headers=EVENT_STREAM, stream=Body(*EVENTS_OF_IT[:4], breaks=True))
    return httpx2.Response(200, headers=EVENT_STREAM, stream=Body(after(request.headers["last-event-id"])))


def lines(request: httpx2.Request) -> httpx2.Response:
    shown = httpx2.Request("POST", "http://a", content=request.content)
    body = answers(msgspec.structs.replace(_PLAIN, body=shown.content))
    return httpx2.Response(200, stream=Body(body[:70], body[70:]))


_PLAIN = casemate.sdk.requests.Request(method="POST", path="/") if hasattr(casemate, "sdk") else None  # type: ignore[attr-defined]


# The same with both ----------------------------------------------------------------------------------


def test_run_gives_the_result_and_its_output() -> None:
    service = Service(events)
    chunks: list[Chunk] = []
    with service.client() as client:
        assert client.run("print(1)", input=1, on_output=chunks.append) == ENDED
    assert [chunk.data for chunk in chunks] == [b"one\n", b"\xff\x0f", b"two\n"]
    assert service.asked == ["POST /base/v1/executions", "GET /base/v1/executions/exe_1/events"]
    assert service.requests[0].headers["authorization"] == "Bearer cm_secret"
    assert service.requests[0].headers["idempotency-key"]
    assert service.requests[1].headers["last-event-id"] == "4.0.1"


async def test_arun() -> None: ...

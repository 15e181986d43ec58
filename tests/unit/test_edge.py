"""The outermost layer of the service, by itself."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, Final

import pytest

from casemate.api.edge import Edge

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send

SCOPE: Final[dict[str, Any]] = {"type": "http", "method": "POST", "path": "/v1/jobs", "headers": []}


def test_a_request_that_an_ending_server_gives_up_is_told_to_ask_again() -> None:
    sent: list[Message] = []

    async def main() -> None:
        is_under_way = asyncio.Event()

        async def app(_: Scope, __: Receive, ___: Send) -> None:
            is_under_way.set()
            await asyncio.Event().wait()

        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Message) -> None:
            sent.append(message)

        edge = Edge(app, observe=lambda *_: None, body_max_bytes=10, upload_max_bytes=10, leave=lambda _: None)
        task = asyncio.create_task(edge(dict(SCOPE), receive, send))
        await is_under_way.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    start, body = sent
    assert start["status"] == 503
    assert (b"retry-after", b"1") in start["headers"]
    assert json.loads(body["body"])["code"] == "unavailable"

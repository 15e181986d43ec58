"""Pages that change by themselves: streams that end with their session, with the service, and with whoever looks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Final

from fastapi.sse import KEEPALIVE_COMMENT, EventSourceResponse, format_sse_event
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from casemate.dashboard.visit import Visit
from casemate.errors import CasemateError, TooManyRequests
from casemate.service_limits import EVENT_PING_S, LIVE_PAUSE_S, LIVE_STREAMS_A_SESSION_MAX, SESSION_CHECKED_S

STREAM_HEADERS: Final = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
Render = Callable[[], Awaitable[str]]
Watch = AbstractContextManager[asyncio.Event | None]


def fragments(visit: Visit, render: Render, *, period_s: float, watch: Watch | None = None) -> Response:
    """A part of a page, sent again whenever it has become another: a look every `period_s`, and when `watch` says."""
    check_streams(visit)
    return Followed(
        visit, EventSourceResponse(_rendered(render, watch or nullcontext(), period_s), headers=STREAM_HEADERS)
    )


async def _rendered(render: Render, watch: Watch, period_s: float) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    shown, told_s = "", loop.time()
    with watch as changed:
        while True:
            if changed is not None:
                changed.clear()
            try:
                found = await render()
            except CasemateError:
                return
            if found != shown:
                shown, told_s = found, loop.time()
                yield format_sse_event(data_str=found)
            elif loop.time() - told_s >= EVENT_PING_S:
                told_s = loop.time()
                yield KEEPALIVE_COMMENT
            await _next_look(changed, period_s)


async def _next_look(changed: asyncio.Event | None, period_s: float) -> None:
    if changed is None:
        await asyncio.sleep(period_s)
        return
    with suppress(TimeoutError):
        await asyncio.wait_for(changed.wait(), period_s)
    await asyncio.sleep(LIVE_PAUSE_S)


class Followed(Response):
    """A stream for as long as its session, its key and the service go on."""

    def __init__(self, visit: Visit, stream: Response) -> None:
        super().__init__()
        self._visit = visit
        self._stream = stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sent = _Sent(send)
        with _counted(self._visit):
            told = asyncio.create_task(self._stream(scope, receive, sent))
            allowed = asyncio.create_task(_while_allowed(self._visit))
            try:
                await asyncio.wait([told, allowed], return_when=asyncio.FIRST_COMPLETED)
            finally:
                is_told = told.done()
                for task in (told, allowed):
                    task.cancel()
                await asyncio.gather(told, allowed, return_exceptions=True)
        if is_told:
            told.result()
        else:
            await sent.end()


class _Sent:
    """What went out, so that it can be ended properly."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._has_begun = False

    async def __call__(self, message: Message) -> None:
        self._has_begun = True
        await self._send(message)

    async def end(self) -> None:
        if not self._has_begun:
            await self._send({"type": "http.response.start", "status": 204, "headers": []})
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})


@contextmanager
def _counted(visit: Visit) -> Iterator[None]:
    visit.session.streams += 1
    try:
        yield
    finally:
        visit.session.streams -= 1


def check_streams(visit: Visit) -> None:
    """Raise TooManyRequests where a session follows too much at once."""
    if visit.session.streams >= LIVE_STREAMS_A_SESSION_MAX:
        raise TooManyRequests("too many open pages are being followed", retry_after_s=EVENT_PING_S)


async def _while_allowed(visit: Visit) -> None:
    with suppress(CasemateError):
        while True:
            visit.site.executions.check_open()
            await visit.site.who(visit.session)
            await asyncio.sleep(SESSION_CHECKED_S)

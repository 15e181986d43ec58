"""Waiting for something on behalf of a client, for as long as the client waits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Final, TypeVar

from fastapi import Request
from starlette.exceptions import HTTPException

T = TypeVar("T")
CLIENT_GONE: Final = 499
"""The status of an answer that nobody sees; logs and counters do."""


class ClientGone(HTTPException):
    """The client did not wait for its answer."""

    def __init__(self) -> None:
        super().__init__(CLIENT_GONE)


async def unless_gone(request: Request, work: Awaitable[T]) -> T:
    """What the work gives. If the client goes away meanwhile, the work is cancelled. Raises ClientGone."""
    working = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait([working, gone], return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGone
        return working.result()
    finally:
        for task in (gone, working):
            task.cancel()
        await asyncio.gather(gone, working, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass

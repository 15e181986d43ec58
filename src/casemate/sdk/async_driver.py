"""Carries out what is decided in `exchange`, for asyncio: the ground that the client stands on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, closing
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from casemate.sdk.exchange import Context, Effect, Emit, End, Open, Pause, Reply, Steps, advance, carry_out, pages
from casemate.sdk.requests import Call, Head, Listing, Request
from casemate.sdk.transport import as_method, failure_of, timeouts

if TYPE_CHECKING:
    import httpx2

P = ParamSpec("P")
T = TypeVar("T")
E = TypeVar("E")


class _Connection:
    """One conversation: at most one answer is open in it."""

    def __init__(self, http: httpx2.AsyncClient, silence_max_s: float | None) -> None:
        self._http = http
        self._silence_max_s = silence_max_s
        self._response: httpx2.Response | None = None
        self._body: AsyncIterator[bytes] | None = None

    async def perform(self, effect: Effect) -> Reply:
        """Carry it out, and say what came of it."""
        import httpx2

        if isinstance(effect, Pause):
            await self.aclose()
            await asyncio.sleep(effect.seconds)
            return None
        try:
            return await self._open(effect.request) if isinstance(effect, Open) else await self._read()
        except httpx2.TransportError as error:
            await self.aclose()
            return failure_of(error)

    async def _open(self, request: Request) -> Head:
        await self.aclose()
        built = self._http.build_request(
            request.method,
            request.path,
            params=list(request.query) or None,
            content=request.body,
            headers=request.headers,
            timeout=timeouts(self._silence_max_s or request.silence_max_s),
        )
        self._response = await self._http.send(built, stream=True)
        self._body = self._response.aiter_raw()
        return Head(status=self._response.status_code, headers=self._response.headers)

    async def _read(self) -> bytes:
        return b"" if self._body is None else await anext(self._body, b"")

    async def aclose(self) -> None:
        """End the answer that is open, if there is one."""
        if self._response is not None:
            await self._response.aclose()
            self._response = None


class AsyncDriver:
    """Carries out steps on the running loop."""

    def __init__(self, http: httpx2.AsyncClient, context: Context, silence_max_s: float | None) -> None:
        self.http = http
        self.context = context
        self._silence_max_s = silence_max_s

    async def call(self, call: Call[T]) -> T:
        """Ask, and wait for the answer."""
        steps = carry_out(self.context, call)
        with closing(steps):
            async with aclosing(_Connection(self.http, self._silence_max_s)) as connection:
                step = advance(steps, None)
                while not isinstance(step, End):
                    step = advance(steps, await connection.perform(step))
                return step.value

    async def iterate(self, steps: Steps[E, object]) -> AsyncGenerator[E]:
        """What the steps have to show."""
        with closing(steps):
            async with aclosing(_Connection(self.http, self._silence_max_s)) as connection:
                step = advance(steps, None)
                while not isinstance(step, End):
                    reply: Reply = None
                    if isinstance(step, Emit):
                        yield step.value
                    else:
                        reply = await connection.perform(step)
                    step = advance(steps, reply)


def awaited(build: Callable[P, Call[T]]) -> Callable[Concatenate[Any, P], Awaitable[T]]:
    """A method that asks and waits for the answer."""

    async def method(self: Group, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._driver.call(build(*args, **kwargs))

    as_method(method, build)
    return method


def listing(build: Callable[P, Listing[T]]) -> Callable[Concatenate[Any, P], AsyncIterator[T]]:
    """A method that gives the items of a list, page after page as they are asked for."""

    def method(self: Group, /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[T]:
        return self._driver.iterate(pages(self._driver.context, build(*args, **kwargs)))

    as_method(method, build, "AsyncIterator[{}]")
    return method


class Group:
    """Methods of a client that belong together."""

    def __init__(self, driver: AsyncDriver) -> None:
        self._driver = driver

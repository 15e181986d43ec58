"""Carries out what is decided in `exchange`, for threads: the ground that the client stands on."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
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

    def __init__(self, http: httpx2.Client, silence_max_s: float | None) -> None:
        self._http = http
        self._silence_max_s = silence_max_s
        self._response: httpx2.Response | None = None
        self._body: Iterator[bytes] = iter(())

    def perform(self, effect: Effect) -> Reply:
        """Carry it out, and say what came of it."""
        import httpx2

        if isinstance(effect, Pause):
            self.close()
            time.sleep(effect.seconds)
            return None
        try:
            return self._open(effect.request) if isinstance(effect, Open) else next(self._body, b"")
        except httpx2.TransportError as error:
            self.close()
            return failure_of(error)

    def _open(self, request: Request) -> Head:
        self.close()
        built = self._http.build_request(
            request.method,
            request.path,
            params=list(request.query) or None,
            content=request.body,
            headers=request.headers,
            timeout=timeouts(self._silence_max_s or request.silence_max_s),
        )
        self._response = self._http.send(built, stream=True)
        self._body = self._response.iter_raw()
        return Head(status=self._response.status_code, headers=self._response.headers)

    def close(self) -> None:
        """End the answer that is open, if there is one."""
        if self._response is not None:
            self._response.close()
            self._response = None


class Driver:
    """Carries out steps in the calling thread."""

    def __init__(self, http: httpx2.Client, context: Context, silence_max_s: float | None) -> None:
        self.http = http
        self.context = context
        self._silence_max_s = silence_max_s

    def call(self, call: Call[T]) -> T:
        """Ask, and wait for the answer."""
        steps = carry_out(self.context, call)
        with closing(steps), closing(_Connection(self.http, self._silence_max_s)) as connection:
            step = advance(steps, None)
            while not isinstance(step, End):
                step = advance(steps, connection.perform(step))
            return step.value

    def iterate(self, steps: Steps[E, object]) -> Generator[E]:
        """What the steps have to show."""
        with closing(steps), closing(_Connection(self.http, self._silence_max_s)) as connection:
            step = advance(steps, None)
            while not isinstance(step, End):
                reply: Reply = None
                if isinstance(step, Emit):
                    yield step.value
                else:
                    reply = connection.perform(step)
                step = advance(steps, reply)


def blocking(build: Callable[P, Call[T]]) -> Callable[Concatenate[Any, P], T]:
    """A method that asks and waits for the answer."""

    def method(self: Group, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._driver.call(build(*args, **kwargs))

    as_method(method, build)
    return method


def listing(build: Callable[P, Listing[T]]) -> Callable[Concatenate[Any, P], Iterator[T]]:
    """A method that gives the items of a list, page after page as they are asked for."""

    def method(self: Group, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        return self._driver.iterate(pages(self._driver.context, build(*args, **kwargs)))

    as_method(method, build, "Iterator[{}]")
    return method


class Group:
    """Methods of a client that belong together."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

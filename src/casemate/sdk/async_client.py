"""`AsyncClient`: as `Client`, for asyncio."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing, closing, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar, Unpack

from casemate.errors import CasemateError, SandboxClosed
from casemate.model.job_log import LogEntry
from casemate.model.job_told import JobRecord
from casemate.model.result import Chunk, Result
from casemate.model.service import Invocation
from casemate.sdk import account_calls, calls, job_calls, job_logs
from casemate.sdk.exchange import (
    Context,
    Effect,
    Emit,
    End,
    Following,
    Open,
    Pause,
    Reply,
    Steps,
    advance,
    batch,
    carry_out,
    follow,
    pages,
)
from casemate.sdk.items import ItemLike, Progress, counted, sent_items, telling
from casemate.sdk.job_logs import Followed, follow_log
from casemate.sdk.options import ExecutionOptions, execution_request
from casemate.sdk.requests import Call, Head, Listing, Request
from casemate.sdk.settings import masked, settings
from casemate.sdk.transport import as_method, client_options, failure_of, new_context, timeouts
from casemate.service_limits import SDK_ATTEMPTS_MAX, SDK_CONNECT_TIMEOUT_S

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


class _AsyncDriver:
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


def _awaited(build: Callable[P, Call[T]]) -> Callable[Concatenate[Any, P], Awaitable[T]]:
    """A method that asks and waits for the answer."""

    async def method(self: _Group, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._driver.call(build(*args, **kwargs))

    as_method(method, build)
    return method


def _listing(build: Callable[P, Listing[T]]) -> Callable[Concatenate[Any, P], AsyncIterator[T]]:
    """A method that gives the items of a list, page after page as they are asked for."""

    def method(self: _Group, /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[T]:
        return self._driver.iterate(pages(self._driver.context, build(*args, **kwargs)))

    as_method(method, build, "AsyncIterator[{}]")
    return method


class _Group:
    """Methods of a client that belong together."""

    def __init__(self, driver: _AsyncDriver) -> None:
        self._driver = driver


class AsyncExecutions(_Group):
    """What was run, and what runs."""

    list = _listing(calls.list_executions)
    get = _awaited(calls.get_execution)
    cancel = _awaited(calls.cancel_execution)


class AsyncFunctions(_Group):
    """Functions, their versions and aliases, and calls of them."""

    publish = _awaited(calls.publish)
    list = _listing(calls.list_functions)
    get = _awaited(calls.get_function)
    delete = _awaited(calls.delete_function)
    versions = _listing(calls.list_versions)
    version = _awaited(calls.get_version)
    diff = _awaited(calls.diff)
    alias = _awaited(calls.move_alias)
    rollback = _awaited(calls.roll_back)
    history = _listing(calls.history)
    logs = _listing(calls.list_logs)
    invoke = _awaited(calls.invoke)

    def stream(
        self,
        name: str,
        items: Iterable[ItemLike],
        *,
        timeout: float | str | None = None,
        version: int | None = None,
        alias: str | None = None,
    ) -> AsyncIterator[Invocation]:
        """Call a function with each item; what becomes of them comes in their order, while the others still run."""
        build = partial(calls.batch_request, name, timeout=timeout, version=version, alias=alias)
        return self._driver.iterate(batch(self._driver.context, build, sent_items(items)))

    async def batch(
        self,
        name: str,
        items: Iterable[ItemLike],
        *,
        progress: Progress = False,
        timeout: float | str | None = None,  # noqa: ASYNC109  (of an item, over there)
        version: int | None = None,
        alias: str | None = None,
    ) -> Sequence[Invocation]:
        """The same, when all have ended. `progress`: True shows a bar; a function is told how many are done."""
        found = []
        with telling(progress, counted(items)) as tell:
            async for answer in self.stream(name, items, timeout=timeout, version=version, alias=alias):
                found.append(answer)
                tell(len(found))
        return found


class AsyncRunners(_Group):
    """What runs the functions of each language."""

    list = _listing(calls.list_runners)
    invoke = _awaited(calls.invoke_runner)


class AsyncJobs(_Group):
    """Commands and code that the service runs once it can."""

    submit = _awaited(job_calls.submit_job)
    submit_document = _awaited(job_calls.submit_document)
    get = _awaited(job_calls.get_job)
    list = _listing(job_calls.list_jobs)
    find = _listing(job_calls.find_jobs)
    dead = _listing(job_calls.list_dead_jobs)
    cancel = _awaited(job_calls.cancel_job)
    rerun = _awaited(job_calls.rerun_job)
    retry = _awaited(job_calls.retry_job)
    delete = _awaited(job_calls.delete_job)
    queue = _awaited(job_calls.show_queue)
    pause = _awaited(job_calls.pause_queue)
    resume = _awaited(job_calls.resume_queue)

    async def wait(self, job_id: str) -> JobRecord:
        """Until the job has ended: the job with its result."""
        found = self._driver.iterate(job_calls.wait_for(self._driver.context, job_id))
        async with aclosing(found):
            return await anext(found)


class AsyncSchedules(_Group):
    """Jobs that are made again and again."""

    create = _awaited(job_calls.create_schedule)
    list = _listing(job_calls.list_schedules)
    get = _awaited(job_calls.get_schedule)
    change = _awaited(job_calls.change_schedule)
    delete = _awaited(job_calls.delete_schedule)


class AsyncLogs(_Group):
    """What jobs print."""

    read = _listing(job_logs.read_log)
    search = _listing(job_logs.search_logs)

    def follow(self, job_id: str, *, tail: int | None = None) -> AsyncIterator[LogEntry]:
        """A job's lines as they come, each once, until it has ended; of those that are there the last `tail`."""
        return self._driver.iterate(follow_log(self._driver.context, Followed(job_id, tail)))


class AsyncTenants(_Group):
    """Who things belong to; for operators."""

    list = _listing(calls.list_tenants)
    get = _awaited(calls.get_tenant)
    create = _awaited(calls.create_tenant)
    change = _awaited(calls.change_tenant)
    delete = _awaited(calls.delete_tenant)


class AsyncKeys(_Group):
    """Who may ask, and for what."""

    list = _listing(calls.list_keys)
    create = _awaited(calls.create_key)
    rotate = _awaited(calls.rotate_key)
    revoke = _awaited(calls.revoke_key)


class AsyncBudgets(_Group):
    """How much tenants may use."""

    list = _listing(account_calls.list_budgets)
    set = _awaited(account_calls.set_budget)
    delete = _awaited(account_calls.delete_budget)


class AsyncWebhooks(_Group):
    """Where events are sent."""

    list = _listing(account_calls.list_webhooks)
    create = _awaited(account_calls.create_webhook)
    delete = _awaited(account_calls.delete_webhook)
    test = _awaited(account_calls.try_webhook)
    notices = _listing(account_calls.list_notices)


class AsyncServiceStream:
    """As `ServiceStream`, for asyncio: `async with` it, or close it, to be sure that leaving early ends the run."""

    def __init__(self, driver: _AsyncDriver, request: Request) -> None:
        self._driver = driver
        self._following = Following()
        self._chunks = driver.iterate(follow(driver.context, request, self._following))

    @property
    def id(self) -> str:
        """The execution's, once it was accepted; empty before."""
        return self._following.id

    @property
    def result(self) -> Result:
        """The Result, once the iteration has ended."""
        result = self._following.result
        if result is None:
            raise SandboxClosed("the stream has not been read to its end")
        return result

    async def __aiter__(self) -> AsyncIterator[Chunk]:
        try:
            async for chunk in self._chunks:
                yield chunk
        except BaseException:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        """End the execution if it has not ended. Idempotent."""
        await self._chunks.aclose()
        execution_id = self._following.take_unended()
        if execution_id:
            with suppress(CasemateError, TimeoutError):  # it ends by its limits then
                async with asyncio.timeout(SDK_CONNECT_TIMEOUT_S):
                    await self._driver.call(calls.cancel_execution(execution_id))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class AsyncClient(_Group):
    """As `Client`, for asyncio: close it by `aclose`, or use it by `async with`."""

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        timeout_s: float | None = None,
        attempts: int = SDK_ATTEMPTS_MAX,
        ca_file: str | None = None,
        insecure_http: bool = False,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        import httpx2

        self._settings = settings(url, key, insecure_http=insecure_http, environment=os.environ)
        http = httpx2.AsyncClient(**client_options(self._settings, ca_file), transport=transport)
        driver = _AsyncDriver(http, new_context(attempts), timeout_s)
        super().__init__(driver)
        self.executions = AsyncExecutions(driver)
        self.functions = AsyncFunctions(driver)
        self.runners = AsyncRunners(driver)
        self.jobs = AsyncJobs(driver)
        self.schedules = AsyncSchedules(driver)
        self.logs = AsyncLogs(driver)
        self.tenants = AsyncTenants(driver)
        self.keys = AsyncKeys(driver)
        self.budgets = AsyncBudgets(driver)
        self.webhooks = AsyncWebhooks(driver)

    validate = _awaited(calls.validate)
    me = _awaited(calls.me)
    workers = _awaited(calls.workers)
    worker_samples = _awaited(calls.worker_samples)
    runtimes = _awaited(calls.runtimes)
    metrics = _awaited(calls.metrics)
    usage = _awaited(account_calls.usage)

    async def run(
        self,
        code: str,
        runtime: str = "python",
        *,
        on_output: Callable[[Chunk], None] | None = None,
        idempotency_key: str | None = None,
        **options: Unpack[ExecutionOptions],
    ) -> Result:
        """Run code in the service and wait for its Result. Options as for `casemate.run`, and the service's own."""
        request = execution_request(code, runtime, options, idempotency_key=idempotency_key)
        async with AsyncServiceStream(self._driver, request) as stream:
            async for chunk in stream:
                if on_output is not None:
                    on_output(chunk)
            return stream.result

    def stream(
        self,
        code: str,
        runtime: str = "python",
        *,
        idempotency_key: str | None = None,
        **options: Unpack[ExecutionOptions],
    ) -> AsyncServiceStream:
        """Run code in the service and iterate over its live output. Options as for `run`."""
        return AsyncServiceStream(
            self._driver, execution_request(code, runtime, options, idempotency_key=idempotency_key)
        )

    async def aclose(self) -> None:
        """Close the connections. Idempotent."""
        await self._driver.http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(url={self._settings.url!r}, key={masked(self._settings.key)!r})"

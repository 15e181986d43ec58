"""`AsyncClient`: as `Client`, for asyncio."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing, suppress
from functools import partial
from typing import TYPE_CHECKING, Self, Unpack

from casemate.errors import CasemateError, SandboxClosed
from casemate.model.flow import FlowEntry
from casemate.model.job_log import LogEntry
from casemate.model.job_told import JobRecord
from casemate.model.objects import StoredObject
from casemate.model.result import Chunk, Result
from casemate.model.service import Invocation
from casemate.sdk import account_calls, calls, flows, job_calls, job_logs, object_calls, transfers
from casemate.sdk.async_driver import AsyncDriver as _AsyncDriver
from casemate.sdk.async_driver import Group as _Group
from casemate.sdk.async_driver import awaited as _awaited
from casemate.sdk.async_driver import listing as _listing
from casemate.sdk.exchange import Following, Kept, batch, follow, resume
from casemate.sdk.flows import FollowedFlows
from casemate.sdk.items import ItemLike, Progress, counted, sent_items, telling
from casemate.sdk.job_logs import FollowedLog
from casemate.sdk.options import ExecutionOptions, execution_request
from casemate.sdk.requests import Request
from casemate.sdk.settings import masked, settings
from casemate.sdk.transport import client_options, new_context
from casemate.service_limits import SDK_ATTEMPTS_MAX, SDK_CONNECT_TIMEOUT_S

if TYPE_CHECKING:
    import httpx2


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
    usage = _awaited(account_calls.job_usage)
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
        return self._driver.iterate(resume(self._driver.context, FollowedLog(job_id, tail)))


class AsyncFlows(_Group):
    """What jobs try to reach."""

    list = _listing(flows.list_flows)

    def follow(
        self, *, job: str | None = None, host: str | None = None, allowed: bool | None = None
    ) -> AsyncIterator[FlowEntry]:
        """Flows as they end, each once; it does not end by itself."""
        followed = FollowedFlows(job=job, host=host, allowed=allowed)
        return self._driver.iterate(resume(self._driver.context, followed))


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
    signing = _awaited(calls.show_signing)
    rotate_signing = _awaited(calls.rotate_signing)


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


class AsyncObjects(_Group):
    """Files that the tenant keeps, and those of its jobs."""

    list = _listing(object_calls.list_objects)
    files = _listing(object_calls.list_files)
    delete = _awaited(object_calls.delete_object)
    sign = _awaited(object_calls.sign)

    async def upload(self, key: str, source: transfers.Source, *, progress: Progress = False) -> StoredObject:
        """Send bytes, a file by its path, or what a file object gives. A large one goes in parts."""
        with transfers.parts_of(source) as (parts, size_bytes), telling(progress, size_bytes, "bytes") as tell:
            steps = Kept(transfers.upload(self._driver.context, key, parts))
            async with aclosing(self._driver.iterate(steps.run())) as told:
                async for arrived in told:
                    tell(arrived)
            return steps.value

    def iterate(self, key: str) -> AsyncGenerator[bytes]:
        """The bytes of an object as they come, from any number of connections."""
        return self._driver.iterate(transfers.download(self._driver.context, object_calls.object_path(key)))

    async def read(self, key: str) -> bytes:
        """An object, in memory."""
        async with aclosing(self.iterate(key)) as pieces:
            return b"".join([piece async for piece in pieces])

    async def download(self, key: str, target: str | os.PathLike[str], *, progress: Progress = False) -> int:
        """Write an object into a file, which is there when all of it has come; how many bytes that are."""
        done = 0
        with transfers.Target(target) as file, telling(progress, None, "bytes") as tell:
            async with aclosing(self.iterate(key)) as pieces:
                async for piece in pieces:
                    await asyncio.to_thread(file.write, piece)
                    done += len(piece)
                    tell(done)
            file.keep()
        return done


class AsyncSecrets(_Group):
    """What jobs are given and nobody is shown."""

    list = _listing(object_calls.list_secrets)
    set = _awaited(object_calls.set_secret)
    delete = _awaited(object_calls.delete_secret)


class AsyncAudit(_Group):
    """Who has done what."""

    list = _listing(object_calls.list_audit)
    verify = _awaited(object_calls.verify_audit)


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
        self.flows = AsyncFlows(driver)
        self.tenants = AsyncTenants(driver)
        self.keys = AsyncKeys(driver)
        self.budgets = AsyncBudgets(driver)
        self.webhooks = AsyncWebhooks(driver)
        self.objects = AsyncObjects(driver)
        self.secrets = AsyncSecrets(driver)
        self.audit = AsyncAudit(driver)

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

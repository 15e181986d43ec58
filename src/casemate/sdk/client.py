"""`Client`: the service from an ordinary thread. What is said is decided in `exchange`; here it is carried out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
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
from casemate.sdk.driver import Driver as _Driver
from casemate.sdk.driver import Group as _Group
from casemate.sdk.driver import blocking as _blocking
from casemate.sdk.driver import listing as _listing
from casemate.sdk.exchange import Following, Kept, batch, follow, resume
from casemate.sdk.flows import FollowedFlows
from casemate.sdk.items import ItemLike, Progress, counted, sent_items, telling
from casemate.sdk.job_logs import FollowedLog
from casemate.sdk.options import ExecutionOptions, execution_request
from casemate.sdk.requests import Request
from casemate.sdk.settings import masked, settings
from casemate.sdk.transport import client_options, new_context
from casemate.service_limits import SDK_ATTEMPTS_MAX

if TYPE_CHECKING:
    import httpx2


class Executions(_Group):
    """What was run, and what runs."""

    list = _listing(calls.list_executions)
    get = _blocking(calls.get_execution)
    cancel = _blocking(calls.cancel_execution)


class Functions(_Group):
    """Functions, their versions and aliases, and calls of them."""

    publish = _blocking(calls.publish)
    list = _listing(calls.list_functions)
    get = _blocking(calls.get_function)
    delete = _blocking(calls.delete_function)
    versions = _listing(calls.list_versions)
    version = _blocking(calls.get_version)
    diff = _blocking(calls.diff)
    alias = _blocking(calls.move_alias)
    rollback = _blocking(calls.roll_back)
    history = _listing(calls.history)
    logs = _listing(calls.list_logs)
    invoke = _blocking(calls.invoke)

    def stream(
        self,
        name: str,
        items: Iterable[ItemLike],
        *,
        timeout: float | str | None = None,
        version: int | None = None,
        alias: str | None = None,
    ) -> Iterator[Invocation]:
        """Call a function with each item; what becomes of them comes in their order, while the others still run."""
        build = partial(calls.batch_request, name, timeout=timeout, version=version, alias=alias)
        return self._driver.iterate(batch(self._driver.context, build, sent_items(items)))

    def batch(
        self,
        name: str,
        items: Iterable[ItemLike],
        *,
        progress: Progress = False,
        timeout: float | str | None = None,
        version: int | None = None,
        alias: str | None = None,
    ) -> Sequence[Invocation]:
        """The same, when all have ended. `progress`: True shows a bar; a function is told how many are done."""
        found = []
        with telling(progress, counted(items)) as tell:
            for answer in self.stream(name, items, timeout=timeout, version=version, alias=alias):
                found.append(answer)
                tell(len(found))
        return found


class Runners(_Group):
    """What runs the functions of each language."""

    list = _listing(calls.list_runners)
    invoke = _blocking(calls.invoke_runner)


class Jobs(_Group):
    """Commands and code that the service runs once it can."""

    submit = _blocking(job_calls.submit_job)
    submit_document = _blocking(job_calls.submit_document)
    get = _blocking(job_calls.get_job)
    list = _listing(job_calls.list_jobs)
    find = _listing(job_calls.find_jobs)
    dead = _listing(job_calls.list_dead_jobs)
    cancel = _blocking(job_calls.cancel_job)
    rerun = _blocking(job_calls.rerun_job)
    retry = _blocking(job_calls.retry_job)
    delete = _blocking(job_calls.delete_job)
    usage = _blocking(account_calls.job_usage)
    queue = _blocking(job_calls.show_queue)
    pause = _blocking(job_calls.pause_queue)
    resume = _blocking(job_calls.resume_queue)

    def wait(self, job_id: str) -> JobRecord:
        """Until the job has ended: the job with its result."""
        found = self._driver.iterate(job_calls.wait_for(self._driver.context, job_id))
        with closing(found):
            return next(found)


class Schedules(_Group):
    """Jobs that are made again and again."""

    create = _blocking(job_calls.create_schedule)
    list = _listing(job_calls.list_schedules)
    get = _blocking(job_calls.get_schedule)
    change = _blocking(job_calls.change_schedule)
    delete = _blocking(job_calls.delete_schedule)


class Logs(_Group):
    """What jobs print."""

    read = _listing(job_logs.read_log)
    search = _listing(job_logs.search_logs)

    def follow(self, job_id: str, *, tail: int | None = None) -> Iterator[LogEntry]:
        """A job's lines as they come, each once, until it has ended; of those that are there the last `tail`."""
        return self._driver.iterate(resume(self._driver.context, FollowedLog(job_id, tail)))


class Flows(_Group):
    """What jobs try to reach."""

    list = _listing(flows.list_flows)

    def follow(
        self, *, job: str | None = None, host: str | None = None, allowed: bool | None = None
    ) -> Iterator[FlowEntry]:
        """Flows as they end, each once; it does not end by itself."""
        followed = FollowedFlows(job=job, host=host, allowed=allowed)
        return self._driver.iterate(resume(self._driver.context, followed))


class Tenants(_Group):
    """Who things belong to; for operators."""

    list = _listing(calls.list_tenants)
    get = _blocking(calls.get_tenant)
    create = _blocking(calls.create_tenant)
    change = _blocking(calls.change_tenant)
    delete = _blocking(calls.delete_tenant)


class Keys(_Group):
    """Who may ask, and for what."""

    list = _listing(calls.list_keys)
    create = _blocking(calls.create_key)
    rotate = _blocking(calls.rotate_key)
    revoke = _blocking(calls.revoke_key)
    signing = _blocking(calls.show_signing)
    rotate_signing = _blocking(calls.rotate_signing)


class Budgets(_Group):
    """How much tenants may use."""

    list = _listing(account_calls.list_budgets)
    set = _blocking(account_calls.set_budget)
    delete = _blocking(account_calls.delete_budget)


class Webhooks(_Group):
    """Where events are sent."""

    list = _listing(account_calls.list_webhooks)
    create = _blocking(account_calls.create_webhook)
    delete = _blocking(account_calls.delete_webhook)
    test = _blocking(account_calls.try_webhook)
    notices = _listing(account_calls.list_notices)


class Objects(_Group):
    """Files that the tenant keeps, and those of its jobs."""

    list = _listing(object_calls.list_objects)
    files = _listing(object_calls.list_files)
    delete = _blocking(object_calls.delete_object)
    sign = _blocking(object_calls.sign)

    def upload(self, key: str, source: transfers.Source, *, progress: Progress = False) -> StoredObject:
        """Send bytes, a file by its path, or what a file object gives. A large one goes in parts."""
        with transfers.parts_of(source) as (parts, size_bytes), telling(progress, size_bytes, "bytes") as tell:
            steps = Kept(transfers.upload(self._driver.context, key, parts))
            for arrived in self._driver.iterate(steps.run()):
                tell(arrived)
            return steps.value

    def iterate(self, key: str) -> Iterator[bytes]:
        """The bytes of an object as they come, from any number of connections."""
        return self._driver.iterate(transfers.download(self._driver.context, object_calls.object_path(key)))

    def read(self, key: str) -> bytes:
        """An object, in memory."""
        return b"".join(self.iterate(key))

    def download(self, key: str, target: str | os.PathLike[str], *, progress: Progress = False) -> int:
        """Write an object into a file, which is there when all of it has come; how many bytes that are."""
        done = 0
        with transfers.Target(target) as file, telling(progress, None, "bytes") as tell:
            for piece in self.iterate(key):
                file.write(piece)
                done += len(piece)
                tell(done)
            file.keep()
        return done


class Secrets(_Group):
    """What jobs are given and nobody is shown."""

    list = _listing(object_calls.list_secrets)
    set = _blocking(object_calls.set_secret)
    delete = _blocking(object_calls.delete_secret)


class Audit(_Group):
    """Who has done what."""

    list = _listing(object_calls.list_audit)
    verify = _blocking(object_calls.verify_audit)


class ServiceStream:
    """Live output of one execution in a service: iterate over it for chunks; `result` is there when it has ended.

    Closing it early, or leaving its `with` block, ends the execution. A connection that breaks is made anew.
    """

    def __init__(self, driver: _Driver, request: Request) -> None:
        self._driver = driver
        self._following = Following()
        self._chunks = driver.iterate(follow(driver.context, request, self._following))

    @property
    def id(self) -> str:
        """The execution's, once it was accepted; empty before."""
        return self._following.id

    @property
    def result(self) -> Result:
        """The Result; reads the output to its end first."""
        for _ in self:
            continue
        result = self._following.result
        if result is None:
            raise SandboxClosed("the stream was closed before its end")
        return result

    def __iter__(self) -> Iterator[Chunk]:
        return self

    def __next__(self) -> Chunk:
        try:
            return next(self._chunks)
        except StopIteration:
            raise
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the execution if it has not ended. Idempotent."""
        self._chunks.close()
        execution_id = self._following.take_unended()
        if execution_id:
            with suppress(CasemateError):  # it ends by its limits then
                self._driver.call(calls.cancel_execution(execution_id))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Client(_Group):
    """A service, spoken to with a key. Safe from many threads; close it, or use it by `with`.

    `url` and `key` are those of CASEMATE_URL and CASEMATE_KEY unless given. `timeout_s`: how long the service may say
    nothing, instead of what suits each request. `attempts`: how often a request is made that can be repeated.
    `ca_file`: the only authorities that are trusted. `insecure_http`: a key may go unencrypted to another machine.
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        timeout_s: float | None = None,
        attempts: int = SDK_ATTEMPTS_MAX,
        ca_file: str | None = None,
        insecure_http: bool = False,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        import httpx2

        self._settings = settings(url, key, insecure_http=insecure_http, environment=os.environ)
        http = httpx2.Client(**client_options(self._settings, ca_file), transport=transport)
        driver = _Driver(http, new_context(attempts), timeout_s)
        super().__init__(driver)
        self.executions = Executions(driver)
        self.functions = Functions(driver)
        self.runners = Runners(driver)
        self.jobs = Jobs(driver)
        self.schedules = Schedules(driver)
        self.logs = Logs(driver)
        self.flows = Flows(driver)
        self.tenants = Tenants(driver)
        self.keys = Keys(driver)
        self.budgets = Budgets(driver)
        self.webhooks = Webhooks(driver)
        self.objects = Objects(driver)
        self.secrets = Secrets(driver)
        self.audit = Audit(driver)

    validate = _blocking(calls.validate)
    me = _blocking(calls.me)
    workers = _blocking(calls.workers)
    worker_samples = _blocking(calls.worker_samples)
    runtimes = _blocking(calls.runtimes)
    metrics = _blocking(calls.metrics)
    usage = _blocking(account_calls.usage)

    def run(
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
        with ServiceStream(self._driver, request) as stream:
            for chunk in stream:
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
    ) -> ServiceStream:
        """Run code in the service and iterate over its live output. Options as for `run`."""
        return ServiceStream(self._driver, execution_request(code, runtime, options, idempotency_key=idempotency_key))

    def close(self) -> None:
        """Close the connections. Idempotent."""
        self._driver.http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(url={self._settings.url!r}, key={masked(self._settings.key)!r})"

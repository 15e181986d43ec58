"""Jobs over real records and a node that does what a test says: for everything that is not the node's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import msgspec
from tests.integration.records import tenant

from casemate.cluster.memory import MemoryBus
from casemate.cluster.messages import Answer, Answered, Ended, Output, Phase, Question, RunJob, StageFile, Unstage
from casemate.config import Config
from casemate.errors import BudgetExceeded, InvalidInput
from casemate.executions.book import Changes
from casemate.jobs.attempt import Ports
from casemate.jobs.config import JobSettings, load_jobs
from casemate.jobs.dispatch import Background, Dispatcher
from casemate.jobs.ports import Input
from casemate.jobs.request import Asked
from casemate.jobs.service import Jobs
from casemate.model.flow import Flow
from casemate.model.job import Job
from casemate.model.result import Chunk, Isolation, Reason, Result, Status, Usage
from casemate.queue.leases import RecordsQueue
from casemate.queue.protocol import Ending
from casemate.store import tenants
from casemate.store.database import Database, Records

Program = Callable[["Run"], AsyncGenerator[Answer, None]]
ISOLATION: Final = Isolation(backend="none", layers=())


class Who(msgspec.Struct, frozen=True):
    """A caller."""

    tenant_id: str
    key_id: str = "key_x"
    concurrency_max: int = 100
    queue_max: int = 100


class Run(msgspec.Struct):
    """What the node was asked, and when it is to stop."""

    asked: RunJob
    stop: asyncio.Event

    def ended(self, **fields: Any) -> Ended:
        values = {"status": Status.SUCCEEDED, "reason": Reason.EXIT, "exit_code": 0, "isolation": ISOLATION, **fields}
        return Ended(id=self.asked.id, result=Result(**values))

    def said(self, text: str, offset: int = 0) -> Output:
        return Output(id=self.asked.id, chunk=Chunk("stdout", text.encode(), offset))

    def phase(self, name: str) -> Phase:
        return Phase(id=self.asked.id, phase=name)


async def exits(run: Run, code: int = 0) -> AsyncGenerator[Answer, None]:
    """A program that prints a line and ends with that."""
    yield run.phase("running")
    yield run.said("hello\n")
    yield run.phase("collecting")
    yield run.ended(
        status=Status.FAILED if code else Status.SUCCEEDED, exit_code=code, usage=Usage(wall_s=0.5, cpu_user_s=0.25)
    )


async def waits(run: Run) -> AsyncGenerator[Answer, None]:
    """A program that runs until it is told to end."""
    yield run.phase("running")
    await run.stop.wait()
    yield run.phase("collecting")
    yield run.ended(status=Status.FAILED, reason=Reason.CANCELLED, exit_code=None)


class Desk:
    """Everything that jobs need, remembered."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.queue = RecordsQueue(database)
        self.program: Program = exits
        self.asked: list[RunJob] = []
        self.staged: dict[tuple[str, str, str], bytes] = {}
        self.unstaged: list[str] = []
        self.inputs_of: list[Input] = []
        self.printed: list[bytes] = []
        self.collected: dict[str, bytes] = {}
        self.deleted: list[str] = []
        self.flows: list[Flow] = []
        self.metered: list[tuple[str, Result]] = []
        self.notices: list[tuple[str, str]] = []
        self.whole: list[str] = []
        self.gone: set[str] = set()
        self.posted: list[tuple[str, dict[str, Any]]] = []
        self.ended: list[tuple[str, str]] = []
        self.waited: list[int] = []
        self.secrets: dict[str, str] = {}
        self.budget_is_used_up = False
        self.begun = asyncio.Event()
        self.bus = MemoryBus(self._handle)
        self.changes = Changes()
        self.background = Background()

    # The node -------------------------------------------------------------------------------------

    async def _handle(self, question: Question, stop: asyncio.Event) -> AsyncGenerator[Answer, None]:
        if isinstance(question, StageFile):
            key = (question.run, question.area, question.path)
            self.staged[key] = self.staged.get(key, b"")[: question.offset] + question.data
            yield Answered(id=question.id, value=question.offset + len(question.data))
        elif isinstance(question, Unstage):
            self.unstaged.append(question.run)
            yield Answered(id=question.id, value=None)
        elif isinstance(question, RunJob):
            self.asked.append(question)
            self.begun.set()
            async for answer in self.program(Run(question, stop)):
                yield answer

    # Ports ----------------------------------------------------------------------------------------

    def open(self, job: Job, attempt: int) -> Desk:  # noqa: ARG002
        return self

    async def feed(self, chunk: Chunk, at_us: int) -> None:
        assert at_us
        self.printed.append(chunk.data)

    async def close(self) -> None:
        pass

    async def holding(self, tenant_id: str, text: str, *, limit: int) -> Sequence[str]:  # noqa: ARG002
        return ()

    async def keep(self, job: Job) -> Job:
        return job

    async def check_kept(self, job: Job) -> None:
        for number, each in enumerate(job.spec.files):
            if each.object in self.gone:
                raise InvalidInput(f"files[{number}]", f"the object {each.object!r} is gone")

    async def inputs(self, job: Job) -> AsyncIterator[Input]:
        if any(each.object for each in job.spec.files):
            raise InvalidInput("files[0]", "the object is gone")
        for each in self.inputs_of:
            yield each

    def collecting(self, job: Job, attempt: int) -> Desk:  # noqa: ARG002
        return self

    async def piece(self, path: str, offset: int, data: bytes) -> None:
        self.collected[path] = self.collected.get(path, b"")[:offset] + data

    async def ended_file(self, path: str, size_bytes: int, digest: str) -> None:
        assert len(self.collected[path]) == size_bytes
        self.whole.append(path)
        assert digest

    async def template(self, tenant_id: str, name: str) -> bytes:  # noqa: ARG002
        return b'{"command": "from-template"}'

    async def delete(self, tenant_id: str, job_id: str) -> None:
        assert tenant_id
        self.deleted.append(job_id)

    async def check(self, tenant_id: str) -> None:  # noqa: ARG002
        if self.budget_is_used_up:
            raise BudgetExceeded("the budget is used up")

    def check_in(self, records: Records, tenant_id: str) -> None:  # noqa: ARG002
        if self.budget_is_used_up:
            raise BudgetExceeded("the budget is used up")

    def note(self, *words: Any) -> None:
        if isinstance(words[-1], Flow):
            self.flows.append(words[-1])
        else:
            _, job, result = words
            self.metered.append((job.id, result))

    async def values(self, tenant_id: str, names: Sequence[str]) -> Mapping[str, str]:  # noqa: ARG002
        missing = [name for name in names if name not in self.secrets]
        if missing:
            raise InvalidInput("secrets", f"there is no secret {missing[0]!r}")
        return {name: self.secrets[name] for name in names}

    def missing(self, records: Records, tenant_id: str, names: Sequence[str]) -> frozenset[str]:  # noqa: ARG002
        return frozenset(names) - set(self.secrets)

    def post(self, records: Records, tenant_id: str, kind: str, payload: Mapping[str, Any]) -> None:  # noqa: ARG002
        self.posted.append((kind, dict(payload)))

    def beside(self, _: Records, job: Job) -> None:
        self.notices.append((job.id, job.state.value))

    def on_end(self, job: Job, ending: Ending, result: Result) -> None:
        self.ended.append((job.id, f"{ending.state.value}/{result.reason.value}"))

    # What tests ask -------------------------------------------------------------------------------

    def ports(self) -> Ports:
        return Ports(
            queue=self.queue,
            bus=self.bus,
            logs=self,
            objects=Objects(self),  # type: ignore[arg-type]
            meter=self,
            flows=self,
            secrets=self,
            changes=self.changes,
            beside=self.beside,
            on_begin=lambda _, at_us: self.waited.append(at_us),
            on_end=self.on_end,
            spawn=self.background.spawn,
        )

    @asynccontextmanager
    async def serving(self, *, slots: int = 4, lease_s: float = 30.0, holder: str = "one") -> AsyncIterator[Jobs]:
        dispatcher = Dispatcher(self.ports(), holder=holder, slots=slots, lease_s=lease_s)
        async with dispatcher:
            yield self.jobs(dispatcher)
        await self.background.close()

    def jobs(
        self, dispatcher: Dispatcher, settings: JobSettings | None = None, maximum: Mapping[str, Any] | None = None
    ) -> Jobs:
        return Jobs(
            self.database,
            self.queue,
            dispatcher,
            objects=self,  # type: ignore[arg-type]
            logs=self,
            meter=self,
            secrets=self,
            settings=settings or load_jobs(Config(), {}),
            changes=self.changes,
            beside=self.beside,
            maximum=maximum or {},
        )

    async def tenant(self, name: str = "one", **changes: Any) -> Who:
        added = tenant(name, **{"concurrency_max": 100, **changes})
        await self.database.write(partial(tenants.insert_tenant, tenant=added))
        return Who(added.id)

    async def submit(self, jobs: Jobs, who: Who, job_id: str = "", **asked: Any) -> Job:
        spec = jobs.spec_of(Asked(**({"command": "true"} | asked)))
        return await jobs.submit(who, spec, job_id=job_id, request_id="req")

    async def states(self, jobs: Jobs, job: Job) -> list[str]:
        return [each.state.value for each in await jobs.transitions(job.tenant_id, job.id)]

    async def run(self, jobs: Jobs, who: Who, **asked: Any) -> Job:
        job = await self.submit(jobs, who, **asked)
        return await jobs.ended(who.tenant_id, job.id)


class Objects:
    """The same desk, where two protocols have a method of one name."""

    def __init__(self, desk: Desk) -> None:
        self.inputs = desk.inputs
        self.piece = desk.piece
        self.ended = desk.ended_file
        self.close = desk.close

    def collecting(self, job: Job, attempt: int) -> Objects:  # noqa: ARG002
        return self

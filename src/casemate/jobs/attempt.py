"""One attempt at a job, from its lease to its end: prepared, run by the node, what comes of it kept, and recorded."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import aclosing, suppress
from typing import Any, Final

import msgspec

from casemate import job_limits as limits
from casemate.clock import now_us
from casemate.cluster.bus import Bus
from casemate.cluster.messages import (
    Answer,
    Cancel,
    Ended,
    FileEnded,
    FilePiece,
    FlowSeen,
    Output,
    Phase,
    Question,
    Refused,
    RunJob,
    Sampled,
    StageFile,
    Unstage,
)
from casemate.cluster.refusals import error_of
from casemate.errors import (
    BudgetExceeded,
    CasemateError,
    Conflict,
    InvalidInput,
    NodeLost,
    NodeUnavailable,
    RecordsUnavailable,
    SandboxClosed,
)
from casemate.executions.book import Changes, ended_by_us
from casemate.jobs.keeping import Keeping
from casemate.jobs.ports import FlowLog, JobLog, JobLogs, JobObjects, Meter, SecretValues
from casemate.jobs.request import secrets_of
from casemate.model.document import result_document
from casemate.model.ids import new_id
from casemate.model.job import Job, JobState, Transition
from casemate.model.network import NetworkPolicy
from casemate.model.resources import Limits
from casemate.model.result import MACHINE_BASE, Event, GuestError, Reason, Result, Stream
from casemate.model.units import SECOND_US
from casemate.queue.protocol import Beside, Ending, Lease, Queue
from casemate.queue.retries import after_attempt
from casemate.store.database import Records

SHUT_DOWN: Final = "the service was shut down"
_LOSSES: Final = (NodeLost, SandboxClosed)
"""Whatever ends a sandbox from outside before the program has, it was not the job."""

_LOG: Final = logging.getLogger(__name__)


class Ports(msgspec.Struct, frozen=True, kw_only=True):
    """What attempts stand on. `maximum` are limits that no run may go beyond; `beside` is written with each change.

    `base` and `programs`: which of a machine's programs jobs see.
    """

    queue: Queue
    bus: Bus
    logs: JobLogs
    objects: JobObjects
    meter: Meter
    flows: FlowLog
    secrets: SecretValues
    changes: Changes
    beside: Beside
    on_begin: Callable[[Job, int], None]
    on_end: Callable[[Job, Ending, Result], None]
    spawn: Callable[[Coroutine[Any, Any, object]], object]
    maximum: dict[str, Any] = {}
    base: str = MACHINE_BASE
    programs: tuple[str, ...] = ()


def key_of(job: Job) -> str:
    """What is told of a job's changes goes by this."""
    return f"{job.tenant_id}/{job.id}"


class Attempt:
    """Carries one out. `run` it in a task; whoever holds the lease renews it meanwhile."""

    def __init__(self, lease: Lease, ports: Ports) -> None:
        self.lease = lease
        self.job = lease.job
        self.token = lease.token
        self.usage: Sampled | None = None
        self.task: asyncio.Task[None] | None = None
        self._ports = ports
        self._is_asked = False
        self._is_cancelled = False
        self._is_given_back = False
        self._is_ending = False
        self._why = ""
        self._steps: list[Transition] = []
        self._forced: asyncio.TimerHandle | None = None
        self._noting: asyncio.TimerHandle | None = None
        self._noted: asyncio.Task[None] | None = None

    # For whoever holds the lease ------------------------------------------------------------------

    def cancel(self, why: str = "") -> None:
        """End it soon: as cancelled, or, with a reason, as denied. Idempotent."""
        if self._is_cancelled or self.task is None:
            return
        self._is_cancelled, self._why = True, why
        if self._is_asked:
            self._forced = asyncio.get_running_loop().call_later(limits.JOB_CANCEL_TIMEOUT_S, self._stop)
            self._ports.spawn(self._told_to_end())
        else:
            self._stop()

    async def _told_to_end(self) -> None:
        with suppress(CasemateError):
            async for _ in self._ports.bus.call(Cancel(id=self.token)):
                pass

    def abandon(self) -> None:
        """The lease is somebody else's now: nothing more is done, or recorded."""
        self._stop()

    def give_back(self) -> None:
        """End it now; the job is queued again."""
        self._is_given_back = True
        self._stop()

    def _stop(self) -> None:
        """Unless it has ended, and that is being recorded: whoever waits for the task then waits for the record."""
        if self.task is not None and not self._is_ending:
            self.task.cancel()

    # Carrying out ---------------------------------------------------------------------------------

    async def run(self) -> None:
        """All of it. What goes wrong is recorded, as far as the lease is still held."""
        try:
            result = await self._result()
        except asyncio.CancelledError:
            if not (self._is_cancelled or self._is_given_back):
                raise
            result = ended_by_us(Reason.CANCELLED if self._is_cancelled else Reason.LOST, SHUT_DOWN)
        finally:
            self._stop_timers()
        self._is_ending = True
        await asyncio.shield(self._conclude(self._denied(result)))

    async def _result(self) -> Result:
        job = self.job
        try:
            async with asyncio.timeout(Limits().replacing(job.spec.limits).wall_s + limits.STUCK_S):
                return await self._carried_out()
        except BudgetExceeded as error:
            return _refused(Reason.DENIED, error)
        except InvalidInput as error:
            return _refused(Reason.VALIDATION, error)
        except CasemateError as error:
            return _refused(Reason.LOST if error.retryable or isinstance(error, _LOSSES) else Reason.INTERNAL, error)
        except TimeoutError:
            return ended_by_us(Reason.LOST, "nothing came back for very long")
        except Exception:  # noqa: BLE001  (whatever it is: an attempt has an end)
            _LOG.exception("an attempt went wrong", extra={"job": job.id})
            return ended_by_us(Reason.INTERNAL, "a mistake of ours")

    async def _carried_out(self) -> Result:
        await self._ports.meter.check(self.job.tenant_id)
        question = await self._question()
        for _ in range(limits.PREPARED_AGAIN_MAX):
            try:
                staged = await self._staged()
                return await self._asked(msgspec.structs.replace(question, staged=staged))
            except NodeUnavailable:  # nothing has run, and what was staged is gone
                await self._ports.bus.connected.wait()
        raise NodeUnavailable("the node ended again and again before the job could begin")

    # Preparing ------------------------------------------------------------------------------------

    async def _question(self) -> RunJob:
        job, spec = self.job, self.job.spec
        wanted = secrets_of(spec)
        secrets = await self._ports.secrets.values(job.tenant_id, wanted) if wanted else {}
        return RunJob(
            id=self.token,
            tenant=job.tenant_id,
            request_id=job.request_id,
            argv=spec.argv,
            runtime=spec.runtime,
            code=spec.code,
            environment={**spec.environment, **{name: secrets[name] for name in spec.secrets}},
            stdin=spec.stdin,
            limits={"output": limits.JOB_OUTPUT_BYTES, **spec.limits},
            maximum=self._ports.maximum,
            network=_with_values(spec.network, secrets),
            collect=spec.collect,
            base=self._ports.base,
            programs=self._ports.programs,
        )

    async def _staged(self) -> int:
        """Bring the inputs to the node. How many files they are."""
        if not (self.job.spec.files or self.job.spec.shared):
            return 0
        count = 0
        try:
            async for each in self._ports.objects.inputs(self.job):
                await self._stage(each.area, each.path, each.mode, each.data)
                count += 1
        except NodeUnavailable:
            raise
        except NodeLost as error:
            raise NodeUnavailable(error.message) from error
        except Conflict as error:  # an input was replaced while it was read: perhaps by itself
            await self._unstaged()
            raise NodeUnavailable(error.message) from error
        except BaseException:
            self._ports.spawn(self._unstaged())
            raise
        return count

    async def _stage(self, area: str, path: str, mode: int, data: AsyncIterator[bytes]) -> None:
        offset = 0
        async for piece in _pieces(data):
            asked = StageFile(
                id=new_id("stg"),
                tenant=self.job.tenant_id,
                run=self.token,
                area=area,
                path=path,
                offset=offset,
                data=piece,
                mode=mode,
            )
            await _last(self._ports.bus, asked)
            offset += len(piece)

    async def _unstaged(self) -> None:
        with suppress(CasemateError):
            await _last(self._ports.bus, Unstage(id=new_id("stg"), run=self.token))

    # Running --------------------------------------------------------------------------------------

    async def _asked(self, question: RunJob) -> Result:
        log = self._ports.logs.open(self.job, self.job.attempt)
        files = Keeping(self._ports.objects.collecting(self.job, self.job.attempt))
        try:
            self._is_asked = True
            async with aclosing(self._ports.bus.call(question)) as answers:
                return await self._answered(answers, log, files)
        except NodeUnavailable:
            self._is_asked = False
            raise
        finally:
            await log.close()
            await files.close()

    async def _answered(self, answers: AsyncGenerator[Answer, None], log: JobLog, files: Keeping) -> Result:
        async for answer in answers:
            match answer:
                case Output():
                    await log.feed(answer.chunk, now_us())
                case Phase():
                    self._step(JobState(answer.phase))
                case Sampled():
                    self.usage = answer
                    self._ports.changes.tell(key_of(self.job))
                case FlowSeen():
                    self._ports.flows.note(self.job.tenant_id, self.job.id, self.job.attempt, answer.flow)
                case FilePiece():
                    await files.piece(answer.path, answer.offset, answer.data)
                case FileEnded():
                    await self._check_held()
                    await files.ended(answer.path, answer.size_bytes, answer.digest)
                case Ended():
                    self._step(JobState.CLEANED)
                    return files.told(answer.result)
                case Refused():
                    raise error_of(answer)
                case _:
                    raise NodeLost("the node answered something else")
        raise NodeLost("the node did not answer")

    async def _check_held(self) -> None:
        """Before a file is there for others: whoever has lost the lease leaves none. Raises NodeLost."""
        while True:
            try:
                if await self._ports.queue.holds(self.token):
                    return
                raise NodeLost("the lease is somebody else's now")
            except RecordsUnavailable as error:
                if error.problem == "closed":
                    raise
                await asyncio.sleep(limits.CLAIM_PAUSE_S)

    # Steps ----------------------------------------------------------------------------------------

    def _step(self, state: JobState) -> None:
        """Note how far it is: soon, or with the end if that comes sooner."""
        at_us = now_us()
        if state is JobState.RUNNING:
            self._ports.on_begin(self.job, at_us)
        self._steps.append(Transition(state=state, at_us=at_us, attempt=self.job.attempt))
        if self._noting is None and state is not JobState.CLEANED:
            self._noting = asyncio.get_running_loop().call_later(limits.STEP_NOTED_S, self._note_steps)

    def _note_steps(self) -> None:
        self._noting = None
        self._noted = asyncio.get_running_loop().create_task(self._write_steps(self._noted))

    async def _write_steps(self, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait([before])
        while self._steps and self._steps[0].state is not JobState.CLEANED:
            step = self._steps.pop(0)
            try:
                is_held = await self._ports.queue.note(
                    self.token, step.state, step.detail, at_us=step.at_us, beside=self._ports.beside
                )
                if not is_held:
                    self.abandon()
            except RecordsUnavailable:
                self._steps.insert(0, step)
                return
        self._ports.changes.tell(key_of(self.job))

    def _stop_timers(self) -> None:
        for timer in (self._noting, self._forced):
            if timer is not None:
                timer.cancel()

    # Its end --------------------------------------------------------------------------------------

    def _denied(self, result: Result) -> Result:
        if not self._why or result.reason is not Reason.CANCELLED:
            return result
        return msgspec.structs.replace(
            result, reason=Reason.DENIED, events=(*result.events, Event(kind="denied", detail=self._why))
        )

    async def _conclude(self, result: Result) -> None:
        if self._noted is not None:
            await asyncio.wait([self._noted])
        ending = self._ending(result)

        def beside(records: Records, job: Job) -> None:
            self._ports.meter.note(records, self.job, result)
            for step in ending.steps:
                if step.state is JobState.RUNNING:
                    self._ports.beside(records, msgspec.structs.replace(self.job, state=step.state))
            self._ports.beside(records, job)

        if await self._recorded(ending, beside):
            self._ports.on_end(self.job, ending, result)
        self._ports.changes.tell(key_of(self.job))

    async def _recorded(self, ending: Ending, beside: Beside) -> bool:
        """Try until it is recorded, or the lease is lost: then it was not, and somebody else has the job."""
        while True:
            try:
                is_recorded = await self._ports.queue.end(self.token, ending, beside=beside)
            except RecordsUnavailable as error:
                _LOG.warning("the end of an attempt cannot be recorded: %s", error, extra={"job": self.job.id})
                if error.problem == "closed":
                    return False
                await asyncio.sleep(limits.CLAIM_PAUSE_S)
            else:
                return is_recorded

    def _ending(self, result: Result) -> Ending:
        job = self.job
        state, delay_s = after_attempt(job.spec, job.attempt, job.lost, result.status, result.reason)
        if self._is_given_back and result.reason is Reason.LOST:
            state, delay_s = JobState.QUEUED, 0.0
        return Ending(
            state=state,
            status=result.status,
            reason=result.reason,
            exit_code=result.exit_code,
            result=msgspec.json.encode(result_document(_brief(result), saved={})),
            due_us=now_us() + int(delay_s * SECOND_US) if state is JobState.QUEUED else 0,
            detail=_detail(result, state, delay_s),
            steps=tuple(self._steps),
        )


def _detail(result: Result, state: JobState, delay_s: float) -> str:
    how = f"exit code {result.exit_code}" if result.reason is Reason.EXIT else str(result.reason)
    return f"{how}; again in {delay_s:g} s" if state is JobState.QUEUED else how


def _brief(result: Result) -> Result:
    """With the beginning and the end of what was printed: the log has the rest."""
    return msgspec.structs.replace(result, stdout=_ends_of(result.stdout), stderr=_ends_of(result.stderr))


def _ends_of(stream: Stream) -> Stream:
    most = limits.KEPT_STREAM_BYTES
    kept = stream.head + stream.tail
    if len(kept) <= 2 * most:
        return stream
    return Stream(head=kept[:most], tail=kept[-most:], truncated_bytes=stream.truncated_bytes + len(kept) - 2 * most)


def _refused(reason: Reason, error: CasemateError) -> Result:
    return ended_by_us(reason, "it was refused", GuestError(type=error.code, message=error.message))


def _with_values(network: NetworkPolicy, secrets: Any) -> NetworkPolicy:  # noqa: ANN401 - a mapping of texts
    inject = tuple(msgspec.structs.replace(each, value=secrets[each.secret]) for each in network.inject)
    return msgspec.structs.replace(network, inject=inject)


async def _pieces(data: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """At least one, of which none is too large for one question."""
    is_empty = True
    async for found in data:
        for at in range(0, len(found), limits.STAGED_PIECE_BYTES):
            is_empty = False
            yield found[at : at + limits.STAGED_PIECE_BYTES]
    if is_empty:
        yield b""


async def _last(bus: Bus, question: Question) -> Answer:
    """The last answer. Raises what the node refuses it with."""
    found: Answer | None = None
    async with aclosing(bus.call(question)) as answers:
        async for answer in answers:
            found = answer
    if isinstance(found, Refused):
        raise error_of(found)
    if found is None:
        raise NodeLost("the node did not answer")
    return found

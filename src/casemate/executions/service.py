"""Executions of code: accepted, given their turn, carried out by a node, and recorded, whoever waits for them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from contextlib import aclosing, suppress
from typing import Any, Final

import msgspec

from casemate import service_limits as limits
from casemate.cluster.bus import Bus
from casemate.cluster.messages import (
    Answer,
    Answered,
    Ask,
    Cancel,
    CheckSyntax,
    Ended,
    Output,
    Question,
    Refused,
    RunCode,
    Started,
)
from casemate.cluster.refusals import error_of
from casemate.errors import CasemateError, InternalError, InvalidInput, NodeLost, NodeUnavailable, ServiceUnavailable
from casemate.executions.book import Book, Caller, ended_by_us
from casemate.executions.live import Live
from casemate.executions.request import (
    ExecutionRequest,
    check_code_size,
    check_maximum,
    engine_options,
)
from casemate.model.document import result_document
from casemate.model.labels import check_labels
from casemate.model.result import Event, GuestError, JsonValue, Reason, Result
from casemate.queue.fairness import Bounds
from casemate.queue.gate import Gate
from casemate.queue.shares import Shares
from casemate.store.executions import Execution

CODE: Final = "code"
SHUT_DOWN: Final = "the service was shut down"
_LOG: Final = logging.getLogger(__name__)


class Running(Live):
    """An execution that this process carries out."""

    def __init__(self, row: Execution, bounds: Bounds, request_bytes: int) -> None:
        super().__init__(row.id, row.tenant_id)
        self.request_bytes = request_bytes
        self.row = row
        self.bounds = bounds
        self.is_asked = False
        self.document: bytes | None = None
        self.refusal: CasemateError | None = None
        self.task: asyncio.Task[None] | None = None

    def size_bytes(self) -> int:
        """What it takes in memory once it has ended: its document, and about as much again as values."""
        return 2 * len(self.document or b"") + limits.ENDED_OVERHEAD_BYTES


class Executions:
    """Carries out executions. `close` it: what still runs when that gives up waiting ends as `lost`."""

    def __init__(
        self,
        book: Book,
        bus: Bus,
        gate: Gate,
        *,
        maximum: dict[str, Any] | None = None,
        on_end: Callable[[Execution], None] = lambda _: None,
    ) -> None:
        self.book = book
        self.bus = bus
        self.gate = gate
        self._maximum = maximum or {}
        self._on_end = on_end
        self._running: dict[str, Running] = {}
        self._held = Shares(
            limits.REQUESTS_HELD_MAX_BYTES, limits.REQUESTS_HELD_A_TENANT_MAX_BYTES, "bytes of executions"
        )
        self._ended: dict[str, int] = {}
        self._ended_bytes = 0
        self._tasks: set[asyncio.Task[object]] = set()
        self._is_open = True

    # For those who ask --------------------------------------------------------------------------

    async def accept(self, caller: Caller, request: ExecutionRequest, request_id: str) -> Running:
        """Record an execution and begin to carry it out. Raises InvalidInput, TooManyRequests, ServiceUnavailable."""
        self.check_open()
        check_code_size(request.code)
        check_labels(request.labels)
        check_maximum(request.limits, self._maximum)
        self.gate.check(caller.tenant_id, request.priority, bounds_of(caller))
        size = size_of(request)
        self._held.take(caller.tenant_id, size)
        try:
            row = await self._accepted(caller, request, request_id)
        except BaseException:
            self._held.give_back(caller.tenant_id, size)
            raise
        return self._begin(Running(row, bounds_of(caller), size), request)

    async def _accepted(self, caller: Caller, request: ExecutionRequest, request_id: str) -> Execution:
        row = await self.book.accept(
            caller,
            kind=CODE,
            runtime=request.runtime,
            priority=request.priority,
            labels=request.labels,
            request_id=request_id,
            spec=stored_spec(request),
        )
        if not self._is_open:  # closed meanwhile: nobody would wait for its end
            await self.book.ended(row, ended_by_us(Reason.LOST, SHUT_DOWN))
            self.check_open()
        return row

    def running(self, tenant_id: str, identity: str) -> Running | None:
        """One that goes on, or has just ended."""
        found = self._running.get(identity)
        return found if found is not None and found.tenant == tenant_id else None

    async def cancel(self, running: Running) -> Result:
        """End it, and wait for its Result. Idempotent."""
        if running.result is None and not running.is_cancelled:
            running.is_cancelled = True
            if running.is_asked:
                await self._hurry(running)
            elif running.task is not None:
                running.task.cancel()
        return await running.ended()

    async def end_all_of(self, tenant_id: str) -> None:
        """End whatever a tenant has running or waiting, that may not go on."""
        await asyncio.gather(*(self.cancel(each) for each in self._running.values() if each.tenant == tenant_id))

    async def deny_all_of(self, tenant_id: str, why: str) -> None:
        """The same, where it may not go on for a reason that its Results are to have."""
        for each in self._running.values():
            if each.tenant == tenant_id and each.result is None:
                each.denied = why
        await self.end_all_of(tenant_id)

    def running_since(self) -> Iterator[tuple[str, int]]:
        """The tenant of each that runs, and since when, in microseconds since 1970."""
        for each in self._running.values():
            if each.result is None and each.row.started_us is not None:
                yield each.tenant, each.row.started_us

    def leave(self, running: Running) -> None:
        """Whoever followed it has gone; if nobody comes back in time, it is cancelled."""
        loop = asyncio.get_running_loop()
        loop.call_later(limits.FOLLOWER_GRACE_S, lambda: self._cancel_unfollowed(running))

    def _cancel_unfollowed(self, running: Running) -> None:
        if running.result is None and not running.followers:
            self._spawn(self.cancel(running))

    def _spawn(self, work: Coroutine[Any, Any, object]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def check_open(self) -> None:
        """Raise ServiceUnavailable while shutting down."""
        if not self._is_open:
            raise ServiceUnavailable("the service is shutting down", hint="ask again in a moment")

    async def close(self, drain_s: float) -> None:
        """Take nothing more, let what runs end within `drain_s`, and end the rest as lost. Idempotent."""
        self._is_open = False
        tasks = [each.task for each in self._running.values() if each.task is not None]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=drain_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    @property
    def in_progress(self) -> int:
        """How many have not ended."""
        return sum(each.result is None for each in self._running.values())

    # Carrying out -------------------------------------------------------------------------------

    def _begin(self, running: Running, request: ExecutionRequest) -> Running:
        self._running[running.id] = running
        running.task = asyncio.create_task(self._carry_out(running, request), name=running.id)
        running.task.add_done_callback(lambda _: self._held.give_back(running.tenant, running.request_bytes))
        return running

    async def _carry_out(self, running: Running, request: ExecutionRequest) -> None:
        try:
            result = await self._result(running, request)
        except asyncio.CancelledError:
            reason = Reason.CANCELLED if running.is_cancelled else Reason.LOST
            ended = ended_by_us(reason, "it had not begun" if running.is_cancelled else SHUT_DOWN)
            result = with_output(running, ended)
        except Exception:  # noqa: BLE001  (whatever it is: what was accepted has an end, and whoever waits hears of it)
            _LOG.exception("an execution went wrong")
            running.refusal = InternalError("something went wrong here", hint="the log names it by the request id")
            result = with_output(running, ended_by_us(Reason.INTERNAL, "a mistake of ours"))
        await asyncio.shield(self._conclude(running, result))

    async def _conclude(self, running: Running, result: Result) -> None:
        """Record the end before anybody hears of it; one that cannot be recorded is told nonetheless."""
        result = denied(result, running.denied)
        running.document = msgspec.json.encode(result_document(result))
        try:
            running.row = await self.book.ended(running.row, result)
            self.book.sampled(running.row, result)
        except CasemateError as error:
            running.refusal = running.refusal or error
        self._on_end(running.row)
        running.end(result)
        self._keep(running)

    def _keep(self, running: Running) -> None:
        """For those who come back to follow it; the records have it anyway, so what ended first makes room."""
        self._ended[running.id] = size = running.size_bytes()
        self._ended_bytes += size
        asyncio.get_running_loop().call_later(limits.ENDED_KEPT_S, self._drop, running.id)
        while self._ended_bytes > limits.ENDED_KEPT_MAX_BYTES:
            self._drop(next(iter(self._ended)))

    def _drop(self, identity: str) -> None:
        self._ended_bytes -= self._ended.pop(identity, 0)
        self._running.pop(identity, None)

    async def _result(self, running: Running, request: ExecutionRequest) -> Result:
        try:
            async with self.gate.turn(running.tenant, request.priority, bounds=running.bounds):
                return await self._asked(running, question_of(running, request, self._maximum))
        except NodeLost as error:
            return with_output(running, ended_by_us(Reason.LOST, error.message))
        except CasemateError as error:
            running.refusal = error
            reason = Reason.VALIDATION if isinstance(error, InvalidInput) else Reason.INTERNAL
            return ended_by_us(reason, "it was refused", GuestError(type=error.code, message=error.message))

    async def _asked(self, running: Running, question: RunCode) -> Result:
        async with aclosing(answers(self.bus, question)) as found:
            async for answer in found:
                if not running.is_asked:
                    running.is_asked = True
                    running.row = self.book.started(running.row)
                match answer:
                    case Started():
                        running.start()
                    case Output():
                        running.feed(answer.chunk)
                    case Ended():
                        return answer.result
                    case Refused():
                        raise error_of(answer)
                    case _:
                        raise NodeLost("the node answered something else")
        raise NodeLost("the node did not answer")

    async def _hurry(self, running: Running) -> None:
        """Ask the node for the end; one that does not give it is given up."""
        with suppress(CasemateError):
            async for _ in self.bus.call(Cancel(id=running.id)):
                pass
        with suppress(TimeoutError):
            async with asyncio.timeout(limits.CANCEL_TIMEOUT_S):
                await running.ended()
        if running.result is None and running.task is not None:
            running.task.cancel()


async def answers(bus: Bus, question: Question) -> AsyncGenerator[Answer, None]:
    """What a node answers; while it is being started again, it is waited for."""
    deadline_s = asyncio.get_running_loop().time() + limits.NODE_WAIT_MAX_S
    while True:
        try:
            async with aclosing(bus.call(question)) as found:
                async for answer in found:
                    yield answer
        except NodeUnavailable:
            left_s = deadline_s - asyncio.get_running_loop().time()
            if left_s <= 0:
                raise
            with suppress(TimeoutError):
                await asyncio.wait_for(bus.connected.wait(), left_s)
        else:
            return


async def answer_to(bus: Bus, question: CheckSyntax | Ask) -> JsonValue:
    """The one value that a node answers. Raises NodeLost, and what the node refuses it with."""
    async with aclosing(answers(bus, question)) as found:
        async for answer in found:
            if isinstance(answer, Answered):
                return answer.value
            if isinstance(answer, Refused):
                raise error_of(answer)
    raise NodeLost("the node did not answer")


def bounds_of(caller: Caller) -> Bounds:
    """What the tenant may have at once."""
    return Bounds(running_max=caller.concurrency_max, waiting_max=caller.queue_max)


def question_of(running: Running, request: ExecutionRequest, maximum: dict[str, Any]) -> RunCode:
    """What the node is asked."""
    return RunCode(
        id=running.id,
        tenant=running.tenant,
        request_id=running.row.request_id,
        runtime=request.runtime,
        code=request.code,
        options=engine_options(request),
        maximum=maximum,
        files=request.files,
        stdin=request.stdin,
        live=request.live,
    )


def denied(result: Result, why: str) -> Result:
    """Of one that was ended because it might not go on, the Result that says so."""
    if not why or result.reason is not Reason.CANCELLED:
        return result
    return msgspec.structs.replace(
        result, reason=Reason.DENIED, events=(*result.events, Event(kind="denied", detail=why))
    )


def with_output(live: Live, result: Result) -> Result:
    """With what it had printed when the node was lost."""
    stdout, stderr = live.captured()
    return msgspec.structs.replace(result, stdout=stdout, stderr=stderr)


def size_of(request: ExecutionRequest) -> int:
    """What a request takes in memory, about."""
    found = msgspec.json.encode(msgspec.structs.replace(request, files={}, stdin=None))
    return len(found) + len(request.stdin or b"") + sum(len(data) for data in request.files.values())


def stored_spec(request: ExecutionRequest) -> bytes | None:
    """What was asked for, for whoever looks it up later: without files and stdin, and only if it is not large."""
    found = msgspec.json.encode(msgspec.structs.replace(request, files={}, stdin=None))
    return found if len(found) <= limits.SPEC_STORED_MAX_BYTES else None

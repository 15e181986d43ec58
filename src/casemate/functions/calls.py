"""Calls of functions: one item or many, each on its own, recorded as an execution, in the order of the request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, suppress
from typing import Any, Final

import msgspec

from casemate import service_limits as limits
from casemate.clock import now_us
from casemate.cluster.bus import Bus
from casemate.cluster.messages import Cancel, ItemEnded, ItemsEnded, Refused, RunItems
from casemate.cluster.refusals import error_of
from casemate.errors import CasemateError, InvalidInput, NodeLost
from casemate.executions.book import Book, Caller, ended_by_us
from casemate.executions.service import answers, bounds_of
from casemate.functions.normalise import NormaliseWarning, normalise
from casemate.functions.published import Callee
from casemate.functions.schema import Budget, Schema
from casemate.model.accounting import Spent, spent_by
from casemate.model.function import Item, ItemResult, Source
from casemate.model.result import GuestError, Isolation, Reason, Result, Status, Stream, Usage
from casemate.queue.gate import Gate
from casemate.store import logs
from casemate.store.database import Database
from casemate.store.executions import Execution
from casemate.store.logs import NewLine

FUNCTION: Final = "function"
BATCH: Final = "batch"
_SECOND_US: Final = 1_000_000


class Called(msgspec.Struct, frozen=True, kw_only=True):
    """One item that was called, or that was not because its data is not what the function takes."""

    result: ItemResult
    warnings: tuple[NormaliseWarning, ...] = ()


class Call(msgspec.Struct):
    """One call of a source with its items, under way. `row` is what its record says so far."""

    caller: Caller
    row: Execution
    source: Source
    total_s: float | None
    log_room: Room
    denied: str = ""


class Calls:
    """Calls functions for tenants."""

    def __init__(
        self,
        book: Book,
        bus: Bus,
        gate: Gate,
        *,
        maximum: dict[str, Any] | None = None,
        log: Callable[[list[NewLine]], object] = lambda _: None,
        on_end: Callable[[Execution], None] = lambda _: None,
    ) -> None:
        self._book = book
        self._bus = bus
        self._gate = gate
        self._maximum = maximum or {}
        self._asked: dict[str, Call] = {}
        self._log = log
        self._on_end = on_end
        self._calls: dict[str, Call] = {}
        self._is_idle = asyncio.Event()
        self._is_idle.set()

    async def drain(self, drain_s: float) -> None:
        """Until no call is under way, for `drain_s` at most. Whoever takes new ones refuses them meanwhile."""
        with suppress(TimeoutError):
            async with asyncio.timeout(drain_s):
                await self._is_idle.wait()

    async def end_all_of(self, tenant_id: str) -> None:
        """End whatever a tenant has called; items that have not ended are lost."""
        for identity in [each for each, call in self._asked.items() if call.caller.tenant_id == tenant_id]:
            with suppress(CasemateError):
                async for _ in self._bus.call(Cancel(id=identity)):
                    pass

    async def deny_all_of(self, tenant_id: str, why: str) -> None:
        """The same, where it may not go on for a reason that the items are to have."""
        for call in self._calls.values():
            if call.caller.tenant_id == tenant_id:
                call.denied = why
        await self.end_all_of(tenant_id)

    async def begin(
        self, caller: Caller, source: Source, *, kind: str, request_id: str, name: str = "", version: int | None = None
    ) -> Execution:
        """Record a call. Raises TooManyRequests, ServiceUnavailable."""
        self._gate.check(caller.tenant_id, limits.PRIORITY_DEFAULT, bounds_of(caller))
        return await self._book.accept(
            caller, kind=kind, runtime=source.runtime, request_id=request_id, function=name, version=version
        )

    async def results(
        self,
        caller: Caller,
        row: Execution,
        found: Callee,
        items: Sequence[Item],
        timeout_s: float | None = None,
        *,
        total_s: float | None = None,
    ) -> AsyncGenerator[Called, None]:
        """What becomes of each item, in their order, as soon as all before it are known. Its end is recorded.

        `timeout_s` is for each item, `total_s` for all together. Closing it early ends what still runs.
        """
        checking = Budget()
        prepared = [_prepared(found, item, checking) for item in items]
        call = Call(caller, row, with_timeout(found.source, timeout_s), total_s, Room(limits.LOG_A_CALL_MAX_BYTES))
        tally = Tally()
        checking = Budget()
        self._calls[row.id] = call
        self._is_idle.clear()
        try:
            async with aclosing(self._in_order(call, prepared)) as ended:
                async for called in ended:
                    checked = _checked_output(called, found.output_schema, checking)
                    tally.count(checked.result)
                    yield checked
        except BaseException as error:
            # Who goes away with the last answer in hand has waited for all of them.
            if isinstance(error, CasemateError) or tally.succeeded + tally.failed < len(prepared):
                tally.stopped(error)
            raise
        finally:
            try:
                await asyncio.shield(self._conclude(call, tally))
            finally:
                self._left(call)

    async def _in_order(self, call: Call, prepared: Sequence[Called | Prepared]) -> AsyncGenerator[Called, None]:
        """In runner calls of a bounded number of items, one after the other."""
        waiting: dict[int, ItemResult] = {}
        waiting_bytes = 0
        called = [at for at, each in enumerate(prepared) if isinstance(each, Prepared)]
        at = 0
        for start in range(0, max(1, len(called)), limits.RUNNER_ITEMS_MAX):
            part = called[start : start + limits.RUNNER_ITEMS_MAX]
            items = tuple(prepared[position].item for position in part)  # type: ignore[union-attr]
            async with aclosing(self._run(call, items, start)) as ended:
                async for index, result in ended:
                    size = 0 if part[index] == at else _size(result.output)
                    if waiting_bytes + size > limits.BATCH_WAITING_MAX_BYTES:
                        result, size = unkept(result, limits.BATCH_WAITING_MAX_BYTES), 0  # noqa: PLW2901
                    waiting_bytes += size
                    waiting[part[index]] = result
                    while at < len(prepared) and (ready := _take(prepared[at], waiting, at)) is not None:
                        yield ready
                        at += 1
                    waiting_bytes = waiting_bytes if waiting else 0
        while at < len(prepared) and (ready := _take(prepared[at], waiting, at)) is not None:
            yield ready
            at += 1

    async def _run(
        self, call: Call, items: tuple[Item, ...], start: int
    ) -> AsyncGenerator[tuple[int, ItemResult], None]:
        """One call of a runner. Items that nothing is known of when it ends are lost, and every other is as it was."""
        missing = dict(enumerate(items))
        question = RunItems(
            id=f"{call.row.id}.{start}",
            tenant=call.caller.tenant_id,
            request_id=call.row.request_id,
            source=call.source,
            items=items,
            maximum=self._maximum,
            timeout_s=call.total_s,
        )
        if items:
            with suppress(NodeLost):
                async with self._gate.turn(call.caller.tenant_id, bounds=bounds_of(call.caller)):
                    if call.denied:
                        raise NodeLost(call.denied)
                    if start == 0:
                        call.row = self._book.started(call.row)
                    async with aclosing(self._ended(call, question)) as ended:
                        async for index, result in ended:
                            self._note(call.row, result, call.log_room)
                            del missing[index]
                            yield index, result
        for index, item in missing.items():
            yield index, denied(item, call.denied) if call.denied else lost(item)

    async def _ended(self, call: Call, question: RunItems) -> AsyncGenerator[tuple[int, ItemResult], None]:
        self._asked[question.id] = call
        try:
            async for each in self._answered(question):
                yield each
        finally:
            del self._asked[question.id]

    async def _answered(self, question: RunItems) -> AsyncGenerator[tuple[int, ItemResult], None]:
        async with aclosing(answers(self._bus, question)) as found:
            async for answer in found:
                match answer:
                    case ItemEnded():
                        yield answer.index, answer.result
                    case Refused():
                        raise error_of(answer)
                    case ItemsEnded():
                        return

    def _note(self, row: Execution, result: ItemResult, room: Room) -> None:
        """Keep what it printed, as far as there is room for that of one call."""
        lines = [
            NewLine(
                tenant_id=row.tenant_id,
                runtime=row.runtime,
                function=row.function,
                version=row.version,
                execution_id=row.id,
                item_id=result.id[: limits.LABEL_MAX_CHARS],
                stream=stream,
                text=text,
                at_us=now_us(),
            )
            for stream, text in (("stdout", result.stdout), ("stderr", result.stderr))
            if text
        ]
        lines = [line for line in lines if room.takes(len(line.text)) and self._book.has_room(row, len(line.text))]
        if lines:
            self._log(lines)

    def _left(self, call: Call) -> None:
        del self._calls[call.row.id]
        if not self._calls:
            self._is_idle.set()

    async def _conclude(self, call: Call, tally: Tally) -> None:
        began_us = call.row.started_us if call.row.started_us is not None else now_us()
        result = tally.as_result(max(0, now_us() - began_us) / _SECOND_US)
        if call.denied and not result.ok:
            result = msgspec.structs.replace(result, reason=Reason.DENIED)
        self._on_end(await self._book.ended(call.row, result, spent=tally.spent))


def log_to(database: Database) -> Callable[[list[NewLine]], object]:
    """Keeps what functions print; nobody waits for that to be written."""
    return lambda lines: database.post(lambda records: logs.insert_lines(records, lines), is_spare=True)


class Prepared(msgspec.Struct, frozen=True):
    """An item that is to be called."""

    item: Item
    warnings: tuple[NormaliseWarning, ...] = ()


def _prepared(found: Callee, item: Item, checking: Budget) -> Called | Prepared:
    """The item as the function gets it, or why it does not."""
    warnings: tuple[NormaliseWarning, ...] = ()
    if found.normalise:
        normalised = normalise(item.data)
        if normalised.error:
            return Called(result=_refused(item, "EmptyEnvelope", normalised.error))
        item, warnings = msgspec.structs.replace(item, data=normalised.data), normalised.warnings
    if found.input_schema is not None:
        try:
            found.input_schema.check(item.data, field="data", budget=checking)
        except InvalidInput as error:
            return Called(result=_refused(item, "InvalidInput", error.message), warnings=warnings)
    return Prepared(item, warnings)


def _refused(item: Item, kind: str, message: str) -> ItemResult:
    error = GuestError(type=kind, message=message)
    return ItemResult(id=item.id, success=False, reason=Reason.VALIDATION, error=error)


def _take(each: Called | Prepared, waiting: dict[int, ItemResult], at: int) -> Called | None:
    """The next in order, if it is known."""
    if isinstance(each, Called):
        return each
    result = waiting.pop(at, None)
    return None if result is None else Called(result=result, warnings=each.warnings)


def _checked_output(called: Called, schema: Schema | None, checking: Budget) -> Called:
    if schema is None or not called.result.success:
        return called
    try:
        schema.check(called.result.output, field="output", budget=checking)
    except InvalidInput as error:
        problem = GuestError(type="InvalidOutput", message=error.message)
        failed = msgspec.structs.replace(
            called.result, success=False, reason=Reason.VALIDATION, output=None, error=problem
        )
        return msgspec.structs.replace(called, result=failed)
    return called


def lost(item: Item) -> ItemResult:
    """Of an item that nothing is known of."""
    error = GuestError(type="Lost", message="the node ended before the item had")
    return ItemResult(id=item.id, success=False, reason=Reason.LOST, error=error)


def denied(item: Item, why: str) -> ItemResult:
    """Of an item whose call might not go on."""
    return ItemResult(id=item.id, success=False, reason=Reason.DENIED, error=GuestError(type="Denied", message=why))


def unkept(result: ItemResult, most_bytes: int) -> ItemResult:
    """Of an item whose output is more than is kept of a batch until it can be told."""
    message = f"the outputs of the batch are over {most_bytes} bytes together"
    error = GuestError(type="TooLarge", message=message)
    return msgspec.structs.replace(result, success=False, reason=Reason.OUTPUT, output=None, error=error)


async def all_results(calls: AsyncGenerator[Called, None], room: Room | None = None) -> list[ItemResult]:
    """What became of every item of a call, in their order, as far as there is room for their outputs."""
    room = room or Room()
    async with aclosing(calls):
        return [room.fitted(called.result) async for called in calls]


class Room:
    """Bytes that several things may take together."""

    def __init__(self, most_bytes: int = limits.BATCH_REPLY_MAX_BYTES) -> None:
        self._most_bytes = self._left_bytes = most_bytes

    def fitted(self, result: ItemResult) -> ItemResult:
        """The result, or an error in its place."""
        return result if self.takes(_size(result.output)) else unkept(result, self._most_bytes)

    def takes(self, size: int) -> bool:
        """Whether there is room for so much, which is then taken."""
        if size > self._left_bytes:
            return False
        self._left_bytes -= size
        return True


def with_timeout(source: Source, timeout_s: float | None) -> Source:
    """The source with another time limit for each item."""
    if timeout_s is None:
        return source
    return msgspec.structs.replace(source, limits={**source.limits, "timeout": timeout_s})


class Tally:
    """What the record says of a call: of one item what it said itself, of many how many failed."""

    def __init__(self) -> None:
        self.succeeded = 0
        self.failed = 0
        self._only: ItemResult | None = None
        self._usage = Usage()
        self.spent = Spent()
        self._stopped: BaseException | None = None

    def count(self, result: ItemResult) -> None:
        """One more has ended."""
        self._only = result if not (self.succeeded or self.failed) else None
        self.succeeded += result.success
        self.failed += not result.success
        self._usage = _sum(self._usage, result.usage)
        self.spent += spent_by(result.usage)

    def stopped(self, error: BaseException) -> None:
        """It did not come to its end."""
        self._stopped = error

    def as_result(self, wall_s: float) -> Result:
        """As the record keeps it; `wall_s` is what many items took that ran beside each other."""
        if isinstance(self._stopped, CasemateError):
            problem = GuestError(type=self._stopped.code, message=self._stopped.message)
            reason = Reason.VALIDATION if isinstance(self._stopped, InvalidInput) else Reason.INTERNAL
            return ended_by_us(reason, "it was refused", problem)
        if self._stopped is not None:
            return ended_by_us(Reason.CANCELLED, "the client did not wait for it")
        first = self._only
        small = first is not None and _size(first.output) <= limits.ITEM_OUTPUT_STORED_MAX_BYTES
        return Result(
            status=Status.FAILED if self.failed else Status.SUCCEEDED,
            reason=Reason.EXIT if first is None else first.reason,
            output=(first.output if small else None) if first is not None else self._counts(),
            stdout=Stream(head=(first.stdout if first else "").encode()),
            stderr=Stream(head=(first.stderr if first else "").encode()),
            error=first.error if first else None,
            usage=self._usage if first else msgspec.structs.replace(self._usage, wall_s=wall_s),
            isolation=Isolation(backend="", layers=()),
        )

    def _counts(self) -> dict[str, int]:
        return {"succeeded": self.succeeded, "failed": self.failed}


def _size(output: Any) -> int:  # noqa: ANN401 - a JSON value
    return len(msgspec.json.encode(output))


def _sum(one: Usage, other: Usage) -> Usage:
    """Times add up; of peaks the higher one counts."""
    peaks = [each for each in (one.memory_peak_bytes, other.memory_peak_bytes) if each is not None]
    return Usage(
        wall_s=one.wall_s + other.wall_s,
        cpu_user_s=one.cpu_user_s + other.cpu_user_s,
        cpu_system_s=one.cpu_system_s + other.cpu_system_s,
        memory_peak_bytes=max(peaks, default=None),
    )

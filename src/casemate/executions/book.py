"""The records of executions: each is accepted before anything of it runs, and ends once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Final, Protocol

import msgspec

from casemate import service_limits as limits
from casemate.clock import now_us
from casemate.errors import RecordsUnavailable
from casemate.executions.statistics import ExecutionRecord, error_category
from casemate.model.accounting import Spent, spent_by
from casemate.model.document import result_document
from casemate.model.ids import new_id
from casemate.model.result import Event, GuestError, Isolation, JsonValue, Reason, Result, Status, Stream, Usage
from casemate.model.units import SECOND_US
from casemate.store import executions as rows
from casemate.store import idempotency
from casemate.store.database import Database, Records
from casemate.store.executions import Ending, Execution
from casemate.store.samples import Sample, insert_samples
from casemate.tenancy import usage as metering
from casemate.tenancy.usage import Meter

IDEMPOTENCY_KEY: Final[ContextVar[str]] = ContextVar("idempotency_key", default="")
"""Of the request that is being answered, if it has one: what is accepted for it is noted there at once."""

NO_LABELS: Final[Mapping[str, str]] = {}


class Caller(Protocol):
    """Who asks, as far as executions care."""

    @property
    def tenant_id(self) -> str: ...
    @property
    def key_id(self) -> str: ...
    @property
    def concurrency_max(self) -> int: ...
    @property
    def queue_max(self) -> int: ...


class Changes:
    """Wakes those who watch the executions of a tenant. It costs nothing while nobody does."""

    def __init__(self) -> None:
        self._watchers: dict[str, set[asyncio.Event]] = {}

    def tell(self, tenant_id: str) -> None:
        """One was accepted, has begun or has ended."""
        for each in self._watchers.get(tenant_id, ()):
            each.set()

    @property
    def watched(self) -> int:
        """How many tenants somebody watches."""
        return len(self._watchers)

    @contextmanager
    def watching(self, tenant_id: str) -> Iterator[asyncio.Event]:
        """An event that is set by each change; whoever waits for it clears it."""
        event = asyncio.Event()
        self._watchers.setdefault(tenant_id, set()).add(event)
        try:
            yield event
        finally:
            self._watchers[tenant_id].discard(event)
            if not self._watchers[tenant_id]:
                del self._watchers[tenant_id]


class Book:
    """Accepts and ends executions in the database. `epoch` is that of this process.

    What they use is counted by the meter, if there is one, as they end.
    """

    def __init__(
        self, database: Database, epoch: int, clock: Callable[[], int] = now_us, *, meter: Meter | None = None
    ) -> None:
        self.database = database
        self._meter = meter
        self.epoch = epoch
        self._clock = clock
        self.changes = Changes()
        self._begun: dict[str, tuple[int, asyncio.TimerHandle]] = {}
        self._noting: set[asyncio.Task[None]] = set()

    async def accept(
        self,
        caller: Caller,
        *,
        kind: str,
        runtime: str,
        request_id: str,
        function: str = "",
        version: int | None = None,
        priority: int = limits.PRIORITY_DEFAULT,
        labels: Mapping[str, str] = NO_LABELS,
        spec: bytes | None = None,
    ) -> Execution:
        """Record an execution. From here on it has an end, whatever happens.

        Raises BudgetExceeded where a hard budget of its tenant is used up.
        """
        row = Execution(
            id=new_id("exe"),
            tenant_id=caller.tenant_id,
            key_id=caller.key_id,
            kind=kind,
            runtime=runtime,
            function=function,
            version=version,
            priority=priority,
            labels=dict(labels),
            request_id=request_id,
            created_us=self._clock(),
            epoch=self.epoch,
            spec=spec,
        )
        key = IDEMPOTENCY_KEY.get()

        def insert(connection: Records) -> None:
            if self._meter is not None:
                self._meter.check_in(connection, row.tenant_id)
            rows.insert_execution(connection, row)
            if key:
                idempotency.note_execution(connection, row.tenant_id, key, row.id)

        try:
            await self.database.write(insert)
        except asyncio.CancelledError:
            self._end_unwanted(row)
            raise
        self.changes.tell(row.tenant_id)
        return row

    def _end_unwanted(self, row: Execution) -> None:
        """The write is carried out although nobody waits for it any more, and this one stands behind it in the line."""
        result = ended_by_us(Reason.CANCELLED, "whoever asked for it had gone before it was accepted")
        ending = ending_of(result, self._clock(), stored_result(result))
        self.database.post(lambda connection: rows.end(connection, row.tenant_id, row.id, ending))

    def started(self, row: Execution) -> Execution:
        """Note that it runs. Only of one that goes on for a moment is that written before its end."""
        at_us = self._clock()
        noting = asyncio.get_running_loop().call_later(limits.START_NOTED_S, self._note_start, row, at_us)
        self._begun[row.id] = at_us, noting
        return msgspec.structs.replace(row, state=rows.RUNNING, started_us=at_us)

    def _note_start(self, row: Execution, at_us: int) -> None:
        noting = asyncio.get_running_loop().create_task(self._noted_start(row, at_us))
        self._noting.add(noting)
        noting.add_done_callback(self._noting.discard)

    async def _noted_start(self, row: Execution, at_us: int) -> None:
        with suppress(RecordsUnavailable):  # nobody waits for it
            await self.database.write(lambda records: rows.start(records, row.tenant_id, row.id, at_us=at_us))
        self.changes.tell(row.tenant_id)

    async def ended(self, row: Execution, result: Result, *, spent: Spent | None = None) -> Execution:
        """Record its end. `spent` is what it has used, where the Result does not say that of all its parts."""
        ending = ending_of(result, self._clock(), self._kept(row, result))
        started_us, noting = self._begun.pop(row.id, (row.started_us, None))
        if noting is not None:
            noting.cancel()
        used = spent_by(result.usage) if spent is None else spent
        has_run = started_us is not None and metering.counts(result, used)

        def end(connection: Records) -> None:
            is_first = rows.end(connection, row.tenant_id, row.id, ending, started_us=started_us)
            if is_first and has_run and self._meter is not None:
                self._meter.count(connection, _metered(row, ending, used))

        await self.database.write(end)
        self.changes.tell(row.tenant_id)
        return msgspec.structs.replace(row, state=rows.ENDED, started_us=started_us, **msgspec.structs.asdict(ending))

    def has_room(self, row: Execution, count: int) -> bool:
        """Whether its tenant may have so much more in the records, which then counts as there."""
        return self.database.stored.takes(row.tenant_id, count)

    def _kept(self, row: Execution, result: Result) -> bytes:
        """What is kept of the Result: without output and files where the tenant has no more room in the records."""
        document = stored_result(result)
        if self.database.stored.takes(row.tenant_id, len(document)):
            return document
        event = Event(kind="service", detail="its output is not kept: the tenant has as much in the records as it may")
        bare = msgspec.structs.replace(
            result, output=None, stdout=Stream(), stderr=Stream(), error=None, events=(*result.events[-1:], event)
        )
        return msgspec.json.encode(result_document(bare, saved={}))

    def sampled(self, row: Execution, result: Result) -> None:
        """Keep what its worker held when it had ended, if it had one; nobody waits for that to be written."""
        found = result.worker
        if found is None:
            return
        sample = Sample(
            worker_id=found.worker,
            at_us=found.at_us,
            runtime=row.runtime,
            tenant_id=row.tenant_id,
            execution_id=row.id,
            heap_used_bytes=found.heap_used_bytes,
            heap_total_bytes=found.heap_total_bytes,
            external_bytes=found.external_bytes,
            malloced_bytes=found.malloced_bytes,
            memory_bytes=found.resident_bytes,
        )
        self.database.post(lambda records: insert_samples(records, [sample]), is_spare=True)

    async def end_those_left_behind(self) -> int:
        """Give every execution of a service that has died its Result: nobody knows how it would have ended."""
        result = stored_result(ended_by_us(Reason.LOST, "the service ended before the execution had"))
        at_us = self._clock()
        lost = await self.database.write(
            lambda connection: rows.mark_lost(connection, epoch=self.epoch, at_us=at_us, result=result)
        )
        return len(lost)


def _metered(row: Execution, ending: Ending, spent: Spent) -> metering.Ended:
    return metering.Ended(
        tenant_id=row.tenant_id,
        key_id=row.key_id,
        kind=row.kind,
        labels=row.labels,
        ended_us=ending.ended_us,
        spent=spent,
        is_success=ending.status == Status.SUCCEEDED,
    )


def ended_by_us(reason: Reason, detail: str, error: GuestError | None = None) -> Result:
    """The Result of an execution of which nothing has come back."""
    return Result(
        status=Status.FAILED,
        reason=reason,
        error=error,
        isolation=Isolation(backend="", layers=()),
        events=(Event(kind="service", detail=detail),),
    )


def stored_result(result: Result) -> bytes:
    """The Result's document as it is kept: without the content of files where that would be too much."""
    document = msgspec.json.encode(result_document(result))
    if len(document) <= limits.RESULT_STORED_MAX_BYTES:
        return document
    return msgspec.json.encode(result_document(result, saved={}))


def ending_of(result: Result, at_us: int, stored: bytes) -> Ending:
    """What the record says of a Result."""
    return Ending(
        status=result.status,
        reason=result.reason,
        ended_us=at_us,
        error_category=category(result),
        result=stored,
        **measured(result.usage),
    )


def measured(usage: Usage) -> dict[str, JsonValue]:
    """Usage in the units of records."""
    return {
        "wall_us": round(usage.wall_s * SECOND_US),
        "cpu_us": round((usage.cpu_user_s + usage.cpu_system_s) * SECOND_US),
        "memory_peak_bytes": usage.memory_peak_bytes,
    }


def category(result: Result) -> str | None:
    """What kind of failure it was, in one word; None for a success."""
    error_type = result.error.type if result.error is not None else ""
    found = error_category(
        ExecutionRecord(status=result.status, reason=result.reason, started_us=0, wall_us=0, error_type=error_type)
    )
    return None if found is None else found.value

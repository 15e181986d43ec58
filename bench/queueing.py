"""Rows about the queue of jobs in the records: whole jobs a second, and whether many that wait are in the way."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from bench.rows import Row
from casemate.model.ids import new_id
from casemate.model.job import Job, JobSpec, JobState
from casemate.queue.leases import RecordsQueue, now_us
from casemate.queue.protocol import Ending
from casemate.store import tenants
from casemate.store.database import Database
from casemate.store.tenants import Tenant

GROUP: Final = "Queue of jobs"
WAITING_COUNT: Final = 100_000
QUEUE_MAX: Final = 10 * WAITING_COUNT
AT_ONCE: Final = 8
BATCH_COUNT: Final = 250
JOBS_MIN_PER_S: Final = 150.0
SLOWER_MAX: Final = 2.0
LEASE_S: Final = 30.0
SUCCESS: Final = Ending(
    state=JobState.SUCCEEDED, status="succeeded", reason="exit", exit_code=0, result=b"x" * 2000, detail="exit code 0"
)


class Desk:
    """A queue and a tenant in it."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.queue = RecordsQueue(database)
        self.tenant = Tenant(
            id=new_id("ten"), name="bench", state="active", concurrency_max=1000, queue_max=0, created_us=0
        )

    async def open(self) -> None:
        await self.database.write(partial(tenants.insert_tenant, tenant=self.tenant))

    async def submit(self) -> None:
        at_us = now_us()
        job = Job(
            id=new_id("job"),
            tenant_id=self.tenant.id,
            key_id="key",
            spec=JobSpec(argv=("true",), labels={"of": "bench"}),
            created_us=at_us,
            due_us=at_us,
        )
        await self.queue.submit(job, queue_max=QUEUE_MAX)

    async def fill(self, count: int) -> None:
        for _ in range(count // BATCH_COUNT):
            async with asyncio.TaskGroup() as group:
                for _ in range(BATCH_COUNT):
                    group.create_task(self.submit())

    async def claim(self) -> str:
        (lease,) = await self.queue.claim("bench", count=1, lease_s=LEASE_S)
        return lease.token

    async def whole(self) -> None:
        """One job, with every step that it can have."""
        await self.submit()
        token = await self.claim()
        await self.queue.note(token, JobState.RUNNING)
        await self.queue.note(token, JobState.COLLECTING)
        await self.queue.end(token, SUCCESS)


class Taken(msgspec.Struct, frozen=True):
    """Medians."""

    submit_s: float
    claim_s: float


def queueing(rounds: int, waiting_count: int) -> Iterator[Row]:
    """In a file of SQLite's."""
    with tempfile.TemporaryDirectory() as directory:
        yield from asyncio.run(_rows(Path(directory) / "records.sqlite", rounds, waiting_count))


async def _rows(place: Path, rounds: int, waiting_count: int) -> list[Row]:
    database = Database.open(place)
    try:
        desk = Desk(database)
        await desk.open()
        per_second = await _whole(desk, rounds)
        rows = [
            Row(group=GROUP, name=f"a job with all its steps, {AT_ONCE} at once", value=per_second, unit="/s"),
            Row(
                group=GROUP,
                name=f"{JOBS_MIN_PER_S:g} of them",
                value=JOBS_MIN_PER_S / per_second,
                unit="s",
                bound=1.0,
            ),
        ]
        empty = await _taken(desk, rounds)
        await desk.fill(waiting_count)
        full = await _taken(desk, rounds)
        return [*rows, *_compared(empty, full, waiting_count)]
    finally:
        await database.close()


async def _whole(desk: Desk, rounds: int) -> float:
    async def one_after_the_other() -> None:
        for _ in range(rounds):
            await desk.whole()

    started_s = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(one_after_the_other())
    return rounds * AT_ONCE / (time.perf_counter() - started_s)


async def _taken(desk: Desk, rounds: int) -> Taken:
    submits, claims = [], []
    for _ in range(rounds):
        submits.append(await _timed(desk.submit))
        started_s = time.perf_counter()
        token = await desk.claim()
        claims.append(time.perf_counter() - started_s)
        await desk.queue.end(token, SUCCESS)
    return Taken(statistics.median(submits), statistics.median(claims))


async def _timed(action: Callable[[], Awaitable[object]]) -> float:
    started_s = time.perf_counter()
    await action()
    return time.perf_counter() - started_s


def _compared(empty: Taken, full: Taken, waiting_count: int) -> Iterator[Row]:
    for name, few_s, many_s in (
        ("submit", empty.submit_s, full.submit_s),
        ("claim", empty.claim_s, full.claim_s),
    ):
        yield Row(group=GROUP, name=f"{name}, nothing waiting", value=few_s * 1e3, unit="ms")
        yield Row(group=GROUP, name=f"{name}, {waiting_count} waiting", value=many_s * 1e3, unit="ms")
        yield Row(
            group=GROUP, name=f"{name}, many waiting / none", value=many_s / few_s, unit="times", bound=SLOWER_MAX
        )

"""Rows about the queue of jobs in the records: whole jobs a second, and whether many that wait are in the way."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

from bench.measure import Times
from bench.rows import Row
from casemate.clock import now_us
from casemate.model.ids import new_id
from casemate.model.job import Job, JobSpec, JobState
from casemate.queue.leases import RecordsQueue
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
        self.token = ""
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

    async def claim(self) -> None:
        (lease,) = await self.queue.claim("bench", count=1, lease_s=LEASE_S)
        self.token = lease.token

    async def whole(self) -> None:
        """One job, with every step that it can have."""
        await self.submit()
        (lease,) = await self.queue.claim("bench", count=1, lease_s=LEASE_S)
        token = lease.token
        await self.queue.note(token, JobState.RUNNING)
        await self.queue.note(token, JobState.COLLECTING)
        await self.queue.end(token, SUCCESS)


@asynccontextmanager
async def opened(place: Path) -> AsyncIterator[Desk]:
    database = Database.open(place)
    try:
        desk = Desk(database)
        await desk.open()
        yield desk
    finally:
        await database.close()


def queueing(rounds: int, waiting_count: int) -> Iterator[Row]:
    """In files of SQLite's."""
    with tempfile.TemporaryDirectory() as directory:
        yield from asyncio.run(_rows(Path(directory), rounds, waiting_count))


async def _rows(directory: Path, rounds: int, waiting_count: int) -> list[Row]:
    async with opened(directory / "few.sqlite") as few, opened(directory / "many.sqlite") as many:
        per_second = await _whole(few, rounds)
        await many.fill(waiting_count)
        times = await _compared(few, many, rounds)
    name = f"a job with all its steps, {AT_ONCE} at once"
    needed_s = JOBS_MIN_PER_S / per_second
    return [
        Row(group=GROUP, name=name, value=per_second, unit="/s"),
        Row(group=GROUP, name=f"{JOBS_MIN_PER_S:g} of them", value=needed_s, unit="s", bound=1.0),
        *_told("submit", *times["submit"], waiting_count),
        *_told("claim", *times["claim"], waiting_count),
    ]


async def _whole(desk: Desk, rounds: int) -> float:
    async def one_after_the_other() -> None:
        for _ in range(rounds):
            await desk.whole()

    started_s = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(one_after_the_other())
    return rounds * AT_ONCE / (time.perf_counter() - started_s)


async def _compared(few: Desk, many: Desk, rounds: int) -> dict[str, tuple[Times, Times]]:
    """By turns, so that a slow moment of the machine hits both."""
    submits: tuple[list[float], list[float]] = ([], [])
    claims: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for index, desk in enumerate((few, many)):
            submits[index].append(await _timed(desk.submit))
            claims[index].append(await _timed(desk.claim))
            await desk.queue.end(desk.token, SUCCESS)
    return {"submit": _pair(submits), "claim": _pair(claims)}


def _pair(seconds: tuple[list[float], list[float]]) -> tuple[Times, Times]:
    few, many = seconds
    return Times(tuple(few)), Times(tuple(many))


async def _timed(action: Callable[[], Awaitable[object]]) -> float:
    started_s = time.perf_counter()
    await action()
    return time.perf_counter() - started_s


def _told(name: str, few: Times, many: Times, waiting_count: int) -> Iterator[Row]:
    yield Row(group=GROUP, name=f"{name}, nothing waiting", value=few.median_ms, unit="ms")
    yield Row(group=GROUP, name=f"{name}, {waiting_count} waiting", value=many.median_ms, unit="ms")
    ratio = many.ratio(few)
    yield Row(group=GROUP, name=f"{name}, many waiting / none", value=ratio, unit="times", bound=SLOWER_MAX)

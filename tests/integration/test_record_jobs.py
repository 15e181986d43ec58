"""Jobs as rows: that none of what is often asked looks at all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event
from tests.conformance.test_queue import SUCCESS, Desk
from tests.integration.records import opened

from casemate.model.job import JobState
from casemate.store import jobs
from casemate.store.database import Database
from casemate.store.jobs import Filters


@contextmanager
def explained(database: Database, engine: Engine) -> Iterator[list[str]]:
    """At the end: what SQLite does for each statement that was carried out meanwhile."""
    plans: list[str] = []
    statements: list[str] = []

    def listen(connection: Connection) -> None:
        driver: Any = connection.connection.driver_connection
        driver.set_trace_callback(statements.append)

    event.listen(engine, "begin", listen)
    try:
        yield plans
    finally:
        event.remove(engine, "begin", listen)
    wanted = [each for each in statements if each.startswith(("SELECT", "UPDATE", "DELETE"))]
    plans += database.read_now(lambda connection: [plan for each in wanted for plan in _plan(connection, each)])


def _plan(connection: Connection, statement: str) -> list[str]:
    driver: Any = connection.connection.driver_connection
    return [row[3] for row in driver.execute(f"EXPLAIN QUERY PLAN {statement}")]


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Database]:
    with opened(tmp_path / "records.db") as found:
        yield found


def looked_through(plans: list[str]) -> list[str]:
    """Steps that go through all rows of what may have very many: all but a partial index of few."""
    few = ("ix_jobs_token", "ix_jobs_dead", "ix_job_queues_ready", "ix_jobs_delayed")
    return [
        plan
        for plan in plans
        if plan.startswith("SCAN") and not plan.endswith("CONSTANT ROW") and not any(name in plan for name in few)
    ]


def test_a_jobs_way_never_looks_at_all_jobs(file: Database) -> None:
    async def scenario() -> None:
        desk = Desk(file)
        owner = await desk.tenant()
        await desk.submit(owner, due_s=5)
        job = await desk.submit(owner)
        (lease,) = await desk.claim()
        await desk.queue.renew([lease.token], lease_s=1)
        await desk.queue.note(lease.token, JobState.RUNNING)
        await desk.queue.end(lease.token, SUCCESS)
        await desk.queue.cancel(owner, job.id)
        await desk.queue.expire()
        desk.pass_s(5)
        assert await desk.claim()

    with explained(file, file._writing) as plans:
        asyncio.run(scenario())
    assert len(plans) > 20
    assert looked_through(plans) == []


def test_lists_and_counts_use_an_index(file: Database) -> None:
    with explained(file, file._reading) as plans:
        for owner in ("ten_x", None):
            for state in (None, JobState.DEAD, JobState.RUNNING):
                listing = partial(jobs.list_jobs, tenant_id=owner, filters=Filters(state=state))
                file.read_now(listing)
        file.read_now(partial(jobs.transitions, tenant_id="ten_x", job_id="x"))
        file.read_now(jobs.counts)
    through = [plan for plan in looked_through(plans) if "USING INDEX ix_jobs_created" not in plan]
    assert through == ["SCAN job_queues"], "one row a tenant"


def test_a_page_of_large_jobs_is_shorter(file: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "SPECS_A_PAGE_MAX_BYTES", 3000)

    async def scenario() -> None:
        desk = Desk(file)
        owner = await desk.tenant()
        wanted = [(await desk.submit(owner, stdin=bytes(900))).id for _ in range(5)]
        seen: list[str] = []
        cursor: str | None = None
        while True:
            page = await file.read(partial(jobs.list_jobs, tenant_id=owner, limit=4, cursor=cursor))
            assert 1 <= len(page.items) <= 2
            seen += [job.id for job in page.items]
            cursor = page.next_cursor
            if cursor is None:
                break
        assert seen == wanted[::-1]

    asyncio.run(scenario())

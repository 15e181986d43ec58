"""The queue after a power cut: the file and its log as they were at any moment, opened again."""

from __future__ import annotations

import asyncio
import random
import shutil
import signal
import sqlite3
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from sqlalchemy import Connection, select, text
from tests.conformance.test_queue import SUCCESS, Desk
from tests.conformance.test_queue_machine import everything
from tests.integration.records import opened

from casemate.job_limits import CLAIMS_MAX
from casemate.model.job import ENDED, JobState
from casemate.store.schema import job_transitions

if TYPE_CHECKING:
    from tests.postgres import Server

CUTS: Final = 25
SERVER_ENDS: Final = 3
SERVER_ENDS_AFTER: Final = 20
WORKERS: Final = 4
ATTEMPTED: Final = slice(128, 132)
PAGE_SIZE: Final = slice(8, 12)
LOG_HEADER_BYTES: Final = 32
FRAME_HEADER_BYTES: Final = 24
TENANT_CONCURRENCY: Final = CLAIMS_MAX


class Life:
    """A service that submits and carries out jobs until the power is cut, and what it was told was done."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.accepted: set[str] = set()
        self.ended: set[str] = set()
        self.is_over = False

    async def submit(self, tenant: str) -> None:
        while not self.is_over:
            self.accepted.add((await self.desk.submit(tenant, queue_max=10**6)).id)

    async def carry_out(self) -> None:
        while not self.is_over:
            for lease in await self.desk.claim(2):
                await self.desk.queue.note(lease.token, JobState.RUNNING)
                if await self.desk.queue.end(lease.token, SUCCESS):
                    self.ended.add(lease.job.id)

    async def live(self, tenant: str) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self.submit(tenant))
            for _ in range(WORKERS):
                group.create_task(self.carry_out())


class Cut(threading.Thread):
    """Copies file and log at random moments, as what a disk may hold, with what had been acknowledged before."""

    def __init__(self, path: Path, life: Life, into: Path) -> None:
        super().__init__()
        self.path, self.life, self.into = path, life, into
        self.known: list[tuple[Path, frozenset[str], frozenset[str]]] = []

    def run(self) -> None:
        chance = random.Random(1)
        for number in range(CUTS):
            seen = len(self.life.ended) + chance.randrange(1, 8)
            while len(self.life.ended) < seen:
                threading.Event().wait(0.0005)
            accepted, ended = frozenset(tuple(self.life.accepted)), frozenset(tuple(self.life.ended))
            copy = self.into / f"{number}.db"
            with reading(self.path):
                before = synced_bytes(self.path)  # one that was all copied may be begun anew, whoever reads
                shutil.copyfile(self.path, copy)
                shutil.copyfile(f"{self.path}-wal", f"{copy}-wal")
                synced = max(before, synced_bytes(self.path))
            self.known.append((copy, accepted, ended))
            self.known.append((torn(copy, chance, synced), frozenset(), frozenset()))
        self.life.is_over = True


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """While somebody reads, the log is not begun anew: so file and log belong together, whichever is copied first."""
    reader = sqlite3.connect(path)
    try:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM settings").fetchone()
        yield
    finally:
        reader.close()


def synced_bytes(path: Path) -> int:
    """How much of the log is on the disk for certain: what was copied from it, or may have been, came there first.

    See "WAL-Index File Format" in SQLite's documentation: nBackfillAttempted.
    """
    frames = int.from_bytes(Path(f"{path}-shm").read_bytes()[ATTEMPTED], sys.byteorder)
    page_bytes = int.from_bytes(Path(f"{path}-wal").read_bytes()[PAGE_SIZE], "big")
    return LOG_HEADER_BYTES + frames * (FRAME_HEADER_BYTES + page_bytes)


def torn(copy: Path, chance: random.Random, synced: int) -> Path:
    """The same where the end of the log was not on the disk yet: what was acknowledged last may be gone, but whole."""
    found = copy.with_name(f"torn-{copy.name}")
    shutil.copyfile(copy, found)
    log = Path(f"{copy}-wal").read_bytes()
    Path(f"{found}-wal").write_bytes(log[: chance.randrange(min(synced, len(log)), len(log) + 1)])
    return found


@pytest.mark.slow
def test_s2_71_no_job_is_lost_or_ended_twice_by_a_power_cut(tmp_path: Path) -> None:
    path = tmp_path / "records.db"
    with opened(path) as database:
        desk = Desk(database)
        life = Life(desk)
        tenant = asyncio.run(desk.tenant(concurrency_max=TENANT_CONCURRENCY))
        cut = Cut(path, life, tmp_path)
        cut.start()
        asyncio.run(life.live(tenant))
        cut.join()
    for copy, accepted, ended in cut.known:
        with opened(copy) as database:
            check_whole(database.read_now(integrity))
            asyncio.run(goes_on(Desk(database), tenant, accepted, ended))


def integrity(connection: Connection) -> list[str]:
    return [str(each) for each in connection.execute(text("PRAGMA integrity_check")).scalars()]


def check_whole(found: list[str]) -> None:
    assert found == ["ok"]


async def goes_on(desk: Desk, tenant: str, accepted: frozenset[str], ended: frozenset[str]) -> None:
    """What was acknowledged is there, and all that is not at its end comes to one."""
    found, _ = await desk.database.read(partial(everything, tenant_id=tenant))
    if not found:
        return  # cut off before the first
    assert accepted <= set(found)
    assert {name for name in ended if found[name].state is not JobState.SUCCEEDED} == set()
    desk.at_us = max(job.due_us for job in found.values())
    await desk.queue.expire(holder="one")
    desk.pass_s(60)
    while leases := await desk.claim(CLAIMS_MAX):
        for lease in leases:
            assert await desk.queue.end(lease.token, SUCCESS)
    found, counted = await desk.database.read(partial(everything, tenant_id=tenant))
    assert counted == (0, 0)
    assert {job.state for job in found.values()} == {JobState.SUCCEEDED}
    ends: dict[str, int] = await desk.database.read(ends_of)
    assert set(ends.values()) == {1}
    assert len(ends) == len(found)


def ends_of(connection: Connection) -> dict[str, Any]:
    """How often each job has come to an end."""
    found: dict[str, int] = {}
    states = {state.value for state in ENDED}
    for name, state in connection.execute(select(job_transitions.c.job_id, job_transitions.c.state)):
        found[name] = found.get(name, 0) + (state in states)
    return found


@pytest.mark.slow
def test_s2_71_no_job_is_lost_or_ended_twice_by_the_end_of_a_server(own_postgres: Server) -> None:
    place = own_postgres.new()
    tenant = ""
    for _ in range(SERVER_ENDS):
        with opened(place) as database:
            desk = Desk(database)
            tenant = tenant or asyncio.run(desk.tenant(concurrency_max=TENANT_CONCURRENCY))
            life = Life(desk)
            ending = threading.Thread(target=end_server, args=(own_postgres, life))
            ending.start()
            with suppress(ExceptionGroup):
                asyncio.run(life.live(tenant))
            ending.join()
        own_postgres.start()  # here, for it ends with the thread that has started it
        with opened(place) as database:
            asyncio.run(goes_on(Desk(database), tenant, frozenset(life.accepted), frozenset(life.ended)))


def end_server(server: Server, life: Life) -> None:
    """At once, as by SIGKILL, in the middle."""
    while len(life.ended) < SERVER_ENDS_AFTER:
        threading.Event().wait(0.0005)
    server.stop(signal.SIGQUIT)
    life.is_over = True

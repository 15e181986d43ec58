"""Logs of jobs over real records, and objects in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from tests.integration.records import with_tenant

from casemate.blobs.envelope import MasterKeys
from casemate.blobs.local import LocalBlobs
from casemate.jobs.log_attempt import AttemptLog
from casemate.jobs.log_keeper import LogKeeper
from casemate.jobs.log_rules import LogRules
from casemate.jobs.log_writer import LogWriter
from casemate.jobs.logs import Logs
from casemate.model.job import Job, JobSpec
from casemate.model.job_log import JobLine
from casemate.model.result import Chunk
from casemate.store.database import Database

NOW_US: Final = 1_700_000_000_000_000


class Bench:
    """Logs, with a tenant."""

    def __init__(self, path: Path, database: Database, writer: LogWriter, tenant: str) -> None:
        self.database = database
        self.writer = writer
        self.blobs = LocalBlobs(path / "objects", MasterKeys((b"k" * 32,)))
        self.logs = Logs(database, writer, self.blobs)
        self.tenant = tenant or with_tenant(database)

    async def move(self) -> int:
        """Move all logs that nobody writes."""
        return await self.keeper().move(before_us=2 * NOW_US)

    def keeper(self, rules: LogRules | None = None) -> LogKeeper:
        return LogKeeper(self.database, self.writer, self.blobs, self.logs, rules or LogRules())

    async def objects(self) -> list[str]:
        """What is in the tenant's objects."""
        return [blob.key.partition("/")[2] async for blob in self.blobs.list(f"{self.tenant}/")]

    def job(self, identity: str = "job_1", **spec: Any) -> Job:
        return Job(id=identity, tenant_id=self.tenant, key_id="key_1", spec=JobSpec(**({"argv": ("ls",)} | spec)))

    async def printed(self, text: str, identity: str = "job_1", *, stream: str = "stdout", **spec: Any) -> None:
        """A job that prints this and ends."""
        log = self.logs.open(self.job(identity, **spec), 1)
        await log.feed(Chunk(stream, text.encode(), 0), NOW_US)
        await log.close()

    async def all(self, identity: str = "job_1", seq: int = 0) -> list[JobLine]:
        return await self.logs.after(self.tenant, identity, seq, limit=1_000_000)


@asynccontextmanager
async def bench(
    path: Path,
    *,
    kept_max_bytes: int = 16 * 1024 * 1024,
    tenant: str = "",
    place: str | Path = "",
    on_mistake: Callable[[], None] = lambda: None,
) -> AsyncIterator[Bench]:
    database = Database.open(place or path / "records.db")
    try:
        async with LogWriter(database, kept_max_bytes=kept_max_bytes, on_mistake=on_mistake) as writer:
            yield Bench(path, database, writer, tenant)
    finally:
        await database.close()


class Printer:
    """One attempt of a job: prints bytes at the places where they belong."""

    def __init__(self, log: AttemptLog) -> None:
        self.log = log
        self.offsets = {"stdout": 0, "stderr": 0}

    async def __call__(self, data: bytes, stream: str = "stdout", at_us: int = NOW_US) -> None:
        await self.log.feed(Chunk(stream, data, self.offsets[stream]), at_us)
        self.offsets[stream] += len(data)


def printed_by(lines: list[JobLine], stream: str = "stdout") -> bytes:
    """What a stream was, from its lines."""
    return b"".join(line.data for line in lines if line.stream == stream)

"""Logs of jobs over real records, and objects in memory."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from tests.integration.records import with_tenant

from casemate.blobs.protocol import Blob
from casemate.errors import InvalidInput, NotFound
from casemate.jobs.log_attempt import AttemptLog
from casemate.jobs.log_writer import LogWriter
from casemate.jobs.logs import Logs
from casemate.model.job import Job, JobSpec
from casemate.model.job_log import JobLine
from casemate.model.result import Chunk
from casemate.store.database import Database

NOW_US: Final = 1_700_000_000_000_000


class MemoryBlobs:
    """Objects as bytes in a dictionary."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    async def put(self, key: str, data: AsyncIterator[bytes], *, size_max_bytes: int) -> Blob:
        found = b"".join([piece async for piece in data])
        if len(found) > size_max_bytes:
            raise InvalidInput("data", "is too large")
        self.objects[key] = found
        return self._blob(key)

    async def get(self, key: str, *, offset: int = 0) -> AsyncIterator[bytes]:
        if key not in self.objects:
            raise NotFound(f"there is no object {key!r}")
        data = self.objects[key][offset:]
        for at in range(0, len(data), 1000):
            yield data[at : at + 1000]

    async def list(self, prefix: str) -> AsyncIterator[Blob]:
        for key in sorted(self.objects):
            if key.startswith(prefix):
                yield self._blob(key)

    async def delete(self, key: str) -> bool:
        return self.objects.pop(key, None) is not None

    def _blob(self, key: str) -> Blob:
        data = self.objects[key]
        return Blob(key=key, size_bytes=len(data), digest=hashlib.sha256(data).hexdigest(), modified_us=0)


class Bench:
    """Logs, with a tenant."""

    def __init__(self, database: Database, writer: LogWriter) -> None:
        self.database = database
        self.writer = writer
        self.blobs = MemoryBlobs()
        self.logs = Logs(database, writer, self.blobs)
        self.tenant = with_tenant(database)

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
async def bench(path: Path, *, kept_max_bytes: int = 16 * 1024 * 1024) -> AsyncIterator[Bench]:
    database = Database.open(path / "records.db")
    try:
        async with LogWriter(database, kept_max_bytes=kept_max_bytes) as writer:
            yield Bench(database, writer)
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

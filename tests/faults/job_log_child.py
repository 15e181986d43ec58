"""A process that writes the log of a job and says which lines it has told, until somebody kills it."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from tests.integration.job_logs import Printer

from casemate.jobs.log_writer import LogWriter
from casemate.jobs.logs import Logs
from casemate.model.job import Job, JobSpec
from casemate.store.database import Database


async def main(path: Path, tenant: str, attempt: int) -> None:
    database = Database.open(path)
    async with LogWriter(database) as writer:
        logs = Logs(database, writer, None)  # type: ignore[arg-type]
        job = Job(id="job_1", tenant_id=tenant, key_id="key_1", spec=JobSpec(argv=("ls",)))
        prints = Printer(logs.open(job, attempt))

        async def printing() -> None:
            number = 0
            while True:
                await prints(f"{attempt}/{number}\n".encode())
                number += 1
                await asyncio.sleep(0)

        async def never() -> bool:
            return False

        task = asyncio.create_task(printing())
        async for lines in logs.follow(tenant, job.id, 0, never):
            sys.stdout.write("".join(f"{line.seq} {line.text}\n" for line in lines))
            sys.stdout.flush()
        await task


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))

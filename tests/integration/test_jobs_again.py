"""What is done once more, because something of ours was killed, costs the job nothing."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator

import msgspec
import pytest
from tests.integration.job_desk import Desk, Run, exits
from tests.integration.test_jobs import database, on_desk, once

from casemate.cluster.messages import Answer
from casemate.cluster.refusals import refused
from casemate.errors import Conflict, SandboxClosed
from casemate.jobs.ports import Input
from casemate.model.job import Job, JobFile, JobState, Retries

__all__ = ["database"]


@on_desk
async def test_s2_90_a_sandbox_that_is_killed_from_outside_is_lost_and_not_the_jobs_failure(desk: Desk) -> None:
    who = await desk.tenant()

    async def closed(run: Run) -> AsyncGenerator[Answer, None]:
        desk.program = exits
        yield refused(run.asked.id, SandboxClosed("the sandbox has ended"))

    desk.program = closed
    async with desk.serving() as jobs:
        job = await desk.submit(jobs, who, retries=Retries(backoff_s=0.01))
        ended = await jobs.ended(who.tenant_id, job.id)
    assert (ended.state, ended.attempt, ended.lost) == (JobState.SUCCEEDED, 2, 1)


@on_desk
async def test_s2_8_the_files_of_a_job_that_is_submitted_again_are_not_written_again(desk: Desk) -> None:
    who = await desk.tenant()
    brought: list[bytes | None] = []

    async def keep(job: Job) -> Job:
        file = job.spec.files[0]
        brought.append(file.content)
        if file.content is not None:
            digest = hashlib.sha256(file.content).hexdigest()
            file = msgspec.structs.replace(file, content=None, object=f"jobs/{job.id}/input/a", digest=digest)
        return msgspec.structs.replace(job, spec=msgspec.structs.replace(job.spec, files=(file,)))

    desk.keep = keep  # type: ignore[method-assign]
    async with desk.serving() as jobs:
        files = (JobFile(path="a", content=b"1"),)
        first = await desk.submit(jobs, who, job_id="mine", files=files)
        again = await desk.submit(jobs, who, job_id="mine", files=files)
        with pytest.raises(Conflict):
            await desk.submit(jobs, who, job_id="mine", files=(JobFile(path="a", content=b"2"),))
    assert again.id == first.id
    assert brought == [b"1", None]


@on_desk
async def test_s2_90_an_input_that_is_replaced_while_it_is_read_is_read_again(desk: Desk) -> None:
    who = await desk.tenant()
    reads: list[str] = []

    async def inputs(job: Job) -> AsyncGenerator[Input, None]:
        reads.append(job.id)
        if len(reads) == 1:
            raise Conflict("the object has been replaced meanwhile")
        yield Input(area="input", path="a", data=once(b"new"))

    desk.inputs = inputs  # type: ignore[method-assign]
    async with desk.serving() as jobs:
        job = await desk.submit(jobs, who, files=(JobFile(path="a", content=b"1"),))
        ended = await jobs.ended(who.tenant_id, job.id)
    assert (ended.state, ended.attempt, ended.lost) == (JobState.SUCCEEDED, 1, 0)
    assert len(desk.unstaged) == 1
    assert list(desk.staged.values()) == [b"new"]

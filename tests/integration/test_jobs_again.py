"""What is done once more, because something of ours was killed, costs the job nothing."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator
from functools import partial
from typing import Any

import msgspec
import pytest
from tests.integration.job_desk import Desk, Run, exits
from tests.integration.test_jobs import database, on_desk, once

from casemate.cluster.messages import Answer
from casemate.cluster.refusals import refused
from casemate.config import Config
from casemate.errors import BudgetExceeded, Conflict, InvalidInput, NotAllowed, SandboxClosed, TooManyRequests
from casemate.jobs import request
from casemate.jobs.config import load_jobs
from casemate.jobs.ports import Input
from casemate.model.job import Job, JobFile, JobState, Retries
from casemate.model.network import NetworkPolicy

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


@on_desk
async def test_s2_43_a_dead_job_is_not_begun_again_against_the_rules_of_today(desk: Desk) -> None:
    who = await desk.tenant()
    desk.program = partial(exits, code=3)
    network = NetworkPolicy(outbound=True, allowed_hosts=("a.example",), blocked_ports=(22,))
    async with desk.serving() as jobs:
        asked: dict[str, Any] = {
            "network": network,
            "limits": {"memory": "512Mi"},
            "retries": Retries(max=1, backoff_s=0),
        }
        job = await desk.run(jobs, who, **asked)
        assert job.state is JobState.DEAD
        for variable, word in (("ALLOWED_COMMANDS", "command: 'true'"), ("ALLOWED_HOSTS", "network.allowed_hosts")):
            stricter = desk.jobs(jobs.dispatcher, load_jobs(Config(), {f"SANDBOX_{variable}": "other.example"}))
            with pytest.raises(NotAllowed, match=word):
                await stricter.retry_dead(who, job.id)
        smaller = desk.jobs(jobs.dispatcher, maximum={"memory": "256Mi"})
        for doing in (smaller.retry_dead, smaller.rerun):
            with pytest.raises(InvalidInput, match=r"limits\.memory: is above the 256Mi"):
                await doing(who, job.id)
        desk.budget_is_used_up = True
        with pytest.raises(BudgetExceeded):
            await jobs.retry_dead(who, job.id)
        desk.budget_is_used_up = False
        assert (await jobs.get(who.tenant_id, job.id)).state is JobState.DEAD
        blocked = desk.jobs(jobs.dispatcher, load_jobs(Config(), {"SANDBOX_BLOCKED_PORTS": "22,8080"}))
        desk.program = exits
        await blocked.retry_dead(who, job.id)
        again = await jobs.ended(who.tenant_id, job.id)
    assert again.state is JobState.SUCCEEDED
    assert 8080 in desk.asked[-1].network.blocked_ports


@on_desk
async def test_s2_43_an_image_that_is_none_any_more_is_not_run_again(desk: Desk) -> None:
    who = await desk.tenant()
    async with desk.serving() as jobs:
        job = await desk.run(jobs, who)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(request, "IMAGES", ("other",))
            with pytest.raises(InvalidInput, match="image: 'host' is not known"):
                await jobs.rerun(who, job.id)


@on_desk
async def test_s2_91_where_the_queue_is_full_neither_a_dead_job_nor_a_rerun_waits_in_it(desk: Desk) -> None:
    who = await desk.tenant()
    desk.program = partial(exits, code=3)
    async with desk.serving() as jobs:
        job = await desk.run(jobs, who, retries=Retries(max=1, backoff_s=0))
        await jobs.queue.pause(None)
        waiting = await desk.submit(jobs, who)
        full = msgspec.structs.replace(who, queue_max=1)
        for doing in (jobs.retry_dead, jobs.rerun):
            with pytest.raises(TooManyRequests, match="1 jobs of this tenant are waiting already"):
                await doing(full, job.id)
        await jobs.cancel(who.tenant_id, waiting.id)
        assert (await jobs.retry_dead(full, job.id)).state is JobState.QUEUED

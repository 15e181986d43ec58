"""The dispatcher and its attempts: what becomes of a job, whatever the node, the tenant or the clock does."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.integration.job_desk import Desk, Run, exits, waits
from tests.service.live import events

from casemate import job_limits
from casemate.api.routes.jobs import _events
from casemate.cluster.messages import Answer, FileEnded, FilePiece, FlowSeen, Refused, Sampled
from casemate.config import Config
from casemate.errors import (
    BudgetExceeded,
    Conflict,
    InvalidInput,
    NotAllowed,
    NotFound,
    RecordsUnavailable,
    TooManyRequests,
)
from casemate.job_limits import LOST_MAX
from casemate.jobs.config import load_jobs
from casemate.jobs.ports import Input
from casemate.model.flow import Flow
from casemate.model.job import Job, JobFile, JobState, Retries, Transition
from casemate.model.network import Injection, NetworkPolicy
from casemate.model.result import Reason, Status, Stream
from casemate.store import jobs as rows
from casemate.store.database import Database


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database.open(tmp_path / "records.sqlite")
    yield made
    made.close_now()


def run(database: Database, test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 60))


def on_desk(test: Any) -> Any:
    """Run a coroutine of a desk as a test."""

    def runs(database: Database) -> None:
        async def whole() -> None:
            await test(Desk(database))

        run(database, whole())

    runs.__name__ = test.__name__
    return runs


async def once(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


@on_desk
async def test_s2_34_s2_35_s2_36_s2_37_s2_38_every_step_is_recorded_with_its_time(desk: Desk) -> None:
    who = await desk.tenant()
    async with desk.serving() as jobs:
        job = await desk.run(jobs, who, command="printf 'two words'")
        moves = await jobs.transitions(who.tenant_id, job.id)
    assert [(each.state.value, each.detail) for each in moves] == [
        ("queued", ""),
        ("preparing", ""),
        ("running", ""),
        ("collecting", ""),
        ("cleaned", ""),
        ("succeeded", "exit code 0"),
    ]
    assert [each.at_us for each in moves] == sorted(each.at_us for each in moves)
    assert desk.asked[0].argv == ("printf", "two words")
    assert desk.printed == [b"hello\n"]
    assert [reason for _, reason in desk.ended] == ["succeeded/exit"]


@on_desk
async def test_s2_43_what_was_accepted_once_is_not_run_again_against_the_policy_of_today(desk: Desk) -> None:
    who = await desk.tenant()
    network = NetworkPolicy(outbound=True, allowed_hosts=("a.example",), blocked_ports=(22,))
    async with desk.serving() as jobs:
        job = await desk.run(jobs, who, network=network)
        listed = desk.jobs(jobs.dispatcher, load_jobs(Config(), {"SANDBOX_ALLOWED_COMMANDS": "ls"}))
        with pytest.raises(NotAllowed):
            await listed.rerun(who, job.id)
        narrow = desk.jobs(jobs.dispatcher, load_jobs(Config(), {"SANDBOX_ALLOWED_HOSTS": "b.example"}))
        with pytest.raises(NotAllowed):
            await narrow.rerun(who, job.id)
        blocked = desk.jobs(jobs.dispatcher, load_jobs(Config(), {"SANDBOX_BLOCKED_PORTS": "22,8080"}))
        again = await blocked.rerun(who, job.id)
        assert 8080 in again.spec.network.blocked_ports
        await jobs.ended(who.tenant_id, again.id)


@on_desk
async def test_jobs_are_begun_also_where_the_records_did_not_answer_at_first(desk: Desk) -> None:
    who = await desk.tenant()
    expire, fails = desk.queue.expire, [RecordsUnavailable("io", "nobody answers")]

    async def fails_once(**asked: Any) -> tuple[Job, ...]:
        if fails:
            raise fails.pop()
        return await expire(**asked)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(job_limits, "CLAIM_PAUSE_S", 0)
        patched.setattr(desk.queue, "expire", fails_once)
        async with desk.serving() as jobs:
            assert (await desk.run(jobs, who)).state is JobState.SUCCEEDED
    assert not fails


@on_desk
async def test_an_end_that_is_being_recorded_is_not_given_back(desk: Desk) -> None:
    who = await desk.tenant()
    end, has_ended, may_be_recorded = desk.queue.end, asyncio.Event(), asyncio.Event()

    async def recorded_later(*words: Any, **asked: Any) -> bool:
        has_ended.set()
        await may_be_recorded.wait()
        return await end(*words, **asked)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(desk.queue, "end", recorded_later)
        async with desk.serving() as jobs:
            job = await desk.submit(jobs, who)
            await has_ended.wait()
            attempt = jobs.dispatcher.attempt_at(job)
            assert attempt is not None
            assert attempt.task is not None
            attempt.give_back()
            attempt.cancel()
            may_be_recorded.set()
            await attempt.task
            assert (await jobs.get(who.tenant_id, job.id)).state is JobState.SUCCEEDED


@on_desk
async def test_s2_60_start_and_end_are_known(desk: Desk) -> None:
    who = await desk.tenant()
    async with desk.serving() as jobs:
        job = await desk.run(jobs, who)
    assert job.started_us is not None
    assert job.ended_us is not None
    assert job.created_us <= job.started_us <= job.ended_us


@on_desk
async def test_s2_60_a_start_that_is_written_later_has_its_own_time(desk: Desk) -> None:
    who = await desk.tenant()
    desk.program = waits
    async with desk.serving() as jobs:
        job = await desk.submit(jobs, who)
        with jobs.changes.watching(f"{who.tenant_id}/{job.id}") as changed:
            while (await jobs.get(who.tenant_id, job.id)).state is not JobState.RUNNING:
                await changed.wait()
                changed.clear()
        found = await jobs.get(who.tenant_id, job.id)
        await jobs.cancel(who.tenant_id, job.id)
        await jobs.ended(who.tenant_id, job.id)
        moves = await jobs.transitions(who.tenant_id, job.id)
    assert [found.started_us] == desk.waited == [each.at_us for each in moves if each.state is JobState.RUNNING]


@on_desk
async def test_s2_94_an_attempt_is_metered_and_told_with_its_end(desk: Desk) -> None:
    who = await desk.tenant()
    async with desk.serving() as jobs:
        job = await desk.run(jobs, who)
    assert [(identity, result.usage.cpu_user_s) for identity, result in desk.metered] == [(job.id, 0.25)]
    assert [state for _, state in desk.notices] == ["queued", "running", "succeeded"]


@on_desk
async def test_s2_91_a_failure_is_tried_again_as_often_as_was_asked_and_then_dead(desk: Desk) -> None:
    who = await desk.tenant()
    desk.program = partial(exits, code=3)
    async with desk.serving() as jobs:
        job = await desk.run(jobs, who, retries=Retries(max=2, backoff_s=0.02))
        moves = await jobs.transitions(who.tenant_id, job.id)
        assert len(desk.asked) == 3
        assert (job.state, job.attempt, job.exit_code) == (JobState.DEAD, 3, 3)
        again = [each.detail for each in moves if each.state is JobState.QUEUED]
        assert again == ["", "exit code 3; again in 0.02 s", "exit code 3; again in 0.04 s"]
        failed = await desk.run(jobs, who)
        assert failed.state is JobState.FAILED
        desk.program = exits
        await jobs.retry_dead(who, job.id)
        assert (await jobs.ended(who.tenant_id, job.id)).state is JobState.SUCCEEDED
        with pytest.raises(Conflict):
            await jobs.retry_dead(who, job.id)


@on_desk
async def test_a_job_that_waits_is_cancelled_at_once(desk: Desk) -> None:
    who = await desk.tenant()
    async with desk.serving() as jobs:
        await jobs.queue.pause(who.tenant_id)
        job = await desk.submit(jobs, who)
        cancelled = await jobs.cancel(who.tenant_id, job.id)
    assert (cancelled.state, cancelled.reason) == (JobState.CANCELLED, Reason.CANCELLED)
    assert desk.asked == []


@on_desk
async def test_a_job_that_runs_is_cancelled_and_its_node_is_told(desk: Desk) -> None:
    who = await desk.tenant()
    desk.program = waits
    async with desk.serving() as jobs:
        job = await desk.submit(jobs, who, retries=Retries(max=5))
        await desk.begun.wait()
        await jobs.cancel(who.tenant_id, job.id)
        ended = await jobs.ended(who.tenant_id, job.id)
        assert (ended.state, ended.reason) == (JobState.CANCELLED, Reason.CANCELLED)
        assert await jobs.cancel(who.tenant_id, job.id) == ended


@on_desk
async def test_what_another_process_cancels_is_heard_of_with_the_next_heartbeat(desk: Desk) -> None:
    who = await desk.tenant()
    desk.program = waits
    async with desk.serving(lease_s=0.3) as jobs:
        job = await desk.submit(jobs, who)
        await desk.begun.wait()
        await desk.queue.cancel(who.tenant_id, job.id)
        assert (await jobs.ended(who.tenant_id, job.id)).state is JobState.CANCELLED


@on_desk
async def test_s2_90_a_node_that_is_lost_loses_no_job(desk: Desk) -> None:
    who = await desk.tenant()
    desk.program = waits
    async with desk.serving() as jobs:
        job = await desk.submit(jobs, who, retries=Retries(backoff_s=0.01))
        await desk.begun.wait()
        desk.program = exits
        await desk.bus.lose()
        desk.bus.restore()
        ended = await jobs.ended(who.tenant_id, job.id)
    assert (ended.state, ended.attempt, ended.lost) == (JobState.SUCCEEDED, 2, 1)


@on_desk
async def test_s2_90_a_job_that_loses_every_node_is_dead(desk: Desk) -> None:
    who = await desk.tenant()

    async def kills(run: Run) -> AsyncGenerator[Answer, None]:
        yield run.phase("running")
        asyncio.get_running_loop().call_soon(lambda: losing.append(asyncio.ensure_future(lose())))
        await run.stop.wait()

    async def lose() -> None:
        await desk.bus.lose()
        desk.bus.restore()

    losing: list[asyncio.Future[None]] = []
    desk.program = kills
    async with desk.serving() as jobs:
        job = await desk.run(jobs, who, retries=Retries(backoff_s=0.01))
    assert (job.state, job.attempt, job.reason) == (JobState.DEAD, LOST_MAX, Reason.LOST)


@on_desk
async def test_s2_39_jobs_wait_while_there_is_no_node(desk: Desk) -> None:
    who = await desk.tenant()
    await desk.bus.lose()
    async with desk.serving() as jobs:
        job = await desk.submit(jobs, who)
        desk.bus.restore()
        assert (await jobs.ended(who.tenant_id, job.id)).attempt == 1


@on_desk
async def test_s2_71_what_a_dispatcher_held_when_it_died_is_taken_back_by_the_next(desk: Desk) -> None:
    who = await desk.tenant()
    async with desk.serving() as jobs:
        await jobs.queue.pause(None)
        job = await desk.submit(jobs, who, retries=Retries(backoff_s=0.01))
    await desk.queue.resume(None)
    (lease,) = await desk.queue.claim("one", count=1, lease_s=3600)  # and dies
    assert lease.job.id == job.id
    async with desk.serving(holder="one") as jobs:
        ended = await jobs.ended(who.tenant_id, job.id)
    assert (ended.state, ended.lost, ended.attempt) == (JobState.SUCCEEDED, 1, 2)


@on_desk
async def test_an_attempt_whose_lease_is_somebody_elses_records_nothing(desk: Desk) -> None:
    who = await desk.tenant()
    desk.program = waits
    async with desk.serving(lease_s=0.3) as jobs:
        job = await desk.submit(jobs, who, retries=Retries(backoff_s=0))
        await desk.begun.wait()
        desk.program = exits
        await desk.queue.expire(holder="one")
        ended = await jobs.ended(who.tenant_id, job.id)
    assert (ended.state, ended.lost) == (JobState.SUCCEEDED, 1)
    assert [reason for _, reason in desk.ended] == ["succeeded/exit"]


@on_desk
async def test_what_runs_when_the_service_ends_is_queued_again(desk: Desk) -> None:
    who = await desk.tenant()
    desk.program = waits
    async with desk.serving() as jobs:
        job = await desk.submit(jobs, who)
        await desk.begun.wait()
    desk.program = exits
    assert (await jobs.get(who.tenant_id, job.id)).state is JobState.QUEUED
    async with desk.serving() as jobs:
        assert (await jobs.ended(who.tenant_id, job.id)).state is JobState.SUCCEEDED


@on_desk
async def test_s2_40_inputs_are_brought_to_the_node_in_pieces(desk: Desk) -> None:
    who = await desk.tenant()
    large = bytes(range(256)) * 8192
    desk.inputs_of = [
        Input(area="input", path="a/large", data=once(large[:100], large[100:])),
        Input(area="shared", path="empty", data=once(), mode=0o600),
    ]
    async with desk.serving() as jobs:
        await desk.run(jobs, who, shared=("*",))
    token = desk.asked[0].id
    assert desk.staged == {(token, "input", "a/large"): large, (token, "shared", "empty"): b""}
    assert desk.asked[0].staged == 2


@on_desk
async def test_s2_40_a_missing_input_fails_the_job_before_anything_runs(desk: Desk) -> None:
    who = await desk.tenant()
    async with desk.serving() as jobs:
        job = await desk.run(jobs, who, files=(JobFile(path="a", object="shared/gone"),), retries=Retries(max=3))
        assert (job.state, job.reason, job.attempt) == (JobState.FAILED, Reason.VALIDATION, 1)
    assert b"the object is gone" in (job.result or b"")
    assert desk.asked == []


@on_desk
async def test_a_secret_that_is_unknown_is_refused_with_its_field(desk: Desk) -> None:
    who = await desk.tenant()
    desk.secrets = {"TOKEN": "s3cret"}
    injected = (Injection(host="a.example", header="X", secret="HEADER"),)
    network = NetworkPolicy(outbound=True, allowed_hosts=("a.example",), inject=injected)
    async with desk.serving() as jobs:
        for field, asked in (("secrets", {"secrets": ("TOKEN", "NONE")}), ("network.inject", {"network": network})):
            with pytest.raises(InvalidInput, match=r"there is no secret '(NONE|HEADER)'") as caught:
                await desk.submit(jobs, who, "job", **asked)
            assert caught.value.field == field
        with pytest.raises(NotFound):
            await jobs.get(who.tenant_id, "job")
        job = await desk.run(jobs, who, job_id="job", secrets=("TOKEN",))
        desk.secrets = {}
        assert (await desk.submit(jobs, who, "job", secrets=("TOKEN",))).id == job.id, "it is there already"
        with pytest.raises(InvalidInput, match="TOKEN"):
            await jobs.rerun(who, "job")


@on_desk
async def test_a_job_whose_inputs_are_gone_is_not_run_again(desk: Desk) -> None:
    who = await desk.tenant()
    files = (JobFile(path="a.txt", content=b"a"), JobFile(path="b.csv", object="shared/b.csv"))
    desk.program = partial(exits, code=1)
    async with desk.serving() as jobs:
        job = await desk.run(jobs, who, job_id="dead", files=files, retries=Retries(max=1, backoff_s=0.0))
        desk.gone = {"shared/b.csv"}
        for again in (jobs.rerun(who, "dead", new_id_wanted="new"), jobs.retry_dead(who, "dead")):
            with pytest.raises(InvalidInput, match=r"shared/b\.csv.* is gone") as caught:
                await again
            assert caught.value.field == "files[1]"
        assert (await jobs.get(who.tenant_id, "dead")).state == job.state
        with pytest.raises(NotFound):
            await jobs.get(who.tenant_id, "new")


@on_desk
async def test_an_attempt_that_has_lost_its_lease_leaves_no_file(desk: Desk) -> None:
    who = await desk.tenant()

    async def program(run: Run) -> AsyncGenerator[Answer, None]:
        path = f"output/{len(desk.asked)}"
        yield run.phase("running")
        yield FilePiece(id=run.asked.id, path=path, offset=0, data=b"x")
        if len(desk.asked) == 1:
            await desk.queue.expire(holder="one")
        yield FileEnded(id=run.asked.id, path=path, size_bytes=1, digest="d")
        yield run.ended()

    desk.program = program
    async with desk.serving() as jobs:
        job = await desk.run(jobs, who)
    assert (job.state, job.attempt, job.lost) == (JobState.SUCCEEDED, 2, 1)
    assert desk.whole == ["output/2"]


@on_desk
async def test_whoever_follows_a_job_is_told_each_of_thousands_of_transitions_once(desk: Desk) -> None:
    who = await desk.tenant()
    count = 2 * job_limits.TRANSITIONS_READ_MAX + 7
    async with desk.serving() as jobs:
        job = await desk.run(jobs, who)
        first = [each.state.value for each in await jobs.transitions(who.tenant_id, job.id)]
        steps = tuple(Transition(state=JobState.RUNNING, at_us=at, attempt=at) for at in range(count))
        await desk.database.write(partial(rows.insert_steps, job=job, steps=steps))
        expected = [(str(at + 1), state) for at, state in enumerate([*first, *["running"] * count])]
        parts: Any = SimpleNamespace(jobs=jobs)
        for told in (0, 3, 999, 1000, 1001, len(expected) - 1, len(expected)):
            sent = b"".join([part async for part in _events(parts, who, job, told)])  # type: ignore[arg-type]
            found = list(events(iter(sent.decode().split("\n"))))
            assert [(identity, data["state"]) for kind, identity, data in found if kind == "state"] == expected[told:]
            assert [identity for kind, identity, _ in found if kind == "result"] == [str(len(expected))]
            attempts = [data["attempt"] for kind, _, data in found if kind == "state"]
            assert attempts == [*[1 if at else 0 for at in range(len(first))], *range(count)][told:]


@on_desk
async def test_a_missing_secret_fails_the_job_and_others_become_variables(desk: Desk) -> None:
    who = await desk.tenant()
    desk.secrets = {"TOKEN": "s3cret", "HEADER": "v4lue"}
    network = NetworkPolicy(
        outbound=True, allowed_hosts=("a.example",), inject=(Injection(host="a.example", header="X", secret="HEADER"),)
    )
    async with desk.serving() as jobs:
        job = await desk.run(jobs, who, secrets=("TOKEN",), environment={"A": "b"}, network=network)
        await desk.queue.pause(None)
        late = await desk.submit(jobs, who, secrets=("TOKEN",))
        desk.secrets = {}
        await desk.queue.resume(None)
        missing = await jobs.ended(who.tenant_id, late.id)
    assert (missing.state, missing.reason) == (JobState.FAILED, Reason.VALIDATION)
    assert b"there is no secret 'TOKEN'" in (missing.result or b"")
    assert len(desk.asked) == 1
    assert desk.asked[0].environment == {"A": "b", "TOKEN": "s3cret"}
    assert desk.asked[0].network.inject[0].value == "v4lue"
    assert "s3cret" not in repr(job)
    assert "v4lue" not in repr(job)


@on_desk
async def test_s2_36_s2_42_files_flows_and_samples_are_there_when_the_end_is(desk: Desk) -> None:
    who = await desk.tenant()
    data = b"artifact"

    async def program(run: Run) -> AsyncGenerator[Answer, None]:
        yield run.phase("running")
        yield Sampled(id=run.asked.id, cpu_s=0.5, memory_bytes=1000, processes=2, wall_s=1.0)
        yield FlowSeen(id=run.asked.id, flow=Flow(host="a.example", port=443, allowed=False))
        yield run.phase("collecting")
        yield FilePiece(id=run.asked.id, path="output/a", offset=0, data=data[:3])
        yield FilePiece(id=run.asked.id, path="output/a", offset=3, data=data[3:])
        digest = hashlib.sha256(data).hexdigest()
        yield FileEnded(id=run.asked.id, path="output/a", size_bytes=len(data), digest=digest)
        yield run.ended()

    desk.program = program
    async with desk.serving() as jobs:
        await desk.run(jobs, who)
    assert desk.collected == {"output/a": data}
    assert [flow.host for flow in desk.flows] == ["a.example"]


@on_desk
async def test_s2_77_what_a_job_uses_is_known_while_it_runs(desk: Desk) -> None:
    who = await desk.tenant()

    async def program(run: Run) -> AsyncGenerator[Answer, None]:
        yield run.phase("running")
        yield Sampled(id=run.asked.id, cpu_s=0.5, memory_bytes=1000, processes=2, wall_s=1.0)
        async for each in waits(run):
            yield each

    desk.program = program
    async with desk.serving() as jobs:
        job = await desk.submit(jobs, who)
        with jobs.changes.watching(f"{who.tenant_id}/{job.id}") as changed:
            while (attempt := jobs.dispatcher.attempt_at(job)) is None or attempt.usage is None:
                await changed.wait()
                changed.clear()
        assert attempt.usage.memory_bytes == 1000
        assert (await jobs.get(who.tenant_id, job.id)).state in {JobState.PREPARING, JobState.RUNNING}
        await jobs.cancel(who.tenant_id, job.id)
        await jobs.ended(who.tenant_id, job.id)


@on_desk
async def test_a_used_up_budget_refuses_jobs_and_denies_those_that_wait(desk: Desk) -> None:
    who = await desk.tenant()
    async with desk.serving() as jobs:
        await jobs.queue.pause(None)
        job = await desk.submit(jobs, who)
        desk.budget_is_used_up = True
        with pytest.raises(BudgetExceeded):
            await desk.submit(jobs, who)
        await jobs.queue.resume(None)
        ended = await jobs.ended(who.tenant_id, job.id)
    assert (ended.state, ended.reason) == (JobState.FAILED, Reason.DENIED)
    assert desk.asked == []


@on_desk
async def test_a_budget_that_is_used_up_meanwhile_ends_what_runs(desk: Desk) -> None:
    who = await desk.tenant()
    desk.program = waits
    async with desk.serving(lease_s=0.3) as jobs:
        job = await desk.submit(jobs, who)
        await desk.begun.wait()
        desk.budget_is_used_up = True
        ended = await jobs.ended(who.tenant_id, job.id)
    assert (ended.state, ended.reason) == (JobState.FAILED, Reason.DENIED)
    assert b"the budget is used up" in (ended.result or b"")


@on_desk
async def test_what_the_node_refuses_fails_the_job_by_name(desk: Desk) -> None:
    who = await desk.tenant()

    async def refuses(run: Run) -> AsyncGenerator[Answer, None]:
        yield Refused(id=run.asked.id, code="invalid_input", message="runtime: unknown", field="runtime")

    desk.program = refuses
    async with desk.serving() as jobs:
        job = await desk.run(jobs, who)
    assert (job.state, job.reason) == (JobState.FAILED, Reason.VALIDATION)
    assert b"runtime: unknown" in (job.result or b"")


@on_desk
async def test_of_what_is_printed_the_result_keeps_the_ends(desk: Desk) -> None:
    who = await desk.tenant()

    async def program(run: Run) -> AsyncGenerator[Answer, None]:
        yield run.phase("running")
        yield run.ended(stdout=Stream(head=b"a" * 500_000, tail=b"z" * 500_000, truncated_bytes=7))

    desk.program = program
    async with desk.serving() as jobs:
        job = await desk.run(jobs, who)
    assert len(job.result or b"") < 100_000


@on_desk
async def test_s2_8_the_same_id_with_the_same_job_is_the_job_that_is_there(desk: Desk) -> None:
    who = await desk.tenant()
    async with desk.serving() as jobs:
        files = (JobFile(path="a", content=b"1"),)
        await desk.submit(jobs, who, "mine", files=files)
        await jobs.ended(who.tenant_id, "mine")
        assert (await desk.submit(jobs, who, "mine", files=files)).state is JobState.SUCCEEDED
        with pytest.raises(Conflict, match="mine"):
            await desk.submit(jobs, who, "mine", files=(JobFile(path="a", content=b"2"),))
        with pytest.raises(Conflict, match="mine"):
            await desk.submit(jobs, who, "mine", collect=("x",), files=files)
        other = await desk.tenant("two")
        assert (await desk.submit(jobs, other, "mine")).state is JobState.QUEUED
    assert len([each for each in desk.asked if each.tenant == who.tenant_id]) == 1


@on_desk
async def test_of_another_tenant_nothing_is_found(desk: Desk) -> None:
    one, other = await desk.tenant(), await desk.tenant("two")
    async with desk.serving() as jobs:
        job = await desk.submit(jobs, one)
        for asking in (jobs.get, jobs.cancel, jobs.delete, jobs.ended):
            with pytest.raises(NotFound):
                await asking(other.tenant_id, job.id)
        for doing in (jobs.rerun, jobs.retry_dead):
            with pytest.raises(NotFound):
                await doing(other, job.id)


@on_desk
async def test_a_queue_has_a_bound(desk: Desk) -> None:
    who = await desk.tenant()
    async with desk.serving() as jobs:
        await jobs.queue.pause(None)
        for _ in range(100):
            await desk.submit(jobs, who)
        with pytest.raises(TooManyRequests):
            await desk.submit(jobs, who)
        files = (JobFile(path="data", content=b"1"),)
        with pytest.raises(TooManyRequests):
            await desk.submit(jobs, who, job_id="mine", files=files)
        assert desk.deleted == []
        with pytest.raises(TooManyRequests):
            await desk.submit(jobs, who, files=files)
        [identity] = desk.deleted
        assert identity.startswith("job_")


@on_desk
async def test_a_job_is_run_again_and_deleted(desk: Desk) -> None:
    who = await desk.tenant()
    desk.program = waits
    async with desk.serving() as jobs:
        job = await desk.submit(jobs, who, labels={"a": "b"})
        await desk.begun.wait()
        with pytest.raises(Conflict):
            await jobs.delete(who.tenant_id, job.id)
        await jobs.cancel(who.tenant_id, job.id)
        await jobs.ended(who.tenant_id, job.id)
        desk.program = exits
        again = await jobs.rerun(who, job.id)
        assert again.id != job.id
        assert again.spec == job.spec
        assert (await jobs.ended(who.tenant_id, again.id)).state is JobState.SUCCEEDED
        await jobs.delete(who.tenant_id, job.id)
        with pytest.raises(NotFound):
            await jobs.get(who.tenant_id, job.id)


@on_desk
async def test_no_more_run_at_a_time_than_there_are_slots(desk: Desk) -> None:
    who = await desk.tenant()
    running, most = 0, 0

    async def program(run: Run) -> AsyncGenerator[Answer, None]:
        nonlocal running, most
        running += 1
        most = max(most, running)
        yield run.phase("running")
        await asyncio.sleep(0)
        running -= 1
        yield run.ended()

    desk.program = program
    async with desk.serving(slots=3) as jobs:
        made = [await desk.submit(jobs, who) for _ in range(40)]
        for job in made:
            await jobs.ended(who.tenant_id, job.id)
    assert most <= 3
    assert len(desk.asked) == 40
    assert {reason for _, reason in desk.ended} == {"succeeded/exit"}


@on_desk
async def test_a_suspended_tenant_runs_nothing_more(desk: Desk) -> None:
    who = await desk.tenant()
    desk.program = waits
    async with desk.serving() as jobs:
        job = await desk.submit(jobs, who)
        await desk.begun.wait()
        jobs.end_all_of(who.tenant_id)
        ended = await jobs.ended(who.tenant_id, job.id)
    assert (ended.status, ended.reason) == (Status.FAILED, Reason.DENIED)

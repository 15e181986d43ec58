"""What every Queue does, whichever database has its rows."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine
from functools import partial
from typing import Any, Final, TypeVar

import msgspec
import pytest
from msgspec.structs import replace
from tests.integration.records import Place, opened, tenant

from casemate.errors import Conflict, NotFound, TooManyRequests
from casemate.job_limits import BACKOFF_MAX_S, LOST_MAX, QUEUE_LOOK_S
from casemate.model.job import Job, JobSpec, JobState, Retries, Transition
from casemate.model.network import NetworkPolicy
from casemate.model.units import SECOND_US
from casemate.queue import leases as queue_leases
from casemate.queue.leases import RecordsQueue
from casemate.queue.protocol import Ending, Lease
from casemate.service_limits import STORED_A_TENANT_MAX_BYTES
from casemate.store import jobs, tenants
from casemate.store import leases as store_leases
from casemate.store.database import Database, Records
from casemate.store.jobs import Filters
from casemate.store.stored import count_bytes

T = TypeVar("T")
LEASE_S: Final = 30.0
SUCCESS: Final = Ending(state=JobState.SUCCEEDED, status="succeeded", reason="exit", exit_code=0, result=b"document")
numbers = itertools.count(1)


class Desk:
    """A queue with a clock of its own, and what tests ask of it."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.at_us = 1_000_000 * SECOND_US
        self.told: list[tuple[str, JobState]] = []
        self.queue = RecordsQueue(database, clock=lambda: self.at_us)

    def note(self, _: Records, job: Job) -> None:
        self.told.append((job.id, job.state))

    def pass_s(self, seconds: float) -> None:
        self.at_us += int(seconds * SECOND_US)

    async def tenant(self, name: str = "one", **changes: Any) -> str:
        added = tenant(name, **{"concurrency_max": 100, **changes})
        await self.database.write(partial(tenants.insert_tenant, tenant=added))
        return added.id

    async def submit(self, tenant_id: str, job_id: str = "", *, queue_max: int = 100, **spec: Any) -> Job:
        self.at_us += 1
        return await self.queue.submit(self.job(tenant_id, job_id, **spec), queue_max=queue_max, beside=self.note)

    def job(self, tenant_id: str, job_id: str = "", *, due_s: float = 0.0, **spec: Any) -> Job:
        return Job(
            id=job_id or f"auto-{next(numbers)}",
            tenant_id=tenant_id,
            key_id="key_x",
            spec=JobSpec(**{"argv": ("true",), **spec}),
            created_us=self.at_us,
            due_us=self.at_us + int(due_s * SECOND_US),
        )

    async def claim(self, count: int = 1) -> tuple[Lease, ...]:
        return await self.queue.claim("one", count=count, lease_s=LEASE_S)

    async def claimed(self, count: int = 100) -> list[str]:
        return [lease.job.id for lease in await self.claim(count)]

    async def get(self, job: Job) -> Job:
        return await self.database.read(partial(jobs.get, tenant_id=job.tenant_id, job_id=job.id))

    async def states(self, job: Job) -> list[str]:
        found = await self.database.read(partial(jobs.transitions, tenant_id=job.tenant_id, job_id=job.id))
        return [each.state.value for each in found]

    async def dead(self, tenant_id: str) -> Job:
        """A job that has failed at its last attempt."""
        job = await self.submit(tenant_id)
        (lease,) = await self.claim()
        await self.queue.end(lease.token, Ending(state=JobState.DEAD, status="failed", reason="exit"))
        return job

    async def retry_dead(self, job: Job, *, queue_max: int = 100) -> Job:
        return await self.queue.retry_dead(job, job.spec, queue_max=queue_max)

    async def lose(self, job: Job) -> tuple[Job, ...]:
        """Have an attempt at that job begun, and nothing heard of it."""
        self.pass_s(BACKOFF_MAX_S)
        assert await self.claimed() == [job.id]
        self.pass_s(LEASE_S + 1)
        return await self.queue.expire()


@pytest.fixture
def desk(database: Database) -> Desk:
    return Desk(database)


def run(scenario: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(scenario)


# A job's way --------------------------------------------------------------------------------------


def test_s2_71_a_job_goes_its_way_and_every_step_is_recorded(desk: Desk) -> None:
    async def scenario() -> None:
        job = await desk.submit(await desk.tenant(), labels={"a": "b"})
        (lease,) = await desk.claim()
        assert (lease.job.id, lease.job.state, lease.job.attempt) == (job.id, JobState.PREPARING, 1)
        assert lease.until_us == desk.at_us + LEASE_S * SECOND_US
        for state in (JobState.RUNNING, JobState.COLLECTING):
            desk.pass_s(1)
            assert await desk.queue.note(lease.token, state, beside=desk.note)
        desk.pass_s(1)
        assert await desk.queue.end(lease.token, SUCCESS, beside=desk.note)
        found = await desk.get(job)
        assert found.state is JobState.SUCCEEDED
        assert (found.status, found.reason, found.exit_code, found.result) == ("succeeded", "exit", 0, b"document")
        assert (found.ended_us, found.started_us) == (desk.at_us, desk.at_us - 2 * SECOND_US)
        assert found.spec == job.spec
        wanted = ["queued", "preparing", "running", "collecting", "succeeded"]
        assert await desk.states(job) == wanted
        assert [state.value for _, state in desk.told] == [wanted[0], *wanted[2:]]
        assert await desk.claim() == ()

    run(scenario())


def test_s2_71_what_was_accepted_is_there_after_a_restart(place: Place) -> None:
    with opened(place) as database:
        desk = Desk(database)
        job = run(desk.submit(run(desk.tenant())))
    with opened(place) as database:
        assert run(Desk(database).claimed()) == [job.id]


def test_the_steps_of_a_short_attempt_are_recorded_with_its_end(desk: Desk) -> None:
    async def scenario() -> None:
        job = await desk.submit(await desk.tenant())
        (lease,) = await desk.claim()
        steps = tuple(
            Transition(state=state, at_us=desk.at_us + 1 + number, attempt=1)
            for number, state in enumerate((JobState.RUNNING, JobState.COLLECTING))
        )
        desk.pass_s(1)
        assert await desk.queue.end(lease.token, msgspec.structs.replace(SUCCESS, steps=steps))
        found = await desk.database.read(partial(jobs.transitions, tenant_id=job.tenant_id, job_id=job.id))
        assert found[2:4] == steps
        assert [each.state.value for each in found] == ["queued", "preparing", "running", "collecting", "succeeded"]
        assert (await desk.get(job)).started_us == steps[0].at_us

    run(scenario())


def test_an_attempt_ends_once(desk: Desk) -> None:
    async def scenario() -> None:
        job = await desk.submit(await desk.tenant())
        (lease,) = await desk.claim()
        failed = Ending(state=JobState.FAILED, status="failed", reason="signal")
        assert sorted(await asyncio.gather(*(desk.queue.end(lease.token, failed) for _ in range(10)))) == [
            False
        ] * 9 + [True]
        assert not await desk.queue.end(lease.token, SUCCESS)
        assert not await desk.queue.note(lease.token, JobState.RUNNING)
        assert (await desk.get(job)).state is JobState.FAILED

    run(scenario())


def test_many_who_claim_at_once_never_get_the_same(desk: Desk) -> None:
    async def scenario() -> None:
        owner = await desk.tenant()
        wanted = {(await desk.submit(owner)).id for _ in range(40)}
        found = await asyncio.gather(*(desk.claim(3) for _ in range(20)))
        leased = [lease.job.id for each in found for lease in each]
        assert len(leased) == 40
        assert set(leased) == wanted

    run(scenario())


# Submitting ---------------------------------------------------------------------------------------


def test_s2_8_an_id_that_is_there_is_the_same_job_or_a_conflict(desk: Desk) -> None:
    async def scenario() -> None:
        mine, theirs = await desk.tenant("mine"), await desk.tenant("theirs")
        environment = {"a": "1", "b": "2"}
        first = await desk.submit(mine, "build.7", environment=environment)
        again = await desk.submit(mine, "build.7", environment=dict(reversed(environment.items())))
        assert again == first
        with pytest.raises(Conflict, match=r"build\.7"):
            await desk.submit(mine, "build.7", argv=("false",))
        assert (await desk.submit(theirs, "build.7", argv=("false",))).tenant_id == theirs
        assert await desk.states(first) == ["queued"]
        assert sorted(await desk.claimed()) == ["build.7", "build.7"]
        assert (await desk.submit(mine, "build.7", environment=environment)).state is JobState.PREPARING

    run(scenario())


def test_many_who_submit_one_id_at_once_submit_one_job(desk: Desk) -> None:
    async def scenario() -> None:
        owner = await desk.tenant()
        found = await asyncio.gather(*(desk.submit(owner, "one") for _ in range(10)))
        assert len({(job.id, job.created_us) for job in found}) == 1
        assert await desk.claimed() == ["one"]

    run(scenario())


def test_a_queue_has_an_end(desk: Desk) -> None:
    async def scenario() -> None:
        owner, other = await desk.tenant(), await desk.tenant("other")
        for number in range(3):
            await desk.submit(owner, f"job-{number}", queue_max=3, due_s=number * 100)
        with pytest.raises(TooManyRequests) as caught:
            await desk.submit(owner, queue_max=3)
        assert caught.value.retry_after_s > 0
        await desk.submit(other, queue_max=3)
        assert (await desk.submit(owner, "job-1", queue_max=3, due_s=100)).id == "job-1", "what is there takes no room"
        await desk.claim(2)
        await desk.submit(owner, queue_max=3)

    run(scenario())


def test_nobodys_job_is_refused(desk: Desk) -> None:
    with pytest.raises(NotFound):
        run(desk.submit("ten_nobody"))


def test_s10_a_tenant_whose_records_are_full_submits_nothing_more_and_its_jobs_end_nonetheless(desk: Desk) -> None:
    async def scenario() -> None:
        owner, other = await desk.tenant(), await desk.tenant("other")
        job = await desk.submit(owner)
        (lease,) = await desk.claim()
        desk.database.stored.counted({owner: STORED_A_TENANT_MAX_BYTES})
        with pytest.raises(TooManyRequests, match="as much in the records"):
            await desk.submit(owner)
        await desk.submit(other)
        assert await desk.queue.end(lease.token, SUCCESS)
        found = await desk.get(job)
        assert (found.state, found.result) == (JobState.SUCCEEDED, None)
        desk.database.stored.counted(await desk.database.read(count_bytes))
        await desk.submit(owner)

    run(scenario())


# Whose turn it is ---------------------------------------------------------------------------------


def test_priority_then_the_time_at_which_they_are_due(desk: Desk) -> None:
    async def scenario() -> None:
        owner = await desk.tenant()
        for name, priority in (("a", 5), ("b", 5), ("c", 9), ("d", 0), ("e", 9)):
            await desk.submit(owner, name, priority=priority)
        await desk.submit(owner, "later", priority=9, due_s=10)
        assert await desk.claimed(2) == ["c", "e"]
        assert await desk.claimed(1) == ["a"]
        desk.pass_s(10)
        assert await desk.claimed() == ["later", "b", "d"]

    run(scenario())


def test_of_tenants_who_has_least_is_next(desk: Desk) -> None:
    async def scenario() -> None:
        greedy, modest = await desk.tenant("greedy"), await desk.tenant("modest")
        for number in range(6):
            await desk.submit(greedy, f"g{number}", priority=9)
        assert await desk.claimed(2) == ["g0", "g1"]
        for number in range(3):
            await desk.submit(modest, f"m{number}", priority=0)
        assert await desk.claimed(1) == ["m0"]
        assert sorted(await desk.claimed(2)) == ["g2", "m1"]

    run(scenario())


def test_s9_a_tenant_that_floods_the_queue_has_no_turn_before_anothers_next(desk: Desk) -> None:
    async def scenario() -> None:
        flooding, modest = await desk.tenant("flooding"), await desk.tenant("modest")
        await asyncio.gather(*(desk.submit(flooding, priority=9) for _ in range(60)))
        held = list(await desk.claim(4))
        for number in range(5):
            job = await desk.submit(modest, f"modest-{number}", priority=0)
            await desk.queue.end(held.pop(0).token, SUCCESS)
            (lease,) = await desk.claim(1)
            assert lease.job.id == job.id, "the first place that is free"
            await desk.queue.end(lease.token, SUCCESS)
            held += await desk.claim(1)

    run(scenario())


def test_equal_tenants_take_turns(desk: Desk) -> None:
    async def scenario() -> None:
        owners = [await desk.tenant(name) for name in "abc"]
        for owner, name in zip(owners, "abc", strict=True):
            for number in range(3):
                await desk.submit(owner, f"{name}{number}")
        taken: list[str] = []
        while claimed := await desk.claim():
            taken.append(claimed[0].job.id)
            await desk.queue.end(claimed[0].token, SUCCESS)
        assert taken == ["a0", "b0", "c0", "a1", "b1", "c1", "a2", "b2", "c2"]

    run(scenario())


def test_no_tenant_has_more_at_a_time_than_it_may(desk: Desk) -> None:
    async def scenario() -> None:
        owner = await desk.tenant(concurrency_max=2)
        for _ in range(5):
            await desk.submit(owner)
        held = await desk.claim(100)
        assert len(held) == 2
        assert await desk.claim(100) == ()
        await desk.queue.end(held[0].token, SUCCESS)
        assert len(await desk.claim(100)) == 1

    run(scenario())


def test_a_tenant_that_is_suspended_has_no_turn(desk: Desk) -> None:
    async def scenario() -> None:
        owner = await desk.tenant()
        job = await desk.submit(owner)
        await desk.database.write(partial(tenants.change, tenant_id=owner, values={"state": tenants.SUSPENDED}))
        assert await desk.claim() == ()
        await desk.database.write(partial(tenants.change, tenant_id=owner, values={"state": tenants.ACTIVE}))
        assert await desk.claimed() == [job.id]

    run(scenario())


def test_a_paused_queue_keeps_what_it_has(desk: Desk) -> None:
    async def scenario() -> None:
        mine, theirs = await desk.tenant("mine"), await desk.tenant("theirs")
        await desk.queue.pause(mine)
        await desk.submit(mine, "mine")
        await desk.submit(theirs, "theirs")
        assert await desk.claimed() == ["theirs"]
        await desk.submit(theirs, "more")
        await desk.queue.pause(None)
        await desk.queue.resume(mine)
        assert await desk.claimed() == []
        await desk.queue.resume(None)
        assert sorted(await desk.claimed()) == ["mine", "more"]
        with pytest.raises(NotFound):
            await desk.queue.pause("ten_nobody")

    run(scenario())


# Leases -------------------------------------------------------------------------------------------


def test_s2_90_a_lease_that_is_not_renewed_is_taken_back(desk: Desk) -> None:
    async def scenario() -> None:
        job = await desk.submit(await desk.tenant())
        (lost,) = await desk.claim()
        await desk.queue.note(lost.token, JobState.RUNNING)
        desk.pass_s(LEASE_S - 1)
        assert (await desk.queue.renew([lost.token, "lea_none"], lease_s=LEASE_S)).held == {lost.token}
        desk.pass_s(LEASE_S - 1)
        assert await desk.queue.holds(lost.token)
        assert await desk.queue.expire() == ()
        desk.pass_s(2)
        (expired,) = await desk.queue.expire()
        assert (expired.id, expired.state, expired.lost) == (job.id, JobState.QUEUED, 1)
        assert (await desk.queue.renew([lost.token], lease_s=LEASE_S)).held == frozenset()
        assert not await desk.queue.holds(lost.token)
        desk.pass_s(BACKOFF_MAX_S)
        (lease,) = await desk.claim()
        assert lease.job.attempt == 2
        assert lease.token != lost.token
        assert not await desk.queue.end(lost.token, SUCCESS), "who has lost it cannot end it"
        assert await desk.queue.end(lease.token, SUCCESS)
        assert await desk.states(job) == ["queued", "preparing", "running", "queued", "preparing", "succeeded"]

    run(scenario())


def test_s2_90_a_holder_that_begins_anew_has_no_leases(desk: Desk) -> None:
    async def scenario() -> None:
        owner = await desk.tenant()
        jobs_of = [await desk.submit(owner) for _ in range(2)]
        await desk.queue.claim("one", count=1, lease_s=LEASE_S)
        (theirs,) = await desk.queue.claim("two", count=1, lease_s=LEASE_S)
        (expired,) = await desk.queue.expire(holder="one")
        assert expired.id == jobs_of[0].id
        assert (await desk.queue.renew([theirs.token], lease_s=LEASE_S)).held == {theirs.token}

    run(scenario())


def test_s2_90_however_many_leases_are_over_all_are_taken_back(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (store_leases, queue_leases):
        monkeypatch.setattr(module, "EXPIRED_MAX", 2)

    async def scenario() -> None:
        owner = await desk.tenant()
        wanted = {(await desk.submit(owner)).id for _ in range(5)}
        assert len(await desk.claim(5)) == 5
        assert {job.id for job in await desk.queue.expire(holder="one")} == wanted

    run(scenario())


def test_s2_90_a_job_that_is_lost_again_and_again_is_dead(desk: Desk) -> None:
    async def scenario() -> None:
        job = await desk.submit(await desk.tenant(), retries=Retries(max=5))
        for lost in range(1, LOST_MAX):
            (expired,) = await desk.lose(job)
            assert (expired.state, expired.lost) == (JobState.QUEUED, lost)
        (expired,) = await desk.lose(job)
        assert (expired.state, expired.lost, expired.reason) == (JobState.DEAD, LOST_MAX, "lost")
        assert expired.ended_us is not None

    run(scenario())


def test_s2_91_a_job_that_is_to_be_tried_again_waits_until_it_is_due(desk: Desk) -> None:
    async def scenario() -> None:
        job = await desk.submit(await desk.tenant(), retries=Retries(max=1))
        (lease,) = await desk.claim()
        again = Ending(
            state=JobState.QUEUED, status="failed", reason="exit", exit_code=3, due_us=desk.at_us + 2 * SECOND_US
        )
        assert await desk.queue.end(lease.token, again)
        found = await desk.get(job)
        assert (found.state, found.exit_code, found.ended_us) == (JobState.QUEUED, 3, None)
        desk.pass_s(1.9)
        assert await desk.claim() == ()
        desk.pass_s(0.1)
        (lease,) = await desk.claim()
        assert (lease.job.attempt, lease.job.lost) == (2, 0)
        dead = Ending(state=JobState.DEAD, status="failed", reason="exit", exit_code=4)
        assert await desk.queue.end(lease.token, dead)
        assert (await desk.get(job)).result is None

    run(scenario())


def test_s2_91_a_dead_job_is_begun_again_from_its_first_attempt(desk: Desk) -> None:
    async def scenario() -> None:
        owner = await desk.tenant()
        job = await desk.submit(owner)
        (lease,) = await desk.claim()
        with pytest.raises(Conflict):
            await desk.retry_dead(job)
        await desk.queue.end(lease.token, Ending(state=JobState.DEAD, status="failed", reason="exit"))
        again = await desk.retry_dead(job)
        assert (again.state, again.attempt, again.lost, again.ended_us) == (JobState.QUEUED, 0, 0, None)
        (lease,) = await desk.claim()
        assert lease.job.attempt == 1
        with pytest.raises(NotFound):
            await desk.retry_dead(replace(job, id="nowhere"))

    run(scenario())


def test_s2_91_a_dead_job_waits_again_only_where_the_queue_has_room(desk: Desk) -> None:
    async def scenario() -> None:
        owner = await desk.tenant()
        job = await desk.dead(owner)
        waiting = await desk.submit(owner, queue_max=1)
        with pytest.raises(TooManyRequests):
            await desk.retry_dead(job, queue_max=1)
        assert (await desk.get(job)).state is JobState.DEAD
        await desk.queue.cancel(owner, waiting.id)
        assert (await desk.retry_dead(job, queue_max=1)).state is JobState.QUEUED
        with pytest.raises(TooManyRequests):
            await desk.submit(owner, queue_max=1)

    run(scenario())


def test_s2_91_a_dead_job_is_begun_again_as_it_may_be_run_now(desk: Desk) -> None:
    async def scenario() -> None:
        owner = await desk.tenant()
        job = await desk.dead(owner)
        narrower = replace(job.spec, network=NetworkPolicy(blocked_ports=(8080,)))
        with pytest.raises(Conflict, match="another one"):
            await desk.retry_dead(replace(job, spec=narrower))
        again = await desk.queue.retry_dead(job, narrower, queue_max=1)
        assert again.spec == narrower
        (lease,) = await desk.claim()
        assert lease.job.spec == narrower

    run(scenario())


# Cancelling ---------------------------------------------------------------------------------------


def test_a_job_that_waits_is_cancelled_at_once(desk: Desk) -> None:
    async def scenario() -> None:
        owner = await desk.tenant()
        waiting, delayed = await desk.submit(owner), await desk.submit(owner, due_s=5)
        for job in (waiting, delayed):
            cancelled = await desk.queue.cancel(owner, job.id)
            assert (cancelled.state, cancelled.reason) == (JobState.CANCELLED, "cancelled")
            assert cancelled.ended_us == desk.at_us
            assert await desk.queue.cancel(owner, job.id) == cancelled
        desk.pass_s(10)
        assert await desk.claim() == ()
        with pytest.raises(NotFound):
            await desk.queue.cancel(await desk.tenant("other"), waiting.id)

    run(scenario())


def test_whoever_has_a_job_is_told_that_it_is_to_be_cancelled(desk: Desk) -> None:
    async def scenario() -> None:
        owner = await desk.tenant()
        job, other = await desk.submit(owner), await desk.submit(owner)
        held, second = await desk.claim(2)
        assert (held.job.id, second.job.id) == (job.id, other.id)
        assert (await desk.queue.cancel(owner, job.id)).cancel_asked
        found = await desk.queue.renew([held.token, second.token], lease_s=LEASE_S)
        assert found.held == {held.token, second.token}
        assert found.cancelled == {held.token}
        again = Ending(state=JobState.QUEUED, status="failed", reason="exit", due_us=desk.at_us)
        assert await desk.queue.end(held.token, again)
        assert (await desk.get(job)).state is JobState.CANCELLED, "it is not tried again"

    run(scenario())


def test_one_that_is_lost_when_it_is_to_be_cancelled_is_cancelled(desk: Desk) -> None:
    async def scenario() -> None:
        owner = await desk.tenant()
        job = await desk.submit(owner)
        await desk.claim()
        await desk.queue.cancel(owner, job.id)
        desk.pass_s(LEASE_S + 1)
        (expired,) = await desk.queue.expire()
        assert expired.state is JobState.CANCELLED

    run(scenario())


# Waiting ------------------------------------------------------------------------------------------


def test_waiting_ends_when_something_comes(desk: Desk) -> None:
    async def scenario() -> None:
        owner = await desk.tenant()
        waiting = asyncio.create_task(desk.queue.wait(60))
        await asyncio.sleep(0)
        assert not waiting.done()
        await desk.submit(owner)
        await waiting
        assert await desk.claim()

    run(scenario())


def test_what_came_before_the_wait_is_not_waited_for(desk: Desk) -> None:
    async def scenario() -> None:
        await desk.submit(await desk.tenant())
        await asyncio.wait_for(desk.queue.wait(60), QUEUE_LOOK_S / 2)

    run(scenario())


def test_waiting_ends_when_the_next_is_due(desk: Desk) -> None:
    async def scenario() -> None:
        owner = await desk.tenant()
        await desk.submit(owner, due_s=100)
        assert await desk.claim() == ()
        desk.pass_s(100)
        await desk.queue.wait(0.0)
        await asyncio.wait_for(desk.queue.wait(60), QUEUE_LOOK_S / 2)

    run(scenario())


# Lists --------------------------------------------------------------------------------------------


def test_lists_are_narrowed(desk: Desk) -> None:
    async def scenario() -> None:
        owner, other = await desk.tenant(), await desk.tenant("other")
        first = await desk.submit(owner, labels={"team": "a"})
        desk.pass_s(10)
        second = await desk.submit(owner, labels={"team": "b"})
        await desk.submit(other, labels={"team": "a"})
        await desk.claim(1)

        async def found(**filters: Any) -> list[str]:
            page = await desk.database.read(partial(jobs.list_jobs, tenant_id=owner, filters=Filters(**filters)))
            return [job.id for job in page.items]

        assert await found() == [second.id, first.id]
        assert await found(labels={"team": "a"}) == [first.id]
        assert await found(since_us=second.created_us) == [second.id]
        assert await found(until_us=second.created_us) == [first.id]
        assert await found(state=JobState.PREPARING) == [first.id]
        assert await found(state=JobState.QUEUED) == [second.id]
        assert await found(state=JobState.DEAD) == await found(schedule_id="sch_x") == await found(key_id="no") == []

    run(scenario())


def test_a_list_comes_in_pages(desk: Desk) -> None:
    async def scenario() -> None:
        owner = await desk.tenant()
        wanted = [(await desk.submit(owner)).id for _ in range(7)]
        seen: list[str] = []
        cursor: str | None = None
        while True:
            listing = partial(jobs.list_jobs, tenant_id=owner, limit=3, cursor=cursor)
            page = await desk.database.read(listing)
            seen += [job.id for job in page.items]
            cursor = page.next_cursor
            if cursor is None:
                break
        assert seen == wanted[::-1]

    run(scenario())


def test_jobs_are_counted_by_state(desk: Desk) -> None:
    async def scenario() -> None:
        owner = await desk.tenant()
        for number in range(6):
            await desk.submit(owner, due_s=100 * (number == 5))
        held = await desk.claim(3)
        await desk.queue.note(held[0].token, JobState.RUNNING)
        await desk.queue.end(held[1].token, Ending(state=JobState.DEAD, status="failed", reason="exit"))
        assert await desk.database.read(jobs.counts) == {
            owner: {JobState.QUEUED: 3, JobState.RUNNING: 1, JobState.PREPARING: 1, JobState.DEAD: 1}
        }

    run(scenario())


def test_what_has_ended_can_be_forgotten(desk: Desk) -> None:
    async def scenario() -> None:
        owner = await desk.tenant()
        job = await desk.submit(owner)
        with pytest.raises(Conflict):
            await desk.database.write(partial(jobs.delete_job, tenant_id=owner, job_id=job.id))
        old, new = await desk.submit(owner), await desk.submit(owner)
        for each in (job, old):
            await desk.queue.cancel(owner, each.id)
        await desk.database.write(partial(jobs.delete_job, tenant_id=owner, job_id=job.id))
        sweep = partial(jobs.delete_older, tenant_id=None, ended_before_us=desk.at_us + 1)
        assert [await desk.database.write(sweep), await desk.database.write(sweep)] == [1, 0]
        with pytest.raises(NotFound):
            await desk.get(old)
        assert await desk.claimed() == [new.id]
        assert await desk.states(job) == []

    run(scenario())


def test_a_tenants_jobs_go_with_it(desk: Desk) -> None:
    async def scenario() -> None:
        owner = await desk.tenant()
        await desk.submit(owner)
        await desk.submit(owner)
        await desk.claim(1)
        await desk.database.write(partial(tenants.remove, tenant_id=owner))
        assert await desk.claim() == ()
        assert await desk.database.read(jobs.counts) == {}

    run(scenario())


def test_what_is_told_of_a_change_is_written_with_it_or_not_at_all(desk: Desk) -> None:
    async def scenario() -> None:
        owner = await desk.tenant()

        def refuses(_: Records, job: Job) -> None:
            raise NotFound(f"no room for a notice of {job.id}")

        with pytest.raises(NotFound, match="no room"):
            await desk.queue.submit(desk.job(owner), queue_max=10, beside=refuses)
        assert await desk.claim() == ()
        job = await desk.submit(owner)
        (lease,) = await desk.claim()
        with pytest.raises(NotFound, match="no room"):
            await desk.queue.end(lease.token, SUCCESS, beside=refuses)
        assert await desk.states(job) == ["queued", "preparing"]
        assert await desk.queue.end(lease.token, SUCCESS)

    run(scenario())


def test_the_specification_comes_back_as_it_was(desk: Desk) -> None:
    async def scenario() -> None:
        spec: dict[str, Any] = {
            "argv": ("sh", "-c", "echo \N{SNOWMAN}"),
            "stdin": bytes(range(256)),
            "limits": {"memory": 1, "wall_s": 0.5},
        }
        job = await desk.submit(await desk.tenant(), **spec)
        assert msgspec.structs.asdict((await desk.get(job)).spec).items() >= spec.items()
        assert await desk.database.read(partial(store_leases.is_paused, tenant_id=job.tenant_id)) is False

    run(scenario())

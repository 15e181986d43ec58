"""A queue under any sequence of what is asked of it, beside a model of plain dictionaries."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Connection, func, select
from tests.conformance.test_queue import LEASE_S, Desk
from tests.databases import DATABASES
from tests.integration.records import Place, opened

from casemate.errors import Conflict, TooManyRequests
from casemate.job_limits import LOST_MAX
from casemate.model.job import ACTIVE, ENDED, Job, JobSpec, JobState, Retries
from casemate.model.units import SECOND_US
from casemate.queue.protocol import Ending
from casemate.queue.retries import after_attempt
from casemate.store import jobs, tenants
from casemate.store.schema import job_queues
from casemate.store.schema import jobs as table

EXAMPLES: Final = 10
STEPS: Final = 40
QUEUE_MAX: Final = 6
LEASES_MAX: Final = 2
OUTCOMES: Final = st.sampled_from([("succeeded", "exit"), ("failed", "exit"), ("failed", "denied"), ("failed", "lost")])


class Model:
    """What one job should be."""

    def __init__(self, job: Job) -> None:
        self.spec = job.spec
        self.state = JobState.QUEUED
        self.attempt = self.lost = 0
        self.due_us = job.due_us
        self.token = ""
        self.until_us = 0
        self.cancel_asked = False
        self.ends = 0

    def end(self, state: JobState, due_us: int, *, lost: bool) -> None:
        self.token = ""
        self.lost += lost
        self.state = JobState.CANCELLED if state is JobState.QUEUED and self.cancel_asked else state
        if self.state is JobState.QUEUED:
            self.due_us = due_us
        else:
            self.ends += 1


class QueueMachine(RuleBasedStateMachine):
    """Two tenants, of which each may have LEASES_MAX at a time."""

    place: Place

    def __init__(self) -> None:
        super().__init__()
        self.opened = opened(self.place)
        self.loop = asyncio.new_event_loop()
        self.desk = Desk(self.opened.__enter__())
        self.jobs: dict[tuple[str, str], Model] = {}
        self.tenants: list[str] = []
        self.paused: set[str | None] = set()
        self.numbers = itertools.count()

    def teardown(self) -> None:
        """Leave nothing to the next, which has the same database."""
        self.do(self.desk.queue.resume(None))
        for tenant in self.tenants:
            self.do(self.desk.database.write(partial(tenants.remove, tenant_id=tenant)))
        self.opened.__exit__(None, None, None)
        self.loop.close()

    def do(self, asked: Any) -> Any:
        return self.loop.run_until_complete(asked)

    @initialize()
    def two_tenants(self) -> None:
        name = str(self.desk.at_us) + str(id(self))
        self.tenants = [self.do(self.desk.tenant(f"{name}-{each}", concurrency_max=LEASES_MAX)) for each in "ab"]

    def of(self, tenant: str, *states: JobState) -> list[Model]:
        return [model for (owner, _), model in self.jobs.items() if owner == tenant and model.state in states]

    def held(self) -> list[tuple[tuple[str, str], Model]]:
        return [(place, model) for place, model in self.jobs.items() if model.token]

    @rule(
        which=st.integers(0, 1),
        priority=st.integers(0, 2),
        delay_s=st.sampled_from([0, 0, 0, 7]),
        retries=st.integers(0, 2),
    )
    def submit(self, which: int, priority: int, delay_s: int, retries: int) -> None:
        tenant = self.tenants[which]
        asked: dict[str, Any] = {"priority": priority, "due_s": delay_s, "retries": Retries(max=retries)}
        name = f"job-{next(self.numbers)}"
        if len(self.of(tenant, JobState.QUEUED)) >= QUEUE_MAX:
            with pytest.raises(TooManyRequests):
                self.do(self.desk.submit(tenant, name, queue_max=QUEUE_MAX, **asked))
        else:
            self.jobs[tenant, name] = Model(self.do(self.desk.submit(tenant, name, queue_max=QUEUE_MAX, **asked)))

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), same=st.booleans())
    def submit_again(self, data: st.DataObject, same: bool) -> None:
        tenant, name = data.draw(st.sampled_from(sorted(self.jobs)))
        spec = self.jobs[tenant, name].spec if same else JobSpec(argv=("other",))
        again = Job(id=name, tenant_id=tenant, key_id="key_y", spec=spec, due_us=self.desk.at_us)
        if same:
            assert self.do(self.desk.queue.submit(again, queue_max=QUEUE_MAX)).key_id == "key_x"
        else:
            with pytest.raises(Conflict):
                self.do(self.desk.queue.submit(again, queue_max=QUEUE_MAX))

    @rule(count=st.integers(1, 4))
    def claim(self, count: int) -> None:
        leases = self.do(self.desk.claim(count))
        for lease in leases:
            tenant = lease.job.tenant_id
            model = self.jobs[tenant, lease.job.id]
            assert not self.paused & {None, tenant}
            ready = [each for each in self.of(tenant, JobState.QUEUED) if each.due_us <= self.desk.at_us]
            best = min(ready, key=lambda each: (-each.spec.priority, each.due_us))
            assert (model.spec.priority, model.due_us) == (best.spec.priority, best.due_us)
            model.state, model.token, model.until_us = JobState.PREPARING, lease.token, lease.until_us
            model.attempt += 1
            assert (lease.job.attempt, lease.job.lost) == (model.attempt, model.lost)
        assert len(leases) == count or not self.could_be_leased()

    def could_be_leased(self) -> bool:
        return None not in self.paused and any(
            tenant not in self.paused
            and len(self.of(tenant, *ACTIVE)) < LEASES_MAX
            and any(each.due_us <= self.desk.at_us for each in self.of(tenant, JobState.QUEUED))
            for tenant in self.tenants
        )

    @precondition(lambda self: self.held())
    @rule(data=st.data(), state=st.sampled_from([JobState.RUNNING, JobState.COLLECTING]))
    def note(self, data: st.DataObject, state: JobState) -> None:
        _, model = data.draw(st.sampled_from(self.held()))
        assert self.do(self.desk.queue.note(model.token, state))
        model.state = state

    @precondition(lambda self: self.held())
    @rule(data=st.data(), outcome=OUTCOMES)
    def end(self, data: st.DataObject, outcome: tuple[str, str]) -> None:
        _, model = data.draw(st.sampled_from(self.held()))
        status, reason = outcome
        state, delay_s = after_attempt(model.spec, model.attempt, model.lost, status, reason)
        due_us = self.desk.at_us + int(delay_s * SECOND_US)
        ending = Ending(state=state, status=status, reason=reason, due_us=due_us)
        token = model.token
        assert self.do(self.desk.queue.end(token, ending))
        model.end(state, due_us, lost=reason == "lost")
        assert not self.do(self.desk.queue.end(token, ending))

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        tenant, name = data.draw(st.sampled_from(sorted(self.jobs)))
        model = self.jobs[tenant, name]
        self.do(self.desk.queue.cancel(tenant, name))
        if model.state not in ENDED:
            model.cancel_asked = True
        if model.state is JobState.QUEUED:
            model.state = JobState.CANCELLED
            model.ends += 1

    @rule(seconds=st.sampled_from([1, 10, LEASE_S + 1]), renewed=st.booleans())
    def time_passes(self, seconds: float, renewed: bool) -> None:
        self.desk.pass_s(seconds)
        tokens = [model.token for _, model in self.held()]
        if renewed and tokens:
            found = self.do(self.desk.queue.renew(tokens, lease_s=LEASE_S))
            assert found.held == set(tokens)
            assert found.cancelled == {model.token for _, model in self.held() if model.cancel_asked}
            for _, model in self.held():
                model.until_us = self.desk.at_us + int(LEASE_S * SECOND_US)

    @rule()
    def expire(self) -> None:
        over = {place: model for place, model in self.held() if model.until_us < self.desk.at_us}
        found = self.do(self.desk.queue.expire())
        assert {(job.tenant_id, job.id) for job in found} == set(over)
        for job in found:
            model = over[job.tenant_id, job.id]
            state, delay_s = after_attempt(model.spec, model.attempt, model.lost, "failed", "lost")
            model.end(state, self.desk.at_us + int(delay_s * SECOND_US), lost=True)

    @precondition(lambda self: any(model.state is JobState.DEAD for model in self.jobs.values()))
    @rule(data=st.data())
    def retry_dead(self, data: st.DataObject) -> None:
        dead = sorted(place for place, model in self.jobs.items() if model.state is JobState.DEAD)
        tenant, name = data.draw(st.sampled_from(dead))
        model = self.jobs[tenant, name]
        job = Job(id=name, tenant_id=tenant, key_id="key_x", spec=model.spec)
        if len(self.of(tenant, JobState.QUEUED)) >= QUEUE_MAX:
            with pytest.raises(TooManyRequests):
                self.do(self.desk.queue.retry_dead(job, model.spec, queue_max=QUEUE_MAX))
            return
        self.do(self.desk.queue.retry_dead(job, model.spec, queue_max=QUEUE_MAX))
        model.state, model.attempt, model.lost, model.cancel_asked = JobState.QUEUED, 0, 0, False
        model.due_us = self.desk.at_us

    @rule(which=st.sampled_from([0, 1, None]))
    def pause_or_resume(self, which: int | None) -> None:
        tenant = None if which is None else self.tenants[which]
        if tenant in self.paused:
            self.do(self.desk.queue.resume(tenant))
            self.paused.remove(tenant)
        else:
            self.do(self.desk.queue.pause(tenant))
            self.paused.add(tenant)

    @invariant()
    def everything_is_as_it_should_be(self) -> None:
        for tenant in self.tenants:
            found, counted = self.do(self.desk.database.read(partial(everything, tenant_id=tenant)))
            wanted = {name: model for (owner, name), model in self.jobs.items() if owner == tenant}
            assert {name: states(job) for name, job in found.items()} == {
                name: (model.state, model.attempt, model.lost, model.cancel_asked) for name, model in wanted.items()
            }
            assert all(model.lost <= LOST_MAX for model in wanted.values())
            assert counted == (len(self.of(tenant, JobState.QUEUED)), len(self.of(tenant, *ACTIVE)))
            assert counted[1] <= LEASES_MAX


def states(job: Job) -> tuple[JobState, int, int, bool]:
    return job.state, job.attempt, job.lost, job.cancel_asked


def everything(connection: Connection, tenant_id: str) -> tuple[dict[str, Job], tuple[int, int]]:
    """All jobs, and how many are counted as waiting and as leased, which has to be as many as there are."""
    rows = connection.execute(select(table).where(table.c.tenant_id == tenant_id)).mappings().all()
    counted = connection.execute(select(job_queues).where(job_queues.c.tenant_id == tenant_id)).one_or_none()
    numbers = (0, 0, 0) if counted is None else (counted.ready, counted.delayed, counted.leased)
    query = select(table.c.place, func.count()).where(table.c.tenant_id == tenant_id).group_by(table.c.place)
    there = {row[0]: row[1] for row in connection.execute(query)}
    assert numbers == tuple(there.get(place, 0) for place in ("ready", "delayed", "leased"))
    assert numbers[2] == sum(row["token"] is not None for row in rows)
    return {row["id"]: jobs.job_of(row) for row in rows}, (numbers[0] + numbers[1], numbers[2])


@contextmanager
def somewhere(kind: str, request: pytest.FixtureRequest) -> Iterator[Place]:
    if kind == "postgresql":
        yield request.getfixturevalue("postgres").cleaned()
    else:
        with TemporaryDirectory() as directory:
            yield Path(directory) / "records.db"


@pytest.mark.slow
@pytest.mark.parametrize("kind", DATABASES)
def test_any_sequence_leaves_every_job_as_it_should_be(kind: str, request: pytest.FixtureRequest) -> None:
    with somewhere(kind, request) as place:
        machine = type("Here", (QueueMachine,), {"place": place})
        run_state_machine_as_test(machine, settings=settings(max_examples=EXAMPLES, stateful_step_count=STEPS))

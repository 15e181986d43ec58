"""Schedules over real records: each time makes one job, whatever becomes of the service."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from tests.integration.job_desk import Desk, Who

from casemate.api.job_documents import schedule_document
from casemate.config import Config
from casemate.errors import InvalidInput, NotFound
from casemate.jobs.config import JobSettings, load_jobs
from casemate.jobs.schedules import Schedules
from casemate.model.job import Job, JobSpec
from casemate.model.network import NetworkPolicy
from casemate.model.units import SECOND_US
from casemate.store import schedules as rows
from casemate.store import tenants
from casemate.store.database import Database
from casemate.store.jobs import Filters, list_jobs

HOUR_US = 3600 * SECOND_US
SPEC = JobSpec(argv=("true",), labels={"a": "b"})


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database.open(tmp_path / "records.sqlite")
    yield made
    made.close_now()


class Clock:
    """Stands still until it is set."""

    def __init__(self) -> None:
        self.at_us = 1_900_000_000 * SECOND_US // HOUR_US * HOUR_US + 1

    def __call__(self) -> int:
        return self.at_us


class Bench:
    """Schedules with a clock of their own."""

    def __init__(self, database: Database, settings: JobSettings | None = None) -> None:
        self.desk = Desk(database)
        self.clock = Clock()
        self.refusals: list[int] = []
        self.settings = settings or load_jobs(Config(), {})
        self.schedules = self.again()

    def again(self) -> Schedules:
        return Schedules(
            self.desk.database,
            self.desk.queue,
            self.settings,
            meter=self.desk,
            secrets=self.desk,
            notices=self.desk,
            on_refused=lambda: self.refusals.append(1),
            changes=self.desk.changes,
            beside=self.desk.beside,
            clock=self.clock,
        )

    async def create(self, who: Who, cron: str = "0 * * * *", **fields: Any) -> str:
        values = {"cron": cron, "zone": "UTC", "missed": "skip", **fields}
        return (await self.schedules.create(who, values.pop("spec", SPEC), **values)).id

    async def jobs(self, who: Who) -> list[Job]:
        found = await self.desk.database.read(lambda records: list_jobs(records, who.tenant_id, Filters()))
        return list(found.items)


def test_each_time_makes_one_job_also_where_two_services_look(database: Database) -> None:
    async def test() -> None:
        bench = Bench(database)
        who = await bench.desk.tenant()
        schedule_id = await bench.create(who)
        assert await bench.schedules.fire() == bench.clock.at_us - 1 + HOUR_US
        assert await bench.jobs(who) == []
        for _ in range(3):
            bench.clock.at_us += HOUR_US
            await asyncio.gather(bench.schedules.fire(), bench.again().fire(), bench.schedules.fire())
        found = await bench.jobs(who)
        assert len({job.id for job in found}) == len(found) == 3
        assert all(job.schedule_id == schedule_id and job.spec == SPEC for job in found)
        last = await bench.schedules.get(who.tenant_id, schedule_id)
        assert (last.last_job_id, last.last_us) == (found[0].id, bench.clock.at_us - 1)

    asyncio.run(test())


def test_s2_85_a_schedule_makes_jobs_by_the_ports_that_are_blocked_today(database: Database) -> None:
    async def test() -> None:
        bench = Bench(database, load_jobs(Config(), {"SANDBOX_BLOCKED_PORTS": "8080"}))
        who = await bench.desk.tenant()
        spec = replace(SPEC, network=NetworkPolicy(outbound=True, allowed_hosts=("a.example",)))
        await bench.create(who, spec=spec)
        bench.clock.at_us += HOUR_US
        await bench.schedules.fire()
        (job,) = await bench.jobs(who)
        assert 8080 in job.spec.network.blocked_ports

    asyncio.run(test())


def test_no_time_is_made_twice_after_a_restart_and_missed_ones_go_by_their_policy(database: Database) -> None:
    async def test() -> None:
        bench = Bench(database)
        one, other = await bench.desk.tenant(), await bench.desk.tenant("two")
        await bench.create(one)
        await bench.create(other, missed="once")
        bench.clock.at_us += HOUR_US
        await bench.schedules.fire()
        await bench.again().fire()
        assert (len(await bench.jobs(one)), len(await bench.jobs(other))) == (1, 1)
        bench.clock.at_us += 5 * HOUR_US + HOUR_US // 2
        await bench.again().fire()
        assert (len(await bench.jobs(one)), len(await bench.jobs(other))) == (1, 2)

    asyncio.run(test())


def test_a_zone_that_is_none_any_more_holds_up_its_schedule_alone(database: Database) -> None:
    async def test() -> None:
        bench = Bench(database)
        who = await bench.desk.tenant()
        lost, other = await bench.create(who), await bench.create(who)
        made = await bench.schedules.get(who.tenant_id, lost)
        await database.write(lambda records: rows.put(records, replace(made, zone="Europe/Atlantis")))
        bench.clock.at_us += HOUR_US
        assert await bench.schedules.fire() == bench.clock.at_us - 1 + HOUR_US
        assert [job.schedule_id for job in await bench.jobs(who)] == [other]
        assert (await bench.schedules.get(who.tenant_id, lost)).next_us is None

    asyncio.run(test())


def test_a_paused_schedule_makes_nothing_and_a_resumed_one_nothing_for_that_time(database: Database) -> None:
    async def test() -> None:
        bench = Bench(database)
        who = await bench.desk.tenant()
        schedule_id = await bench.create(who, missed="once")
        await bench.schedules.change(who.tenant_id, schedule_id, is_paused=True)
        bench.clock.at_us += 3 * HOUR_US
        assert await bench.schedules.fire() is None
        await bench.schedules.change(who.tenant_id, schedule_id, is_paused=False)
        await bench.schedules.fire()
        assert await bench.jobs(who) == []
        with pytest.raises(InvalidInput):
            await bench.schedules.change(who.tenant_id, schedule_id, cron="never")
        await bench.schedules.delete(who.tenant_id, schedule_id)
        with pytest.raises(NotFound):
            await bench.schedules.delete(who.tenant_id, schedule_id)

    asyncio.run(test())


def test_what_may_not_run_now_is_passed_over_and_the_next_time_stays(database: Database) -> None:
    async def test() -> None:
        bench = Bench(database, load_jobs(Config(jobs={"allowed_commands": ["ls"]}), {}))
        who = await bench.desk.tenant()
        full = Who((await bench.desk.tenant("full", queue_max=0)).tenant_id)
        forbidden = await bench.create(who)
        allowed = await bench.create(full, spec=JobSpec(argv=("ls",)))
        bench.clock.at_us += HOUR_US
        await bench.schedules.fire()
        for each, schedule_id in ((who, forbidden), (full, allowed)):
            assert await bench.jobs(each) == []
            found = await bench.schedules.get(each.tenant_id, schedule_id)
            assert found.next_us == bench.clock.at_us - 1 + HOUR_US

    asyncio.run(test())


def test_of_another_tenant_no_schedule_is_found(database: Database) -> None:
    async def test() -> None:
        bench = Bench(database)
        one, other = await bench.desk.tenant(), await bench.desk.tenant("two")
        schedule_id = await bench.create(one)
        for asking in (bench.schedules.get, bench.schedules.change, bench.schedules.delete):
            with pytest.raises(NotFound):
                await asking(other.tenant_id, schedule_id)
        assert (await bench.schedules.list_schedules(other.tenant_id, limit=10)).items == ()

    asyncio.run(test())


def test_while_it_is_open_jobs_are_made_when_their_time_comes(database: Database) -> None:
    async def test() -> None:
        bench = Bench(database)
        who = await bench.desk.tenant()
        schedule_id = await bench.create(who)
        bench.clock.at_us += HOUR_US
        key = f"{who.tenant_id}/{schedule_id}.{(bench.clock.at_us - 1) // SECOND_US}"
        with bench.desk.changes.watching(key) as made:
            async with bench.schedules:
                await made.wait()
        assert len(await bench.jobs(who)) == 1

    asyncio.run(asyncio.wait_for(test(), 30))


async def refused(bench: Bench, who: Who, schedule_id: str) -> str:
    """Why a schedule made no job at the time that has come now, told in all places alike."""
    bench.clock.at_us += HOUR_US
    before = await bench.schedules.get(who.tenant_id, schedule_id)
    await bench.schedules.fire()
    found = await bench.schedules.get(who.tenant_id, schedule_id)
    assert (found.refused_us, found.refused_count) == (bench.clock.at_us, before.refused_count + 1)
    assert (found.last_us, found.next_us) == (before.last_us, bench.clock.at_us - 1 + HOUR_US)
    assert len(bench.refusals) == found.refused_count
    told = {"id": schedule_id, "name": "nightly", "reason": found.refused_why, "count": found.refused_count}
    assert bench.desk.posted[-1] == ("schedule.refused", told)
    assert schedule_document(found)["refused_reason"] == found.refused_why
    return found.refused_why


def test_why_a_schedule_made_no_job_is_told_and_it_goes_on_when_it_may(database: Database) -> None:
    async def test() -> None:
        bench = Bench(database)
        who = await bench.desk.tenant()
        bench.desk.secrets = {"TOKEN": "x"}
        schedule_id = await bench.create(who, name="nightly", spec=replace(SPEC, secrets=("TOKEN",)))
        bench.desk.budget_is_used_up = True
        assert "the budget is used up" in await refused(bench, who, schedule_id)
        bench.desk.budget_is_used_up = False
        bench.desk.secrets = {}
        assert "secrets: there is no secret 'TOKEN'" in await refused(bench, who, schedule_id)
        bench.desk.secrets = {"TOKEN": "x"}
        bench.schedules._settings = load_jobs(Config(jobs={"allowed_commands": ["ls"]}), {})
        assert "'true'" in await refused(bench, who, schedule_id)
        bench.schedules._settings = bench.settings
        await database.write(partial(tenants.change, tenant_id=who.tenant_id, values={"state": "suspended"}))
        assert "may run nothing" in await refused(bench, who, schedule_id)
        await database.write(partial(tenants.change, tenant_id=who.tenant_id, values={"state": tenants.ACTIVE}))
        assert await bench.jobs(who) == []
        bench.clock.at_us += HOUR_US
        await bench.schedules.fire()
        found = await bench.schedules.get(who.tenant_id, schedule_id)
        assert [job.id for job in await bench.jobs(who)] == [found.last_job_id]
        assert (found.last_us or 0) > (found.refused_us or 0)
        assert len(bench.refusals) == found.refused_count == 4

    asyncio.run(test())


def test_a_schedule_with_a_secret_that_is_not_there_is_not_made(database: Database) -> None:
    async def test() -> None:
        bench = Bench(database)
        who = await bench.desk.tenant()
        with pytest.raises(InvalidInput, match="NONE") as caught:
            await bench.create(who, spec=replace(SPEC, secrets=("NONE",)))
        assert caught.value.field == "secrets"
        assert (await bench.schedules.list_schedules(who.tenant_id, limit=10)).items == ()

    asyncio.run(test())

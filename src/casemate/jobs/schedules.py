"""Schedules: when the time of one comes, its job is made and the next time written down in one transaction.

So no time makes two jobs, whatever dies; and as the time is part of the job's id, not even two services do that.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol, Self

import msgspec
from msgspec.structs import replace

from casemate import job_limits as limits
from casemate.clock import now_us
from casemate.errors import (
    BudgetExceeded,
    CasemateError,
    Conflict,
    InvalidInput,
    NotAllowed,
    NotFound,
    TooManyRequests,
)
from casemate.executions.book import Caller, Changes
from casemate.jobs.attempt import key_of
from casemate.jobs.config import JobSettings
from casemate.jobs.cron import check_times, next_after, turn_at
from casemate.jobs.policy import check_policy, narrowed
from casemate.jobs.ports import Meter, Notices, SecretValues
from casemate.jobs.request import check_secrets, secrets_of
from casemate.model.ids import new_id
from casemate.model.job import Job, JobSpec
from casemate.model.result import JsonValue
from casemate.model.units import SECOND_US
from casemate.queue.protocol import Beside
from casemate.recurring import Recurring
from casemate.store import schedules as rows
from casemate.store import tenants
from casemate.store.database import Database, Records
from casemate.store.pages import Page
from casemate.store.schedules import Schedule

REFUSED: Final = "schedule.refused"
REFUSALS: Final = (BudgetExceeded, Conflict, InvalidInput, NotAllowed, NotFound, TooManyRequests)
"""Why no job is made at a time: the schedule says so, and its next time stays."""

_LOG: Final = logging.getLogger(__name__)


class Accepting(Protocol):
    """A queue that takes a job within a transaction of somebody else's."""

    def accept(self, records: Records, job: Job, *, queue_max: int, beside: Beside) -> Job: ...
    def wake(self) -> None: ...


class Schedules:
    """The schedules of all tenants. While it is open, it makes their jobs."""

    def __init__(
        self,
        database: Database,
        queue: Accepting,
        settings: JobSettings,
        *,
        meter: Meter,
        secrets: SecretValues,
        notices: Notices,
        changes: Changes,
        beside: Beside,
        on_refused: Callable[[], None] = lambda: None,
        clock: Callable[[], int] = now_us,
    ) -> None:
        self._database = database
        self._queue = queue
        self._settings = settings
        self._meter = meter
        self._secrets = secrets
        self._notices = notices
        self._on_refused = on_refused
        self._changes = changes
        self._beside = beside
        self._clock = clock
        self._woken = asyncio.Event()
        self._firing = Recurring(self._look, name="schedules", pause_s=limits.CLAIM_PAUSE_S)

    async def __aenter__(self) -> Self:
        self._firing.begin()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._firing.end()

    # For tenants ----------------------------------------------------------------------------------

    async def create(
        self, caller: Caller, spec: JobSpec, *, cron: str, zone: str, missed: str, name: str = ""
    ) -> Schedule:
        """Make one. Raises InvalidInput, also for a secret that is not there, and TooManyRequests."""
        check_times(cron, zone)
        if len(name) > limits.SCHEDULE_NAME_MAX_CHARS or not (name.isprintable() or not name):
            raise InvalidInput("id", f"must be at most {limits.SCHEDULE_NAME_MAX_CHARS} characters that can be shown")
        if len(msgspec.json.encode(spec)) > limits.JOB_SPEC_MAX_BYTES:
            raise InvalidInput("files", "the job is too large", hint="bring what is large as objects")
        at_us = self._clock()
        made = Schedule(
            id=new_id("sch"),
            tenant_id=caller.tenant_id,
            key_id=caller.key_id,
            name=name,
            cron=cron,
            zone=zone,
            missed=missed,
            spec=spec,
            created_us=at_us,
            next_us=next_after(cron, zone, at_us),
        )

        def insert(records: Records) -> None:
            self._check_secrets(records, made)
            rows.insert_schedule(records, made, most=limits.SCHEDULES_A_TENANT_MAX)

        await self._database.write(insert)
        self._woken.set()
        return made

    def _check_secrets(self, records: Records, schedule: Schedule) -> None:
        if wanted := secrets_of(schedule.spec):
            check_secrets(schedule.spec, self._secrets.missing(records, schedule.tenant_id, wanted))

    async def get(self, tenant_id: str, schedule_id: str) -> Schedule:
        """Raises NotFound."""
        return await self._database.read(lambda records: rows.get(records, tenant_id, schedule_id))

    async def list_schedules(self, tenant_id: str, *, limit: int, cursor: str | None = None) -> Page[Schedule]:
        """Newest first."""
        return await self._database.read(
            lambda records: rows.list_schedules(records, tenant_id, limit=limit, cursor=cursor)
        )

    async def change(self, tenant_id: str, schedule_id: str, **values: str | bool) -> Schedule:
        """Another time, or `is_paused`: the next time is counted from now. Raises NotFound, InvalidInput."""

        def changed(records: Records) -> Schedule:
            now = replace(rows.get(records, tenant_id, schedule_id, to_change=True), **values)
            check_times(now.cron, now.zone)
            now = replace(now, next_us=next_after(now.cron, now.zone, self._clock()))
            rows.put(records, now)
            return now

        found = await self._database.write(changed)
        self._woken.set()
        return found

    async def delete(self, tenant_id: str, schedule_id: str) -> None:
        """Its jobs stay. Raises NotFound."""
        await self._database.write(lambda records: rows.remove(records, tenant_id, schedule_id))

    # When their time comes ------------------------------------------------------------------------

    async def _look(self) -> None:
        self._woken.clear()
        wait_s = limits.SCHEDULES_LOOK_S
        next_us = await self.fire()
        if next_us is not None:
            wait_s = min(wait_s, max(0.0, (next_us - self._clock()) / SECOND_US))
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._woken.wait()

    async def fire(self) -> int | None:
        """Make the jobs whose time has come. When the next is due."""
        made, refused = await self._database.write(self._fired)
        for schedule in refused:
            _LOG.warning("a schedule makes no job: %s", schedule.refused_why, extra={"schedule": schedule.id})
            self._on_refused()
        for job in made:
            self._changes.tell(key_of(job))
        if made:
            self._queue.wake()
        return await self._database.read(rows.next_due_us)

    def _fired(self, records: Records) -> tuple[list[Job], list[Schedule]]:
        """What was made, and the schedules of which nothing could be, as they are now."""
        at_us = self._clock()
        made: list[Job] = []
        refused: list[Schedule] = []
        for schedule in rows.due(records, at_us=at_us, limit=limits.SCHEDULES_A_LOOK_MAX):
            now = schedule
            try:
                turn = turn_at(schedule.cron, schedule.zone, schedule.missed, schedule.next_us or at_us, at_us)
                now = replace(schedule, next_us=turn.next_us)
                if turn.fire_us is not None:
                    made.append(self._made(records, schedule, turn.fire_us, at_us))
                    now = replace(now, last_us=turn.fire_us, last_job_id=made[-1].id)
            except REFUSALS as error:
                if now is schedule:  # its zone is none any more: it has no next time
                    now = replace(schedule, next_us=None)
                now = _refused(now, error, at_us)
                refused.append(now)
                self._notices.post(records, now.tenant_id, REFUSED, _notice_of(now))
            rows.put(records, now)
        return made, refused

    def _made(self, records: Records, schedule: Schedule, fire_us: int, at_us: int) -> Job:
        """The job of a time. Raises one of REFUSALS where it may not be now: that time is passed over."""
        spec = schedule.spec
        check_policy(spec, "", self._settings)
        self._check_secrets(records, schedule)
        self._meter.check_in(records, schedule.tenant_id)
        tenant = tenants.get(records, schedule.tenant_id)
        if tenant.state != tenants.ACTIVE:
            raise NotAllowed("tenant", "it may run nothing now")
        job = Job(
            id=f"{schedule.id}.{fire_us // SECOND_US}",
            tenant_id=schedule.tenant_id,
            key_id=schedule.key_id,
            spec=replace(spec, network=narrowed(spec.network, self._settings)),
            created_us=at_us,
            due_us=at_us,
            schedule_id=schedule.id,
        )
        return self._queue.accept(records, job, queue_max=tenant.queue_max, beside=self._beside)


def _refused(schedule: Schedule, error: CasemateError, at_us: int) -> Schedule:
    """With what its tenant is to see of it."""
    why = str(error)[: limits.SCHEDULE_REFUSED_MAX_CHARS]
    return replace(schedule, refused_us=at_us, refused_why=why, refused_count=schedule.refused_count + 1)


def _notice_of(schedule: Schedule) -> dict[str, JsonValue]:
    return {
        "id": schedule.id,
        "name": schedule.name,
        "reason": schedule.refused_why,
        "count": schedule.refused_count,
    }

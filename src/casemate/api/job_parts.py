"""The parts of the service that jobs are made of, opened in the order in which they need each other."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from casemate.api.job_measures import JobMeasures
from casemate.api.storage import Storage
from casemate.cluster.bus import Bus
from casemate.executions.book import Changes
from casemate.jobs.attempt import Ports
from casemate.jobs.config import JobSettings
from casemate.jobs.dispatch import Background, Dispatcher
from casemate.jobs.logs import Logs
from casemate.jobs.ports import FlowLog, Meter, Notices
from casemate.jobs.schedules import Schedules
from casemate.jobs.service import Jobs
from casemate.model.flow import Flow
from casemate.model.job import Job, JobState
from casemate.queue.leases import RecordsQueue
from casemate.queue.protocol import Beside
from casemate.store.database import Database, Records

_HOLDER_MAX_CHARS: Final = 128
_UNTOLD: Final = frozenset({JobState.PREPARING, JobState.COLLECTING})


class JobParts(msgspec.Struct, kw_only=True):
    """What routes ask."""

    jobs: Jobs
    schedules: Schedules


class Needed(msgspec.Struct, kw_only=True):
    """What stands below jobs."""

    database: Database
    bus: Bus
    storage: Storage
    logs: Logs
    meter: Meter
    notices: Notices
    flows: FlowLog
    measures: JobMeasures


@asynccontextmanager
async def opened_jobs(
    settings: JobSettings, maximum: dict[str, Any], data: Path, needed: Needed
) -> AsyncIterator[JobParts]:
    """Jobs are carried out while it is open."""
    database, queue, changes, background = needed.database, RecordsQueue(needed.database), Changes(), Background()
    beside, measures = told_by(needed.notices), needed.measures
    ports = Ports(
        queue=queue,
        bus=needed.bus,
        logs=needed.logs,
        objects=needed.storage.job_objects,
        meter=needed.meter,
        flows=CountedFlows(needed.flows, measures),
        secrets=needed.storage.vault,
        changes=changes,
        beside=beside,
        on_begin=measures.observe_wait,
        on_end=measures.observe_end,
        spawn=background.spawn,
        maximum=maximum,
        base=settings.base,
        programs=settings.programs,
    )
    measures.slots.set(settings.concurrency)
    dispatcher = Dispatcher(
        ports,
        holder=holder_of(data),
        slots=settings.concurrency,
        lease_s=settings.lease_s,
        on_lost=measures.observe_lost,
    )
    jobs = Jobs(
        database,
        queue,
        dispatcher,
        objects=needed.storage.job_objects,
        logs=needed.logs,
        meter=needed.meter,
        secrets=needed.storage.vault,
        settings=settings,
        changes=changes,
        beside=beside,
        maximum=maximum,
        on_refusal=measures.observe_refusal,
    )
    schedules = Schedules(
        database,
        queue,
        settings,
        meter=needed.meter,
        secrets=needed.storage.vault,
        notices=needed.notices,
        changes=changes,
        beside=beside,
        on_refused=measures.observe_schedule_refused,
    )
    try:
        async with dispatcher, schedules:
            yield JobParts(jobs=jobs, schedules=schedules)
    finally:
        await background.close()


def holder_of(data: Path) -> str:
    """Who holds leases: the service over this directory on this machine, of which there is one at a time."""
    return f"{socket.gethostname()}:{data}"[-_HOLDER_MAX_CHARS:]


def told_by(notices: Notices) -> Beside:
    """Post an event for each state that somebody outside may wait for."""

    def beside(records: Records, job: Job) -> None:
        if job.state not in _UNTOLD:
            notices.post(records, job.tenant_id, f"job.{job.state.value}", notice_of(job))

    return beside


def notice_of(job: Job) -> dict[str, Any]:
    """What is told of a job: nothing of what it was given, or of what it printed."""
    return {
        "id": job.id,
        "state": job.state.value,
        "attempt": job.attempt,
        "status": job.status,
        "reason": job.reason,
        "exit_code": job.exit_code,
        "labels": job.spec.labels,
        "schedule_id": job.schedule_id,
    }


class CountedFlows:
    """Passes on what was tried on a network, and counts what was refused."""

    def __init__(self, flows: FlowLog, measures: JobMeasures) -> None:
        self._flows = flows
        self._measures = measures

    def note(self, tenant_id: str, job_id: str, attempt: int, flow: Flow) -> None:
        """As every FlowLog."""
        self._measures.observe_flow(flow)
        self._flows.note(tenant_id, job_id, attempt, flow)

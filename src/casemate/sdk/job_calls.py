"""What can be asked of the service about jobs, schedules and the queue, as `calls`."""

from __future__ import annotations

import binascii
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from casemate.job_limits import JOB_WAIT_MAX_S
from casemate.model.job_told import JobQueue, JobRecord, ScheduleRecord
from casemate.sdk.calls import asked, sent, several
from casemate.sdk.exchange import Context, Emit, Steps, carry_out
from casemate.sdk.requests import Call, Listing, Request, given, path, read_nothing, reader

FileLike = bytes | str | Mapping[str, object]
Amount = int | float | str


def _file(name: str, each: FileLike) -> dict[str, object]:
    if isinstance(each, Mapping):
        return {"path": name, **each}
    return {"path": name, "content": each if isinstance(each, str) else _content(each)}


def _content(data: bytes) -> dict[str, str]:
    return {"base64": binascii.b2a_base64(data, newline=False).decode("ascii")}


def submit_job(
    command: str | Sequence[str] | None = None,
    *,
    id: str | None = None,  # noqa: A002 - as the service calls it
    shell: bool | None = None,
    code: str | None = None,
    runtime: str | None = None,
    environment: Mapping[str, str] | None = None,
    secrets: Sequence[str] | None = None,
    stdin: bytes | str | None = None,
    timeout: Amount | None = None,
    resources: Mapping[str, Amount] | None = None,
    network: Mapping[str, object] | None = None,
    files: Mapping[str, FileLike] | None = None,
    shared: Sequence[str] | None = None,
    collect: Sequence[str] | None = None,
    image: str | None = None,
    priority: int | None = None,
    retries: int | Mapping[str, object] | None = None,
    labels: Mapping[str, str] | None = None,
    template: str | None = None,
    idempotency_key: str | None = None,
) -> Call[JobRecord]:
    """Have a command run as soon as there is room, or code.

    `command` is a text, split as a shell splits words, or words. `files` are inputs by path: their content, or a
    mapping such as `{"object": "shared/a.csv"}`. The same `id` with the same job is the job that is there.
    """
    body = given(
        id=id,
        command=command if isinstance(command, str) or command is None else list(command),
        shell=shell,
        code=code,
        runtime=runtime,
        environment=environment,
        secrets=None if secrets is None else list(secrets),
        stdin=_content(stdin) if isinstance(stdin, bytes) else stdin,
        timeout=timeout,
        resources=resources,
        network=network,
        files=None if files is None else [_file(name, each) for name, each in files.items()],
        shared=None if shared is None else list(shared),
        collect=None if collect is None else list(collect),
        image=image,
        priority=priority,
        retries={"max": retries} if isinstance(retries, int) else retries,
        labels=labels,
        template=template,
    )
    return Call(sent("POST", path("jobs"), body, key=idempotency_key), reader(JobRecord))


def submit_document(document: Mapping[str, object], *, idempotency_key: str | None = None) -> Call[JobRecord]:
    """Submit a job that is written as the service takes it."""
    return Call(sent("POST", path("jobs"), document, key=idempotency_key), reader(JobRecord))


def get_job(job_id: str, *, wait: float | None = None) -> Call[JobRecord]:
    """One job with its states, and its result once it has ended; for that it waits so many seconds, 60 at most."""
    request = asked(path("jobs", job_id), wait=wait)
    silence_max_s = request.silence_max_s + (wait or 0)  # the service says nothing while it waits
    return Call(msgspec.structs.replace(request, silence_max_s=silence_max_s), reader(JobRecord))


def list_jobs(
    *,
    state: str | None = None,
    status: str | None = None,
    reason: str | None = None,
    schedule: str | None = None,
    label: str | Sequence[str] | None = None,
    since: datetime | str | None = None,
    until: datetime | str | None = None,
    limit: int | None = None,
) -> Listing[JobRecord]:
    """Jobs, youngest first, without their results. `label` is written `name=value`."""
    request = asked(
        path("jobs"),
        state=state,
        status=status,
        reason=reason,
        schedule=schedule,
        label=several(label),
        since=since,
        until=until,
    )
    return Listing(request, JobRecord, limit)


def find_jobs(text: str, *, limit: int | None = None) -> Listing[JobRecord]:
    """Those in whose logs a text is to be found."""
    return Listing(asked(path("jobs"), text=text, limit=limit), JobRecord, limit, in_pages=False)


def list_dead_jobs(*, limit: int | None = None) -> Listing[JobRecord]:
    """Those that failed at their last attempt, and wait for somebody to look at them."""
    return Listing(asked(path("jobs", "dead")), JobRecord, limit)


def cancel_job(job_id: str, *, idempotency_key: str | None = None) -> Call[JobRecord]:
    """End a job. One that has ended stays as it is."""
    return Call(sent("POST", path("jobs", job_id, "cancel"), {}, key=idempotency_key, waits=True), reader(JobRecord))


def rerun_job(
    job_id: str,
    *,
    id: str | None = None,  # noqa: A002 - as the service calls it
    idempotency_key: str | None = None,
) -> Call[JobRecord]:
    """A new job that is the same; `id` is the new one's."""
    return Call(sent("POST", path("jobs", job_id, "rerun"), given(id=id), key=idempotency_key), reader(JobRecord))


def retry_job(job_id: str, *, idempotency_key: str | None = None) -> Call[JobRecord]:
    """Queue a dead job again."""
    return Call(sent("POST", path("jobs", job_id, "retry"), {}, key=idempotency_key), reader(JobRecord))


def delete_job(job_id: str) -> Call[None]:
    """Forget a job that has ended, with its files and its log."""
    return Call(Request(method="DELETE", path=path("jobs", job_id)), read_nothing)


def show_queue() -> Call[JobQueue]:
    """How many jobs wait, are under way, and are dead."""
    return Call(asked(path("queue")), reader(JobQueue))


def pause_queue(*, all: bool = False) -> Call[JobQueue]:  # noqa: A002 - as the service calls it
    """Begin no more jobs; `all`: of no tenant, for the operator."""
    return _turn("pause", all_tenants=all)


def resume_queue(*, all: bool = False) -> Call[JobQueue]:  # noqa: A002 - as the service calls it
    """Go on."""
    return _turn("resume", all_tenants=all)


def _turn(what: str, *, all_tenants: bool) -> Call[JobQueue]:
    return Call(sent("POST", path("queue", what), {}, all=all_tenants or None), reader(JobQueue))


# Schedules -----------------------------------------------------------------------------------------


def create_schedule(
    cron: str,
    job: Mapping[str, object],
    *,
    zone: str | None = None,
    missed: str | None = None,
    name: str | None = None,
    idempotency_key: str | None = None,
) -> Call[ScheduleRecord]:
    """Have a job made at these times; `job` is written as the service takes it: `{"command": "true"}`.

    `missed` says what becomes of times at which the service was down: `skip`, or `once` for one run for all of them.
    """
    body: dict[str, Any] = {**job, **given(id=name), "schedule": given(cron=cron, zone=zone, missed=missed)}
    return Call(sent("POST", path("jobs"), body, key=idempotency_key), reader(ScheduleRecord))


def list_schedules(*, limit: int | None = None) -> Listing[ScheduleRecord]:
    """The schedules, youngest first."""
    return Listing(asked(path("schedules")), ScheduleRecord, limit)


def get_schedule(schedule_id: str) -> Call[ScheduleRecord]:
    """One, with when it is due next."""
    return Call(asked(path("schedules", schedule_id)), reader(ScheduleRecord))


def change_schedule(
    schedule_id: str,
    *,
    paused: bool | None = None,
    cron: str | None = None,
    zone: str | None = None,
    missed: str | None = None,
) -> Call[ScheduleRecord]:
    """What is not given stays."""
    body = given(paused=paused, cron=cron, zone=zone, missed=missed)
    return Call(sent("PATCH", path("schedules", schedule_id), body), reader(ScheduleRecord))


def delete_schedule(schedule_id: str) -> Call[None]:
    """Make no more of its jobs."""
    return Call(Request(method="DELETE", path=path("schedules", schedule_id)), read_nothing)


# Waiting -------------------------------------------------------------------------------------------


def wait_for(context: Context, job_id: str) -> Steps[JobRecord, None]:
    """Ask until the job has ended, and tell it."""
    while True:
        job = yield from carry_out(context, get_job(job_id, wait=JOB_WAIT_MAX_S / 2))
        if job.has_ended:
            yield Emit(job)
            return

"""Jobs: submit them, look them up, follow them, cancel them, run them again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.sse import EventSourceResponse, format_sse_event
from pydantic import ValidationError
from starlette.responses import Response

from casemate import job_limits as limits
from casemate import service_limits as bound
from casemate.api.auth import allowed
from casemate.api.documents import json_response
from casemate.api.job_documents import (
    full_document,
    job_document,
    schedule_document,
    transition_document,
    usage_document,
)
from casemate.api.job_models import JobIn, JobOut, JobsOut, QueueOut, RerunIn, ScheduleOut
from casemate.api.queries import Listed, labels_of, moments, number_of
from casemate.api.route import CheckedRoute
from casemate.api.state import Parts, State
from casemate.api.streams import HEADERS, with_pings
from casemate.api.waiting import unless_gone
from casemate.errors import InvalidInput
from casemate.jobs.service import Jobs
from casemate.model.job import ACTIVE, ENDED, Job, JobSpec, JobState
from casemate.store.jobs import Filters
from casemate.tenancy.terms import Principal

router = APIRouter(route_class=CheckedRoute, prefix="/v1", tags=["jobs"])
Submitter = Annotated[Principal, Depends(allowed("jobs:submit"))]
Reader = Annotated[Principal, Depends(allowed("jobs:read"))]
Canceller = Annotated[Principal, Depends(allowed("jobs:cancel"))]
Manager = Annotated[Principal, Depends(allowed("jobs:manage"))]
Waiting = Annotated[
    float, Query(ge=0, le=limits.JOB_WAIT_MAX_S, description="Seconds to wait for its end before it is answered.")
]


@router.post(
    "/jobs",
    status_code=202,
    response_model=JobOut | ScheduleOut,
    responses={200: {"model": JobOut, "description": "It is there already."}, 201: {"model": ScheduleOut}},
    summary="Submit a job",
)
async def submit(body: JobIn, request: Request, parts: Parts, who: Submitter) -> Response:
    """Have a command run as soon as there is room, or code; with `schedule`, again and again.

    The same id with the same job is answered with the job that is there, with another job by a conflict.
    """
    jobs = parts.jobs
    body = await _from_template(jobs, who, body)
    spec = await _spec_of(jobs, body)
    wanted = body.scheduled()
    if wanted is not None:
        who.scopes.require("schedules:manage")
        made = await parts.schedules.create(
            who, spec, cron=wanted.cron, zone=wanted.zone, missed=wanted.missed, name=body.id
        )
        return json_response(schedule_document(made), 201, {"Location": f"/v1/schedules/{made.id}"})
    job = await jobs.submit(who, spec, job_id=body.id, request_id=request.state.request_id)
    is_new = job.request_id == request.state.request_id
    return json_response(full_document(job), 202 if is_new else 200, {"Location": f"/v1/jobs/{job.id}"})


async def _spec_of(jobs: Jobs, body: JobIn) -> JobSpec:
    is_long = sum(map(len, body.command or ())) + len(body.code) >= limits.SPEC_IN_THREAD_MIN_CHARS
    return await asyncio.to_thread(jobs.spec_of, body.asked()) if is_long else jobs.spec_of(body.asked())


async def _from_template(jobs: Jobs, who: Principal, body: JobIn) -> JobIn:
    """With what the template says where nothing else is said."""
    if not body.template:
        return body
    found = await jobs.template(who.tenant_id, body.template)
    given = body.model_dump(exclude_unset=True)
    try:
        return JobIn.model_validate({**found, **given})
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise InvalidInput("template", f"{body.template[:80]!r} is no job: {field}: {first['msg']}") from error


@router.get("/jobs", response_model=JobsOut, summary="List jobs")
async def list_jobs(
    parts: Parts,
    who: Reader,
    page: Listed,
    state: JobState | None = None,
    status: Annotated[str | None, Query(max_length=bound.WORD_MAX_CHARS)] = None,
    reason: Annotated[str | None, Query(max_length=bound.WORD_MAX_CHARS)] = None,
    schedule: Annotated[str | None, Query(max_length=bound.ID_MAX_CHARS)] = None,
    label: Annotated[list[str], Query(max_length=bound.LABELS_MAX)] = [],  # noqa: B006
    text: Annotated[
        str | None,
        Query(max_length=limits.SEARCH_MAX_CHARS, description="Those whose logs hold it; nothing else counts."),
    ] = None,
    since: str | None = None,
    until: str | None = None,
) -> Response:
    """Jobs of the tenant, youngest first, without their results. `label` is `name=value`."""
    if text is not None:
        found = await parts.jobs.holding(who.tenant_id, text, limit=page.limit)
        return json_response({"items": [job_document(each) for each in found], "next_cursor": None})
    since_us, until_us = moments(since, until)
    filters = Filters(
        state=state,
        status=status,
        reason=reason,
        schedule_id=schedule,
        labels=labels_of(label),
        since_us=since_us,
        until_us=until_us,
    )
    listed = await parts.jobs.list_jobs(who.tenant_id, filters, limit=page.limit, cursor=page.cursor)
    return json_response({"items": [job_document(each) for each in listed.items], "next_cursor": listed.next_cursor})


@router.get("/jobs/dead", response_model=JobsOut, summary="List dead jobs")
async def list_dead(parts: Parts, who: Reader, page: Listed) -> Response:
    """Those that failed at their last attempt, and wait for somebody to look at them."""
    listed = await parts.jobs.list_jobs(
        who.tenant_id, Filters(state=JobState.DEAD), limit=page.limit, cursor=page.cursor
    )
    return json_response({"items": [job_document(each) for each in listed.items], "next_cursor": listed.next_cursor})


@router.get("/jobs/{job_id}", response_model=JobOut, summary="Look up a job")
async def show(job_id: str, request: Request, parts: Parts, who: Reader, wait: Waiting = 0) -> Response:
    """One job with its states, what it uses if it runs, and its result once it has ended."""
    job = await parts.jobs.get(who.tenant_id, job_id)
    if wait and job.state not in ENDED:
        with suppress(TimeoutError):
            job = await unless_gone(request, asyncio.wait_for(parts.jobs.ended(who.tenant_id, job_id), wait))
    return json_response(await _document(parts, who, job_id))


async def _document(parts: State, who: Principal, job_id: str) -> dict[str, Any]:
    transitions = await parts.jobs.transitions(who.tenant_id, job_id)
    job = await parts.jobs.get(who.tenant_id, job_id)
    attempt = parts.jobs.dispatcher.attempt_at(job)
    return full_document(job, transitions, None if attempt is None else attempt.usage)


@router.post("/jobs/{job_id}/cancel", response_model=JobOut, summary="Cancel a job")
async def cancel(job_id: str, request: Request, parts: Parts, who: Canceller) -> Response:
    """End it, and wait a moment for its end. One that has ended stays as it is."""
    job = await parts.jobs.cancel(who.tenant_id, job_id)
    if job.state not in ENDED:
        with suppress(TimeoutError):
            ending = parts.jobs.ended(who.tenant_id, job_id)
            await unless_gone(request, asyncio.wait_for(ending, limits.JOB_CANCEL_TIMEOUT_S))
    return json_response(await _document(parts, who, job_id))


@router.post("/jobs/{job_id}/rerun", status_code=202, response_model=JobOut, summary="Run a job again")
async def rerun(job_id: str, body: RerunIn, request: Request, parts: Parts, who: Submitter) -> Response:
    """A new job that is the same as this one."""
    job = await parts.jobs.rerun(who, job_id, new_id_wanted=body.id, request_id=request.state.request_id)
    return json_response(full_document(job), 202, {"Location": f"/v1/jobs/{job.id}"})


@router.post("/jobs/{job_id}/retry", status_code=202, response_model=JobOut, summary="Retry a dead job")
async def retry(job_id: str, parts: Parts, who: Submitter) -> Response:
    """Queue a dead job again, its attempts counted anew."""
    return json_response(full_document(await parts.jobs.retry_dead(who, job_id)), 202)


@router.delete("/jobs/{job_id}", status_code=204, response_class=Response, summary="Delete a job")
async def delete(job_id: str, parts: Parts, who: Manager) -> Response:
    """Forget one that has ended, with its files and its log."""
    await parts.jobs.delete(who.tenant_id, job_id)
    return Response(status_code=204)


@router.get("/jobs/{job_id}/events", summary="Follow a job", response_class=Response)
async def events(
    job_id: str, parts: Parts, who: Reader, last_event_id: Annotated[str, Header(max_length=20)] = "0"
) -> Response:
    """Its states from the beginning, or from `Last-Event-ID` on, and what it uses while it runs, up to its end.

    The last event is `result`, with all of the job.
    """
    told = number_of(last_event_id, "Last-Event-ID", "an event")
    job = await parts.jobs.get(who.tenant_id, job_id)
    return EventSourceResponse(with_pings(_events(parts, who, job, told)), headers=HEADERS)


async def _events(parts: State, who: Principal, job: Job, told: int) -> AsyncIterator[bytes]:
    jobs, tenant_id = parts.jobs, who.tenant_id
    usage = None
    with jobs.changes.watching(f"{tenant_id}/{job.id}") as changed:
        while True:
            changed.clear()
            job = await jobs.get(tenant_id, job.id)
            async for each in jobs.transitions_after(tenant_id, job.id, told):
                told += 1
                yield _event("state", transition_document(each), str(told))
            if job.state in ENDED:
                yield _event("result", full_document(job, await jobs.transitions(tenant_id, job.id)), str(told))
                return
            attempt = jobs.dispatcher.attempt_at(job)
            if attempt is not None and attempt.usage is not None and attempt.usage is not usage:
                usage = attempt.usage
                yield _event("usage", usage_document(usage), str(told))
            with suppress(TimeoutError):  # what another process does is not told here
                await asyncio.wait_for(changed.wait(), limits.EVENTS_LOOK_S)


def _event(kind: str, document: dict[str, Any], identity: str) -> bytes:
    return format_sse_event(event=kind, data_str=msgspec.json.encode(document).decode(), id=identity)


# The queue ----------------------------------------------------------------------------------------


@router.get("/queue", response_model=QueueOut, summary="Look at the queue")
async def show_queue(parts: Parts, who: Reader) -> Response:
    """How many of the tenant's jobs wait, are under way, and are dead."""
    return json_response(await _queue_document(parts, who))


async def _queue_document(parts: State, who: Principal) -> dict[str, Any]:
    counts, paused, all_paused = await parts.jobs.standing(who.tenant_id)
    return {
        "paused": paused,
        "all_paused": all_paused,
        "waiting": counts.get(JobState.QUEUED, 0),
        "active": sum(counts.get(state, 0) for state in ACTIVE),
        "dead": counts.get(JobState.DEAD, 0),
    }


@router.post("/queue/pause", response_model=QueueOut, summary="Pause the queue")
async def pause(parts: Parts, who: Manager, all_tenants: Annotated[bool, Query(alias="all")] = False) -> Response:  # noqa: FBT002
    """Begin none of the tenant's jobs until it is resumed; what runs goes on. `all` is for the operator."""
    await parts.jobs.queue.pause(_whose(who, all_tenants=all_tenants))
    return json_response(await _queue_document(parts, who))


@router.post("/queue/resume", response_model=QueueOut, summary="Resume the queue")
async def resume(parts: Parts, who: Manager, all_tenants: Annotated[bool, Query(alias="all")] = False) -> Response:  # noqa: FBT002
    """Go on. `all` is for the operator."""
    await parts.jobs.queue.resume(_whose(who, all_tenants=all_tenants))
    return json_response(await _queue_document(parts, who))


def _whose(who: Principal, *, all_tenants: bool) -> str | None:
    if all_tenants and not who.is_operator:
        raise InvalidInput("all", "is for the operator")
    return None if all_tenants else who.tenant_id

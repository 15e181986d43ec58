"""What jobs print: read, followed while they run, and searched."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any, Final, Literal

import msgspec
from fastapi import APIRouter, Depends, Header, Query
from fastapi.sse import EventSourceResponse, format_sse_event
from starlette.responses import Response

from casemate import job_limits, service_limits
from casemate.api.auth import allowed
from casemate.api.documents import json_response, moment
from casemate.api.job_log_models import JobLinesOut, JobLogOut
from casemate.api.queries import Listed, moments, number_of
from casemate.api.route import EVENTS, CheckedRoute
from casemate.api.state import Parts, State
from casemate.api.streams import HEADERS, with_pings
from casemate.errors import NotFound
from casemate.jobs.logs import Found, Wanted
from casemate.model.job import ENDED, Job
from casemate.model.job_log import JobLine
from casemate.store import jobs as rows
from casemate.tenancy.terms import Principal

router = APIRouter(route_class=CheckedRoute, prefix="/v1", tags=["jobs"])
Reader = Annotated[Principal, Depends(allowed("jobs:read"))]
_FIRST: Final = "0"


@router.get(
    "/jobs/{job_id}/logs",
    response_model=JobLogOut,
    summary="Read or follow a job's log",
    responses={200: {"description": "Lines, or with `Accept: text/event-stream` each of them as it comes."}},
)
async def job_logs(
    job_id: str,
    parts: Parts,
    who: Reader,
    page: Listed,
    accept: Annotated[str, Header()] = "",
    last_event_id: Annotated[str | None, Header()] = None,
    tail: Annotated[
        int | None, Query(ge=0, le=job_limits.LOG_LINES_A_READ_MAX, description="Begin with so many of the last lines.")
    ] = None,
) -> Response:
    """A job's lines in their order, over all its attempts.

    Numbers (`seq`) that are missing are of lines that are not kept. A stream goes on until the job has ended: no line
    is lost or told twice, whatever becomes of the connection, if the number of the last one is sent as `Last-Event-ID`.
    """
    job = await _job(parts, who, job_id)
    if EVENTS in accept:
        seq = (
            await _begin(parts, job, tail)
            if last_event_id is None
            else number_of(last_event_id, "Last-Event-ID", "a line")
        )
        return EventSourceResponse(with_pings(_told(parts, job, seq)), headers=HEADERS)
    if tail is not None:
        return await _page(parts, job, await parts.logs.last(job.tenant_id, job.id, tail), None)
    after = number_of(page.cursor or _FIRST, "cursor", "a line")
    lines = await parts.logs.after(job.tenant_id, job.id, after, limit=page.limit + 1)
    cursor = str(lines[page.limit - 1].seq) if len(lines) > page.limit else None
    return await _page(parts, job, lines[: page.limit], cursor)


async def _page(parts: State, job: Job, lines: list[JobLine], cursor: str | None) -> Response:
    log = await parts.logs.find(job.tenant_id, job.id)
    document = {
        "items": [line_document(job.id, line) for line in lines],
        "next_cursor": cursor,
        "lines_kept": log.lines if log else 0,
        "lines_printed": log.next_seq - 1 if log else 0,
        "bytes_kept": log.size_bytes if log else 0,
        "bytes_printed": log.total_bytes if log else 0,
    }
    return json_response(document)


async def _job(parts: State, who: Principal, job_id: str) -> Job:
    return await parts.database.read(lambda records: rows.get(records, who.tenant_id, job_id))


async def _begin(parts: State, job: Job, tail: int | None) -> int:
    """After which line a stream begins that nobody has followed before."""
    if tail is None:
        return 0
    lines = await parts.logs.last(job.tenant_id, job.id, max(1, tail))
    if not lines:
        return 0
    return lines[0].seq - 1 if tail else lines[-1].seq


async def _told(parts: State, job: Job, seq: int) -> AsyncIterator[bytes]:
    """Events: `log` for each line, `missed` where some are not kept, and `end` with what became of the job."""

    async def has_ended() -> bool:
        nonlocal job
        try:
            job = await parts.database.read(lambda records: rows.get(records, job.tenant_id, job.id))
        except NotFound:
            return True
        return job.state in ENDED

    async with aclosing(parts.logs.follow(job.tenant_id, job.id, seq, has_ended)) as found:
        async for lines in found:
            yield b"".join(event_of(job.id, line, after) for line, after in _with_before(lines, seq))
            seq = lines[-1].seq
    ended = {"id": job.id, "state": job.state, "status": job.status, "reason": job.reason, "exit_code": job.exit_code}
    yield format_sse_event(event="end", data_str=msgspec.json.encode(ended).decode(), id=str(seq))


def _with_before(lines: list[JobLine], seq: int) -> list[tuple[JobLine, int]]:
    return list(zip(lines, [seq, *(line.seq for line in lines)], strict=False))


def event_of(job_id: str, line: JobLine, after: int) -> bytes:
    """A line as it goes over the wire, after the line of that number."""
    found = b""
    if missed := line.seq - after - 1:
        found = format_sse_event(event="missed", data_str=f'{{"lines":{missed}}}', id=str(line.seq - 1))
    data = msgspec.json.encode(line_document(job_id, line)).decode()
    return found + format_sse_event(event="log", data_str=data, id=str(line.seq))


@router.get("/logs", response_model=JobLinesOut, summary="Search the logs of jobs")
async def search(
    parts: Parts,
    who: Reader,
    page: Listed,
    text: Annotated[
        str, Query(max_length=job_limits.LOG_QUERY_MAX_CHARS, description="Words that all begin words of the line.")
    ] = "",
    job: Annotated[str | None, Query(max_length=service_limits.ID_MAX_CHARS)] = None,
    runtime: Annotated[str | None, Query(max_length=service_limits.LABEL_MAX_CHARS)] = None,
    kind: Literal["command", "code", "scheduled"] | None = None,
    stream: Literal["stdout", "stderr"] | None = None,
    level: Literal["debug", "info", "warning", "error"] | None = None,
    since: str | None = None,
    until: str | None = None,
) -> Response:
    """Lines of all the tenant's jobs, the last ones first. A page may have few lines, or none, and others follow."""
    since_us, until_us = moments(since, until)
    wanted = Wanted(
        text=text,
        job_id=job,
        runtime=runtime,
        kind=kind,
        stream=stream,
        level=level,
        since_us=since_us,
        until_us=until_us,
    )
    found = await parts.logs.search(who.tenant_id, wanted, limit=page.limit, cursor=page.cursor)
    return json_response({"items": [_found(each) for each in found.items], "next_cursor": found.next_cursor})


def _found(found: Found) -> dict[str, Any]:
    return line_document(found.job_id, found.line)


def line_document(job_id: str, line: JobLine) -> dict[str, Any]:
    """A line, as it is answered."""
    content = {"text": line.text} if line.base64 is None else {"base64": line.base64}
    return {
        "job_id": job_id,
        "seq": line.seq,
        "attempt": line.attempt,
        "stream": line.stream,
        "level": line.level,
        "at": moment(line.at_us),
        "offset": line.offset,
        **content,
        **({"partial": True} if line.partial else {}),
    }

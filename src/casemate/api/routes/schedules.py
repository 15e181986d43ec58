"""Schedules: jobs that are made again and again. They are made by submitting a job with a `schedule`."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from starlette.responses import Response

from casemate.api.auth import allowed
from casemate.api.documents import json_response
from casemate.api.job_documents import schedule_document
from casemate.api.job_models import ScheduleChangeIn, ScheduleOut, SchedulesOut
from casemate.api.queries import Listed
from casemate.api.route import CheckedRoute
from casemate.api.state import Parts
from casemate.tenancy.terms import Principal

router = APIRouter(route_class=CheckedRoute, prefix="/v1/schedules", tags=["jobs"])
Reader = Annotated[Principal, Depends(allowed("jobs:read"))]
Manager = Annotated[Principal, Depends(allowed("schedules:manage"))]


@router.get("", response_model=SchedulesOut, summary="List schedules")
async def list_schedules(parts: Parts, who: Reader, page: Listed) -> Response:
    """The tenant's, youngest first."""
    found = await parts.schedules.list_schedules(who.tenant_id, limit=page.limit, cursor=page.cursor)
    items = [schedule_document(each) for each in found.items]
    return json_response({"items": items, "next_cursor": found.next_cursor})


@router.get("/{schedule_id}", response_model=ScheduleOut, summary="Look up a schedule")
async def show(schedule_id: str, parts: Parts, who: Reader) -> Response:
    """One, with when it is due next. Its jobs are in the list of jobs, by `schedule`."""
    return json_response(schedule_document(await parts.schedules.get(who.tenant_id, schedule_id)))


@router.patch("/{schedule_id}", response_model=ScheduleOut, summary="Change a schedule")
async def change(schedule_id: str, body: ScheduleChangeIn, parts: Parts, who: Manager) -> Response:
    """What is not named stays. The next time is counted from now."""
    values: dict[str, Any] = body.model_dump(exclude_none=True)
    if "paused" in values:
        values["is_paused"] = values.pop("paused")
    return json_response(schedule_document(await parts.schedules.change(who.tenant_id, schedule_id, **values)))


@router.delete("/{schedule_id}", status_code=204, response_class=Response, summary="Delete a schedule")
async def delete(schedule_id: str, parts: Parts, who: Manager) -> Response:
    """Make no more of its jobs. Those that were made stay."""
    await parts.schedules.delete(who.tenant_id, schedule_id)
    return Response(status_code=204)

"""Whether the service lives, whether it can work, and what it has counted."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import Response

from casemate.api.auth import operators
from casemate.api.documents import json_response
from casemate.api.models import HealthOut
from casemate.api.route import CheckedRoute
from casemate.api.state import Parts, State
from casemate.errors import CasemateError
from casemate.model.job import ACTIVE, JobState
from casemate.store import jobs
from casemate.tenancy.terms import Principal

router = APIRouter(route_class=CheckedRoute, tags=["operation"])


@router.get("/healthz", response_model=HealthOut, summary="Whether this process answers")
async def healthy() -> Response:
    """Always good while the process answers."""
    return json_response({"status": "ok", "parts": {}})


@router.get(
    "/readyz",
    response_model=HealthOut,
    responses={503: {"model": HealthOut}},
    summary="Whether everything that a run needs is there",
)
async def ready(parts: Parts) -> Response:
    """Bad while a part is down, with the name of the part."""
    records, objects = await asyncio.gather(_records(parts), parts.storage.looking.state())
    found = {"records": records, "objects": objects, "node": _node(parts), "service": _service(parts)}
    is_ready = all(state == "ok" for state in found.values())
    document = {"status": "ok" if is_ready else "unavailable", "parts": found}
    return json_response(document, 200 if is_ready else 503)


async def _records(parts: State) -> str:
    try:
        await parts.database.read(lambda connection: connection.exec_driver_sql("SELECT 1").scalar_one())
    except CasemateError as error:
        return error.code
    return "ok"


def _node(parts: State) -> str:
    return "ok" if parts.bus.is_connected else "node_unavailable"


def _service(parts: State) -> str:
    try:
        parts.executions.check_open()
    except CasemateError:
        return "shutting_down"
    return "ok"


@router.get("/metrics", response_class=Response, summary="Counters for Prometheus")
async def metrics(parts: Parts, _: Annotated[Principal, Depends(operators("metrics:read"))]) -> Response:
    """In Prometheus' text format; its scraper sends the key as a bearer token."""
    parts.measures.node_up.set(parts.bus.is_connected)
    statistics = parts.executions.gate.statistics()
    parts.measures.waiting.set(statistics.waiting)
    parts.measures.running.set(statistics.running)
    await _count_jobs(parts)
    return Response(parts.measures.text(), media_type=CONTENT_TYPE_LATEST)


async def _count_jobs(parts: State) -> None:
    found = await parts.database.read(jobs.counts)
    measures = parts.measures.jobs
    measures.waiting.set(sum(each.get(JobState.QUEUED, 0) for each in found.values()))
    measures.active.set(sum(each.get(state, 0) for each in found.values() for state in ACTIVE))
    measures.dead.set(sum(each.get(JobState.DEAD, 0) for each in found.values()))
    measures.slots_taken.set(parts.jobs.dispatcher.in_progress)

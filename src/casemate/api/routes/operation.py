"""What operators look at: workers, runtimes, and what executions came to."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

import msgspec
from fastapi import APIRouter, Depends, Path, Query
from starlette.responses import Response

from casemate.api.auth import Who, allowed, operators
from casemate.api.documents import json_response, moment
from casemate.api.models import MetricsOut
from casemate.api.queries import time_range
from casemate.api.route import CheckedRoute
from casemate.api.state import Parts, State
from casemate.cluster.messages import Ask
from casemate.executions.service import answer_to
from casemate.executions.statistics import ErrorCategory, ExecutionRecord, Grouping, grouped, statistics
from casemate.model.ids import new_id
from casemate.model.result import JsonValue, Reason, Status
from casemate.service_limits import ID_MAX_CHARS, STATISTICS_ROWS_MAX
from casemate.store import samples
from casemate.store.executions import Measured, statistics_rows
from casemate.tenancy.terms import Principal

router = APIRouter(prefix="/v1", tags=["operation"], route_class=CheckedRoute)
MetricsReader = Annotated[Principal, Depends(allowed("metrics:read"))]
WorkersReader = Annotated[Principal, Depends(operators("workers:read"))]


async def told(parts: State, about: str) -> JsonValue:
    """What the node says of itself."""
    return await answer_to(parts.bus, Ask(id=new_id("ask"), about=about))


@router.get("/workers", response_model=dict[str, Any], summary="Workers and ready sandboxes")
async def workers(parts: Parts, _: WorkersReader) -> Response:
    """For operators: what the node keeps, with states, memory and what became of those that are gone."""
    return json_response(await told(parts, "workers"))


@router.get("/workers/{worker_id}/samples", response_model=dict[str, Any], summary="What a worker held over time")
async def worker_samples(
    worker_id: Annotated[str, Path(max_length=ID_MAX_CHARS)],
    parts: Parts,
    _: WorkersReader,
    since: str | None = None,
    until: str | None = None,
) -> Response:
    """Taken after each of its executions; by default of the last hour."""
    since_us, until_us = time_range(since, until)
    found = await parts.database.read(
        lambda records: samples.list_samples(records, worker_id, since_us=since_us, until_us=until_us)
    )
    return json_response({"items": [{**msgspec.structs.asdict(each), "at": moment(each.at_us)} for each in found]})


@router.get("/metrics", response_model=MetricsOut, summary="What executions came to")
async def metrics(
    parts: Parts,
    who: MetricsReader,
    since: str | None = None,
    until: str | None = None,
    group_by: Annotated[Literal["runtime", "function", "tenant"] | None, Query()] = None,
    tenant: Annotated[str | None, Query(max_length=ID_MAX_CHARS, description="One tenant's; for the operator.")] = None,
) -> Response:
    """Of those that ended in a time range, by default the last hour: the tenant's, for the operator all tenants'."""
    since_us, until_us = time_range(since, until)
    whose = tenant if who.is_operator else who.tenant_id
    async with _counting:
        rows = await parts.database.read(
            lambda records: statistics_rows(records, whose, since_us=since_us, until_us=until_us)
        )
        counted = await asyncio.to_thread(_counted, rows, group_by)
    head = {"since": moment(since_us), "until": moment(until_us), "truncated": len(rows) >= STATISTICS_ROWS_MAX}
    return json_response({**head, **counted})


_counting: Final = asyncio.Semaphore(1)
"""Many executions take a while: whoever asks for all of them waits for others who do, and nobody else for either."""


def _counted(rows: Sequence[Measured], group_by: str | None) -> dict[str, Any]:
    counted = [_record(row) for row in rows]
    groups = grouped(counted, Grouping(group_by)) if group_by is not None else {}
    return {"total": statistics(counted), "groups": groups}


def _record(row: Measured) -> ExecutionRecord:
    return ExecutionRecord(
        status=Status(row.status),
        reason=Reason(row.reason),
        started_us=row.started_us or row.created_us,
        wall_us=row.wall_us or 0,
        memory_peak_bytes=row.memory_peak_bytes,
        error_type="SyntaxError" if row.error_category == ErrorCategory.SYNTAX else "",
        runtime=row.runtime,
        function=row.function,
        tenant=row.tenant_id,
    )


@router.get("/runtimes", response_model=dict[str, Any], summary="Runtimes")
async def runtimes(parts: Parts, _: Who) -> Response:
    """The languages and package sets of the node."""
    return json_response({"items": await told(parts, "runtimes")})

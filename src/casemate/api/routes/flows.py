"""What jobs have tried to reach: listed, and followed as it happens."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Header, Query
from fastapi.sse import EventSourceResponse, format_sse_event
from starlette.responses import Response

from casemate import network_limits, service_limits
from casemate.api.auth import allowed as may
from casemate.api.documents import json_response, moment
from casemate.api.flow_models import FlowsOut
from casemate.api.queries import Listed, moments, number_of
from casemate.api.route import EVENTS, CheckedRoute
from casemate.api.state import Parts, State
from casemate.api.streams import HEADERS, with_pings
from casemate.model.units import SECOND_US
from casemate.store.flows import Filters, StoredFlow
from casemate.tenancy.terms import Principal

router = APIRouter(route_class=CheckedRoute, prefix="/v1", tags=["jobs"])
Reader = Annotated[Principal, Depends(may("flows:read"))]


@router.get(
    "/flows",
    response_model=FlowsOut,
    summary="List or follow what jobs try to reach",
    responses={200: {"description": "Flows, or with `Accept: text/event-stream` each of them as it ends."}},
)
async def list_flows(
    parts: Parts,
    who: Reader,
    page: Listed,
    accept: Annotated[str, Header()] = "",
    last_event_id: Annotated[str | None, Header()] = None,
    job: Annotated[str | None, Query(max_length=service_limits.ID_MAX_CHARS)] = None,
    host: Annotated[str | None, Query(max_length=network_limits.HOST_MAX_CHARS)] = None,
    allowed: Annotated[bool | None, Query()] = None,
    since: str | None = None,
    until: str | None = None,
) -> Response:
    """The tenant's flows, the last ones first.

    A stream tells those that end from now on, or that came after the one whose id is sent as `Last-Event-ID`; it does
    not end by itself.
    """
    since_us, until_us = moments(since, until)
    filters = Filters(job_id=job, host=host, allowed=allowed, since_us=since_us, until_us=until_us)
    if EVENTS in accept:
        after = (
            await parts.flows.last_id()
            if last_event_id is None
            else number_of(last_event_id, "Last-Event-ID", "a flow")
        )
        return EventSourceResponse(with_pings(_told(parts, who.tenant_id, filters, after)), headers=HEADERS)
    found = await parts.flows.page(who.tenant_id, filters, limit=page.limit, cursor=page.cursor)
    items = [flow_document(flow) for flow in found.items]
    return json_response({"items": items, "next_cursor": found.next_cursor})


async def _told(parts: State, tenant_id: str, filters: Filters, after: int) -> AsyncIterator[bytes]:
    async with aclosing(parts.flows.follow(tenant_id, filters, after)) as found:  # type: ignore[type-var]
        async for flows in found:
            yield b"".join(map(event_of, flows))


def event_of(flow: StoredFlow) -> bytes:
    """A flow as it goes over the wire."""
    data = msgspec.json.encode(flow_document(flow)).decode()
    return format_sse_event(event="flow", data_str=data, id=str(flow.id))


def flow_document(flow: StoredFlow) -> dict[str, Any]:
    """A flow, as it is answered."""
    found = msgspec.structs.asdict(flow)
    at_us, wall_us = found.pop("at_us"), found.pop("wall_us")
    del found["tenant_id"]
    return {**found, "at": moment(at_us), "wall_s": wall_us / SECOND_US}

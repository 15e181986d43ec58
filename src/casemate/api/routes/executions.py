"""Executions: run code and wait, follow it, look it up, cancel it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated, Final, Literal

import msgspec
from fastapi import APIRouter, Depends, Header, Query, Request
from starlette.responses import Response

from casemate import service_limits as limits
from casemate.api.auth import allowed
from casemate.api.documents import execution_document, json_response, running_document
from casemate.api.models import BriefOut, ExecutionIn, ExecutionOut, ExecutionsOut
from casemate.api.queries import Listed, labels_of, moments
from casemate.api.route import CheckedRoute
from casemate.api.state import Parts, State
from casemate.api.streams import event_stream
from casemate.api.waiting import ClientGone, unless_gone
from casemate.executions.answer import answer
from casemate.executions.live import Piece, Place, follow, pieces
from casemate.executions.request import ExecutionRequest, check_code_size
from casemate.executions.sanitize import as_document, sanitize
from casemate.executions.service import Running
from casemate.model.document import result_from_document
from casemate.store import executions as rows
from casemate.store.executions import Execution, Filters
from casemate.tenancy.terms import Principal

router = APIRouter(route_class=CheckedRoute, prefix="/v1/executions", tags=["executions"])
EVENTS: Final = "text/event-stream"
Runner = Annotated[Principal, Depends(allowed("executions:run"))]
Reader = Annotated[Principal, Depends(allowed("executions:read"))]
Canceller = Annotated[Principal, Depends(allowed("executions:cancel"))]


@router.post(
    "",
    response_model=ExecutionOut | BriefOut,
    responses={202: {"model": ExecutionOut, "description": "Accepted; ask for it later."}},
    summary="Run code",
)
async def run(
    body: ExecutionIn,
    request: Request,
    parts: Parts,
    who: Runner,
    accept: Annotated[str, Header()] = "",
    prefer: Annotated[str, Header()] = "",
    brief: Annotated[bool, Query(description="Answer with the output, or with why there is none, alone.")] = False,  # noqa: FBT002
) -> Response:
    """Run code and wait for its Result.

    With `Accept: text/event-stream` its output comes while it runs. With `Prefer: respond-async` the answer is given at
    once. A client that goes away while it waits cancels the run.
    """
    streams = EVENTS in accept
    later = "respond-async" in prefer
    asked = await _looked_at(parts, who, body, body.request(live=streams or later), request.state.request_id)
    running = await parts.executions.accept(who, asked, request.state.request_id)
    if later:
        return json_response(running_document(running), 202, {"Location": f"{router.prefix}/{running.id}"})
    if streams:
        location = f"{router.prefix}/{running.id}/events"
        return event_stream(
            _followed(parts, running), lambda: running_document(running), running_document(running), location
        )
    try:
        await unless_gone(request, running.ended())
    except ClientGone:
        await asyncio.shield(parts.executions.cancel(running))
        raise
    if running.refusal is not None:
        raise running.refusal
    if brief and running.result is not None:
        return json_response(answer(running.result, with_stack=body.debug.stack).document())
    return json_response(running_document(running))


async def _followed(parts: State, running: Running) -> AsyncIterator[Piece]:
    """Its events. Who stops listening before the end has a moment to come back; then it is cancelled."""
    try:
        async with aclosing(follow(running, Place())) as found:
            async for piece in found:
                yield piece
    finally:
        parts.executions.leave(running)


async def _looked_at(
    parts: State, who: Principal, body: ExecutionIn, asked: ExecutionRequest, request_id: str
) -> ExecutionRequest:
    """As it is to be run, if it may be: sanitized, without forbidden patterns, and what its language can read."""
    check_code_size(asked.code)
    if body.sanitize:
        sanitized = sanitize(asked.code, asked.runtime)
        changes = tuple(as_document(sanitized.changes))
        asked = msgspec.structs.replace(asked, code=sanitized.code, changes=changes)
    if body.patterns or body.check:
        await parts.checks.check_code(
            who, asked.code, asked.runtime, patterns=body.patterns, syntax=body.check, request_id=request_id
        )
    return asked


@router.get("", response_model=ExecutionsOut, summary="List executions")
async def list_executions(
    parts: Parts,
    who: Reader,
    page: Listed,
    state: Literal["queued", "running", "ended"] | None = None,
    status: Literal["succeeded", "failed"] | None = None,
    reason: Annotated[str | None, Query(max_length=limits.WORD_MAX_CHARS)] = None,
    kind: Literal["code", "function", "batch"] | None = None,
    runtime: Annotated[str | None, Query(max_length=limits.LABEL_MAX_CHARS)] = None,
    function: Annotated[str | None, Query(max_length=limits.FUNCTION_NAME_MAX_CHARS)] = None,
    label: Annotated[list[str], Query(max_length=limits.LABELS_MAX)] = [],  # noqa: B006
    since: str | None = None,
    until: str | None = None,
) -> Response:
    """Executions of the tenant, youngest first, without their results. `label` is `name=value`."""
    since_us, until_us = moments(since, until)
    filters = Filters(
        state=state,
        status=status,
        reason=reason,
        kind=kind,
        runtime=runtime,
        function=function,
        labels=labels_of(label),
        since_us=since_us,
        until_us=until_us,
    )
    found = await parts.database.read(
        lambda connection: rows.list_executions(
            connection, who.tenant_id, filters, limit=page.limit, cursor=page.cursor
        )
    )
    items = [execution_document(_current(parts, row)) for row in found.items]
    return json_response({"items": items, "next_cursor": found.next_cursor})


def _current(parts: Parts, row: Execution) -> Execution:
    running = parts.executions.running(row.tenant_id, row.id)
    return row if running is None else running.row


@router.get("/{execution_id}", response_model=ExecutionOut, summary="Look up an execution")
async def show(execution_id: str, parts: Parts, who: Reader) -> Response:
    """One execution with its Result, once it has ended."""
    running = parts.executions.running(who.tenant_id, execution_id)
    if running is not None:
        return json_response(running_document(running))
    row = await _recorded(parts, who, execution_id)
    return json_response(execution_document(row, row.result))


async def _recorded(parts: Parts, who: Principal, execution_id: str) -> Execution:
    return await parts.database.read(lambda connection: rows.get(connection, who.tenant_id, execution_id))


@router.delete("/{execution_id}", response_model=ExecutionOut, summary="Cancel an execution")
async def cancel(execution_id: str, parts: Parts, who: Canceller) -> Response:
    """End it and wait for its Result. One that has ended stays as it is."""
    running = parts.executions.running(who.tenant_id, execution_id)
    if running is None:
        row = await _recorded(parts, who, execution_id)
        return json_response(execution_document(row, row.result))
    await parts.executions.cancel(running)
    return json_response(running_document(running))


@router.get("/{execution_id}/events", summary="Follow an execution", response_class=Response)
async def events(
    execution_id: str,
    parts: Parts,
    who: Reader,
    last_event_id: Annotated[str, Header()] = "0.0.0",
) -> Response:
    """Its events from the beginning, or from `Last-Event-ID` on: no byte is lost or told twice.

    Following does not keep a run alive, and ending it does not end the run.
    """
    place = Place.parse(last_event_id)
    running = parts.executions.running(who.tenant_id, execution_id)
    if running is not None:
        return event_stream(follow(running, place), lambda: running_document(running))
    row = await _recorded(parts, who, execution_id)
    document = msgspec.json.encode(execution_document(row, row.result))
    return event_stream(_replayed(row, place), lambda: document)


async def _replayed(row: Execution, place: Place) -> AsyncIterator[Piece]:
    result = result_from_document(msgspec.json.decode(row.result or b"{}"))
    found: list[Piece] = list(pieces((result.stdout, result.stderr), place, has_started=True, has_ended=True))
    for piece in found:
        yield piece

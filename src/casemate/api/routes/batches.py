"""Batches over several functions, sent with a key or signed, whose items never cost each other anything."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from casemate import service_limits as limits
from casemate.api.auth import Who
from casemate.api.body import parsed
from casemate.api.documents import json_response
from casemate.api.function_models import MixedBatchIn, MixedBatchOut
from casemate.api.route import CheckedRoute
from casemate.api.routes.functions import callable_by
from casemate.api.state import Parts, State
from casemate.api.waiting import unless_gone
from casemate.clock import now_us
from casemate.errors import CasemateError, NotFound, Unauthenticated
from casemate.functions.batch import MACRO_NOT_FOUND, NOT_FOUND, Batch, Merged, Part, merge, read_batch, split
from casemate.functions.calls import BATCH, Room, all_results
from casemate.functions.published import check_reference
from casemate.functions.webhook import KEY_ID_HEADERS, UNAUTHORIZED, Verified, verify
from casemate.model.function import ItemResult
from casemate.model.units import SECOND_US
from casemate.store import nonces
from casemate.tenancy.secrets import webhook_text
from casemate.tenancy.terms import Principal

router = APIRouter(prefix="/v1", tags=["functions"], route_class=CheckedRoute)
_MACRO: Final = "macro_id"
_NOBODY: Final = ""
_SIGNED_BODY: Final = {
    "description": "As that of /v1/batch; `macro_id` may name the function.",
    "required": True,
    "content": {"application/json": {"schema": {"type": "object", "additionalProperties": True, "title": "Body"}}},
}


@router.post("/batch", response_model=MixedBatchOut, summary="Call several functions")
async def batch(body: MixedBatchIn, request: Request, parts: Parts, who: Who) -> Response:
    """Items for several functions; results are in the order of the items.

    A function that is not there, or that the key may not call, is an error of its items alone.
    """
    asked = read_batch(body.model_dump(exclude_unset=True))
    merged = await unless_gone(request, answered(parts, who, asked, request.state.request_id, NOT_FOUND))
    return json_response(_document(merged, "function"))


@router.post(
    "/webhooks/batch",
    response_model=dict[str, Any],
    summary="Call several functions, signed",
    openapi_extra={"security": [], "requestBody": _SIGNED_BODY},
)
async def signed_batch(request: Request, parts: Parts) -> Response:
    """The same with a signature in the place of a key.

    Headers: X-Casemate-Key-Id, X-Casemate-Timestamp (within five minutes), and X-Casemate-Signature, the HMAC-SHA256 of
    `<timestamp>:<body>` with the key's webhook secret. Each signature counts once.
    """
    who = await _signer(request, parts)
    body = await request.json()
    name_key = _MACRO if any(_MACRO in each for each in _items(body)) else "function"
    asked = read_batch(body, name_key=name_key)
    not_found = MACRO_NOT_FOUND if name_key == _MACRO else NOT_FOUND
    merged = await unless_gone(request, answered(parts, who, asked, request.state.request_id, not_found))
    return json_response({"success": True, **_document(merged, name_key)})


def _items(body: Any) -> list[dict[str, Any]]:
    items = body.get("items") if isinstance(body, dict) else None
    if isinstance(items, str):
        items = parsed(items.encode("utf-8", "replace"))
    return [each for each in items if isinstance(each, dict)] if isinstance(items, list) else []


async def _signer(request: Request, parts: State) -> Principal:
    """Whose key has signed the request. Whatever is wrong, the error is the same.

    Nothing is read, and nothing computed, for whoever does not know the id of a key.
    """
    headers = dict(request.headers.items())
    key_id = next((headers[name] for name in KEY_ID_HEADERS if name in headers), "")
    who = await parts.tenancy.principal_of(key_id)
    if who is None:
        raise Unauthenticated(UNAUTHORIZED)
    parts.load.enter(request.scope, _NOBODY)
    found = await asyncio.to_thread(_verified, parts, headers, await request.body(), key_id)
    if found is None or not await _is_first(parts, who, found.nonce, found.until_s):
        raise Unauthenticated(UNAUTHORIZED)
    parts.tenancy.admit(who)
    return who


def _verified(parts: State, headers: dict[str, str], body: bytes, key_id: str) -> Verified | None:
    """By any of the secrets that are in use."""
    found = None
    for secret in parts.signing.webhook_secrets(key_id):
        text = webhook_text(secret)
        with suppress(Unauthenticated):
            found = verify(headers, body, secret_of=partial(_known, text), now_s=now_us() / SECOND_US)
    return found


def _known(secret: bytes, _key_id: str) -> bytes:
    return secret


async def _is_first(parts: State, who: Principal, nonce: str, until_s: float) -> bool:
    expires_us = int(until_s * SECOND_US)
    return await parts.database.write(lambda records: nonces.use(records, who.tenant_id, nonce, expires_us=expires_us))


async def answered(parts: State, who: Principal, asked: Batch, request_id: str, not_found: str) -> Merged:
    """What became of every item: a call of a runner for each function, several at a time."""
    parts.executions.check_open()
    pieces = split(asked)
    turns, room = asyncio.Semaphore(limits.BATCH_FUNCTIONS_AT_ONCE), Room()

    async def one(piece: Part) -> Sequence[ItemResult] | str:
        async with turns:
            return await _part(parts, who, asked, piece, request_id, not_found, room)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(piece)) for piece in pieces]
    return merge(asked, pieces, [task.result() for task in tasks])


async def _part(
    parts: State, who: Principal, asked: Batch, piece: Part, request_id: str, not_found: str, room: Room
) -> Sequence[ItemResult] | str:
    """The results of one function's items, or why there are none."""
    target = piece.target
    try:
        version = target.version if isinstance(target.version, int) else None
        found = await callable_by(parts, who, target.function, check_reference(version, target.alias or None))
        row = await parts.calls.begin(
            who, found.source, kind=BATCH, name=target.function, version=found.version.number, request_id=request_id
        )
        items = [asked.items[at].item for at in piece.positions]
        return await all_results(parts.calls.results(who, row, found, items, asked.timeout_s), room)
    except NotFound:
        return not_found.format(target.function)
    except CasemateError as error:
        return error.message


def _document(merged: Merged, name_key: str) -> dict[str, Any]:
    results = []
    for entry in merged.results:
        found: dict[str, Any] = {"id": entry.id, name_key: entry.function, "success": entry.success}
        found |= {"output": entry.output} if entry.success else {"error": entry.error}
        results.append(found)
    return {"results": results, "errors": list(merged.errors)}

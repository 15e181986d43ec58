"""Every route of the service: bodies are checked, and a POST that is sent twice with one key is done once."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Coroutine
from difflib import get_close_matches
from typing import Any, Final

import msgspec
from fastapi import Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.responses import Response, StreamingResponse

from casemate import service_limits as limits
from casemate.api.audited import note
from casemate.api.auth import principal
from casemate.api.body import CheckedRequest
from casemate.api.problems import MEDIA_TYPE, problem, request_id_of
from casemate.api.state import State, state_of
from casemate.api.waiting import CLIENT_GONE
from casemate.clock import now_us
from casemate.errors import CasemateError, Conflict, InvalidInput, NotFound
from casemate.executions.book import IDEMPOTENCY_KEY
from casemate.store import idempotency
from casemate.store.idempotency import Answered, Begun, Left

Handler = Callable[[Request], Coroutine[Any, Any, Response]]
HEADER: Final = "Idempotency-Key"
EXECUTIONS: Final = "/v1/executions"
EVENTS: Final = "text/event-stream"
REPLAYED: Final = "Idempotency-Replayed"
_KEY: Final = rf"[!-~]{{1,{limits.IDEMPOTENCY_KEY_MAX_CHARS}}}"
_KEPT_HEADERS: Final = ("content-type", "location", "retry-after", "preference-applied")
_REPEATED: Final = frozenset({"label"})
"""Parameters that may be given several times; of any other, nobody knows which one counts."""

_SEE_OTHER: Final = 303
_SERVER_ERROR: Final = 500
_TOO_MANY: Final = 429


class CheckedRoute(APIRoute):
    """A route whose requests are `CheckedRequest`s, and whose POSTs take an idempotency key; see also `audited`.

    Who may not ask at all is told so before a byte of the body is read.
    """

    def get_route_handler(self) -> Handler:
        handle = super().get_route_handler()
        asks_who = _depends_on(self.dependant, principal)
        known = _query_names(self.dependant)

        async def checked(request: Request) -> Response:
            request = CheckedRequest(request.scope, request.receive)
            try:
                response = await answered(request)
            except Exception as error:
                await note(request, None, error)
                raise
            await note(request, response, None)
            return response

        async def answered(request: Request) -> Response:
            if asks_who:
                await principal(request)
            _check_names(request, known)
            key = request.headers.get(HEADER)
            if key is None or request.method != "POST" or not asks_who:  # what is signed counts once as it is
                return await handle(request)
            return await once(request, key, handle)

        return checked


def _check_names(request: Request, known: Collection[str]) -> None:
    """A parameter that nobody reads may be a misspelt one. Raises InvalidInput.

    No name and no value has a zero, which not every database takes. Raises NotFound for one in the path.
    """
    if "\0" in request.scope["path"]:
        raise NotFound("there is nothing at this address")
    for name, value in request.query_params.multi_items():
        if "\0" in value:
            raise InvalidInput(name[: limits.LABEL_MAX_CHARS], "holds a zero character")
        if name not in _REPEATED and len(request.query_params.getlist(name)) > 1:
            raise InvalidInput(name[: limits.LABEL_MAX_CHARS], "is there more than once")
        if name not in known:
            close = get_close_matches(name[: limits.LABEL_MAX_CHARS], known, n=1)
            hint = f"did you mean {close[0]}?" if close else "known: " + (", ".join(sorted(known)) or "none")
            raise InvalidInput(name[: limits.LABEL_MAX_CHARS], "is no parameter of this address", hint=hint)


def _query_names(dependant: Dependant) -> set[str]:
    own = {each.alias for each in dependant.query_params}
    return own.union(*(_query_names(each) for each in dependant.dependencies))


def _depends_on(dependant: Dependant, wanted: object) -> bool:
    return dependant.call is wanted or any(_depends_on(each, wanted) for each in dependant.dependencies)


async def once(request: Request, key: str, handle: Handler) -> Response:
    """What the first request with that key was answered, or is answered now.

    What failed for reasons that may pass (429, 5xx), or because its client went away, is done again. Of what was under
    way when the service died, the execution that was accepted for it tells what became of it.
    """
    if not re.fullmatch(_KEY, key):
        raise InvalidInput(HEADER, f"must be 1 to {limits.IDEMPOTENCY_KEY_MAX_CHARS} printable characters")
    parts = state_of(request)
    who = await principal(request)
    key = f"{who.key_id}/{hashlib.sha256(key.encode()).hexdigest()}"  # another key may not do the same
    digest = await _digest(request)
    begun = await parts.database.write(
        lambda connection: idempotency.begin(
            connection,
            who.tenant_id,
            key,
            route=request.url.path,
            body_digest=digest,
            epoch=parts.executions.book.epoch,
            at_us=now_us(),
        )
    )
    if isinstance(begun, Left):
        begun = _found_at(request, begun.execution_id)
    if isinstance(begun, Answered):
        return _replayed(begun, request_id_of(request))
    if begun is not Begun.NEW:
        raise _contradiction(begun)
    return await _done_once(request, parts, who.tenant_id, key, handle)


def _found_at(request: Request, execution_id: str) -> Answered:
    """Where what was accepted tells of itself: to who follows as events."""
    events = "/events" if EVENTS in request.headers.get("accept", "") else ""
    return Answered(status_code=_SEE_OTHER, headers={"location": f"{EXECUTIONS}/{execution_id}{events}"}, body=b"")


async def _digest(request: Request) -> bytes:
    asked = hashlib.sha256(f"{request.url.path}?{request.url.query}\n".encode())
    asked.update(await request.body())
    return asked.digest()


def _contradiction(begun: Begun) -> Conflict:
    if begun is Begun.IN_PROGRESS:
        return Conflict("a request with this idempotency key is under way", hint="ask again when it has been answered")
    return Conflict("another request was sent with this idempotency key", hint="take a new key for a new request")


async def _done_once(request: Request, parts: State, tenant_id: str, key: str, handle: Handler) -> Response:
    response: Response | None = None
    IDEMPOTENCY_KEY.set(key)
    try:
        try:
            response = await handle(request)
        except CasemateError as error:
            response = problem(error, request_id_of(request))
        return response
    finally:
        await _kept_or_forgotten(parts, tenant_id, key, response)


async def _kept_or_forgotten(parts: State, tenant_id: str, key: str, response: Response | None) -> None:
    if response is None or response.status_code >= _SERVER_ERROR or response.status_code in {_TOO_MANY, CLIENT_GONE}:
        await parts.database.write(lambda connection: idempotency.forget(connection, tenant_id, key))
        return
    kept = _kept(response)
    if not parts.database.stored.takes(tenant_id, len(kept.body)):
        kept = _not_kept("the answer found no room")
    await parts.database.write(lambda connection: idempotency.finish(connection, tenant_id, key, kept))


def _kept(response: Response) -> Answered:
    """The answer for whoever asks again: a stream goes on at its own address."""
    headers = {name: response.headers[name] for name in _KEPT_HEADERS if name in response.headers}
    if isinstance(response, StreamingResponse):
        if "location" in headers:
            return Answered(status_code=_SEE_OTHER, headers=headers, body=b"")
        return _not_kept("the answer was streamed")
    if response.headers.get("cache-control") == "no-store":
        return _not_kept("the answer held a secret")
    body = bytes(response.body)
    if len(body) > limits.IDEMPOTENCY_BODY_MAX_BYTES:
        return _not_kept("the answer was large")
    return Answered(status_code=response.status_code, headers=headers, body=body)


def _not_kept(why: str) -> Answered:
    error = Conflict(f"this was done, but {why} and is not kept", hint="look up what it did")
    found = problem(error, "")
    return Answered(status_code=found.status_code, headers=dict(found.headers), body=bytes(found.body))


def _replayed(answered: Answered, request_id: str) -> Response:
    """The same answer; a problem is about the request that asks now."""
    body = answered.body
    if answered.headers.get("content-type") == MEDIA_TYPE:
        body = msgspec.json.encode({**msgspec.json.decode(body), "request_id": request_id})
    headers = {name: value for name, value in answered.headers.items() if name != "content-length"}
    return Response(body, answered.status_code, {**headers, REPLAYED: "true"})

"""Errors as they go over HTTP: one shape for all of them, whoever raises them.

What is a mistake of ours says so and nothing else: no path, no version, no source.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, Final, get_args

import msgspec
from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match

from casemate.errors import (
    CasemateError,
    InternalError,
    InvalidInput,
    NotFound,
    TooManyRequests,
    Unauthenticated,
)

MEDIA_TYPE: Final = "application/problem+json"
_CODES: Final = {404: "not_found", 405: "method_not_allowed", 413: "too_large", 415: "unsupported_media_type"}
_MESSAGES: Final = {
    404: "there is nothing at this address",
    405: "this address does not take that method",
    413: "the request is larger than is allowed",
}
_WRONG_METHOD: Final = 405
TOO_LARGE: Final = 413
_FIELD_MAX_CHARS: Final = 200
_UNKNOWN: Final = "extra_forbidden"
_NO_OBJECT: Final = "send a JSON object, with Content-Type: application/json"
_LOG: Final = logging.getLogger("casemate.api")


def problem(error: CasemateError, request_id: str) -> Response:
    """An error of ours as a response."""
    content: dict[str, Any] = {"code": error.code, "message": error.message, "hint": error.hint}
    if isinstance(error, InvalidInput):
        content["field"] = error.field
    return _response(error.http_status, content, request_id, _headers(error))


def _headers(error: CasemateError) -> dict[str, str]:
    if isinstance(error, TooManyRequests):
        return {"Retry-After": str(max(1, math.ceil(error.retry_after_s)))}
    if isinstance(error, Unauthenticated):
        return {"WWW-Authenticate": "Bearer"}
    return {"Retry-After": "1"} if error.retryable else {}


def _response(status: int, content: dict[str, Any], request_id: str, headers: dict[str, str]) -> Response:
    body = msgspec.json.encode({**content, "request_id": request_id})
    return Response(body, status, headers, MEDIA_TYPE)


def request_id_of(request: Request) -> str:
    """The id that the edge has given the request."""
    found: str = request.scope.get("state", {}).get("request_id", "")
    return found


def install(app: FastAPI, routers: Sequence[APIRouter] = ()) -> None:
    """Have every error of the application answered in this shape; `routers` know which methods an address takes."""

    async def ours(request: Request, error: Exception) -> Response:
        assert isinstance(error, CasemateError)  # noqa: S101  (as registered)
        if error.http_status >= 500:  # noqa: PLR2004
            _LOG.error("request failed: %s", error.code, exc_info=error)
        return problem(error, request_id_of(request))

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)  # noqa: S101
        return problem(_first(error.errors(), request.scope.get("route")), request_id_of(request))

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101
        if error.status_code == _WRONG_METHOD and (methods := _methods(request, routers)):
            error.headers = {"Allow": ", ".join(methods)}
        return http_problem(error.status_code, request_id_of(request), dict(error.headers or {}))

    app.add_exception_handler(CasemateError, ours)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)


def _methods(request: Request, routers: Sequence[APIRouter]) -> list[str]:
    """All that the address takes: the framework knows those of the first route that it finds."""
    routes = [route for router in routers for route in router.routes if isinstance(route, APIRoute)]
    matching = [route for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    return sorted({method for route in matching for method in route.methods or ()})


def unexpected(request_id: str) -> Response:
    """For what nobody has foreseen; the log has the rest."""
    return problem(InternalError("something went wrong here", hint="the log names it by the request id"), request_id)


def _first(errors: Sequence[Any], route: object = None) -> CasemateError:
    """What is wrong first of all, with the field's path as it was sent."""
    unknown = [each for each in errors if each.get("type") == _UNKNOWN]  # explains what else may be missing
    first = next(iter((*unknown, *errors)), {"loc": (), "msg": "is not valid"})
    where = [str(part) for part in first["loc"]]
    source, *path = where or ["body"]
    field = (_dotted(path) or source)[:_FIELD_MAX_CHARS]
    if source == "path":
        return NotFound("there is nothing of that name")
    if first.get("type") == _UNKNOWN:
        return InvalidInput(field, "is no field of this request", hint=_meant(path, route))
    if first.get("type") == "model_attributes_type":
        return InvalidInput(field, "is no JSON object", hint=_NO_OBJECT if not path else "")
    text = str(first["msg"])
    return InvalidInput(field, text[:1].lower() + text[1:])


def _meant(path: Sequence[str], route: object) -> str:
    """Which field of the request's model a name that it lacks may stand for."""
    body = route.body_field if isinstance(route, APIRoute) else None
    model = _model(body.field_info.annotation) if body else None
    for part in path[:-1]:
        if model is not None and part in model.model_fields:
            model = _model(model.model_fields[part].annotation)
    known = sorted(model.model_fields) if model else []
    close = get_close_matches(path[-1][:_FIELD_MAX_CHARS], known, n=1) if path else []
    return f"did you mean {close[0]}?" if close else "known: " + ", ".join(known) if known else ""


def _model(annotation: Any) -> type[BaseModel] | None:
    """The model in an annotation, also in a list or beside None."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for each in get_args(annotation) if (found := _model(each))), None)


def _dotted(path: Sequence[str]) -> str:
    """`items.3.id` as `items[3].id`."""
    return "".join(f"[{part}]" if part.isdecimal() else f".{part}" for part in path).lstrip(".")


def http_problem(status: int, request_id: str, headers: dict[str, str] | None = None) -> Response:
    """For what HTTP itself has a status for."""
    code = _CODES.get(status, "bad_request" if status < 500 else "internal")  # noqa: PLR2004
    message = _MESSAGES.get(status, "the request is malformed")
    return _response(status, {"code": code, "message": message, "hint": ""}, request_id, headers or {})

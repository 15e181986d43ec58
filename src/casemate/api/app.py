"""The HTTP application: its routes and layers over the parts of the service, which others open and close."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.openapi.utils import get_openapi
from starlette.responses import Response

from casemate import __version__
from casemate.api import problems
from casemate.api.auth import SCHEME
from casemate.api.body import BadBody
from casemate.api.edge import Edge
from casemate.api.models import Problem
from casemate.api.problems import MEDIA_TYPE, problem, request_id_of
from casemate.api.routes import (
    accounts,
    audit,
    batches,
    executions,
    flows,
    functions,
    health,
    job_files,
    job_logs,
    jobs,
    objects,
    operation,
    runners,
    schedules,
    secrets,
    tenants,
    uploads,
    validate,
    webhooks,
)
from casemate.api.state import State
from casemate.dashboard.mount import mount

ROUTERS: Final = (
    functions.router,
    executions.router,
    jobs.router,
    health.router,
    validate.router,
    batches.router,
    runners.router,
    operation.router,
    job_logs.router,
    flows.router,
    tenants.router,
    accounts.router,
    webhooks.router,
    schedules.router,
    objects.router,
    objects.signed_router,
    uploads.router,
    job_files.router,
    secrets.router,
    audit.router,
)
"""In the order in which they are looked through: what is asked for most comes first."""

_ERRORS: Final = {
    "401": "No key, or none that is known.",
    "402": "A budget of the tenant is used up.",
    "403": "The key lacks a scope.",
    "404": "There is no such thing, or it is another tenant's.",
    "409": "It contradicts what is there already.",
    "413": "The request is too large.",
    "422": "A field is wrong; the problem names it.",
    "429": "Over a rate or a bound; Retry-After says when to ask again.",
    "500": "A mistake of ours.",
    "503": "A part of the service is down.",
}
_SCHEME: Final = "HTTPBearer"
_SIGNED: Final = "/v1/signed/{token}"
_OPEN: Final = frozenset({"/healthz", "/readyz", _SIGNED})
"""Addresses that ask for no key."""

_OF_HEALTH: Final = frozenset({"500"})
_OF_SIGNED: Final = frozenset({"403", "404", "413", "422", "429", "500", "503"})
"""The errors of those."""


def create_app(parts: State) -> FastAPI:
    """The application over its parts."""
    app = _without_parts()
    app.state.parts = parts
    problems.install(app, ROUTERS)
    app.add_exception_handler(BadBody, _bad_body)
    app.add_middleware(
        Edge,
        observe=parts.measures.observe_request,
        body_max_bytes=parts.config.request_max_bytes,
        upload_max_bytes=parts.config.objects.object_max_bytes,
        leave=parts.load.leave,
    )
    document = _openapi(app)
    app.openapi = lambda: document  # type: ignore[method-assign]
    mount(app, parts.tenancy, parts.executions, parts.database)
    return app


def openapi_document() -> dict[str, Any]:
    """What the service says of its own interface; it is the same for all of one version."""
    return _openapi(_without_parts())


def _without_parts() -> FastAPI:
    app = FastAPI(
        title="Casemate",
        version=__version__,
        summary="Runs code that nobody should trust.",
        docs_url=None,
        redoc_url=None,
    )
    for router in ROUTERS:
        app.router.routes += router.routes  # as they are: what is included is looked through twice for each request
    return app


async def _bad_body(request: Request, error: Exception) -> Response:
    assert isinstance(error, BadBody)  # noqa: S101  (as registered)
    return problem(error.error, request_id_of(request))


def _openapi(app: FastAPI) -> dict[str, Any]:
    """The document, with the one shape of errors at every operation."""
    document = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
    document.setdefault("components", {})["securitySchemes"] = {_SCHEME: SCHEME}
    schemas = document["components"].setdefault("schemas", {})
    schemas["Problem"] = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    for path, operations in document["paths"].items():
        for each in operations.values():
            answers = each["responses"]
            answers.pop("422", None)
            if path not in _OPEN:
                each.setdefault("security", [{_SCHEME: []}])
            for status in _errors_at(path):
                answers.setdefault(status, {"description": _ERRORS[status], "content": content})
    return document


def _errors_at(path: str) -> Iterable[str]:
    if path == _SIGNED:
        return _OF_SIGNED
    return _OF_HEALTH if path in _OPEN else _ERRORS

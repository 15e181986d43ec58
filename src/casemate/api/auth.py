"""Who asks, and whether they may: every route but health says which scope it needs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Final

import structlog
from fastapi import Depends, Request

from casemate.api.state import state_of
from casemate.errors import NotFound, TooManyRequests, Unauthenticated
from casemate.tenancy.terms import Principal

_BEARER: Final = "bearer "
_HOW: Final = "send it as `Authorization: Bearer cm_…`; Casemate's own clients take it from CASEMATE_KEY or a file"
SCHEME: Final = {
    "type": "http",
    "scheme": "bearer",
    "description": "A key, as `casemate key create` shows it once.",
}
"""As the document of the interface has it. As a dependency it would be looked into for each request."""


async def principal(request: Request) -> Principal:
    """Whose key it is. Raises Unauthenticated, and TooManyRequests beyond the key's rate.

    A request is counted once, however often it is asked whose it is.
    """
    known: Principal | None = getattr(request.state, "principal", None)
    if known is not None:
        return known
    parts = state_of(request)
    header = request.headers.get("authorization", "")
    if header[: len(_BEARER)].lower() != _BEARER:
        raise Unauthenticated("there is no key", hint=_HOW)
    found = await parts.tenancy.authenticate(header[len(_BEARER) :].strip())
    structlog.contextvars.bind_contextvars(tenant=found.tenant_id, key=found.key_id)
    try:
        parts.tenancy.admit(found)
        parts.load.enter(request.scope, found.tenant_id)
    except TooManyRequests:
        parts.measures.refused.labels("rate").inc()
        raise
    request.state.principal = found
    return found


Who = Annotated[Principal, Depends(principal)]


def allowed(scope: str) -> Callable[[Principal], Awaitable[Principal]]:
    """A dependency that lets pass whose key has the scope. Raises PermissionDenied."""

    async def checked(who: Who) -> Principal:
        who.scopes.require(scope)
        return who

    return checked


def operators(scope: str) -> Callable[[Principal], Awaitable[Principal]]:
    """The same of what is about all tenants together: to a key of any but the operator's it is not there."""

    async def checked(who: Who) -> Principal:
        who.scopes.require(scope)
        if not who.is_operator:
            raise NotFound("there is nothing at this address")
        return who

    return checked

"""Looking at code without running it."""

from __future__ import annotations

from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from casemate.api.auth import allowed
from casemate.api.documents import json_response
from casemate.api.models import ValidateIn, ValidateOut
from casemate.api.route import CheckedRoute
from casemate.api.state import Parts
from casemate.executions.sanitize import as_document, sanitize
from casemate.tenancy.terms import Principal

router = APIRouter(prefix="/v1", tags=["executions"], route_class=CheckedRoute)
Runner = Annotated[Principal, Depends(allowed("executions:run"))]


@router.post("/validate", response_model=ValidateOut, summary="Look at code without running it")
async def validate(body: ValidateIn, request: Request, parts: Parts, who: Runner) -> Response:
    """Size, forbidden patterns, and the syntax by the language itself, inside a sandbox."""
    sanitized = sanitize(body.code, body.runtime) if body.sanitize else None
    code = body.code if sanitized is None else sanitized.code
    found = await parts.checks.validate(
        who, code, body.runtime, patterns=body.patterns, request_id=request.state.request_id
    )
    return json_response(
        {
            **msgspec.to_builtins(found),
            "changes": [] if sanitized is None else as_document(sanitized.changes),
            "code": None if sanitized is None else sanitized.code,
        }
    )

"""What operators look at: workers, runtimes, and what executions came to."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from starlette.responses import Response

from casemate.api.auth import Who, allowed
from casemate.api.documents import json_response
from casemate.api.route import CheckedRoute
from casemate.api.state import Parts, State
from casemate.cluster.messages import Answered, Ask, Refused
from casemate.cluster.refusals import error_of
from casemate.errors import NodeLost
from casemate.executions.service import answers
from casemate.model.ids import new_id
from casemate.tenancy.terms import Principal

router = APIRouter(prefix="/v1", tags=["operation"], route_class=CheckedRoute)
WorkersReader = Annotated[Principal, Depends(allowed("workers:read"))]


async def told(parts: State, about: str) -> Any:
    """What the node says of itself."""
    async for answer in answers(parts.bus, Ask(id=new_id("ask"), about=about)):
        if isinstance(answer, Answered):
            return answer.value
        if isinstance(answer, Refused):
            raise error_of(answer)
    raise NodeLost("the node did not answer")


@router.get("/workers", response_model=dict[str, Any], summary="Workers and ready sandboxes")
async def workers(parts: Parts, _: WorkersReader) -> Response:
    """For operators: what the node keeps, with states, memory and what became of those that are gone."""
    return json_response(await told(parts, "workers"))


@router.get("/runtimes", response_model=dict[str, Any], summary="Runtimes")
async def runtimes(parts: Parts, _: Who) -> Response:
    """The languages and package sets of the node."""
    return json_response({"items": await told(parts, "runtimes")})

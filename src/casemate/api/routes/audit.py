"""The audit log: who has done what, and whether the log is what was written."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from starlette.responses import Response

from casemate import service_limits as limits
from casemate.api.auth import allowed, operators
from casemate.api.documents import json_response, moment
from casemate.api.object_models import AuditPageOut, VerdictOut
from casemate.api.queries import Listed
from casemate.api.route import CheckedRoute
from casemate.api.state import Parts
from casemate.store.audit import AuditRecord
from casemate.tenancy.terms import Principal

SCOPE = "audit:read"
router = APIRouter(route_class=CheckedRoute, prefix="/v1/audit", tags=["audit"])
Reader = Annotated[Principal, Depends(allowed(SCOPE))]
Operator = Annotated[Principal, Depends(operators(SCOPE))]


def _document(record: AuditRecord, *, with_number: bool) -> dict[str, Any]:
    found = {
        "id": record.id,
        "at": moment(record.created_us),
        "tenant_id": record.tenant_id,
        "key_id": record.key_id,
        "action": record.action,
        "target": record.target,
        "detail": record.detail,
        "request_id": record.request_id,
    }
    return {**found, "seq": record.seq} if with_number else found


@router.get("", response_model=AuditPageOut, response_model_exclude_unset=True, summary="Read the audit log")
async def list_records(
    parts: Parts,
    who: Reader,
    page: Listed,
    action: Annotated[str, Query(max_length=limits.ID_MAX_CHARS, description="What it begins with: `objects.`")] = "",
    tenant: Annotated[str, Query(max_length=limits.ID_MAX_CHARS, description="One tenant's; for the operator.")] = "",
) -> Response:
    """What was done, youngest first: by the tenant's keys, and for the operator by all."""
    whose = (tenant or None) if who.is_operator else who.tenant_id
    found = await parts.storage.audit.list(whose, action=action, limit=page.limit, cursor=page.cursor)
    items = [_document(each, with_number=who.is_operator) for each in found.items]
    return json_response({"items": items, "next_cursor": found.next_cursor})


@router.get("/verify", response_model=VerdictOut, summary="Verify the audit log")
async def verify(parts: Parts, _: Operator) -> Response:
    """For the operator: whether any record was changed, added or left out, and which is the first."""
    found = await parts.storage.audit.verify()
    return json_response(
        {
            "is_whole": found.broken_seq is None,
            "count": found.count,
            "last_seq": found.last_seq,
            "last_digest": found.last_digest,
            "broken_seq": found.broken_seq,
            "problem": found.problem,
        }
    )

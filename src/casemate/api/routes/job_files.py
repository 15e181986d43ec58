"""The files of jobs: what they were given, what they have put out, and what was kept beside."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from casemate.api.auth import allowed
from casemate.api.documents import json_response
from casemate.api.object_models import ObjectOut, ObjectsOut
from casemate.api.queries import Listed
from casemate.api.route import CheckedRoute
from casemate.api.routes.objects import FILE, behind, check_writable, listed, written
from casemate.api.state import Parts
from casemate.api.transfer import object_document, sent, told
from casemate.blobs.keys import INPUT, job_name, job_prefix, name_in
from casemate.errors import InvalidInput
from casemate.service_limits import WORD_MAX_CHARS
from casemate.store import jobs as rows
from casemate.tenancy.addresses import WRITE
from casemate.tenancy.terms import Principal

router = APIRouter(route_class=CheckedRoute, prefix="/v1/jobs/{job_id}/files", tags=["jobs"])
Reader = Annotated[Principal, Depends(allowed("jobs:read"))]
Writer = Annotated[Principal, Depends(allowed(WRITE))]


async def _check(parts: Parts, who: Principal, job_id: str) -> None:
    """Raise NotFound for a job that is not the tenant's."""
    await parts.database.read(partial(rows.get, tenant_id=who.tenant_id, job_id=job_id))


@router.get("", response_model=ObjectsOut, summary="List the files of a job")
async def list_files(
    job_id: str,
    parts: Parts,
    who: Reader,
    page: Listed,
    area: Annotated[str, Query(max_length=WORD_MAX_CHARS, description="input, output, logs or artifacts.")] = "",
) -> Response:
    """By their keys: `jobs/ID/AREA/PATH`."""
    await _check(parts, who, job_id)
    prefix = name_in(who.tenant_id, job_prefix(who.tenant_id, job_id, area))
    found = await parts.storage.objects.list(who.tenant_id, prefix, limit=page.limit, behind=behind(page))
    return listed(who.tenant_id, found)


@router.get("/{area}/{path:path}", response_class=Response, responses=FILE, summary="Get a file of a job")
async def get_file(job_id: str, area: str, path: str, request: Request, parts: Parts, who: Reader) -> Response:
    """Its bytes, or with `Range` a part of them."""
    await _check(parts, who, job_id)
    return await sent(request, await parts.storage.objects.head(who.tenant_id, job_name(job_id, area, path)))


@router.head("/{area}/{path:path}", response_class=Response, summary="Look at a file of a job")
async def head_file(job_id: str, area: str, path: str, parts: Parts, who: Reader) -> Response:
    """What is known of it, in the headers."""
    await _check(parts, who, job_id)
    return await told(await parts.storage.objects.head(who.tenant_id, job_name(job_id, area, path)))


@router.put("/{area}/{path:path}", status_code=201, response_model=ObjectOut, summary="Put a file beside a job")
async def put_file(job_id: str, area: str, path: str, request: Request, parts: Parts, who: Writer) -> Response:
    """Into the area `artifacts`: what a job was given, and has put out, stays as it was."""
    await _check(parts, who, job_id)
    name = job_name(job_id, area, path)
    check_writable(who.tenant_id, name)
    if area == INPUT:
        raise InvalidInput("area", "what a job was given stays as it was", hint="use artifacts")
    return json_response(object_document(who.tenant_id, await written(request, who.tenant_id, name)), 201)

"""Uploads in parts: each may be sent again, so that a break costs one part and not all of them."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from casemate.api.auth import allowed
from casemate.api.documents import json_response
from casemate.api.object_models import ObjectOut, PartOut, UploadIn, UploadOut
from casemate.api.route import CheckedRoute
from casemate.api.routes.objects import check_writable
from casemate.api.state import Parts
from casemate.api.transfer import digest_given, hold, object_document, received
from casemate.blobs.protocol import Blob
from casemate.blobs.uploads import Upload
from casemate.tenancy.addresses import WRITE
from casemate.tenancy.terms import Principal

router = APIRouter(route_class=CheckedRoute, prefix="/v1/uploads", tags=["objects"])
Writer = Annotated[Principal, Depends(allowed(WRITE))]


def _part(number: int, blob: Blob) -> dict[str, Any]:
    return {"number": number, "size_bytes": blob.size_bytes, "digest": blob.digest}


def _document(parts: Parts, upload: Upload) -> dict[str, Any]:
    return {
        "id": upload.id,
        "key": upload.name,
        "digest": upload.digest,
        "part_max_bytes": parts.config.objects.object_max_bytes,
        "parts": [_part(number, blob) for number, blob in sorted(upload.parts.items())],
    }


@router.post("", status_code=201, response_model=UploadOut, summary="Begin an upload")
async def begin(body: UploadIn, parts: Parts, who: Writer) -> Response:
    """Of an object that comes in parts."""
    check_writable(who.tenant_id, body.key)
    upload = await parts.storage.uploads.begin(who.tenant_id, body.key, body.digest)
    return json_response(_document(parts, upload), 201, {"Location": f"{router.prefix}/{upload.id}"})


@router.get("/{upload_id}", response_model=UploadOut, summary="Look at an upload")
async def show(upload_id: str, parts: Parts, who: Writer) -> Response:
    """What of it has come."""
    return json_response(_document(parts, await parts.storage.uploads.look(who.tenant_id, upload_id)))


@router.put("/{upload_id}/parts/{number}", response_model=PartOut, summary="Put a part")
async def put_part(upload_id: str, number: int, request: Request, who: Writer) -> Response:
    """The body, in the place of the part of that number. Numbers begin with 1 and have no gaps in the end."""
    uploads = hold(request).storage.uploads
    digest = digest_given(request)
    blob = await uploads.put_part(who.tenant_id, upload_id, number, received(request), digest=digest)
    return json_response(_part(number, blob))


@router.post("/{upload_id}/complete", status_code=201, response_model=ObjectOut, summary="Complete an upload")
async def complete(upload_id: str, parts: Parts, who: Writer) -> Response:
    """Make one object of its parts."""
    return json_response(
        object_document(who.tenant_id, await parts.storage.uploads.complete(who.tenant_id, upload_id)), 201
    )


@router.delete("/{upload_id}", status_code=204, response_class=Response, summary="Delete an upload")
async def delete(upload_id: str, parts: Parts, who: Writer) -> Response:
    """With all that has come of it."""
    await parts.storage.uploads.delete(who.tenant_id, upload_id)
    return Response(status_code=204)

"""Objects: files that a tenant keeps, and addresses that stand for one of them."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any, Final, Literal

import structlog
from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from casemate import object_limits as limits
from casemate.api.auth import allowed
from casemate.api.documents import json_response, moment
from casemate.api.object_models import ObjectOut, ObjectsOut, SignedOut, SignIn
from casemate.api.queries import Listed, PageAsked
from casemate.api.route import CheckedRoute
from casemate.api.state import Parts, state_of
from casemate.api.transfer import digest_given, hold, object_document, received, sent, told
from casemate.blobs import signed
from casemate.blobs.keys import INPUT, LOGS, OUTPUT, key_of, place_of
from casemate.blobs.objects import Listing
from casemate.blobs.protocol import Blob
from casemate.blobs.signed import Grant
from casemate.clock import now_us
from casemate.errors import InvalidInput, NotFound
from casemate.jobs.objects import SIGNED
from casemate.model.units import SECOND_US
from casemate.tenancy.addresses import READ, SCOPES, WRITE
from casemate.tenancy.terms import Principal

router = APIRouter(route_class=CheckedRoute, prefix="/v1/objects", tags=["objects"])
signed_router = APIRouter(route_class=CheckedRoute, prefix=SIGNED.rstrip("/"), tags=["objects"])
Reader = Annotated[Principal, Depends(allowed(READ))]
Writer = Annotated[Principal, Depends(allowed(WRITE))]
Signer = Annotated[Principal, Depends(allowed("objects:sign"))]
WRITTEN_BY_US: Final = frozenset({OUTPUT, LOGS})
FILE: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {"application/octet-stream": {}}, "description": "Its bytes."},
    206: {"content": {"application/octet-stream": {}}, "description": "The part that is asked for."},
    416: {"description": "There is no such part."},
}


def listed(tenant: str, found: Listing) -> Response:
    """A page of objects."""
    items = [object_document(tenant, blob) for blob in found.items]
    cursor = None if found.next_name is None else base64.urlsafe_b64encode(found.next_name.encode()).decode()
    return json_response({"items": items, "next_cursor": cursor})


def behind(page: PageAsked) -> str:
    """The name behind which a page begins. Raises InvalidInput."""
    try:
        return base64.b64decode(page.cursor or "", b"-_", validate=True).decode()
    except (ValueError, binascii.Error) as error:
        raise InvalidInput("cursor", "is none that a list has given") from error


def check_writable(tenant: str, name: str) -> None:
    """Raise InvalidInput for what jobs alone write."""
    place = place_of(key_of(tenant, name))
    if place.area in WRITTEN_BY_US:
        raise InvalidInput("key", f"the area {place.area} is written by the job itself", hint=f"use {INPUT}, or shared")


@router.get("", response_model=ObjectsOut, summary="List objects")
async def list_objects(
    parts: Parts, who: Reader, page: Listed, prefix: Annotated[str, Query(max_length=limits.OBJECT_PATH_MAX_BYTES)] = ""
) -> Response:
    """The tenant's, by their keys. `prefix` is what these begin with: `shared/`, `jobs/ID/output/`."""
    found = await parts.storage.objects.list(who.tenant_id, prefix, limit=page.limit, behind=behind(page))
    return listed(who.tenant_id, found)


@router.post("/sign", status_code=201, response_model=SignedOut, summary="Sign an address")
async def sign(body: SignIn, request: Request, parts: Parts, who: Signer) -> Response:
    """An address with which anybody may get or put this one object, until it expires or the key is revoked."""
    if body.method == signed.PUT:
        check_writable(who.tenant_id, body.key)
    terms = parts.config.objects
    most = terms.object_max_bytes if body.size_max_bytes is None else body.size_max_bytes
    grant, token = parts.storage.addresses.give(
        who, name=body.key, method=body.method, life_s=body.expires_in_s, size_max_bytes=most
    )
    url = f"{str(request.base_url).rstrip('/')}{SIGNED}{token}"
    if body.direct:
        life_s = (grant.expires_us - now_us()) / SECOND_US
        url = await parts.storage.objects.direct(
            who.tenant_id, grant.name, method=grant.method, life_s=life_s, size_bytes=body.size_max_bytes
        )
    document = {"url": url, "key": grant.name, "method": grant.method, "expires_at": moment(grant.expires_us)}
    return json_response(document, 201, {"Cache-Control": "no-store"})


@router.get("/{key:path}", response_class=Response, responses=FILE, summary="Get an object")
async def get_object(key: str, request: Request, parts: Parts, who: Reader) -> Response:
    """Its bytes, or with `Range` a part of them; `Repr-Digest` is the SHA-256 of all."""
    return await sent(request, await parts.storage.objects.head(who.tenant_id, key))


@router.head("/{key:path}", response_class=Response, summary="Look at an object")
async def head_object(key: str, parts: Parts, who: Reader) -> Response:
    """What is known of it, in the headers."""
    return await told(await parts.storage.objects.head(who.tenant_id, key))


@router.put("/{key:path}", status_code=201, response_model=ObjectOut, summary="Put an object")
async def put_object(key: str, request: Request, who: Writer) -> Response:
    """The body, as it comes, in the place of what was there. With `Repr-Digest` it is what that says, or is refused."""
    check_writable(who.tenant_id, key)
    blob = await written(request, who.tenant_id, key)
    return json_response(object_document(who.tenant_id, blob), 201)


async def written(request: Request, tenant: str, name: str, size_max_bytes: int | None = None) -> Blob:
    """The object that the body of a request has become."""
    objects = hold(request).storage.objects
    digest = digest_given(request)
    return await objects.put(tenant, name, received(request), digest=digest, size_max_bytes=size_max_bytes)


@router.delete("/{key:path}", status_code=204, response_class=Response, summary="Delete an object")
async def delete_object(key: str, parts: Parts, who: Writer) -> Response:
    """For good."""
    if not await parts.storage.objects.delete(who.tenant_id, key):
        raise NotFound(f"there is no object {key[:200]!r}")
    return Response(status_code=204)


# With a signed address ----------------------------------------------------------------------------


async def _granted(request: Request, token: str, method: Literal["GET", "PUT"]) -> Grant:
    """What an address allows. From here on the request is one of the key's that has given it."""
    parts = state_of(request)
    grant = await parts.storage.addresses.checked(token, method=method)
    assert method in SCOPES  # noqa: S101
    structlog.contextvars.bind_contextvars(tenant=grant.tenant, key=grant.key_id)
    request.state.grant = grant
    parts.load.enter(request.scope, grant.tenant)
    return grant


@signed_router.get("/{token}", response_class=Response, responses=FILE, summary="Get by a signed address")
async def get_signed(token: str, request: Request, parts: Parts) -> Response:
    """As with a key."""
    grant = await _granted(request, token, signed.GET)
    return await sent(request, await parts.storage.objects.head(grant.tenant, grant.name))


@signed_router.head("/{token}", response_class=Response, summary="Look by a signed address")
async def head_signed(token: str, request: Request, parts: Parts) -> Response:
    """What is known of the object, in the headers."""
    grant = await _granted(request, token, signed.GET)
    return await told(await parts.storage.objects.head(grant.tenant, grant.name))


@signed_router.put("/{token}", status_code=201, response_model=ObjectOut, summary="Put by a signed address")
async def put_signed(token: str, request: Request) -> Response:
    """As with a key."""
    grant = await _granted(request, token, signed.PUT)
    blob = await written(request, grant.tenant, grant.name, grant.size_max_bytes)
    return json_response(object_document(grant.tenant, blob), 201)

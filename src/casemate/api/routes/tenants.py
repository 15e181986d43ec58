"""Tenants and their keys: for the operator, and of a tenant for itself."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends
from starlette.responses import Response

from casemate.api.auth import Who, allowed, operators
from casemate.api.documents import json_response, moment
from casemate.api.queries import Listed
from casemate.api.route import CheckedRoute
from casemate.api.state import Parts, State
from casemate.api.tenant_models import (
    KeyIn,
    KeyOut,
    KeyRotateIn,
    KeysOut,
    MeOut,
    NewKeyOut,
    SigningOut,
    SigningRotateIn,
    TenantChangeIn,
    TenantIn,
    TenantOut,
    TenantsOut,
)
from casemate.errors import InvalidInput, NotFound
from casemate.store.keys import Key
from casemate.store.tenants import ACTIVE, Tenant
from casemate.tenancy.scopes import checked
from casemate.tenancy.secrets import webhook_text
from casemate.tenancy.tenants import NewKey
from casemate.tenancy.terms import KeyTerms, Principal, TenantTerms

router = APIRouter(prefix="/v1", tags=["tenants"], route_class=CheckedRoute)
TenantReader = Annotated[Principal, Depends(allowed("tenants:read"))]
TenantWriter = Annotated[Principal, Depends(operators("tenants:write"))]
KeyReader = Annotated[Principal, Depends(allowed("keys:read"))]
N = TypeVar("N", int, float)
SigningOperator = Annotated[Principal, Depends(operators("keys:write"))]
KeyWriter = Annotated[Principal, Depends(allowed("keys:write"))]


def tenant_document(tenant: Tenant) -> dict[str, Any]:
    """A tenant as it is answered."""
    return {
        "id": tenant.id,
        "name": tenant.name,
        "state": tenant.state,
        "concurrency_max": tenant.concurrency_max,
        "queue_max": tenant.queue_max,
        "labels": tenant.labels,
        "created_at": moment(tenant.created_us),
    }


def key_document(key: Key) -> dict[str, Any]:
    """A key as it is answered, which is never the key itself."""
    return {
        "id": key.id,
        "tenant_id": key.tenant_id,
        "name": key.name,
        "prefix": key.prefix,
        "scopes": key.scopes,
        "rate_per_s": key.rate_per_s,
        "burst": key.burst,
        "created_at": moment(key.created_us),
        "expires_at": moment(key.expires_us),
        "revoked_at": moment(key.revoked_us),
        "last_used_at": moment(key.last_used_us),
    }


def _made(parts: State, made: NewKey) -> Response:
    secret = webhook_text(parts.signing.webhook_secret(made.key.id)).decode("ascii")
    document = {**key_document(made.key), "key": made.text, "webhook_secret": secret}
    return json_response(document, 201, {"Cache-Control": "no-store"})


def _visible(who: Principal, tenant_id: str) -> str:
    """Another tenant's things are not there, unless it is the operator who looks."""
    if tenant_id != who.tenant_id and not who.is_operator:
        raise NotFound(f"there is no tenant {tenant_id!r}")
    return tenant_id


def _whose(who: Principal) -> str | None:
    return None if who.is_operator else who.tenant_id


@router.get("/me", response_model=MeOut, summary="Who this key is")
async def me(who: Who) -> Response:
    """The key's tenant and scopes."""
    return json_response(
        {
            "tenant_id": who.tenant_id,
            "tenant": who.tenant_name,
            "key_id": who.key_id,
            "scopes": who.scopes.as_dict(),
            "is_operator": who.is_operator,
        }
    )


@router.get("/tenants", response_model=TenantsOut, summary="List tenants")
async def list_tenants(parts: Parts, who: TenantReader, page: Listed) -> Response:
    """All of them for the operator, and for anybody else its own."""
    if not who.is_operator:
        own = await parts.tenancy.tenant(who.tenant_id)
        return json_response({"items": [tenant_document(own)], "next_cursor": None})
    found = await parts.tenancy.list_tenants(limit=page.limit, cursor=page.cursor)
    return json_response({"items": [tenant_document(each) for each in found.items], "next_cursor": found.next_cursor})


@router.post("/tenants", status_code=201, response_model=TenantOut, summary="Make a tenant")
async def create_tenant(body: TenantIn, parts: Parts, _: TenantWriter) -> Response:
    """For the operator."""
    return json_response(tenant_document(await parts.tenancy.create_tenant(TenantTerms(**body.given()))), 201)


@router.get("/tenants/{tenant_id}", response_model=TenantOut, summary="Look up a tenant")
async def show_tenant(tenant_id: str, parts: Parts, who: TenantReader) -> Response:
    """One tenant."""
    return json_response(tenant_document(await parts.tenancy.tenant(_visible(who, tenant_id))))


@router.patch("/tenants/{tenant_id}", response_model=TenantOut, summary="Change a tenant")
async def change_tenant(tenant_id: str, body: TenantChangeIn, parts: Parts, _: TenantWriter) -> Response:
    """For the operator. What is not named stays. What a tenant has running ends when it is suspended."""
    changed = await parts.tenancy.change_tenant(tenant_id, **body.given())
    if changed.state != ACTIVE:
        await _end_all_of(parts, tenant_id)
    return json_response(tenant_document(changed))


async def _end_all_of(parts: State, tenant_id: str) -> None:
    parts.jobs.end_all_of(tenant_id)
    await asyncio.gather(parts.executions.end_all_of(tenant_id), parts.calls.end_all_of(tenant_id))


@router.delete("/tenants/{tenant_id}", status_code=204, summary="Delete a tenant", response_class=Response)
async def delete_tenant(tenant_id: str, parts: Parts, _: TenantWriter) -> Response:
    """For the operator: with its keys, functions, records and objects."""
    await parts.tenancy.delete_tenant(tenant_id)
    await _end_all_of(parts, tenant_id)
    await parts.storage.objects.delete_tenant(tenant_id)
    return Response(status_code=204)


@router.get("/keys", response_model=KeysOut, summary="List keys")
async def list_keys(parts: Parts, who: KeyReader, page: Listed) -> Response:
    """The tenant's; for the operator those of all tenants."""
    found = await parts.tenancy.list_keys(_whose(who), limit=page.limit, cursor=page.cursor)
    return json_response({"items": [key_document(each) for each in found.items], "next_cursor": found.next_cursor})


@router.post("/keys", status_code=201, response_model=NewKeyOut, summary="Make a key")
async def create_key(body: KeyIn, parts: Parts, who: KeyWriter) -> Response:
    """A key that may do no more than the one that makes it, no more often, and no longer. It is shown this once."""
    tenant_id = _visible(who, body.tenant_id or who.tenant_id)
    terms = KeyTerms(
        name=body.name,
        scopes=checked(body.scopes.allow, body.scopes.deny),
        rate_per_s=_granted("rate_per_s", body.rate_per_s, parts.config.rate_per_s, who, who.rate_per_s),
        burst=_granted("burst", body.burst, parts.config.burst, who, who.burst),
        lifetime_s=body.lifetime_s,
    )
    made = await parts.tenancy.create_key(tenant_id, terms, granting=who.scopes, until_us=who.expires_us)
    return _made(parts, made)


def _granted(field: str, wanted: N | None, standard: N, who: Principal, own: N) -> N:
    """How often a new key may ask. Raises InvalidInput for more than its maker may, unless that is the operator."""
    if who.is_operator:
        return standard if wanted is None else wanted
    if wanted is not None and wanted > own:
        raise InvalidInput(field, f"is above the {own:g} of the key that makes it")
    return min(standard, own) if wanted is None else wanted


@router.post("/keys/{key_id}/rotate", status_code=201, response_model=NewKeyOut, summary="Rotate a key")
async def rotate_key(key_id: str, body: KeyRotateIn, parts: Parts, who: KeyWriter) -> Response:
    """A new key in its place. The old one ends at once, or after `grace_s`."""
    made = await parts.tenancy.rotate_key(
        _whose(who), key_id, granting=who.scopes, until_us=who.expires_us, grace_s=body.grace_s
    )
    return _made(parts, made)


@router.delete("/keys/{key_id}", response_model=KeyOut, summary="Revoke a key")
async def revoke_key(key_id: str, parts: Parts, who: KeyWriter) -> Response:
    """It ends at once."""
    return json_response(key_document(await parts.tenancy.revoke_key(_whose(who), key_id)))


# What signs -----------------------------------------------------------------------------------------


@router.get("/signing", response_model=SigningOut, summary="Which secret signs")
async def show_signing(parts: Parts, _: SigningOperator) -> Response:
    """For the operator: the name of the secret that signs addresses and notices, not what it is."""
    return json_response({"generation": parts.signing.generation})


@router.post("/signing/rotate", response_model=SigningOut, summary="Replace the secret that signs")
async def rotate_signing(body: SigningRotateIn, parts: Parts, _: SigningOperator) -> Response:
    """For the operator: all signed addresses are refused from now on.

    What else the last secret has signed, requests of webhooks and notices, is believed until the next time.
    """
    await asyncio.to_thread(parts.signing.rotate, body.generation)
    return json_response({"generation": parts.signing.generation})

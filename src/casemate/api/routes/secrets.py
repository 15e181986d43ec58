"""Secrets of a tenant, for its jobs: set here, and shown to nobody."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from starlette.responses import Response

from casemate.api.auth import allowed
from casemate.api.documents import json_response, moment
from casemate.api.object_models import SecretIn, SecretOut, SecretsOut
from casemate.api.route import CheckedRoute
from casemate.api.state import Parts
from casemate.store.secrets import Secret
from casemate.tenancy.terms import Principal

router = APIRouter(route_class=CheckedRoute, prefix="/v1/secrets", tags=["secrets"])
Manager = Annotated[Principal, Depends(allowed("secrets:manage"))]


def _document(secret: Secret) -> dict[str, Any]:
    return {
        "name": secret.name,
        "created_at": moment(secret.created_us),
        "updated_at": moment(secret.updated_us),
        "updated_by": secret.updated_by,
    }


@router.get("", response_model=SecretsOut, summary="List secrets")
async def list_secrets(parts: Parts, who: Manager) -> Response:
    """Their names, and when they were set."""
    return json_response({"items": [_document(each) for each in await parts.storage.vault.list(who.tenant_id)]})


@router.put("/{name}", response_model=SecretOut, summary="Set a secret")
async def set_secret(name: str, body: SecretIn, parts: Parts, who: Manager) -> Response:
    """A job that names it finds it as a variable of that name."""
    secret = await parts.storage.vault.set(who.tenant_id, name, body.value, key_id=who.key_id)
    return json_response(_document(secret))


@router.delete("/{name}", status_code=204, response_class=Response, summary="Delete a secret")
async def delete_secret(name: str, parts: Parts, who: Manager) -> Response:
    """Jobs that name it are refused from now on."""
    await parts.storage.vault.delete(who.tenant_id, name)
    return Response(status_code=204)

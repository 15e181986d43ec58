"""What is sent and answered about objects, uploads, signed addresses, secrets and the audit log."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from casemate import object_limits as bound
from casemate.api.models import Page, Sent

_KEY_MAX_CHARS = bound.OBJECT_PATH_MAX_BYTES + 100
_DIGEST = r"^([0-9a-f]{64})?$"


class ObjectOut(BaseModel):
    """What is known of one object. `digest`: SHA-256 in hexadecimal; empty where that is not known."""

    key: str
    size_bytes: int
    digest: str
    modified_at: str


class ObjectsOut(Page):
    """A page of objects, by their keys."""

    items: list[ObjectOut]


class SignIn(Sent):
    """An address that is to be signed."""

    key: str = Field(max_length=_KEY_MAX_CHARS, description="Of the object.")
    method: Literal["GET", "PUT"] = "GET"
    expires_in_s: float = Field(bound.ADDRESS_LIFE_DEFAULT_S, gt=0, le=bound.ADDRESS_LIFE_MAX_S)
    size_max_bytes: int | None = Field(
        None,
        ge=0,
        le=bound.OBJECT_MAX_BYTES,
        description="Of what may be put there; with `direct` exactly how large it is.",
    )
    direct: bool = Field(default=False, description="At the object store itself, where that is S3.")


class SignedOut(BaseModel):
    """A signed address. Whoever has it may do that, until then."""

    url: str
    key: str
    method: str
    expires_at: str


class UploadIn(Sent):
    """An object that is to come in parts."""

    key: str = Field(max_length=_KEY_MAX_CHARS)
    digest: str = Field("", pattern=_DIGEST, description="SHA-256 of all of it, in hexadecimal, if that is known.")


class PartOut(BaseModel):
    """A part that has come."""

    number: int
    size_bytes: int
    digest: str


class UploadOut(BaseModel):
    """An upload that is not complete, and what of it has come."""

    id: str
    key: str
    digest: str
    part_max_bytes: int
    parts: list[PartOut]


class SecretIn(Sent):
    """A secret's value. It is never shown again."""

    value: str = Field(max_length=bound.SECRET_MAX_BYTES)


class SecretOut(BaseModel):
    """A secret without its value."""

    name: str
    created_at: str
    updated_at: str
    updated_by: str


class SecretsOut(BaseModel):
    """The tenant's secrets, by their names."""

    items: list[SecretOut]


class AuditOut(BaseModel):
    """One thing that was done. `seq` counts those of all tenants, and is shown to the operator alone."""

    id: str
    at: str
    tenant_id: str
    key_id: str
    action: str
    target: str
    detail: str
    request_id: str
    seq: int | None = None


class AuditPageOut(Page):
    """A page of the audit log, youngest first."""

    items: list[AuditOut]


class VerdictOut(BaseModel):
    """What became of a look at the whole log."""

    is_whole: bool
    count: int
    last_seq: int
    last_digest: str
    broken_seq: int | None
    problem: str

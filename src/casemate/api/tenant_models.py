"""What is sent and answered about tenants and keys."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from casemate import service_limits as bound
from casemate.api.models import Name, Page, Sent, Text


class TenantIn(Sent):
    """A tenant to be made."""

    name: str = Field(min_length=1, max_length=bound.TENANT_NAME_MAX_CHARS, description="a-z 0-9 . _ -")
    concurrency_max: int = Field(bound.TENANT_CONCURRENCY_DEFAULT, ge=1, le=bound.TENANT_CONCURRENCY_MAX)
    queue_max: int = Field(bound.TENANT_QUEUE_DEFAULT, ge=0, le=bound.TENANT_QUEUE_MAX)
    labels: dict[Name, Text] = Field({}, max_length=bound.LABELS_MAX)

    def given(self) -> dict[str, Any]:
        return self.model_dump()


class TenantChangeIn(Sent):
    """What is to be different about a tenant."""

    name: str | None = Field(None, min_length=1, max_length=bound.TENANT_NAME_MAX_CHARS)
    state: Literal["active", "suspended"] | None = None
    concurrency_max: int | None = Field(None, ge=1, le=bound.TENANT_CONCURRENCY_MAX)
    queue_max: int | None = Field(None, ge=0, le=bound.TENANT_QUEUE_MAX)
    labels: dict[Name, Text] | None = Field(None, max_length=bound.LABELS_MAX)

    def given(self) -> dict[str, Any]:
        return self.model_dump(exclude_none=True)


class TenantOut(BaseModel):
    """Who things belong to."""

    id: str
    name: str
    state: Literal["active", "suspended"]
    concurrency_max: int
    queue_max: int
    labels: dict[str, str]
    created_at: str


class TenantsOut(Page):
    """A page of tenants."""

    items: list[TenantOut]


class ScopesModel(Sent):
    """What a key may do; what is denied is denied, whatever is allowed."""

    allow: list[str] = Field([], max_length=bound.SCOPES_A_KEY_MAX)
    deny: list[str] = Field([], max_length=bound.SCOPES_A_KEY_MAX)


class KeyIn(Sent):
    """A key to be made."""

    name: str = Field(min_length=1, max_length=bound.KEY_NAME_MAX_CHARS)
    tenant_id: str | None = Field(
        None, max_length=bound.ID_MAX_CHARS, description="Of another tenant: for the operator."
    )
    scopes: ScopesModel
    rate_per_s: float | None = Field(None, gt=0, le=bound.KEY_RATE_MAX_PER_S)
    burst: int | None = Field(None, ge=1, le=bound.KEY_BURST_MAX)
    lifetime_s: float | None = Field(None, gt=0, le=bound.KEY_LIFE_MAX_S)


class KeyRotateIn(Sent):
    """How a key is replaced."""

    grace_s: float = Field(0.0, ge=0, le=bound.KEY_GRACE_MAX_S, description="How long the old one goes on.")


class SigningOut(BaseModel):
    """Which secret signs. `generation` is a name for it, from which nobody learns it."""

    generation: str


class SigningRotateIn(Sent):
    """Which secret is to be replaced: one that is not in use any more is not, so that nothing is replaced twice."""

    generation: str = Field(max_length=bound.ID_MAX_CHARS, description="The present one, as GET shows it.")


class KeyOut(BaseModel):
    """What is known of a key. `prefix` is how it begins."""

    id: str
    tenant_id: str
    name: str
    prefix: str
    scopes: ScopesModel
    rate_per_s: float
    burst: int
    created_at: str
    expires_at: str | None
    revoked_at: str | None
    last_used_at: str | None


class NewKeyOut(KeyOut):
    """A key that was just made."""

    key: str = Field(description="The key itself. It is shown this once.")
    webhook_secret: str = Field(description="What signed requests of this key are signed with.")


class KeysOut(Page):
    """A page of keys."""

    items: list[KeyOut]


class MeOut(BaseModel):
    """Who asks."""

    tenant_id: str
    tenant: str
    key_id: str
    scopes: ScopesModel
    is_operator: bool

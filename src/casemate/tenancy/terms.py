"""Tenants and keys as they are asked for, and who is asking. Pure: what is wrong is refused by its name."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from casemate.errors import InvalidInput
from casemate.model.labels import check_labels
from casemate.service_limits import (
    KEY_BURST_DEFAULT,
    KEY_BURST_MAX,
    KEY_LIFE_MAX_S,
    KEY_NAME_MAX_CHARS,
    KEY_RATE_DEFAULT_PER_S,
    KEY_RATE_MAX_PER_S,
    TENANT_CONCURRENCY_DEFAULT,
    TENANT_CONCURRENCY_MAX,
    TENANT_NAME_MAX_CHARS,
    TENANT_QUEUE_DEFAULT,
    TENANT_QUEUE_MAX,
)
from casemate.store.tenants import ACTIVE, SUSPENDED
from casemate.tenancy.scopes import Scopes

OPERATOR: Final = "operator"
"""The name of the tenant that runs the service, and looks after the others."""

_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?", re.ASCII)


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """Who is asking: a key that was proven, and its tenant."""

    tenant_id: str
    tenant_name: str
    key_id: str
    scopes: Scopes
    rate_per_s: float
    burst: int
    concurrency_max: int
    queue_max: int
    expires_us: int | None = None

    @property
    def is_operator(self) -> bool:
        """Whether it may look beyond its own tenant, where its scopes allow."""
        return self.tenant_name == OPERATOR


class TenantTerms(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A tenant as it is asked for."""

    name: str
    concurrency_max: int = TENANT_CONCURRENCY_DEFAULT
    queue_max: int = TENANT_QUEUE_DEFAULT
    labels: dict[str, str] = {}


class KeyTerms(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A key as it is asked for. `lifetime_s`: after that it is a key no more; None: until it is revoked."""

    name: str
    scopes: Scopes
    rate_per_s: float = KEY_RATE_DEFAULT_PER_S
    burst: int = KEY_BURST_DEFAULT
    lifetime_s: float | None = None


def check_tenant(values: Mapping[str, Any]) -> None:
    """Fields of a tenant, all or some. Raises InvalidInput."""
    if "name" in values and (len(values["name"]) > TENANT_NAME_MAX_CHARS or not _NAME.fullmatch(values["name"])):
        problem = f"must be at most {TENANT_NAME_MAX_CHARS} of a-z 0-9 . _ -, and begin and end with a letter or digit"
        raise InvalidInput("name", problem)
    if values.get("state", ACTIVE) not in {ACTIVE, SUSPENDED}:
        raise InvalidInput("state", f"must be {ACTIVE} or {SUSPENDED}")
    _check_between("concurrency_max", values.get("concurrency_max", 1), 1, TENANT_CONCURRENCY_MAX)
    _check_between("queue_max", values.get("queue_max", 0), 0, TENANT_QUEUE_MAX)
    check_labels(values.get("labels", {}))


def check_key(terms: KeyTerms) -> None:
    """Raises InvalidInput for what no key can be."""
    if not terms.name.strip() or len(terms.name) > KEY_NAME_MAX_CHARS or not terms.name.isprintable():
        raise InvalidInput("name", f"must be 1 to {KEY_NAME_MAX_CHARS} characters that can be shown")
    if not math.isfinite(terms.rate_per_s) or not 0 < terms.rate_per_s <= KEY_RATE_MAX_PER_S:
        raise InvalidInput("rate_per_s", f"must be above 0 and at most {KEY_RATE_MAX_PER_S:g}")
    _check_between("burst", terms.burst, 1, KEY_BURST_MAX)
    if terms.lifetime_s is not None and not 0 < terms.lifetime_s <= KEY_LIFE_MAX_S:
        raise InvalidInput("lifetime_s", f"must be above 0 and at most {KEY_LIFE_MAX_S:g}")


def _check_between(field: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise InvalidInput(field, f"must be from {least} to {most}")

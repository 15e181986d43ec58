"""Objects, signed addresses, secrets and records of the audit log, as clients are told of them."""

from __future__ import annotations

from datetime import datetime

import msgspec


class StoredObject(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one object. `digest`: SHA-256 in hexadecimal; empty where that is not known."""

    key: str
    size_bytes: int
    digest: str = ""
    modified_at: datetime | None = None


class SignedAddress(msgspec.Struct, frozen=True, kw_only=True):
    """An address with which anybody may do that with the object, until then."""

    url: str
    key: str
    method: str
    expires_at: datetime | None = None


class SecretName(msgspec.Struct, frozen=True, kw_only=True):
    """A secret of the tenant's, without what it is."""

    name: str
    created_at: datetime | None = None
    updated_at: datetime | None = None
    updated_by: str = ""


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was done. `seq` is told to the operator alone."""

    id: str
    at: datetime
    tenant_id: str
    key_id: str
    action: str
    target: str
    detail: str = ""
    request_id: str = ""
    seq: int | None = None


class AuditVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the audit log is what was written. `broken_seq`: the first record that is not, or is missing."""

    is_whole: bool
    count: int
    last_seq: int
    last_digest: str
    broken_seq: int | None = None
    problem: str = ""

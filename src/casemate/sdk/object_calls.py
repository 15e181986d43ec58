"""What can be asked of the service about objects, secrets and the audit log. Pure; see `calls`."""

from __future__ import annotations

from urllib.parse import quote

from casemate.model.objects import AuditEntry, AuditVerdict, SecretName, SignedAddress, StoredObject
from casemate.model.units import parse_duration
from casemate.sdk.calls import asked, sent
from casemate.sdk.requests import Call, Listing, Request, given, path, read_nothing, reader


def object_path(key: str) -> str:
    """Where an object is. Its key has slashes, and the service says what is wrong with it."""
    return f"/v1/objects/{quote(key)}"


def list_objects(prefix: str = "", *, limit: int | None = None) -> Listing[StoredObject]:
    """The tenant's objects, by their keys: those that begin with `prefix`."""
    return Listing(asked(path("objects"), prefix=prefix or None), StoredObject, limit)


def list_files(job_id: str, *, area: str = "", limit: int | None = None) -> Listing[StoredObject]:
    """The files of a job, or of one of its areas: input, output, logs, artifacts."""
    return Listing(asked(path("jobs", job_id, "files"), area=area or None), StoredObject, limit)


def delete_object(key: str) -> Call[None]:
    """Delete an object, for good."""
    return Call(Request(method="DELETE", path=object_path(key)), read_nothing)


def sign(
    key: str,
    method: str = "GET",
    *,
    expires_in: float | str = 3600.0,
    size_max_bytes: int | None = None,
    direct: bool = False,
) -> Call[SignedAddress]:
    """An address with which anybody may GET or PUT one object until it expires, or this client's key ends.

    A `direct` one is at the object store itself, and for a PUT of exactly `size_max_bytes`.
    """
    body = {
        "key": key,
        "method": method,
        "expires_in_s": parse_duration(expires_in, field="expires_in"),
        **given(size_max_bytes=size_max_bytes, direct=direct or None),
    }
    return Call(sent("POST", path("objects", "sign"), body), reader(SignedAddress))


def list_secrets() -> Listing[SecretName]:
    """The tenant's secrets, without what they are."""
    return Listing(asked(path("secrets")), SecretName, in_pages=False)


def set_secret(name: str, value: str) -> Call[SecretName]:
    """Set a secret. Jobs that name it find it as a variable of that name; nobody is ever shown it again."""
    return Call(sent("PUT", path("secrets", name), {"value": value}), reader(SecretName))


def delete_secret(name: str) -> Call[None]:
    """Forget a secret."""
    return Call(Request(method="DELETE", path=path("secrets", name)), read_nothing)


def list_audit(*, action: str = "", tenant: str = "", limit: int | None = None) -> Listing[AuditEntry]:
    """What was done, youngest first. `action`: what it begins with. `tenant`: another's, for operators."""
    return Listing(asked(path("audit"), action=action or None, tenant=tenant or None), AuditEntry, limit)


def verify_audit() -> Call[AuditVerdict]:
    """Whether the audit log is what was written; for operators."""
    return Call(asked(path("audit", "verify")), reader(AuditVerdict))

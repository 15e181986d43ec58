"""`[objects]`: where files are kept, how large, and for how long. Keys come from files or the environment."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from casemate import object_limits as bound
from casemate.errors import ConfigError, InvalidInput
from casemate.limits import CONFIG_MAX_BYTES
from casemate.model.units import SECOND_US, parse_bytes, parse_duration

PREFIX: Final = "CASEMATE_OBJECTS_"
KEY_VARIABLE: Final = "CASEMATE_OBJECTS_KEY"
ACCESS_VARIABLE: Final = "CASEMATE_OBJECTS_ACCESS_KEY"
SECRET_VARIABLE: Final = "CASEMATE_OBJECTS_SECRET_KEY"  # noqa: S105  (a name)
TOKEN_VARIABLE: Final = "CASEMATE_OBJECTS_SESSION_TOKEN"  # noqa: S105
VARIABLES: Final = frozenset({KEY_VARIABLE, ACCESS_VARIABLE, SECRET_VARIABLE, TOKEN_VARIABLE})
"""They are for the process alone that keeps objects, and nothing shows them."""

LOCAL: Final = "local"
AREAS: Final = ("input", "output", "logs", "artifacts", "templates", "shared", "uploads")
RETENTION_DAYS: Final = {"input": 30, "output": 30, "artifacts": 30, "uploads": 1}
ENCRYPTIONS: Final = ("", "AES256", "aws:kms")
_PLACE: Final = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?P<prefix>(?:/[A-Za-z0-9._-]+)*)/?")
_DAY_US: Final = 24 * 3600 * SECOND_US


class ObjectsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[objects]`, as people write it; see the reference of the configuration for each key."""

    store: str = LOCAL
    endpoint: str = ""
    region: str = "us-east-1"
    credentials: str = ""
    encryption: str = ""
    encryption_key: str = ""
    object_max: str | int = bound.OBJECT_MAX_DEFAULT_BYTES
    tenant_max: str | int = bound.TENANT_OBJECTS_DEFAULT_BYTES
    address_life_max: str | float = bound.ADDRESS_LIFE_MAX_S
    retention: dict[str, int] = {}
    audit_days: int = bound.AUDIT_DEFAULT_DAYS


class Credentials(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of an account with the object store."""

    access_key: str
    secret_key: str
    session_token: str = ""

    def __repr__(self) -> str:
        return "Credentials(…)"


class S3Place(msgspec.Struct, frozen=True, kw_only=True):
    """A bucket, and what stands before all keys in it."""

    bucket: str
    prefix: str
    endpoint: str
    region: str
    encryption: str = ""
    encryption_key: str = ""


class ObjectsTerms(msgspec.Struct, frozen=True, kw_only=True):
    """The same as values. `s3`: None on the local disk. `kept_us`: areas of which old objects are removed."""

    s3: S3Place | None
    credentials: str
    object_max_bytes: int
    tenant_max_bytes: int
    address_life_max_s: float
    kept_us: dict[str, int]
    audit_us: int


def read_objects(written: Mapping[str, Any]) -> ObjectsTerms:
    """What the file says. Raises ConfigError naming the key."""
    try:
        config = msgspec.convert(written, ObjectsConfig)
    except msgspec.ValidationError as error:
        problem, _, place = str(error).partition(" - at `$")
        raise ConfigError(f"objects{place.rstrip('`')}", problem, hint=_known(problem)) from error
    try:
        object_max_bytes = parse_bytes(config.object_max, field="objects.object_max")
        tenant_max_bytes = parse_bytes(config.tenant_max, field="objects.tenant_max")
        life_s = parse_duration(config.address_life_max, field="objects.address_life_max")
    except InvalidInput as error:
        raise ConfigError(error.field, error.message.partition(": ")[2], hint=error.hint) from error
    if not 1 <= object_max_bytes <= bound.OBJECT_MAX_BYTES:
        raise ConfigError("objects.object_max", f"must be from 1 to {bound.OBJECT_MAX_BYTES} bytes")
    if not 0 < life_s <= bound.ADDRESS_LIFE_MAX_S:
        raise ConfigError("objects.address_life_max", f"must be up to {bound.ADDRESS_LIFE_MAX_S:g} seconds")
    return ObjectsTerms(
        s3=_place(config),
        credentials=config.credentials,
        object_max_bytes=object_max_bytes,
        tenant_max_bytes=tenant_max_bytes,
        address_life_max_s=life_s,
        kept_us={area: days * _DAY_US for area, days in _retention(config.retention).items() if days},
        audit_us=_days("objects.audit_days", config.audit_days) * _DAY_US,
    )


def _known(problem: str) -> str:
    return "known: " + ", ".join(ObjectsConfig.__struct_fields__) if "unknown field" in problem else ""


def _retention(written: Mapping[str, int]) -> dict[str, int]:
    for area, days in written.items():
        if area not in AREAS:
            raise ConfigError(f"objects.retention.{area}"[:200], "is no area", hint="known: " + ", ".join(AREAS))
        _days(f"objects.retention.{area}", days)
    return {**RETENTION_DAYS, **written}


def _days(key: str, days: int) -> int:
    if not 0 <= days <= bound.RETENTION_MAX_DAYS:
        raise ConfigError(key, f"must be from 0 to {bound.RETENTION_MAX_DAYS} days; 0 is for ever")
    return days


def _place(config: ObjectsConfig) -> S3Place | None:
    if config.encryption not in ENCRYPTIONS:
        raise ConfigError("objects.encryption", "must be empty, AES256 or aws:kms")
    if config.store == LOCAL:
        return None
    found = _PLACE.fullmatch(config.store)
    if found is None:
        raise ConfigError("objects.store", f"{config.store[:80]!r} is no place", hint="local, or s3://BUCKET/PREFIX")
    if config.endpoint and not re.fullmatch(r"https?://[^\s/?#]+", config.endpoint):
        raise ConfigError("objects.endpoint", "must be an address such as https://s3.example.org")
    return S3Place(
        bucket=found["bucket"],
        prefix=found["prefix"].strip("/"),
        endpoint=config.endpoint,
        region=config.region,
        encryption=config.encryption,
        encryption_key=config.encryption_key,
    )


def read_credentials(path: str, environment: Mapping[str, str] = os.environ) -> Credentials | None:
    """The account's keys, from the environment or from a file; None: there are none.

    Raises ConfigError, which quotes neither.
    """
    if ACCESS_VARIABLE in environment or SECRET_VARIABLE in environment:
        for name in (ACCESS_VARIABLE, SECRET_VARIABLE):
            if not environment.get(name):
                raise ConfigError(name, "is missing or empty", hint="a key is of two parts")
        return Credentials(
            access_key=environment[ACCESS_VARIABLE],
            secret_key=environment[SECRET_VARIABLE],
            session_token=environment.get(TOKEN_VARIABLE, ""),
        )
    return _from_file(Path(path)) if path else None


def _from_file(path: Path) -> Credentials:
    try:
        if path.stat().st_mode & 0o077:
            raise ConfigError("objects.credentials", f"{path} is open to others", hint=f"chmod 600 {path}")
        with path.open("rb") as file:
            return msgspec.toml.decode(file.read(CONFIG_MAX_BYTES), type=Credentials)
    except OSError as error:
        raise ConfigError("objects.credentials", f"{path} cannot be read: {error.strerror}") from error
    except (msgspec.DecodeError, ValueError) as error:
        problem = f"{path} is no TOML with access_key and secret_key"
        raise ConfigError("objects.credentials", problem) from error

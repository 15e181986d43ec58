r"""What objects are called. Pure: nothing else makes a key, so that no key means a place of another tenant or the host.

A tenant's name for an object is `shared/PATH`, `templates/PATH` or `jobs/JOB/AREA/PATH`; its key is that behind the
tenant's id. A path is names with a slash between: none is empty, `.` or `..`, and none has a control character. What a
hostile program has called its files is written with escapes (`\x0a`), see `harmless`.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from casemate.errors import InvalidInput
from casemate.object_limits import OBJECT_DEPTH_MAX, OBJECT_NAME_MAX_BYTES, OBJECT_PATH_MAX_BYTES

JOBS: Final = "jobs"
SHARED: Final = "shared"
TEMPLATES: Final = "templates"
UPLOADS: Final = "uploads"
"""Pieces of uploads that are not complete. It is ours: no tenant's name begins with it."""

INPUT: Final = "input"
OUTPUT: Final = "output"
LOGS: Final = "logs"
ARTIFACTS: Final = "artifacts"
JOB_AREAS: Final = (INPUT, OUTPUT, LOGS, ARTIFACTS)
AREAS: Final = (*JOB_AREAS, TEMPLATES, SHARED, UPLOADS)
_TENANT: Final = re.compile(r"[A-Za-z0-9_]{1,40}", re.ASCII)
_JOB: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_UPLOAD: Final = re.compile(r"upl_[a-z2-7]{26}", re.ASCII)
_HARMFUL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")
"""Control characters, those that turn the direction of writing, and halves of surrogate pairs."""

_LIKE_AN_ESCAPE: Final = re.compile(r"\\(?=x[0-9a-f]{2}|u[0-9a-f]{4})")
_JOB_PARTS: Final = 4
"""`jobs`, the job, the area, and a path."""


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """What a key says. `group`: the job, or the upload, or empty."""

    tenant: str
    area: str
    group: str
    path: str


def job_name(job: str, area: str, path: str) -> str:
    """A tenant's name for a file of a job. Raises InvalidInput."""
    if not _JOB.fullmatch(job):
        raise InvalidInput("job", f"{job[:80]!r} is no id of a job")
    if area not in JOB_AREAS:
        raise InvalidInput("area", f"{area[:80]!r} is none", hint="known: " + ", ".join(JOB_AREAS))
    return f"{JOBS}/{job}/{area}/{check_path(path, field='path')}"


def key_of(tenant: str, name: str, *, field: str = "key") -> str:
    """The key of what a tenant calls so. Raises InvalidInput for what nothing can be called."""
    assert _TENANT.fullmatch(tenant), tenant  # noqa: S101  (an id that we have made)
    head, _, rest = name.partition("/")
    if head in {SHARED, TEMPLATES}:
        check_path(rest, field=field)
    elif head == JOBS:
        _check_job_name(name, field)
    else:
        raise _unknown(field, name)
    return f"{tenant}/{name}"


def _check_job_name(name: str, field: str) -> None:
    parts = name.split("/", _JOB_PARTS - 1)
    if len(parts) < _JOB_PARTS or not _JOB.fullmatch(parts[1]) or parts[2] not in JOB_AREAS:
        raise _unknown(field, name)
    check_path(parts[3], field=field)


def _unknown(field: str, name: str) -> InvalidInput:
    known = "shared/PATH, templates/PATH or jobs/JOB/AREA/PATH, with one of the areas " + ", ".join(JOB_AREAS)
    return InvalidInput(field, f"{name[:80]!r} names no object", hint=f"write {known}")


def job_key(tenant: str, job: str, area: str, path: str) -> str:
    """The key of a file of a job. Raises InvalidInput."""
    return key_of(tenant, job_name(job, area, path))


def job_prefix(tenant: str, job: str, area: str = "") -> str:
    """What the keys of a job's files begin with, or those of one of its areas. Raises InvalidInput."""
    key = job_key(tenant, job, area or INPUT, "x")
    return key.removesuffix("x") if area else key.removesuffix(f"{INPUT}/x")


def upload_key(tenant: str, upload: str, part: str) -> str:
    """The key of a piece of an upload. Raises InvalidInput."""
    if not _UPLOAD.fullmatch(upload):
        raise InvalidInput("upload", f"{upload[:80]!r} is no id of an upload")
    return f"{tenant}/{UPLOADS}/{upload}/{check_path(part, field='part')}"


def prefix_of(tenant: str, beginning: str = "") -> str:
    """What the keys begin with that a tenant's names with that beginning have. Raises InvalidInput."""
    assert _TENANT.fullmatch(tenant), tenant  # noqa: S101  (an id that we have made)
    if len(beginning.encode("utf-8", "surrogatepass")) > OBJECT_PATH_MAX_BYTES or _HARMFUL.search(beginning):
        raise InvalidInput("prefix", "is too long, or holds a control character")
    return f"{tenant}/{beginning}"


def name_in(tenant: str, key: str) -> str:
    """What a tenant calls the object of that key, which must be its own."""
    assert key.startswith(f"{tenant}/"), key  # noqa: S101
    return key[len(tenant) + 1 :]


def place_of(key: str) -> Place:
    """What a key says. Raises InvalidInput for what is none."""
    tenant, _, name = key.partition("/")
    head, _, rest = name.partition("/")
    group = ""
    area = head
    if head == JOBS:
        group, _, rest = rest.partition("/")
        area, _, rest = rest.partition("/")
    elif head == UPLOADS:
        group, _, rest = rest.partition("/")
    known = _JOB.fullmatch(group) and area in JOB_AREAS if head == JOBS else area in {SHARED, TEMPLATES, UPLOADS}
    if not _TENANT.fullmatch(tenant) or not known:
        raise InvalidInput("key", f"{key[:80]!r} is none")
    return Place(tenant=tenant, area=area, group=group, path=check_path(rest, field="key"))


def check_path(path: str, *, field: str) -> str:
    """The path, if an object may have it. Raises InvalidInput."""
    if _HARMFUL.search(path):
        raise InvalidInput(field, f"{path[:80]!r} holds a control character, or one that hides others")
    parts = path.split("/")
    if len(path.encode()) > OBJECT_PATH_MAX_BYTES or len(parts) > OBJECT_DEPTH_MAX:
        raise InvalidInput(field, f"is longer than {OBJECT_PATH_MAX_BYTES} bytes or {OBJECT_DEPTH_MAX} names")
    if {"", ".", ".."} & set(parts):
        raise InvalidInput(field, f"{path[:80]!r} is no relative path, or leaves its place")
    if any(len(part.encode()) > OBJECT_NAME_MAX_BYTES for part in parts):
        raise InvalidInput(field, f"a name in {path[:80]!r} is longer than {OBJECT_NAME_MAX_BYTES} bytes")
    return path


def harmless(path: str) -> str:
    r"""A path as a program may have chosen it, with escapes for what no path may hold. No two become the same.

    A backslash that begins such an escape by itself becomes `\x5c`.
    """
    return _HARMFUL.sub(_escape, _LIKE_AN_ESCAPE.sub(r"\\x5c", path))


def _escape(found: re.Match[str]) -> str:
    number = ord(found[0])
    return f"\\x{number:02x}" if number <= 0xFF else f"\\u{number:04x}"  # noqa: PLR2004  (as Python writes them)

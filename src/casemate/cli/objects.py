"""`casemate objects`, `secrets` and `audit`, and the files of `casemate jobs`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

from casemate import object_limits as bound
from casemate.cli.arguments import Parsed, UsageError
from casemate.cli.messages import printable, say, show
from casemate.cli.options import read_file
from casemate.cli.service import client_of, limit_of, show_rows, show_value
from casemate.errors import InvalidInput
from casemate.model.objects import StoredObject
from casemate.model.units import parse_bytes

AREAS: Final = ("input", "output", "logs", "artifacts")
SHOWN: Final = 50
STDIO: Final = "-"
_COLUMNS: Final[dict[str, Callable[[Any], object]]] = {
    "KEY": lambda each: each.key,
    "BYTES": lambda each: each.size_bytes,
    "WRITTEN": lambda each: each.modified_at,
    "SHA-256": lambda each: each.digest[:16],
}


def list_objects(parsed: Parsed) -> int:
    """By their keys."""
    limit = limit_of(parsed, "objects list")
    with client_of(parsed) as client:
        show_rows(parsed, client.objects.list(parsed.words[0] if parsed.words else "", limit=limit), _COLUMNS)
    return 0


def list_files(parsed: Parsed) -> int:
    """Those of a job."""
    limit = limit_of(parsed, "jobs files")
    with client_of(parsed) as client:
        found: Iterable[StoredObject] = client.objects.files(
            parsed.words[0], area=parsed.one("area") or "", limit=limit
        )
        show_rows(parsed, found, _COLUMNS)
    return 0


def put_object(parsed: Parsed) -> int:
    """A file, or what comes by stdin."""
    return _put(parsed, parsed.words[0], parsed.words[1])


def put_file(parsed: Parsed) -> int:
    """The same, beside a job."""
    job, source, path = parsed.words
    return _put(parsed, source, _job_key(job, path, "artifacts"))


def _put(parsed: Parsed, source: str, key: str) -> int:
    with client_of(parsed) as client:
        file = sys.stdin.buffer if source == STDIO else source
        stored = client.objects.upload(key, file, progress=_has_bar(parsed))
    show_value(parsed, stored, f"{printable(stored.key)}: {stored.size_bytes} bytes, sha-256 {stored.digest}")
    return 0


def get_object(parsed: Parsed) -> int:
    """Into a file, or to stdout."""
    return _get(parsed, parsed.words[0], parsed.words[1:])


def get_file(parsed: Parsed) -> int:
    """The same, of a job."""
    job, path, *rest = parsed.words
    return _get(parsed, _job_key(job, path, "output"), rest)


def _get(parsed: Parsed, key: str, rest: list[str] | tuple[str, ...]) -> int:
    target = rest[0] if rest else key.rpartition("/")[2]
    if not target:
        raise UsageError("objects get", f"{key!r} names no file")
    with client_of(parsed) as client:
        if target == STDIO:
            for piece in client.objects.iterate(key):
                sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
            return 0
        count = client.objects.download(key, target, progress=_has_bar(parsed))
    show_value(parsed, {"file": target, "size_bytes": count}, f"{printable(target)}: {count} bytes")
    return 0


def _job_key(job: str, path: str, area: str) -> str:
    """`AREA/PATH` as it is, and anything else in an area of its own."""
    head, _, rest = path.partition("/")
    return f"jobs/{job}/{path}" if head in AREAS and rest else f"jobs/{job}/{area}/{path}"


def _has_bar(parsed: Parsed) -> bool:
    return sys.stderr.isatty() and not parsed.flag("quiet") and not parsed.flag("json")


def delete_object(parsed: Parsed) -> int:
    """For good."""
    with client_of(parsed) as client:
        client.objects.delete(parsed.words[0])
    show_value(parsed, {"key": parsed.words[0]}, f"{printable(parsed.words[0])} is deleted")
    return 0


def sign_object(parsed: Parsed) -> int:
    """The address alone on stdout."""
    most = parsed.one("max")
    with client_of(parsed) as client:
        found = client.objects.sign(
            parsed.words[0],
            "PUT" if parsed.flag("put") else "GET",
            expires_in=parsed.one("expires") or bound.ADDRESS_LIFE_DEFAULT_S,
            size_max_bytes=None if most is None else parse_bytes(most, field="max"),
            direct=parsed.flag("direct"),
        )
    show_value(parsed, found, found.url)
    return 0


def rotate_key(parsed: Parsed) -> int:
    """In the data directory, which needs no service."""
    from casemate.blobs.envelope import rotate_keys
    from casemate.config import load_config
    from casemate.service_config import load_service

    data = Path(parsed.one("data") or load_service(load_config()).data)
    if not (data / "secrets").is_dir():
        raise InvalidInput("data", f"{str(data)[:200]!r} is no data directory of a service")
    show([f"{rotate_keys(data)!r}; start the service again, and keep a copy of secrets/objects.key elsewhere"])
    return 0


# Secrets ------------------------------------------------------------------------------------------


def set_secret(parsed: Parsed) -> int:
    """From a file or stdin."""
    place = parsed.one("from") or STDIO
    most = bound.SECRET_MAX_BYTES + 1
    data = sys.stdin.buffer.read(most + 1) if place == STDIO else read_file(place, most, field="from")
    try:
        value = data.decode().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise InvalidInput("value", "is no text") from error
    with client_of(parsed) as client:
        found = client.secrets.set(parsed.words[0], value)
    show_value(parsed, found, f"{printable(found.name)} is set")
    return 0


def list_secrets(parsed: Parsed) -> int:
    """Their names."""
    with client_of(parsed) as client:
        columns = {
            "NAME": lambda each: each.name,
            "SET": lambda each: each.updated_at,
            "BY": lambda each: each.updated_by,
        }
        show_rows(parsed, client.secrets.list(), columns)
    return 0


def delete_secret(parsed: Parsed) -> int:
    """Jobs that name it are refused from now on."""
    with client_of(parsed) as client:
        client.secrets.delete(parsed.words[0])
    show_value(parsed, {"name": parsed.words[0]}, f"{printable(parsed.words[0])} is forgotten")
    return 0


# The audit log ------------------------------------------------------------------------------------


def list_audit(parsed: Parsed) -> int:
    """Youngest first."""
    limit = limit_of(parsed, "audit list", SHOWN)
    with client_of(parsed) as client:
        found = client.audit.list(
            action=parsed.one("action") or "",
            tenant=parsed.one("tenant") or "",
            limit=limit,
        )
        columns = {
            "AT": lambda each: each.at,
            "KEY": lambda each: each.key_id,
            "ACTION": lambda each: each.action,
            "TARGET": lambda each: each.target,
            "DETAIL": lambda each: each.detail,
        }
        show_rows(parsed, found, columns)
    return 0


def verify_audit(parsed: Parsed) -> int:
    """All of it."""
    with client_of(parsed) as client:
        found = client.audit.verify()
    if found.is_whole:
        line = f"the audit log is whole: {found.count} records, the last is {found.last_seq} {found.last_digest}"
        show_value(parsed, found, line)
        return 0
    say(f"record {found.broken_seq} {printable(found.problem)}")
    if parsed.flag("json"):
        show_value(parsed, found, "")
    else:
        show(["the audit log is broken"])
    return 1

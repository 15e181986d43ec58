"""`casemate backup`: what a service keeps, into a file."""

from __future__ import annotations

import gc
from pathlib import Path

from casemate.backup.service import OBJECTS, PARTS, RECORDS, Made, back_up
from casemate.cli.arguments import Parsed, UsageError
from casemate.cli.messages import printable
from casemate.cli.serve import environment_with
from casemate.cli.service import show_value
from casemate.config import load_config
from casemate.errors import ConfigError
from casemate.model.units import format_bytes
from casemate.service_config import Service, load_service


def command(parsed: Parsed) -> int:
    """Make one."""
    gc.enable()
    environment = environment_with(parsed)
    service = load_service(load_config(environment), environment)
    parts = _parts(parsed)
    _check_here(service, parts)
    made = back_up(service.data, Path(parsed.words[0]).absolute(), parts)
    show_value(parsed, made, line_of(made))
    return 0


def _parts(parsed: Parsed) -> tuple[str, ...]:
    left_out = set(parsed.all("without"))
    for each in sorted(left_out - set(PARTS)):
        raise UsageError("backup", f"there is no part {each!r}; there are {', '.join(PARTS)}")
    return tuple(part for part in PARTS if part not in left_out)


def _check_here(service: Service, parts: tuple[str, ...]) -> None:
    """What others keep, others copy, with means of their own."""
    if RECORDS in parts and service.database:
        raise ConfigError(
            "service.database",
            "is a server, whose records are not in the service's directory",
            hint="copy them by pg_dump, just before; --without records backs up the rest",
        )
    if OBJECTS in parts and service.objects.s3 is not None:
        raise ConfigError(
            "objects.store",
            "is S3, and the objects are not in the service's directory",
            hint="copy the bucket with its own tools, afterwards; --without objects backs up the rest",
        )


def line_of(made: Made) -> str:
    """What was copied, for people."""
    return printable(f"{made.path}: {', '.join(made.parts)}; {made.files} files, {format_bytes(made.size_bytes)}")

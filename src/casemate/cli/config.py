"""`casemate config`: what the configuration says, and whether it is right."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from casemate.cli.arguments import Parsed, UsageError
from casemate.cli.messages import say, show, show_json
from casemate.cli.serve import environment_with
from casemate.config import load_config
from casemate.egress.settings import settings_of
from casemate.jobs.config import load_jobs
from casemate.service_config import load_service, masked
from casemate.tenancy.destinations import configured

ACTIONS: Final = ("show", "check")


def command(parsed: Parsed) -> int:
    """0 if the configuration is right; what is wrong is raised."""
    action = parsed.words[0] if parsed.words else "show"
    if action not in ACTIONS:
        raise UsageError("config", f"unknown action {action!r}; there are {' and '.join(ACTIONS)}")
    environment = environment_with(parsed)
    config = load_config(environment)
    service = load_service(config, environment)
    shown: dict[str, Any] = msgspec.to_builtins(config, enc_hook=str)
    jobs = load_jobs(config, environment)
    shown |= msgspec.to_builtins({"service": service, "languages": service.languages, "jobs": jobs}, enc_hook=str)
    del shown["service"]["languages"], shown["service"]["accounting"]
    configured(service.accounting.webhook_hosts)
    settings_of(config.network)
    if action == "check":
        _confirm(parsed)
    elif parsed.flag("json"):
        show_json(masked(shown))
    else:
        show(_lines(masked(shown)))
    return 0


def _confirm(parsed: Parsed) -> None:
    if parsed.flag("json"):
        show_json({"valid": True})
    else:
        say("the configuration is right")


def _lines(value: Any, place: str = "") -> Iterator[str]:  # noqa: ANN401 - any JSON value
    """`key = value` for everything that is no table with something in it."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _lines(inner, f"{place}.{key}" if place else key)
    else:
        yield f"{place} = {msgspec.json.encode(value).decode()}"

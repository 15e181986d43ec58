"""`casemate runs`, `key` and `tenant`: what a service has on record."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, Self

from casemate.cli.arguments import Parsed, UsageError
from casemate.cli.messages import printable, say, show, show_json
from casemate.cli.service import client_of, labels_of, limit_of, number_of, show_facts, show_rows, show_value
from casemate.errors import FileTransferError
from casemate.model.result import Result
from casemate.model.service import Execution, Key
from casemate.model.units import parse_duration

RUNS_SHOWN: Final = 50
FILTERS: Final = ("state", "status", "reason", "runtime", "function", "since", "until")


def list_runs(parsed: Parsed) -> int:
    """Youngest first."""
    with client_of(parsed) as client:
        limit = limit_of(parsed, "runs list", RUNS_SHOWN)
        found = client.executions.list(
            **{name: parsed.one(name) for name in FILTERS},
            label=parsed.all("label"),
            limit=limit,
        )
        show_rows(
            parsed,
            found,
            {
                "ID": lambda each: each.id,
                "STATE": lambda each: each.state,
                "REASON": lambda each: each.reason,
                "BEGAN": lambda each: each.created_at,
                "RUNTIME": lambda each: each.runtime,
                "FUNCTION": lambda each: each.function,
            },
        )
    return 0


def show_run(parsed: Parsed) -> int:
    """One of them."""
    with client_of(parsed) as client:
        found = client.executions.get(parsed.words[0])
    _show_run(parsed, found)
    return 0


def cancel_run(parsed: Parsed) -> int:
    """End it."""
    with client_of(parsed) as client:
        found = client.executions.cancel(parsed.words[0])
    show_value(parsed, found, f"{printable(found.id)} has ended: {found.reason or found.state}")
    return 0


def _show_run(parsed: Parsed, found: Execution) -> None:
    names = ("id", "state", "status", "reason", "kind", "runtime", "function", "version", "priority", "labels")
    times = ("created_at", "started_at", "ended_at", "request_id")
    show_facts(parsed, found, {name: getattr(found, name) for name in (*names, *times)})
    if found.result is not None and not parsed.flag("json"):
        _show_result(found.result)


def _show_result(result: Result) -> None:
    from msgspec import json

    if result.output is not None:
        show(["", f"output: {json.encode(result.output).decode()}"])
    for name in ("stdout", "stderr"):
        text = getattr(result, name).text
        if text:
            show(["", f"{name}:", *(printable(line) for line in text.splitlines())])
    if result.error is not None:
        show(["", printable(f"{result.error.type}: {result.error.message}")])


def create_key(parsed: Parsed) -> int:
    """Make one, and show it once."""
    with _kept_for(parsed) as target, client_of(parsed) as client:
        lifetime, rate = parsed.one("lifetime"), parsed.one("rate")
        made = client.keys.create(
            parsed.words[0],
            allow=parsed.all("allow"),
            deny=parsed.all("deny"),
            tenant_id=parsed.one("tenant"),
            lifetime_s=None if lifetime is None else parse_duration(lifetime, field="lifetime"),
            rate_per_s=None if rate is None else _rate(rate),
            burst=number_of(parsed.one("burst"), "--burst", "key create"),
        )
        target.keep(parsed, made)
    return 0


def _rate(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise UsageError("key create", f"--rate must be a number, not {text!r}") from error


def rotate_key(parsed: Parsed) -> int:
    """Make its successor, and show that once."""
    grace_s = parse_duration(parsed.one("grace") or "0s", field="grace")
    with _kept_for(parsed) as target, client_of(parsed) as client:
        target.keep(parsed, client.keys.rotate(parsed.words[0], grace_s=grace_s))
    return 0


class _Target:
    """Where a new key goes: a file that is there, and ours alone, before there is a key; else stdout."""

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._fd = -1

    def __enter__(self) -> Self:
        if self._path is not None:
            try:
                self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            except OSError as error:
                raise FileTransferError(f"{self._path[:200]!r} cannot be made: {error.strerror}") from error
        return self

    def keep(self, parsed: Parsed, made: Key) -> None:
        """Write it down, or show it."""
        say(f"key {printable(made.id)} of {printable(made.name)}; it is told this once")
        if self._fd >= 0:
            os.write(self._fd, f"{made.key}\n".encode())
            self._path = None
        elif parsed.flag("json"):
            show_json(made)
        else:
            show([made.key or ""])

    def __exit__(self, *_: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            if self._path is not None:  # nothing was written
                Path(self._path).unlink(missing_ok=True)


def _kept_for(parsed: Parsed) -> _Target:
    return _Target(parsed.one("out"))


def list_keys(parsed: Parsed) -> int:
    """Without the keys themselves."""
    with client_of(parsed) as client:
        found = client.keys.list(limit=limit_of(parsed, "key list"))
        show_rows(
            parsed,
            found,
            {
                "ID": lambda each: each.id,
                "BEGINS": lambda each: each.prefix,
                "NAME": lambda each: each.name,
                "TENANT": lambda each: each.tenant_id,
                "ENDS": lambda each: each.revoked_at or each.expires_at,
                "USED": lambda each: each.last_used_at,
                "SCOPES": lambda each: [*each.scopes.allow, *(f"not {scope}" for scope in each.scopes.deny)],
            },
        )
    return 0


def revoke_key(parsed: Parsed) -> int:
    """End it."""
    with client_of(parsed) as client:
        found = client.keys.revoke(parsed.words[0])
    show_value(parsed, found, f"{printable(found.id)} is revoked")
    return 0


def rotate_signing(parsed: Parsed) -> int:
    """Replace the secret that is in use now."""
    with client_of(parsed) as client:
        made = client.keys.rotate_signing(client.keys.signing().generation)
    show_value(
        parsed, made, f"{printable(made.generation)} signs from now on; addresses that were signed before are refused"
    )
    return 0


def create_tenant(parsed: Parsed) -> int:
    """Make one."""
    with client_of(parsed) as client:
        made = client.tenants.create(
            parsed.words[0],
            concurrency_max=number_of(parsed.one("concurrency"), "--concurrency", "tenant create"),
            queue_max=number_of(parsed.one("queue"), "--queue", "tenant create"),
            labels=labels_of(parsed),
        )
    show_value(parsed, made, printable(made.id))
    return 0


def list_tenants(parsed: Parsed) -> int:
    """All of them, or one's own."""
    with client_of(parsed) as client:
        found = client.tenants.list(limit=limit_of(parsed, "tenant list"))
        show_rows(
            parsed,
            found,
            {
                "ID": lambda each: each.id,
                "NAME": lambda each: each.name,
                "STATE": lambda each: each.state,
                "RUN AT A TIME": lambda each: each.concurrency_max,
                "WAIT": lambda each: each.queue_max,
                "LABELS": lambda each: each.labels,
            },
        )
    return 0

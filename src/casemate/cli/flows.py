"""`casemate flows`: what jobs have tried to reach."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from casemate.cli.arguments import Parsed
from casemate.cli.messages import printable, show
from casemate.cli.service import client_of, limit_of, text_of
from casemate.model.flow import FlowEntry

SHOWN = 100


def flows(parsed: Parsed) -> int:
    """The last ones, oldest first; or as they come."""
    limit = limit_of(parsed, "flows", SHOWN)
    asked = {"job": parsed.one("job"), "host": parsed.one("host")}
    allowed = False if parsed.flag("refused") else None
    with client_of(parsed) as client:
        if parsed.flag("follow"):
            _show(parsed, client.flows.follow(**asked, allowed=allowed))
        else:
            times = {name: parsed.one(name) for name in ("since", "until")}
            _show(parsed, reversed(list(client.flows.list(**asked, **times, allowed=allowed, limit=limit))))
    return 0


def _show(parsed: Parsed, found: Iterable[FlowEntry]) -> None:
    for flow in found:
        show([msgspec.json.encode(flow).decode() if parsed.flag("json") else line_of(flow)])


def line_of(flow: FlowEntry) -> str:
    """One line for a person."""
    host = f"[{flow.host}]" if ":" in flow.host else flow.host
    place = printable(f"{host}:{flow.port}" + (f" ({flow.address})" if flow.address not in {"", flow.host} else ""))
    verdict = "allowed" if flow.allowed else f"refused ({printable(flow.reason)})"
    said = f", {printable(flow.problem)}" if flow.problem else ""
    moved = f", {flow.sent_bytes} B sent, {flow.received_bytes} B received" if flow.address else ""
    return f"{text_of(flow.at)} {printable(flow.job_id)} {flow.protocol} {place} {verdict}{moved}{said}"

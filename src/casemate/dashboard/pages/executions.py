"""Executions: the live list, one of them, and running code."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from starlette.responses import Response
from starlette.routing import Route

from casemate.dashboard.asking import Refusal, address
from casemate.dashboard.live import Followed, check_streams, fragments
from casemate.dashboard.site import Site
from casemate.dashboard.visit import Visit
from casemate.errors import InvalidInput
from casemate.model.result import Reason
from casemate.service_limits import LIVE_LIST_S, PAGE_ROWS

_FILTERS: Final = ("state", "status", "reason", "kind", "runtime", "function", "label")
_MAY_BE_UNKNOWN: Final = frozenset({403, 404, 503})


def routes(site: Site) -> list[Route]:
    """The pages of executions."""
    read, run, cancel = "executions:read", "executions:run", "executions:cancel"
    return [
        site.route("/executions", _list, scope=read),
        site.route("/executions/live", _live, scope=read),
        site.route("/executions/{id}", _one, scope=read),
        site.route("/executions/{id}/events", _events, scope=read),
        site.route("/executions/{id}/outcome", _outcome, scope=read),
        site.route("/executions/{id}/cancel", _cancel, scope=cancel, method="POST"),
        site.route("/run", _editor, scope=run),
        site.route("/run", _run, scope=run, method="POST"),
    ]


async def _list(visit: Visit) -> Response:
    return visit.page("executions.html", reasons=tuple(Reason), query=_query(visit), **await _rows(visit))


async def _rows(visit: Visit) -> dict[str, Any]:
    query = {**visit.wanted(*_FILTERS, "cursor"), "limit": str(PAGE_ROWS)}
    found = await visit.ask("GET", "executions", query=query)
    return {"executions": found["items"], "next_cursor": found["next_cursor"], "filters": visit.wanted(*_FILTERS)}


def _query(visit: Visit) -> str:
    return address("-", query=visit.wanted(*_FILTERS)).partition("?")[2]


async def _live(visit: Visit) -> Response:
    async def rendered() -> str:
        return visit.text("executions_rows.html", query=_query(visit), **await _rows(visit))

    changes = visit.site.executions.book.changes
    return fragments(visit, rendered, period_s=LIVE_LIST_S, watch=changes.watching(visit.who.tenant_id))


async def _one(visit: Visit) -> Response:
    found = await visit.ask("GET", "executions", visit.place("id"))
    return visit.page("execution.html", execution=found)


async def _outcome(visit: Visit) -> Response:
    found = await visit.ask("GET", "executions", visit.place("id"))
    return visit.page("execution_outcome.html", execution=found)


async def _events(visit: Visit) -> Response:
    check_streams(visit)
    identity = visit.place("id")
    await visit.ask("GET", "executions", identity)
    return Followed(visit, visit.site.api.forward(visit.who, address("executions", identity, "events")))


async def _cancel(visit: Visit) -> Response:
    identity = visit.place("id")
    await visit.ask("DELETE", "executions", identity)
    if visit.is_partial:
        return Response(status_code=204)
    return visit.other(f"/executions/{identity}" if visit.may("executions:read") else "/")


async def runtime_names(visit: Visit) -> list[str]:
    """The runtimes that code can be run with here; none where the service does not say."""
    try:
        found = await visit.ask("GET", "runtimes")
    except Refusal as error:
        if error.status in _MAY_BE_UNKNOWN:
            return []
        raise
    return [each["name"] for each in found["items"] if each.get("available", True)]


async def _editor(visit: Visit) -> Response:
    return visit.page("run.html", runtimes=await runtime_names(visit), wanted=visit.wanted("runtime"))


async def _run(visit: Visit) -> Response:
    body: dict[str, Any] = {"runtime": visit.form.get("runtime", "python"), "code": visit.form.get("code", "")}
    if visit.form.get("input", "").strip():
        body["input"] = json_field(visit, "input")
    limits = {name: visit.form[name].strip() for name in ("timeout", "memory") if visit.form.get(name, "").strip()}
    if limits:
        body["limits"] = limits
    if visit.form.get("stdin"):
        body["stdin"] = visit.form["stdin"]
    found = await visit.site.api.ask(
        visit.request, visit.who, "POST", address("executions"), body, prefer="respond-async"
    )
    if visit.is_partial:
        return visit.page("execution_live.html", execution=found)
    return visit.other(f"/executions/{found['id']}")


def json_field(visit: Visit, name: str) -> msgspec.Raw:
    """What somebody has written into a field, as it stands. Raises InvalidInput for what is no JSON."""
    text = visit.form.get(name, "").strip() or "null"
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise InvalidInput(name, f"is no JSON: {error}") from error
    return msgspec.Raw(text.encode())

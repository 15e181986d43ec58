"""Functions: the list, one with its versions and aliases, a small editor, and calls."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import quote

from starlette.responses import Response
from starlette.routing import Route

from casemate.dashboard.pages.executions import json_field, runtime_names
from casemate.dashboard.site import Site
from casemate.dashboard.visit import Visit, whole_number
from casemate.errors import InvalidInput
from casemate.functions.names import function_name
from casemate.service_limits import PAGE_ROWS
from casemate.tenancy.scopes import INVOKE

_FLAGS: Final = ("spread", "macros", "normalise")
_LIVE: Final = "live"


def routes(site: Site) -> list[Route]:
    """The pages of functions."""
    read, publish = "functions:read", "functions:publish"
    return [
        site.route("/functions", _list, scope=read),
        site.route("/publish", _new, scope=publish),
        site.route("/publish", _publish, scope=publish, method="POST"),
        site.route("/functions/{name}", _one, scope=read),
        site.route("/functions/{name}/edit", _edit, scope=publish),
        site.route("/functions/{name}/diff", _diff, scope=read),
        site.route("/functions/{name}/logs", _logs, scope=read),
        site.route("/functions/{name}/history/{alias}", _history, scope=read),
        site.route("/functions/{name}/invoke", _invoke, method="POST"),
        site.route("/functions/{name}/alias", _move, scope=publish, method="POST"),
        site.route("/functions/{name}/rollback", _rollback, scope=publish, method="POST"),
        site.route("/functions/{name}/delete", _delete, scope=publish, method="POST"),
    ]


async def _list(visit: Visit) -> Response:
    found = await visit.ask("GET", "functions", query={**visit.wanted("cursor"), "limit": str(PAGE_ROWS)})
    return visit.page("functions.html", functions=found["items"], next_cursor=found["next_cursor"])


async def _one(visit: Visit) -> Response:
    name = visit.place("name")
    function = await visit.ask("GET", "functions", name)
    query = {**visit.wanted("cursor"), "limit": str(PAGE_ROWS)}
    versions = await visit.ask("GET", "functions", name, "versions", query=query)
    shown = await _version(visit, function)
    return visit.page(
        "function.html",
        function=function,
        versions=versions["items"],
        next_cursor=versions["next_cursor"],
        shown=shown,
        may_invoke=visit.may(f"{INVOKE}{name}", f"{INVOKE}{shown['runtime']}"),
    )


async def _version(visit: Visit, function: dict[str, Any]) -> dict[str, Any]:
    """The version that is asked for, or the one that counts."""
    wanted = visit.wanted("version").get("version")
    number = wanted or str(function["aliases"].get(_LIVE, function["latest"]))
    whole_number(number, "version")
    found: dict[str, Any] = await visit.ask("GET", "functions", function["name"], "versions", number)
    return found


async def _new(visit: Visit) -> Response:
    return visit.page("function_edit.html", function=None, shown=None, runtimes=await runtime_names(visit))


async def _edit(visit: Visit) -> Response:
    function = await visit.ask("GET", "functions", visit.place("name"))
    shown = await _version(visit, function)
    return visit.page("function_edit.html", function=function, shown=shown, runtimes=await runtime_names(visit))


async def _publish(visit: Visit) -> Response:
    """A new version: what the form does not show is as in the version before."""
    name = function_name(visit.form.get("name", ""))
    body = await _as_before(visit, name)
    body |= {
        "runtime": visit.form.get("runtime", ""),
        "code": visit.form.get("code", ""),
        "description": visit.form.get("description", ""),
        "function": visit.form.get("function", "").strip(),
        "alias": _LIVE if "live" in visit.form else None,
        **{flag: flag in visit.form for flag in _FLAGS},
    }
    await visit.ask("PUT", "functions", name, body=body)
    path = f"/functions/{quote(name)}"
    if visit.is_partial:
        return Response(status_code=204, headers={"HX-Redirect": path})
    return visit.other(path)


async def _as_before(visit: Visit, name: str) -> dict[str, Any]:
    if not visit.form.get("from", "").isdecimal():
        return {}
    before = await visit.ask("GET", "functions", name, "versions", visit.form["from"])
    kept = ("limits", "labels", "input_schema", "output_schema")
    return {field: before[field] for field in kept if before[field] is not None}


async def _diff(visit: Visit) -> Response:
    name = visit.place("name")
    asked = visit.wanted("from", "to")
    function = await visit.ask("GET", "functions", name)
    asked.setdefault("to", str(function["latest"]))
    asked.setdefault("from", str(max(1, int(function["latest"]) - 1)))
    found = await visit.ask("GET", "functions", name, "diff", query=asked)
    return visit.page("function_diff.html", function=function, diff=found)


async def _history(visit: Visit) -> Response:
    name, alias = visit.place("name"), visit.place("alias")
    found = await visit.ask("GET", "functions", name, "aliases", alias, "history")
    return visit.page("function_history.html", name=name, alias=alias, moves=found["items"])


async def _logs(visit: Visit) -> Response:
    name = visit.place("name")
    found = await visit.ask("GET", "functions", name, "logs", query={**visit.wanted("cursor"), "limit": str(PAGE_ROWS)})
    return visit.page("function_logs.html", name=name, logs=found["items"], next_cursor=found.get("next_cursor"))


async def _invoke(visit: Visit) -> Response:
    name = visit.place("name")
    version = visit.form.get("version", "").strip()
    query = {"version": version} if version else {}
    body: dict[str, Any] = {"data": json_field(visit, "data")}
    if visit.form.get("context", "").strip():
        body["context"] = json_field(visit, "context")
    found = await visit.ask("POST", "functions", name, "invoke", query=query, body=body)
    return visit.page("invocation.html" if visit.is_partial else "invocation_page.html", call=found, name=name)


async def _move(visit: Visit) -> Response:
    name, number = visit.place("name"), whole_number(visit.form.get("version", ""), "version")
    alias = visit.form.get("alias", "").strip()
    await visit.ask("PUT", "functions", name, "aliases", alias, body={"version": number})
    return visit.other(f"/functions/{name}")


async def _rollback(visit: Visit) -> Response:
    name = visit.place("name")
    await visit.ask("POST", "functions", name, "aliases", visit.form.get("alias", ""), "rollback")
    return visit.other(f"/functions/{name}")


async def _delete(visit: Visit) -> Response:
    name = visit.place("name")
    if visit.form.get("confirm", "") != name:
        raise InvalidInput("confirm", "is not the function's name", hint="nothing was deleted")
    await visit.ask("DELETE", "functions", name)
    return visit.other("/functions")

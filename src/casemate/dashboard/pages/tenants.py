"""Tenants and keys. A key is shown once, on the page that answers its making, and on no other."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response
from starlette.routing import Route

from casemate.dashboard.site import Site
from casemate.dashboard.visit import Visit, whole_number
from casemate.errors import InvalidInput, NotFound
from casemate.service_limits import PAGE_ROWS
from casemate.tenancy.scopes import INVOKE, SCOPES


def routes(site: Site) -> list[Route]:
    """The pages of tenants and keys."""
    return [
        site.route("/tenants", _tenants, scope="tenants:read"),
        site.route("/tenants", _make_tenant, scope="tenants:write", method="POST"),
        site.route("/tenants/{id}/state", _change_state, scope="tenants:write", method="POST"),
        site.route("/tenants/{id}/delete", _delete_tenant, scope="tenants:write", method="POST"),
        site.route("/keys", _keys, scope="keys:read"),
        site.route("/keys", _make_key, scope="keys:write", method="POST"),
        site.route("/keys/{id}/rotate", _rotate, scope="keys:write", method="POST"),
        site.route("/keys/{id}/revoke", _revoke, scope="keys:write", method="POST"),
    ]


def _page_asked(visit: Visit) -> dict[str, str]:
    return {**visit.wanted("cursor"), "limit": str(PAGE_ROWS)}


async def _tenants(visit: Visit) -> Response:
    if not visit.who.is_operator:
        raise NotFound("there is nothing at this address")
    found = await visit.ask("GET", "tenants", query=_page_asked(visit))
    return visit.page("tenants.html", tenants=found["items"], next_cursor=found["next_cursor"])


async def _make_tenant(visit: Visit) -> Response:
    body: dict[str, Any] = {"name": visit.form.get("name", "").strip()}
    for field in ("concurrency_max", "queue_max"):
        if visit.form.get(field, "").strip():
            body[field] = _whole(visit, field)
    await visit.ask("POST", "tenants", body=body)
    return visit.other("/tenants")


def _whole(visit: Visit, field: str) -> int:
    return whole_number(visit.form.get(field, "").strip(), field)


async def _change_state(visit: Visit) -> Response:
    body = {"state": visit.form.get("state", "")}
    await visit.ask("PATCH", "tenants", visit.place("id"), body=body)
    return visit.other("/tenants")


async def _delete_tenant(visit: Visit) -> Response:
    tenant = await visit.ask("GET", "tenants", visit.place("id"))
    if visit.form.get("confirm", "") != tenant["name"]:
        raise InvalidInput("confirm", "is not the tenant's name", hint="nothing was deleted")
    await visit.ask("DELETE", "tenants", visit.place("id"))
    return visit.other("/tenants")


async def _keys(visit: Visit) -> Response:
    return await _key_page(visit, made=None)


async def _key_page(visit: Visit, made: dict[str, Any] | None) -> Response:
    keys: dict[str, Any] = {"items": [], "next_cursor": None}
    if visit.may("keys:read"):
        keys = await visit.ask("GET", "keys", query=_page_asked(visit))
    tenants: dict[str, str] = {visit.who.tenant_id: visit.who.tenant_name}
    if visit.who.is_operator and visit.may("tenants:read"):
        found = await visit.ask("GET", "tenants", query={"limit": "200"})
        tenants |= {each["id"]: each["name"] for each in found["items"]}
    return visit.page(
        "keys.html",
        keys=keys["items"],
        next_cursor=keys["next_cursor"],
        tenants=tenants,
        scopes=[scope for scope in (*SCOPES, f"{INVOKE}*") if visit.may(scope)],
        made=made,
    )


async def _make_key(visit: Visit) -> Response:
    allow = [name.removeprefix("scope ") for name in visit.form if name.startswith("scope ")]
    body: dict[str, Any] = {
        "name": visit.form.get("name", "").strip(),
        "scopes": {"allow": [*allow, *visit.form.get("allow", "").split()], "deny": visit.form.get("deny", "").split()},
    }
    if visit.form.get("tenant_id"):
        body["tenant_id"] = visit.form["tenant_id"]
    if visit.form.get("days", "").strip():
        body["lifetime_s"] = _whole(visit, "days") * 24 * 3600.0
    return await _key_page(visit, made=await visit.ask("POST", "keys", body=body))


async def _rotate(visit: Visit) -> Response:
    made = await visit.ask("POST", "keys", visit.place("id"), "rotate", body={})
    if visit.place("id") == visit.session.key_id:
        visit.session.key_id = made["id"]
    return await _key_page(visit, made=made)


async def _revoke(visit: Visit) -> Response:
    await visit.ask("DELETE", "keys", visit.place("id"))
    return visit.other("/keys")

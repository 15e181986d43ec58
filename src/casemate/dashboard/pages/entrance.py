"""Logging in and out, and the files that pages load."""

from __future__ import annotations

from typing import Final

from fastapi import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from casemate.dashboard.site import LOGIN, Site, check_origin, local
from casemate.dashboard.visit import Visit, read_form
from casemate.errors import CasemateError, InvalidInput, TooManyRequests, Unauthenticated

_SEE_OTHER: Final = 303
_FIRST_PAGES: Final = (
    ("executions:read", "/executions"),
    ("executions:run", "/run"),
    ("functions:read", "/functions"),
    ("metrics:read", "/charts"),
    ("workers:read", "/workers"),
    ("keys:read", "/keys"),
)


def routes(site: Site) -> list[Route]:
    """The way in and out."""

    async def form(request: Request) -> Response:
        if site.session_of(request) is not None:
            return RedirectResponse("/", _SEE_OTHER)
        return _login_page(site, request.query_params.get("next", ""))

    async def log_in(request: Request) -> Response:
        check_origin(request)
        sent = await read_form(request)
        try:
            session = await site.log_in(request, sent.get("key", "").strip())
        except (Unauthenticated, TooManyRequests, InvalidInput) as error:
            return _login_page(site, sent.get("next", ""), error)
        old = site.session_of(request)
        if old is not None:
            site.sessions.end(old)
        response = RedirectResponse(local(sent.get("next")), _SEE_OTHER)
        site.remember(request, response, session)
        return response

    async def log_out(visit: Visit) -> Response:
        site.sessions.end(visit.session)
        response = visit.other(LOGIN)
        site.remember(visit.request, response, None)
        return response

    async def asset(request: Request) -> Response:
        return site.assets.response(request.path_params["name"])

    return [
        site.open_route(LOGIN, form),
        site.open_route(LOGIN, log_in, method="POST"),
        site.open_route("/assets/{name}", asset),
        site.route("/logout", log_out, method="POST"),
        site.route("/", _first),
    ]


async def _first(visit: Visit) -> Response:
    for scope, path in _FIRST_PAGES:
        if visit.may(scope):
            return visit.other(path)
    return visit.page("nothing.html")


def _login_page(site: Site, wanted: str, error: CasemateError | None = None) -> Response:
    text = site.text(
        "login.html", next=local(wanted), message=error.message if error else "", visit=None, who=None, csrf_token=""
    )
    status = error.http_status if error else 200
    headers = {"Retry-After": str(int(error.retry_after_s) + 1)} if isinstance(error, TooManyRequests) else {}
    return HTMLResponse(text, status, headers)

"""The dashboard: what its pages share, and the way in. Nobody gets further than this without a session and its key."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any, Final
from urllib.parse import quote

import structlog
from fastapi import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from casemate.dashboard.asking import Api, Refusal
from casemate.dashboard.assets import Assets
from casemate.dashboard.render import environment
from casemate.dashboard.sessions import Attempts, Session, Sessions, is_own_origin, is_token
from casemate.dashboard.visit import HEADERS, Visit, is_partial, read_form
from casemate.errors import CasemateError, PermissionDenied, TooManyRequests, Unauthenticated
from casemate.executions.service import Executions
from casemate.store.database import Database
from casemate.tenancy.tenants import Tenancy
from casemate.tenancy.terms import Principal

Page = Callable[[Visit], Awaitable[Response]]
Endpoint = Callable[[Request], Awaitable[Response]]
LOGIN: Final = "/login"
_SEE_OTHER: Final = 303
_SERVER_ERROR: Final = 500
_SECURE_COOKIE: Final = "__Host-casemate"
_PLAIN_COOKIE: Final = "casemate"


class Site:
    """Everything behind the pages."""

    def __init__(self, app: ASGIApp, tenancy: Tenancy, executions: Executions, database: Database) -> None:
        self.api = Api(app)
        self.tenancy = tenancy
        self.executions = executions
        self.database = database
        self.assets = Assets()
        self.sessions = Sessions()
        self._attempts = Attempts()
        self._templates = environment(self.assets)

    def text(self, template: str, **values: object) -> str:
        """A template with its values."""
        return self._templates.get_template(template).render(**values)

    # Who it is ----------------------------------------------------------------------------------

    def session_of(self, request: Request) -> Session | None:
        """Whose pages the browser has open."""
        return self.sessions.find(request.cookies.get(_cookie_name(request), ""), time.monotonic())

    async def who(self, session: Session) -> Principal:
        """Whose session it is now. Raises Unauthenticated once its key is none any more; then it is over."""
        who = await self.tenancy.principal_of(session.key_id) if self.sessions.is_known(session) else None
        if who is None:
            self.sessions.end(session)
            raise Unauthenticated("the session is over")
        return who

    async def log_in(self, request: Request, key: str) -> Session:
        """A session for a key. Raises Unauthenticated, in the same words for every key that is none."""
        address = request.client.host if request.client else ""
        wait_s = self._attempts.wait_s(address, time.monotonic())
        if wait_s > 0:
            raise TooManyRequests("too many wrong keys from your address", retry_after_s=wait_s)
        try:
            who = await self.tenancy.authenticate(key)
        except Unauthenticated as error:
            self._attempts.failed(address, time.monotonic())
            raise Unauthenticated("this key is not known") from error
        return self.sessions.begin(who.key_id, time.monotonic())

    def remember(self, request: Request, response: Response, session: Session | None) -> None:
        """Give the browser the name of its session, or take it away."""
        response.set_cookie(
            _cookie_name(request),
            self.sessions.cookie(session) if session else "",
            max_age=None if session else 0,
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )

    # Routes -------------------------------------------------------------------------------------

    def route(self, path: str, page: Page, *, scope: str = "", method: str = "GET") -> Route:
        """A page for those who are logged in; one that changes something is a POST, and proves where it comes from."""

        async def visited(request: Request) -> Response:
            session = self.session_of(request)
            if session is None:
                return _to_login(request)
            try:
                who = await self.who(session)
            except Unauthenticated:
                return _to_login(request)
            structlog.contextvars.bind_contextvars(tenant=who.tenant_id, key=who.key_id)
            visit = Visit(self, request, session, who)
            try:
                self.tenancy.admit(who)
                request.app.state.parts.load.enter(request.scope, who.tenant_id)
                if scope:
                    who.scopes.require(scope)
                if method == "POST":
                    visit.form = await self._proven_form(request, session)
                return await page(visit)
            except CasemateError as error:
                return self._error_page(request, error, visit)

        return self.open_route(path, visited, method=method)

    def open_route(self, path: str, endpoint: Endpoint, *, method: str = "GET") -> Route:
        """A page for everybody, with the headers of all pages; what goes wrong is a page, too."""

        async def answered(request: Request) -> Response:
            request.scope["route"] = route
            try:
                response = await endpoint(request)
            except CasemateError as error:
                response = self._error_page(request, error)
            for name, value in HEADERS.items():
                response.headers.setdefault(name, value)
            return response

        route = Route(path, answered, methods=[method], include_in_schema=False)
        return route

    async def _proven_form(self, request: Request, session: Session) -> dict[str, str]:
        check_origin(request)
        form = await read_form(request)
        if not is_token(session, form.pop("csrf_token", "")):
            raise _Forged("the form is not one of this session's", hint="load the page again, and send it from there")
        return form

    def _error_page(self, request: Request, error: CasemateError, visit: Visit | None = None) -> Response:
        status = error.status if isinstance(error, Refusal) else error.http_status
        message, hint = _words(error, status)
        text = self.text(
            "error_part.html" if is_partial(request) else "error.html",
            visit=visit,
            who=visit.who if visit else None,
            csrf_token=visit.session.csrf_token if visit else "",
            status=status,
            message=message,
            hint=hint,
            request_id=request.scope.get("state", {}).get("request_id", ""),
        )
        headers = {"Retry-After": str(int(error.retry_after_s) + 1)} if isinstance(error, TooManyRequests) else {}
        return HTMLResponse(text, status, headers)


class _Forged(PermissionDenied):
    """A request that no page of ours has sent."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        CasemateError.__init__(self, message, hint=hint)


def check_origin(request: Request) -> None:
    """Raise PermissionDenied for a request that a page of somebody else's has sent."""
    headers = request.headers
    if not is_own_origin(headers.get("origin"), headers.get("sec-fetch-site"), headers.get("host", "")):
        raise _Forged("the request does not come from a page of this service")


def _words(error: CasemateError, status: int) -> tuple[str, str]:
    """What people are told; of a mistake of ours nothing but that it is one."""
    if status >= _SERVER_ERROR and not isinstance(error, Refusal) and not error.retryable:
        return "something went wrong here", "the log names it by the request id"
    return error.message, error.hint


def _cookie_name(request: Request) -> str:
    """A browser takes the one of a secure connection from nobody else."""
    return _SECURE_COOKIE if request.url.scheme == "https" else _PLAIN_COOKIE


def _to_login(request: Request) -> Response:
    if is_partial(request) or "text/event-stream" in request.headers.get("accept", ""):
        return Response(status_code=401, headers={"HX-Redirect": LOGIN})
    wanted = request.url.path if request.method in {"GET", "HEAD"} and request.url.path != "/" else ""
    return RedirectResponse(f"{LOGIN}?next={quote(wanted)}" if wanted else LOGIN, _SEE_OTHER)


def local(path: Any) -> str:
    """An address of ours, or the first page."""
    text = str(path or "")
    is_ours = text.startswith("/") and not text.startswith(("//", "/\\")) and text.isprintable() and "\\" not in text
    return text if is_ours else "/"

"""One request for a page: who makes it, what it sent, and how it is answered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

import msgspec
from fastapi import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from casemate.dashboard.asking import NO_QUERY, address
from casemate.dashboard.sessions import Session
from casemate.errors import InvalidInput
from casemate.service_limits import FORM_FIELDS_MAX, FORM_MAX_BYTES
from casemate.tenancy.terms import Principal

if TYPE_CHECKING:
    from casemate.dashboard.site import Site

_FORM: Final = "application/x-www-form-urlencoded"
_SEE_OTHER: Final = 303
_BELONGS: Final = {"/publish": "/functions"}
_DIGITS_MAX: Final = 9
SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
HEADERS: Final = {
    "Content-Security-Policy": SECURITY_POLICY,
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",  # without a referrer browsers say `Origin: null` with a form, too
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=()",
}


class Visit:
    """A request of somebody who is logged in."""

    def __init__(self, site: Site, request: Request, session: Session, who: Principal) -> None:
        self.site = site
        self.request = request
        self.session = session
        self.who = who
        self.form: Mapping[str, str] = {}

    @property
    def is_partial(self) -> bool:
        """Whether a script of the page asks, which wants a part of a page."""
        return is_partial(self.request)

    @property
    def section(self) -> str:
        """The page of the menu to which this one belongs."""
        first = "/" + self.request.url.path.split("/")[1]
        return _BELONGS.get(first, first)

    @property
    def base_url(self) -> str:
        """Where the browser has found us."""
        return str(self.request.base_url).rstrip("/")

    def place(self, name: str) -> str:
        """A part of the address."""
        return str(self.request.path_params[name])

    def wanted(self, *names: str) -> dict[str, str]:
        """What the address asks for by these names, where that says anything."""
        query = self.request.query_params
        return {name: query[name].strip() for name in names if query.get(name, "").strip()}

    def may(self, *scopes: str) -> bool:
        return self.who.scopes.permits(*scopes)

    async def ask(
        self,
        method: str,
        *parts: str,
        query: Mapping[str, str] = NO_QUERY,
        body: object = msgspec.UNSET,
    ) -> Any:
        """What the API answers to this key. Raises Refusal."""
        return await self.site.api.ask(self.request, self.who, method, address(*parts, query=query), body)

    def text(self, template: str, **values: object) -> str:
        """A template, with what all of them need."""
        return self.site.text(template, visit=self, who=self.who, csrf_token=self.session.csrf_token, **values)

    def page(self, template: str, status: int = 200, **values: object) -> Response:
        return HTMLResponse(self.text(template, **values), status)

    def other(self, path: str) -> Response:
        """To another page, after something was done."""
        return RedirectResponse(path, _SEE_OTHER)


def whole_number(text: str, field: str) -> int:
    """A number that somebody has written, of at most nine digits. Raises InvalidInput."""
    if not (text.isascii() and text.isdecimal() and len(text) <= _DIGITS_MAX):
        raise InvalidInput(field, "is no whole number")
    return int(text)


def is_partial(request: Request) -> bool:
    """Whether a script of the page asks."""
    return request.headers.get("hx-request") == "true"


async def read_form(request: Request) -> dict[str, str]:
    """The fields of a form, of each the last. Raises InvalidInput for what no form of ours sends."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM:
        raise InvalidInput("body", f"is no form; it is to be {_FORM}")
    sent = bytearray()
    async for part in request.stream():
        sent += part
        if len(sent) > FORM_MAX_BYTES:
            raise InvalidInput("body", f"is longer than {FORM_MAX_BYTES} bytes")
    try:
        fields = parse_qsl(
            sent.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=FORM_FIELDS_MAX
        )
    except ValueError as error:
        raise InvalidInput("body", "is no form that can be read") from error
    return {name: value.replace("\r\n", "\n") for name, value in fields}

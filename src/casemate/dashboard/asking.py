"""The API as pages ask it: over HTTP as everybody else, but within the process, and in the name of who is logged in.

So a page can never show or do more than its key could: scopes, tenants and checks are the API's alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote, unquote, urlencode

import msgspec
from fastapi import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from casemate.errors import CasemateError, NotFound
from casemate.service_limits import ANSWER_MAX_BYTES
from casemate.tenancy.terms import Principal

_ERROR_STATUS: Final = 400
_TOO_LARGE: Final = 413
NO_QUERY: Final[Mapping[str, str]] = {}


class Refusal(CasemateError):
    """What the API has refused, in its own words."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        super().__init__(str(problem.get("message", "the request was refused")), hint=str(problem.get("hint", "")))
        self.status = status
        self.problem_code = str(problem.get("code", "error"))


def address(*parts: str, query: Mapping[str, str] = NO_QUERY) -> str:
    """An address of the API. Raises NotFound for a part that would lead to another place."""
    if any("/" in part or part in {"", ".", ".."} for part in parts):
        raise NotFound("there is nothing of that name")
    path = "/v1/" + "/".join(quote(part, safe="") for part in parts)
    return f"{path}?{urlencode(query)}" if query else path


class Api:
    """The application, asked by one of its own pages."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def ask(
        self,
        request: Request,
        who: Principal,
        method: str,
        url: str,
        body: object = msgspec.UNSET,
        *,
        prefer: str = "",
    ) -> Any:
        """The document of the answer. Raises Refusal."""
        sent = b"" if body is msgspec.UNSET else msgspec.json.encode(body)
        answer = _Answer(sent)
        try:
            await self._app(_inner(request, who, method, url, prefer), answer.receive, answer.send)
        finally:
            answer.gone.set()
        return answer.document()

    def forward(self, who: Principal, url: str, *, accept: str = "text/event-stream") -> Response:
        """A stream of the API as it comes."""
        return _Forwarded(self._app, who, url, accept)


class _Answer:
    """One request and what it is answered."""

    def __init__(self, body: bytes) -> None:
        self._body: bytes | None = body
        self._status = 0
        self._length = 0
        self._parts = bytearray()
        self.gone = asyncio.Event()

    async def receive(self) -> Message:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            return
        self._length += len(message.get("body", b""))
        if self._length <= ANSWER_MAX_BYTES:
            self._parts += message.get("body", b"")

    def document(self) -> Any:
        if self._length > ANSWER_MAX_BYTES:
            raise Refusal(_TOO_LARGE, {"message": "this is too large for a page", "hint": "ask the API for it"})
        found = msgspec.json.decode(self._parts) if self._parts else None
        if self._status >= _ERROR_STATUS or not self._status:
            raise Refusal(self._status or 500, found if isinstance(found, dict) else {})
        return found


class _Forwarded(Response):
    """Answered by the API itself, to the browser's own connection."""

    def __init__(self, app: ASGIApp, who: Principal, url: str, accept: str) -> None:
        super().__init__()
        self._accept = accept
        self._app = app
        self._who = who
        self._url = url

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(_inner(Request(scope), self._who, "GET", self._url, accept=self._accept), receive, send)


_PASSED_ON: Final = (b"last-event-id", b"host")


def _inner(
    request: Request, who: Principal, method: str, url: str, prefer: str = "", accept: str = "application/json"
) -> Scope:
    path, _, query = url.partition("?")
    passed = [(name, value) for name, value in request.scope["headers"] if name in _PASSED_ON]
    request_id = str(request.scope.get("state", {}).get("request_id", ""))
    return {
        "type": "http",
        "asgi": request.scope["asgi"],
        "http_version": "1.1",
        "method": method,
        "scheme": request.scope["scheme"],
        "path": unquote(path),
        "raw_path": path.encode("ascii"),
        "root_path": "",
        "query_string": query.encode("ascii"),
        "headers": [
            (b"content-type", b"application/json"),
            (b"accept", accept.encode()),
            (b"prefer", prefer.encode()),
            (b"x-request-id", request_id.encode()),
            *passed,
        ],
        "client": request.scope.get("client"),
        "server": request.scope.get("server"),
        "state": {"principal": who},
    }

"""The outermost layer of the service: an id, a log line and a measurement for every request."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import Callable, MutableMapping
from typing import Any, Final

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from casemate import service_limits as limits
from casemate.api.problems import TOO_LARGE, http_problem, problem, unexpected
from casemate.api.transfer import is_upload
from casemate.errors import ServiceUnavailable

_REQUEST_ID: Final = rf"[A-Za-z0-9._~+=:@-]{{1,{limits.REQUEST_ID_MAX_CHARS}}}"
_LOG: Final = structlog.get_logger("casemate.access")
SECURITY_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
Observe = Callable[[str, str, int, float], None]
"""Is told the method, the route's pattern, the status and the seconds."""


ENDING: Final = ServiceUnavailable("the service is shutting down", hint="ask again in a moment")


class _Body:
    """What comes of a request's body: no more than is allowed, and whether there may be more than is worth reading."""

    def __init__(self, headers: Headers, max_bytes: int) -> None:
        length = headers.get("content-length", "0")
        self._left_bytes = max_bytes
        self.is_too_large = not length.isdecimal() or int(length) > max_bytes
        self.may_go_on = self.is_too_large or "transfer-encoding" in headers

    def checked(self, message: Message) -> Message:
        """The message. Raises HTTPException beyond the bound."""
        self._left_bytes -= len(message.get("body", b""))
        if self._left_bytes < 0:
            raise HTTPException(TOO_LARGE)
        self.may_go_on = self.may_go_on and bool(message.get("more_body", False))
        return message


class Edge:
    """ASGI middleware, without a task of its own for each request."""

    def __init__(
        self,
        app: ASGIApp,
        observe: Observe,
        body_max_bytes: int,
        upload_max_bytes: int,
        leave: Callable[[Scope], None],
    ) -> None:
        self._app = app
        self._observe = observe
        self._body_max_bytes = body_max_bytes
        self._upload_max_bytes = upload_max_bytes
        self._leave = leave

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _chosen_id(Headers(scope=scope).get("x-request-id", ""))
        scope.setdefault("state", {})["request_id"] = request_id
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            await self._answered(scope, receive, send, request_id)

    async def _answered(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        began_s = time.monotonic()
        status = 0
        body = _Body(Headers(scope=scope), self._upload_max_bytes if is_upload(scope) else self._body_max_bytes)

        async def received() -> Message:
            return body.checked(await receive())

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                _complete(message, request_id, closes=body.may_go_on)
            await send(message)

        try:
            if body.is_too_large:
                await http_problem(TOO_LARGE, request_id)(scope, received, sent)
            else:
                await self._app(scope, received, sent)
        except asyncio.CancelledError:  # by a server that ends and waits no longer: whoever asks again is answered
            if not status:
                await problem(ENDING, request_id)(scope, received, sent)
            raise
        except Exception as error:  # noqa: BLE001  (the last place that can answer)
            _LOG.error("unexpected error", exc_info=error)
            if not status:
                await unexpected(request_id)(scope, received, sent)
        finally:
            self._leave(scope)
            self._conclude(scope, status, time.monotonic() - began_s)

    def _conclude(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "") or "unknown"
        self._observe(scope["method"], route, status, seconds)
        _LOG.info("request", method=scope["method"], route=route, status=status, seconds=round(seconds, 6))


def _chosen_id(given: str) -> str:
    """The caller's own, if it is fit for logs."""
    return given if re.fullmatch(_REQUEST_ID, given) else f"req_{secrets.token_hex(16)}"


def _complete(message: MutableMapping[str, Any], request_id: str, *, closes: bool) -> None:
    headers = MutableHeaders(scope=message)
    if closes:
        headers["Connection"] = "close"
    headers["X-Request-Id"] = request_id
    for name, value in SECURITY_HEADERS.items():
        headers.setdefault(name, value)

"""What requests hold while they are answered: a place among all of them, and the bytes of their bodies."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from starlette.types import Scope

from casemate import service_limits as limits
from casemate.queue.shares import Shares

_HOLDING: Final = "holding"


class Holding(msgspec.Struct):
    """Of one request."""

    tenant: str
    body_bytes: int = 0


class Load:
    """Of all requests. One whose tenant is not known, as before a signature was proven, counts as nobody's."""

    def __init__(self, request_max_bytes: int = 0) -> None:
        share_bytes = max(limits.BODIES_A_TENANT_MAX_BYTES, request_max_bytes)
        self._requests = Shares(limits.CONNECTIONS_MAX, limits.REQUESTS_A_TENANT_MAX, "requests")
        self._bodies = Shares(limits.BODIES_SHARES * share_bytes, share_bytes, "bytes of requests")

    def enter(self, scope: Scope, tenant: str) -> None:
        """A request of that tenant is being answered. Raises TooManyRequests."""
        state = _state(scope)
        if _HOLDING not in state:
            self._requests.take(tenant)
            state[_HOLDING] = Holding(tenant)

    def hold(self, scope: Scope, count: int) -> None:
        """So many bytes more of its body have come. Raises TooManyRequests."""
        holding: Holding | None = _state(scope).get(_HOLDING)
        if holding is not None and count:
            self._bodies.take(holding.tenant, count)
            holding.body_bytes += count

    def leave(self, scope: Scope) -> None:
        """It has been answered, to its last byte."""
        holding: Holding | None = _state(scope).pop(_HOLDING, None)
        if holding is not None:
            self._requests.give_back(holding.tenant)
            if holding.body_bytes:
                self._bodies.give_back(holding.tenant, holding.body_bytes)


def _state(scope: Scope) -> dict[str, Any]:
    state: dict[str, Any] = scope.setdefault("state", {})
    return state

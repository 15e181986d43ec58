"""Which requests are recorded, and as what: what changes something, and who reads what is a tenant's own.

Executions and calls are not: their own records say who has asked for them. Nor are lists of jobs, which pages look at
all the time.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import msgspec
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from starlette.responses import Response

from casemate.api.problems import request_id_of
from casemate.api.state import state_of
from casemate.blobs.signed import Grant
from casemate.tenancy.terms import Principal

READS: Final = frozenset({"jobs", "objects", "signed", "secrets", "audit", "logs"})
"""What reading is recorded of, too."""

UNNOTED: Final = frozenset(
    {"executions.create", "functions.invoke", "functions.batch", "runners.invoke", "validate.create"}
    | {"batch.create", "webhooks.batch", "jobs.list"}
)
_VERBS: Final = {"PUT": "write", "PATCH": "change", "DELETE": "delete", "HEAD": "read"}
_SUBMITTED: Final = {"jobs.create": "jobs.submit"}
_ANSWER_MAX_BYTES: Final = 64 * 1024
_ERROR: Final = 500
_INVALID: Final = 422


class _Made(msgspec.Struct):
    """What an answer says of what was made."""

    id: str = ""
    name: str = ""


@lru_cache(maxsize=1024)
def action_of(method: str, pattern: str) -> str:
    """What a request does, by its method and its route's pattern: `keys.create`, `jobs.files.read`.

    Empty: it is not recorded.
    """
    parts = pattern.strip("/").split("/")[1:]
    words = [part for part in parts if not part.startswith("{")]
    is_one = bool(parts) and parts[-1].startswith("{")
    if not words:
        return ""
    if method == "POST" and not is_one and len(parts) > 1:
        *words, verb = words
    elif method == "POST":
        verb = "create"
    elif method == "GET":
        verb = "read" if is_one or len(parts) > 1 else "list"
    else:
        verb = _VERBS.get(method, method.lower())
    if method in {"GET", "HEAD"} and words[0] not in READS:
        return ""
    action = ".".join((*words, verb))
    action = _SUBMITTED.get(action, action)
    return "" if action in UNNOTED else action


async def note(request: Request, response: Response | None, error: Exception | None) -> None:
    """Record a request that has been done, or refused, before its answer is given."""
    route = request.scope.get("route")
    action = action_of(request.method, getattr(route, "path", ""))
    who = _who(request)
    if not action or who is None:
        return
    tenant_id, key_id = who
    await state_of(request).storage.audit.note(
        tenant_id,
        key_id,
        action,
        _target(request, response),
        request_id=request_id_of(request),
        detail=f"{_status(response, error)}{' by a signed address' if _grant(request) else ''}",
    )


def _who(request: Request) -> tuple[str, str] | None:
    grant = _grant(request)
    if grant is not None:
        return grant.tenant, grant.key_id
    known: Principal | None = getattr(request.state, "principal", None)
    return None if known is None else (known.tenant_id, known.key_id)


def _grant(request: Request) -> Grant | None:
    found: Grant | None = getattr(request.state, "grant", None)
    return found


def _target(request: Request, response: Response | None) -> str:
    """The address without what is the same for all of them, and the id of what was made there."""
    grant = _grant(request)
    if grant is not None:
        return f"objects/{grant.name}"
    path = str(request.scope["path"]).strip("/").partition("/")[2]
    made = _made(response) if request.method == "POST" else ""
    return f"{path}/{made}" if made and made not in path else path


def _made(response: Response | None) -> str:
    body: Any = getattr(response, "body", b"")
    if not isinstance(body, bytes) or not 0 < len(body) <= _ANSWER_MAX_BYTES:
        return ""
    try:
        found = msgspec.json.decode(body, type=_Made)
    except msgspec.DecodeError:
        return ""
    return found.id or found.name


def _status(response: Response | None, error: Exception | None) -> int:
    if response is not None:
        return response.status_code
    if isinstance(error, RequestValidationError):
        return _INVALID
    found: int = getattr(error, "http_status", getattr(error, "status_code", _ERROR))
    return found

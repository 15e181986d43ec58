"""Records as they are answered."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
from starlette.responses import Response

from casemate.executions.service import Running
from casemate.model.units import SECOND_US
from casemate.store.executions import Execution


def moment(at_us: int | None) -> str | None:
    """A time as RFC 3339 has it, with microseconds, in UTC."""
    if at_us is None:
        return None
    seconds, rest_us = divmod(at_us, SECOND_US)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest_us).isoformat().replace("+00:00", "Z")


def execution_document(row: Execution, result: bytes | None = None) -> dict[str, Any]:
    """An execution, with the document of its Result if that is given."""
    return {
        "id": row.id,
        "kind": row.kind,
        "state": row.state,
        "runtime": row.runtime,
        "function": row.function,
        "version": row.version,
        "priority": row.priority,
        "labels": row.labels,
        "request_id": row.request_id,
        "created_at": moment(row.created_us),
        "started_at": moment(row.started_us),
        "ended_at": moment(row.ended_us),
        "status": row.status,
        "reason": row.reason,
        "changes": changes_of(row),
        "result": None if result is None else msgspec.Raw(result),
    }


def changes_of(row: Execution) -> list[Any]:
    """What the sanitizer has done to its code, as far as that is kept."""
    if row.spec is None or b'"changes":[{' not in row.spec:
        return []
    found: list[Any] = msgspec.json.decode(row.spec)["changes"]
    return found


def running_document(running: Running) -> bytes:
    """The same of one that this process carries out, encoded."""
    return msgspec.json.encode(execution_document(running.row, running.document))


def json_response(content: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A value as JSON, encoded here: it has been checked where it was made."""
    body = content if isinstance(content, bytes) else msgspec.json.encode(content)
    return Response(body, status, headers, media_type="application/json")

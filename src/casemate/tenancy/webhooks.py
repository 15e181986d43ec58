"""Notices: what happens is written into an outbox in the transaction in which it happens, for whoever has subscribed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime

import msgspec

from casemate import account_limits as bound
from casemate.model.ids import new_id
from casemate.model.result import JsonValue
from casemate.model.units import SECOND_US
from casemate.store import webhooks as rows
from casemate.store.database import Records
from casemate.store.webhooks import Notice
from casemate.tenancy.clock import now_us


class Notices:
    """Posts them. `on_post` is called in the thread that writes, and before the transaction has ended."""

    def __init__(self, clock: Callable[[], int] = now_us) -> None:
        self._clock = clock
        self._on_post: Callable[[], None] = lambda: None

    def when_posted(self, tell: Callable[[], None]) -> None:
        """Have that called when there may be something to be sent."""
        self._on_post = tell

    def post(self, records: Records, tenant_id: str, kind: str, payload: Mapping[str, JsonValue]) -> None:
        """Put an event, such as `job.succeeded`, where it is sent from. One statement where nobody has subscribed."""
        wanting = [each for each in rows.of_tenant(records, tenant_id) if each.wants(kind)]
        if not wanting:
            return
        at_us = self._clock()
        event_id = new_id("evt")
        body = body_of(event_id, tenant_id, kind, payload, at_us)
        rows.post(
            records,
            [
                Notice(
                    tenant_id=tenant_id,
                    webhook_id=each.id,
                    event_id=event_id,
                    kind=kind,
                    body=body,
                    created_us=at_us,
                    due_us=at_us,
                )
                for each in wanting
            ],
        )
        self._on_post()


def body_of(event_id: str, tenant_id: str, kind: str, payload: Mapping[str, JsonValue], at_us: int) -> str:
    """What is sent, as JSON. Of a payload that is too large only that there was one."""
    at = datetime.fromtimestamp(at_us / SECOND_US, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    event = {"id": event_id, "kind": kind, "at": at, "tenant_id": tenant_id, "data": payload}
    body = msgspec.json.encode(event)
    if len(body) > bound.NOTICE_BODY_MAX_BYTES:
        body = msgspec.json.encode({**event, "data": {"left_out": "it is too large"}})
    return body.decode()

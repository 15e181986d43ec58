"""Webhooks: subscriptions of tenants, and the notices that are posted to them.

What happens is written into an outbox in the transaction in which it happens; `delivery` sends it from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Final

import msgspec
import structlog

from casemate import account_limits as bound
from casemate.clock import now_us
from casemate.egress.rules import Policy
from casemate.errors import InvalidInput, TooManyRequests
from casemate.model.ids import new_id
from casemate.model.result import JsonValue
from casemate.model.units import SECOND_US
from casemate.store import webhooks as rows
from casemate.store.database import Database, Records
from casemate.store.pages import Page
from casemate.store.webhooks import Notice, Webhook
from casemate.tenancy.destinations import place_of

EVENTS: Final = (
    "job.queued",
    "job.running",
    "job.succeeded",
    "job.failed",
    "job.dead",
    "job.cancelled",
    "schedule.refused",
    "budget.soft",
    "budget.hard",
)
TEST: Final = "test"
_LOG: Final = structlog.get_logger("casemate.notices")
_PATTERNS: Final = frozenset({*EVENTS, "*", *(f"{kind.partition('.')[0]}.*" for kind in EVENTS)})


def check_events(events: Iterable[str]) -> None:
    """Raises InvalidInput for what nothing ever tells."""
    for each in events:
        if each not in _PATTERNS:
            raise InvalidInput("events", f"{each[:80]!r} is no event", hint="known: " + ", ".join(sorted(_PATTERNS)))


# Subscriptions ------------------------------------------------------------------------------------


class Webhooks:
    """Subscriptions of all tenants. Each method takes the tenant: another's are not found."""

    def __init__(self, database: Database, notices: Notices, policy: Policy, clock: Callable[[], int] = now_us) -> None:
        self._database = database
        self._notices = notices
        self._policy = policy
        self._clock = clock

    async def create(self, tenant_id: str, url: str, events: Iterable[str]) -> Webhook:
        """Raises InvalidInput, Conflict."""
        wanted = list(dict.fromkeys(events))
        check_events(wanted)
        place_of(url, self._policy)
        made = Webhook(id=new_id("whk"), tenant_id=tenant_id, url=url, events=wanted, created_us=self._clock())
        await self._database.write(lambda records: rows.insert_webhook(records, made))
        return made

    async def list_webhooks(self, tenant_id: str, *, limit: int, cursor: str | None) -> Page[Webhook]:
        return await self._database.read(
            lambda records: rows.list_webhooks(records, tenant_id, limit=limit, cursor=cursor)
        )

    async def get(self, tenant_id: str, webhook_id: str) -> Webhook:
        """Raises NotFound."""
        return await self._database.read(lambda records: rows.get(records, tenant_id, webhook_id))

    async def delete(self, tenant_id: str, webhook_id: str) -> None:
        """Raises NotFound. What is on its way there is not sent any more."""
        await self._database.write(lambda records: rows.remove(records, tenant_id, webhook_id))

    async def list_notices(
        self, tenant_id: str, webhook_id: str, *, state: str | None, limit: int, cursor: str | None
    ) -> Page[Notice]:
        """Raises NotFound."""

        def found(records: Records) -> Page[Notice]:
            rows.get(records, tenant_id, webhook_id)
            return rows.list_notices(records, tenant_id, webhook_id=webhook_id, state=state, limit=limit, cursor=cursor)

        return await self._database.read(found)

    async def test(self, tenant_id: str, webhook_id: str) -> str:
        """Send it an event that says nothing, and return the event's id. Raises NotFound, TooManyRequests."""

        def post(records: Records) -> str | None:
            return self._notices.post_to(records, [rows.get(records, tenant_id, webhook_id)], TEST, {})

        event_id = await self._database.write(post)
        if event_id is None:
            raise TooManyRequests("as many notices wait as may", retry_after_s=bound.NOTICE_PAUSE_FIRST_S)
        return event_id


class Notices:
    """Posts what happens. `when_posted` is told in the thread that writes, before the transaction has ended."""

    def __init__(self, clock: Callable[[], int] = now_us) -> None:
        self._clock = clock
        self._on_post: Callable[[], None] = lambda: None

    def when_posted(self, tell: Callable[[], None]) -> None:
        """Have that called when there may be something to be sent."""
        self._on_post = tell

    def post(self, records: Records, tenant_id: str, kind: str, payload: Mapping[str, JsonValue]) -> None:
        """Put an event, such as `job.succeeded`, where it is sent from. One statement where nobody has subscribed."""
        wanting = [each for each in rows.of_tenant(records, tenant_id) if each.wants(kind)]
        if wanting:
            self.post_to(records, wanting, kind, payload)

    def post_to(
        self, records: Records, webhooks: list[Webhook], kind: str, payload: Mapping[str, JsonValue]
    ) -> str | None:
        """The same for these, which are of one tenant. The event's id; None: for none of them there is room."""
        at_us = self._clock()
        event_id = new_id("evt")
        tenant_id = webhooks[0].tenant_id
        body = body_of(event_id, tenant_id, kind, payload, at_us)
        kept = rows.post(records, [_notice(each, event_id, kind, body, at_us) for each in webhooks])
        if kept < len(webhooks):
            _LOG.warning("notices are not sent: too many wait", tenant=tenant_id, kind=kind, count=len(webhooks) - kept)
        self._on_post()
        return event_id if kept else None


def _notice(webhook: Webhook, event_id: str, kind: str, body: str, at_us: int) -> Notice:
    return Notice(
        tenant_id=webhook.tenant_id,
        webhook_id=webhook.id,
        event_id=event_id,
        kind=kind,
        body=body,
        created_us=at_us,
        due_us=at_us,
    )


def body_of(event_id: str, tenant_id: str, kind: str, payload: Mapping[str, JsonValue], at_us: int) -> str:
    """What is sent, as JSON. Of a payload that is too large only that there was one."""
    at = datetime.fromtimestamp(at_us / SECOND_US, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    event = {"id": event_id, "kind": kind, "at": at, "tenant_id": tenant_id, "data": payload}
    body = msgspec.json.encode(event)
    if len(body) > bound.NOTICE_BODY_MAX_BYTES:
        body = msgspec.json.encode({**event, "data": {"left_out": "it is too large"}})
    return body.decode()

"""Webhooks: subscriptions of tenants, and the notices that are posted to them.

What happens is written into an outbox in the transaction in which it happens; `delivery` sends it from there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlsplit

import msgspec

from casemate import account_limits as bound
from casemate.egress.rules import (
    HTTP_PORT,
    HTTPS_PORT,
    HostRule,
    Policy,
    is_address,
    is_public,
    normal_host,
    parse_rule,
)
from casemate.errors import ConfigError, InvalidInput
from casemate.model.ids import new_id
from casemate.model.network import BLOCKED_PORTS
from casemate.model.result import JsonValue
from casemate.model.units import SECOND_US
from casemate.store import webhooks as rows
from casemate.store.database import Database, Records
from casemate.store.pages import Page
from casemate.store.webhooks import Notice, Webhook
from casemate.tenancy.clock import now_us

EVENTS: Final = (
    "job.queued",
    "job.running",
    "job.succeeded",
    "job.failed",
    "job.dead",
    "job.cancelled",
    "budget.soft",
    "budget.hard",
)
TEST: Final = "test"
_PATTERNS: Final = frozenset({*EVENTS, "*", *(f"{kind.partition('.')[0]}.*" for kind in EVENTS)})
_PORTS: Final = {"https": HTTPS_PORT, "http": HTTP_PORT}
_URL: Final = re.compile(r"[\x21-\x7e]+", re.ASCII)


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a notice goes. `rule` is what of the configuration allows that, for a host that need not be public."""

    scheme: str
    host: str
    port: int
    target: str
    rule: HostRule | None = None

    @property
    def authority(self) -> str:
        """As the header `Host` has it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


def configured(hosts: Iterable[str]) -> Policy:
    """The hosts of the configuration, which may be anywhere. Raises ConfigError."""
    try:
        return Policy(tuple(HostRule(rule.host, rule.port, anywhere=True) for rule in map(parse_rule, hosts)))
    except InvalidInput as error:
        raise ConfigError("accounting.webhook_hosts", error.message.partition(": ")[2], hint=error.hint) from error


def place_of(url: str, policy: Policy) -> Place:
    """An address that may be sent to, as far as it itself tells. Raises InvalidInput.

    Whatever it resolves to when something is sent is looked at then.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError as error:
        raise InvalidInput("url", "is no address") from error
    if not _URL.fullmatch(url) or parts.scheme not in _PORTS or not parts.hostname:
        raise InvalidInput("url", "is no address", hint="write it as https://HOST/PATH")
    if "@" in parts.netloc or parts.fragment:
        raise InvalidInput("url", "has a user or a fragment, which nothing is sent")
    host = normal_host(parts.hostname)
    if not host:
        raise InvalidInput("url", f"{parts.hostname[:80]!r} is no host")
    rule = policy.rule_for(host, port)
    if rule is None:
        _check_public(parts.scheme, host, port)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Place(scheme=parts.scheme, host=host, port=port, target=target, rule=rule)


def _check_public(scheme: str, host: str, port: int) -> None:
    hint = "`accounting.webhook_hosts` of the configuration can allow it"
    if scheme != "https":
        raise InvalidInput("url", "is not encrypted: it must begin with https://", hint=hint)
    if port in BLOCKED_PORTS:
        raise InvalidInput("url", f"port {port} is for something else", hint=hint)
    if is_address(host) and not is_public(host):
        raise InvalidInput("url", f"{host} is no public address", hint=hint)


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
        """Send it an event that says nothing, and return the event's id. Raises NotFound."""

        def post(records: Records) -> str:
            return self._notices.post_to(records, [rows.get(records, tenant_id, webhook_id)], TEST, {})

        return await self._database.write(post)


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

    def post_to(self, records: Records, webhooks: list[Webhook], kind: str, payload: Mapping[str, JsonValue]) -> str:
        """The same for these, which are of one tenant. The event's id."""
        at_us = self._clock()
        event_id = new_id("evt")
        body = body_of(event_id, webhooks[0].tenant_id, kind, payload, at_us)
        rows.post(records, [_notice(each, event_id, kind, body, at_us) for each in webhooks])
        self._on_post()
        return event_id


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

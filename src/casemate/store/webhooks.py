"""Subscriptions to events, and the notices that are on their way: an outbox, written with what it tells of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
from sqlalchemy import Connection, bindparam, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from casemate.account_limits import NOTICES_AT_ONCE_A_TENANT, NOTICES_WAITING_A_TENANT_MAX, WEBHOOKS_A_TENANT_MAX
from casemate.errors import Conflict, NotFound
from casemate.service_limits import PAGE_DEFAULT_COUNT, SWEEP_MAX_COUNT
from casemate.store.account_schema import notices, webhooks
from casemate.store.pages import Page, check_limit, cursor_of, newest_first, page_of, place_of
from casemate.store.prepared import Prepared

WAITING: Final = "waiting"
DELIVERED: Final = "delivered"
FAILED: Final = "failed"


class Webhook(msgspec.Struct, frozen=True, kw_only=True):
    """Where a tenant wants to be told, and of what: kinds of events, or `*`, or `job.*`."""

    id: str
    tenant_id: str
    url: str
    events: list[str]
    created_us: int

    def wants(self, kind: str) -> bool:
        """Whether it has subscribed to that."""
        return any(each in {kind, "*"} or (each.endswith(".*") and kind.startswith(each[:-1])) for each in self.events)


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """One event for one webhook. `body` is sent as it is; `problem` says why the last attempt has failed."""

    tenant_id: str
    webhook_id: str
    event_id: str
    kind: str
    body: str
    created_us: int
    due_us: int
    id: int = 0
    state: str = WAITING
    attempts: int = 0
    problem: str = ""
    ended_us: int | None = None


_OF: Final = select(webhooks).where(webhooks.c.tenant_id == bindparam("of_tenant"))
_HAS: Final = Prepared(select(webhooks.c.id).where(webhooks.c.tenant_id == bindparam("of_tenant")).limit(1))


# Subscriptions ------------------------------------------------------------------------------------


def insert_webhook(connection: Connection, webhook: Webhook) -> None:
    """Add one. Raises Conflict beyond WEBHOOKS_A_TENANT_MAX."""
    if len(of_tenant(connection, webhook.tenant_id)) >= WEBHOOKS_A_TENANT_MAX:
        raise Conflict(f"the tenant has {WEBHOOKS_A_TENANT_MAX} webhooks already")
    try:
        with connection.begin_nested():
            connection.execute(insert(webhooks), msgspec.structs.asdict(webhook))
    except IntegrityError as error:
        raise NotFound(f"there is no tenant {webhook.tenant_id!r}") from error


def of_tenant(connection: Connection, tenant_id: str) -> tuple[Webhook, ...]:
    """All that a tenant has; most have none."""
    if _HAS.run(connection, {"of_tenant": tenant_id}).first is None:
        return ()
    return tuple(Webhook(**row) for row in connection.execute(_OF, {"of_tenant": tenant_id}).mappings())


def get(connection: Connection, tenant_id: str, webhook_id: str) -> Webhook:
    """Raises NotFound."""
    this = (webhooks.c.tenant_id == tenant_id, webhooks.c.id == webhook_id)
    row = connection.execute(select(webhooks).where(*this)).mappings().one_or_none()
    if row is None:
        raise NotFound(f"there is no webhook {webhook_id!r}")
    return Webhook(**row)


def list_webhooks(
    connection: Connection, tenant_id: str, *, limit: int = PAGE_DEFAULT_COUNT, cursor: str | None = None
) -> Page[Webhook]:
    """A tenant's, newest first."""
    query = newest_first(
        select(webhooks).where(webhooks.c.tenant_id == tenant_id), webhooks, limit=limit, cursor=cursor
    )
    rows = [Webhook(**row) for row in connection.execute(query).mappings()]
    return page_of(rows, limit, [(row.created_us, row.id) for row in rows])


def remove(connection: Connection, tenant_id: str, webhook_id: str) -> None:
    """Delete it, with what is on its way there. Raises NotFound."""
    get(connection, tenant_id, webhook_id)
    connection.execute(delete(webhooks).where(webhooks.c.id == webhook_id))


# The outbox ---------------------------------------------------------------------------------------


def post(connection: Connection, found: Sequence[Notice]) -> int:
    """Put notices into the outbox, and say how many had room there."""
    if not found:
        return 0
    waiting = (notices.c.tenant_id == found[0].tenant_id, notices.c.state == WAITING)
    held = connection.execute(select(func.count()).select_from(notices).where(*waiting)).scalar_one()
    kept = found[: max(0, NOTICES_WAITING_A_TENANT_MAX - held)]
    for each in kept:
        row = msgspec.structs.asdict(each)
        del row["id"]
        connection.execute(insert(notices), row)
    return len(kept)


def due(connection: Connection, *, at_us: int, limit: int) -> tuple[tuple[Notice, str], ...]:
    """Notices that are to be sent, each with its address; of no tenant more than NOTICES_AT_ONCE_A_TENANT.

    So that one whose receivers are slow holds up itself alone.
    """
    place = func.row_number().over(partition_by=notices.c.tenant_id, order_by=(notices.c.due_us, notices.c.id))
    ready = (
        select(notices, place.label("place"))
        .where(notices.c.state == WAITING, notices.c.due_us <= at_us)
        .subquery("ready")
    )
    columns = [ready.c[column.name] for column in notices.c]
    query = (
        select(*columns, webhooks.c.url)
        .join(webhooks, webhooks.c.id == ready.c.webhook_id)
        .where(ready.c.place <= NOTICES_AT_ONCE_A_TENANT)
        .order_by(ready.c.due_us, ready.c.id)
        .limit(limit)
    )
    rows = [dict(row) for row in connection.execute(query).mappings()]
    return tuple((Notice(**{name: row[name] for name in Notice.__struct_fields__}), row["url"]) for row in rows)


def next_due_us(connection: Connection) -> int | None:
    """When the next one is to be sent; None: there is none."""
    return connection.execute(select(func.min(notices.c.due_us)).where(notices.c.state == WAITING)).scalar()


def settle(
    connection: Connection, notice: Notice, state: str, *, at_us: int, problem: str = "", due_us: int | None = None
) -> bool:
    """Note what came of an attempt. `due_us`: when there is another. False: it is gone, or was settled already."""
    values = {
        "state": state,
        "attempts": notice.attempts + 1,
        "problem": problem,
        "due_us": notice.due_us if due_us is None else due_us,
        "ended_us": None if state == WAITING else at_us,
    }
    this = (notices.c.id == notice.id, notices.c.state == WAITING)
    return connection.execute(update(notices).where(*this).values(values)).rowcount == 1


def list_notices(
    connection: Connection,
    tenant_id: str,
    *,
    webhook_id: str | None = None,
    state: str | None = None,
    limit: int = PAGE_DEFAULT_COUNT,
    cursor: str | None = None,
) -> Page[Notice]:
    """A tenant's, newest first."""
    query = select(notices).where(notices.c.tenant_id == tenant_id)
    if webhook_id is not None:
        query = query.where(notices.c.webhook_id == webhook_id)
    if state is not None:
        query = query.where(notices.c.state == state)
    if cursor is not None:
        query = query.where(notices.c.id < place_of(cursor)[0])
    query = query.order_by(notices.c.id.desc()).limit(check_limit(limit) + 1)
    rows = [Notice(**row) for row in connection.execute(query).mappings()]
    last = cursor_of(rows[limit - 1].id, "-") if len(rows) > limit else None
    return Page(items=tuple(rows[:limit]), next_cursor=last)


def sweep(connection: Connection, *, before_us: int) -> int:
    """Delete some that have come to their end before that time, and say how many; 0: there are no more."""
    old = select(notices.c.id).where(notices.c.ended_us < before_us).limit(SWEEP_MAX_COUNT)
    return connection.execute(delete(notices).where(notices.c.id.in_(old.scalar_subquery()))).rowcount

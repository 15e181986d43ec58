"""What the service tells its clients of usage, budgets and webhooks. What is unknown here is passed over."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Any

import msgspec


class UsageSum(msgspec.Struct, frozen=True, kw_only=True):
    """What some runs have used together. `by`: which of those that it was grouped by; empty for all of them."""

    by: str = ""
    runs: int = 0
    failed: int = 0
    cpu_s: float = 0.0
    wall_s: float = 0.0
    memory_gib_s: float = 0.0
    disk_bytes: int = 0
    network_sent_bytes: int = 0
    network_received_bytes: int = 0
    cost: Decimal = Decimal(0)


class UsageReport(msgspec.Struct, frozen=True, kw_only=True):
    """Usage of some days."""

    since: date
    until: date
    currency: str = ""
    total: UsageSum = UsageSum()
    groups: tuple[UsageSum, ...] = ()


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """How much may be used in a time, and how much of that is spent.

    At `soft` webhooks are told; at `hard` what runs ends, and nothing more is taken.
    """

    name: str
    tenant_id: str = ""
    unit: str = "cost"
    period: str = "month"
    soft: Decimal | None = None
    hard: Decimal | None = None
    spent: Decimal = Decimal(0)
    is_imposed: bool = False
    is_used_up: bool = False


class Webhook(msgspec.Struct, frozen=True, kw_only=True):
    """Where events are sent. `secret`, with which they are signed, is there once, when it was made, and in no repr."""

    id: str
    url: str = ""
    events: tuple[str, ...] = ()
    created_at: datetime | None = None
    secret: str | None = None

    def __repr__(self) -> str:
        return f"Webhook(id={self.id!r}, url={self.url!r})"


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """One event for one webhook. `state` is `waiting`, `delivered` or `failed`, `problem` why it was not taken."""

    webhook_id: str
    event_id: str
    kind: str = ""
    state: str = ""
    attempts: int = 0
    problem: str = ""
    created_at: datetime | None = None
    due_at: datetime | None = None
    ended_at: datetime | None = None
    event: dict[str, Any] = {}

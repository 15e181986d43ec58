"""What is sent and answered about usage, budgets and webhooks."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, StringConstraints

from casemate import account_limits as bound
from casemate.api.models import Page, Sent

Quantity = int | float | Annotated[str, StringConstraints(max_length=bound.AMOUNT_MAX_CHARS)]


class UsedOut(BaseModel):
    """What was used. Costs are text, which is exact; each run costs what the prices said when it ended."""

    runs: int
    failed: int
    cpu_s: float
    wall_s: float
    memory_gib_s: float = Field(description="Of each run the most memory that it held, times how long it took.")
    disk_bytes: int
    network_sent_bytes: int
    network_received_bytes: int
    cost: str


class UsedByOut(UsedOut):
    """The same, for one value of what it is grouped by."""

    by: str


class JobUsageOut(UsedOut):
    """The same, of one job: `runs` are its attempts."""

    job_id: str
    currency: str


class UsageOut(BaseModel):
    """Usage of some days."""

    since: str
    until: str
    currency: str
    total: UsedOut
    groups: list[UsedByOut]


class BudgetIn(Sent):
    """How much may be used in a time. At `soft` somebody is told, at `hard` everything ends."""

    unit: Literal["cost", "runs", "cpu_s", "wall_s", "memory_gib_s", "network_gib"] = "cost"
    period: Literal["day", "month", "total"] = "month"
    soft: Quantity | None = None
    hard: Quantity | None = None


class BudgetOut(BaseModel):
    """A budget, and what is spent of it in this period."""

    name: str
    tenant_id: str
    unit: str
    period: str
    soft: str | None
    hard: str | None
    spent: str
    is_imposed: bool = Field(description="The operator has set it: it is not the tenant's to change.")
    is_used_up: bool


class BudgetsOut(BaseModel):
    """All of a tenant's."""

    items: list[BudgetOut]


class WebhookIn(Sent):
    """Where to tell what happens."""

    url: str = Field(min_length=1, max_length=bound.WEBHOOK_URL_MAX_CHARS)
    events: list[Annotated[str, StringConstraints(max_length=32)]] = Field(
        ["*"], min_length=1, max_length=bound.WEBHOOK_EVENTS_MAX, description="Such as job.failed, budget.* or *."
    )


class WebhookOut(BaseModel):
    """A subscription."""

    id: str
    url: str
    events: list[str]
    created_at: str


class NewWebhookOut(WebhookOut):
    """One that was just made."""

    secret: str = Field(description="What its notices are signed with. It is shown this once.")


class WebhooksOut(Page):
    """A page of subscriptions."""

    items: list[WebhookOut]


class NoticeOut(BaseModel):
    """One event on its way to one webhook, or at its end."""

    webhook_id: str
    event_id: str
    kind: str
    state: Literal["waiting", "delivered", "failed"]
    attempts: int
    problem: str
    created_at: str
    due_at: str
    ended_at: str | None
    event: dict[str, Any]


class NoticesOut(Page):
    """A page of notices."""

    items: list[NoticeOut]

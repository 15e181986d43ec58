"""What can be asked of the service about usage, budgets and webhooks, as `calls`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from decimal import Decimal

from casemate.model.accounts import Budget, Notice, UsageReport, UsageSum, Webhook
from casemate.sdk.calls import asked, sent, several
from casemate.sdk.requests import Call, Listing, Request, given, path, query, read_document, read_nothing, reader

Amount = int | float | str | Decimal


def usage(
    *,
    since: date | str | None = None,
    until: date | str | None = None,
    group_by: str | None = None,
    kind: str | None = None,
    key: str | None = None,
    label: str | Sequence[str] | None = None,
    tenant: str | None = None,
) -> Call[UsageReport]:
    """What was used in some days, by default those of this month, and what it costs.

    `group_by` is `day`, `kind`, `key`, `tenant` or `label:NAME`; `kind` is `code`, `function`, `batch` or `job`.
    """
    request = asked(
        path("usage"),
        since=since,
        until=until,
        group_by=group_by,
        kind=kind,
        key=key,
        label=several(label),
        tenant=tenant,
    )
    return Call(request, reader(UsageReport))


def job_usage(job_id: str) -> Call[UsageSum]:
    """What all attempts at a job have used together, as far as they have ended, and what that costs."""
    return Call(asked(path("jobs", job_id, "usage")), reader(UsageSum))


def list_budgets(*, tenant: str | None = None) -> Listing[Budget]:
    """Budgets, with what is spent of them; `tenant` is another one, for the operator."""
    return Listing(asked(path("budgets"), tenant=tenant), Budget, in_pages=False)


def set_budget(
    name: str,
    *,
    unit: str = "cost",
    period: str = "month",
    soft: Amount | None = None,
    hard: Amount | None = None,
    tenant: str | None = None,
) -> Call[Budget]:
    """Make a budget, or change it. `unit`: `cost`, `runs`, `cpu_s`, `wall_s`, `memory_gib_s` or `network_gib`.

    `period` is `day`, `month` or `total`.
    """
    body = given(unit=unit, period=period, soft=_exact(soft), hard=_exact(hard))
    return Call(sent("PUT", path("budgets", name), body, tenant=tenant), reader(Budget))


def delete_budget(name: str, *, tenant: str | None = None) -> Call[None]:
    """Remove a budget: what it bounded has no bound any more."""
    return Call(Request(method="DELETE", path=path("budgets", name), query=query(tenant=tenant)), read_nothing)


def _exact(amount: Amount | None) -> str | int | float | None:
    return format(amount, "f") if isinstance(amount, Decimal) else amount


def list_webhooks(*, limit: int | None = None) -> Listing[Webhook]:
    """The webhooks, youngest first, without their secrets."""
    return Listing(asked(path("webhooks")), Webhook, limit)


def create_webhook(url: str, *, events: Sequence[str] = ("*",), idempotency_key: str | None = None) -> Call[Webhook]:
    """Have events sent to an address: `job.failed`, `budget.*`, `*`. `secret` of the answer is never told again."""
    body = {"url": url, "events": list(events)}
    return Call(sent("POST", path("webhooks"), body, key=idempotency_key), reader(Webhook))


def delete_webhook(webhook_id: str) -> Call[None]:
    """Send nothing there any more."""
    return Call(Request(method="DELETE", path=path("webhooks", webhook_id)), read_nothing)


def try_webhook(webhook_id: str, *, idempotency_key: str | None = None) -> Call[dict[str, str]]:
    """Send an event of the kind `test`, whose `event_id` comes back."""
    where = path("webhooks", webhook_id, "test")
    return Call(sent("POST", where, {}, key=idempotency_key), read_document)


def list_notices(webhook_id: str, *, state: str | None = None, limit: int | None = None) -> Listing[Notice]:
    """What was sent to a webhook in the last days, youngest first. `state`: `waiting`, `delivered` or `failed`."""
    return Listing(asked(path("webhooks", webhook_id, "notices"), state=state), Notice, limit)

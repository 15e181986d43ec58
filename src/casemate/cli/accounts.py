"""`casemate usage`, `budget` and `webhook`: what was used, how much may be, and who is told."""

from __future__ import annotations

from typing import Final

import msgspec

from casemate.cli.arguments import Parsed
from casemate.cli.messages import printable, say, show, show_json
from casemate.cli.service import client_of, document, limit_of, show_facts, show_rows, show_value
from casemate.model.accounts import Budget, UsageReport, UsageSum

NOTICES_SHOWN: Final = 50


def show_usage(parsed: Parsed) -> int:
    """A line for each group, and one for all."""
    with client_of(parsed) as client:
        found = client.usage(
            since=parsed.one("since"),
            until=parsed.one("until"),
            group_by=parsed.one("by") or "day",
            kind=parsed.one("kind"),
            label=parsed.all("label"),
            tenant=parsed.one("tenant"),
        )
    if parsed.flag("json"):
        show_json(document(found))
    else:
        _show_report(parsed, found)
    return 0


def show_job(parsed: Parsed) -> int:
    """All its attempts together."""
    with client_of(parsed) as client:
        found = client.jobs.usage(parsed.words[0])
    names = ("runs", "failed", "cpu_s", "wall_s", "memory_gib_s", "disk_bytes")
    network = {"network_bytes": found.network_sent_bytes + found.network_received_bytes, "cost": _cost(found)}
    show_facts(parsed, found, {**{name: getattr(found, name) for name in names}, **network})
    return 0


def _show_report(parsed: Parsed, found: UsageReport) -> None:
    cost = f"COST {found.currency}".strip()
    columns = {
        "BY": lambda each: each.by,
        "RUNS": lambda each: each.runs,
        "FAILED": lambda each: each.failed,
        "CPU s": lambda each: f"{each.cpu_s:.3f}",
        "WALL s": lambda each: f"{each.wall_s:.3f}",
        "MEMORY GiB s": lambda each: f"{each.memory_gib_s:.3f}",
        "NETWORK bytes": lambda each: each.network_sent_bytes + each.network_received_bytes,
        cost: _cost,
    }
    show_rows(parsed, [*found.groups, _named(found.total)], columns)


def _named(total: UsageSum) -> UsageSum:
    return msgspec.structs.replace(total, by="total")


def _cost(used: UsageSum) -> str:
    return format(used.cost, "f")


# Budgets ------------------------------------------------------------------------------------------


def set_budget(parsed: Parsed) -> int:
    """Make it, or change it."""
    with client_of(parsed) as client:
        made = client.budgets.set(
            parsed.words[0],
            unit=parsed.one("unit") or "cost",
            period=parsed.one("period") or "month",
            soft=parsed.one("soft"),
            hard=parsed.one("hard"),
            tenant=parsed.one("tenant"),
        )
    show_value(parsed, made, _line(made))
    return 0


def _line(budget: Budget) -> str:
    bounds = ", ".join(
        f"{name} {amount:f}" for name, amount in (("soft", budget.soft), ("hard", budget.hard)) if amount is not None
    )
    period = "in all" if budget.period == "total" else f"a {budget.period}"
    return printable(f"{budget.name}: {budget.spent:f} {budget.unit} {period} spent; {bounds}")


def list_budgets(parsed: Parsed) -> int:
    """With what is spent of them."""
    with client_of(parsed) as client:
        show_rows(
            parsed,
            client.budgets.list(tenant=parsed.one("tenant")),
            {
                "NAME": lambda each: each.name,
                "UNIT": lambda each: each.unit,
                "PERIOD": lambda each: each.period,
                "SPENT": lambda each: format(each.spent, "f"),
                "SOFT": lambda each: None if each.soft is None else format(each.soft, "f"),
                "HARD": lambda each: None if each.hard is None else format(each.hard, "f"),
                "SET BY": lambda each: "operator" if each.is_imposed else "tenant",
            },
        )
    return 0


def delete_budget(parsed: Parsed) -> int:
    """It bounds nothing any more."""
    with client_of(parsed) as client:
        client.budgets.delete(parsed.words[0], tenant=parsed.one("tenant"))
    show([printable(f"{parsed.words[0]} is removed")])
    return 0


# Webhooks -----------------------------------------------------------------------------------------


def create_webhook(parsed: Parsed) -> int:
    """Make one, and show its secret once."""
    with client_of(parsed) as client:
        made = client.webhooks.create(parsed.words[0], events=parsed.all("event") or ["*"])
    say(f"webhook {printable(made.id)}; its secret is told this once")
    show_value(parsed, made, printable(made.secret or ""))
    return 0


def list_webhooks(parsed: Parsed) -> int:
    """Without their secrets."""
    with client_of(parsed) as client:
        show_rows(
            parsed,
            client.webhooks.list(limit=limit_of(parsed, "webhook list")),
            {
                "ID": lambda each: each.id,
                "URL": lambda each: each.url,
                "EVENTS": lambda each: each.events,
                "MADE": lambda each: each.created_at,
            },
        )
    return 0


def list_notices(parsed: Parsed) -> int:
    """Youngest first."""
    with client_of(parsed) as client:
        limit = limit_of(parsed, "webhook notices", NOTICES_SHOWN)
        show_rows(
            parsed,
            client.webhooks.notices(parsed.words[0], state=parsed.one("state"), limit=limit),
            {
                "EVENT": lambda each: each.event_id,
                "KIND": lambda each: each.kind,
                "AT": lambda each: each.created_at,
                "STATE": lambda each: each.state,
                "ATTEMPTS": lambda each: each.attempts,
                "PROBLEM": lambda each: each.problem,
            },
        )
    return 0


def try_webhook(parsed: Parsed) -> int:
    """Send an event that tells nothing."""
    with client_of(parsed) as client:
        found = client.webhooks.test(parsed.words[0])
    show_value(parsed, found, printable(found["event_id"]))
    return 0


def delete_webhook(parsed: Parsed) -> int:
    """Nothing more is sent there."""
    with client_of(parsed) as client:
        client.webhooks.delete(parsed.words[0])
    show([printable(f"{parsed.words[0]} is removed")])
    return 0

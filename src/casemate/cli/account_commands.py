"""The commands of `budget` and `webhook`, and `usage`, as data."""

from __future__ import annotations

from typing import Final

from casemate.cli.arguments import Argument, Command, Example, Option
from casemate.cli.service_commands import COMMON, LABEL, LIMIT, PLACE

_ACCOUNTS: Final = "casemate.cli.accounts"
TENANT: Final = Option(
    names=("--tenant",), metavar="ID", group="Which", help="another tenant's; for the operator's keys"
)
USAGE: Final = Command(
    name="usage show",
    module=_ACCOUNTS,
    function="show_usage",
    optional=0,
    summary="show what was used and what it costs",
    options=(
        Option(names=("--since",), metavar="DAY", group="Which", default="the first of the month", help="2030-01-01"),
        Option(names=("--until",), metavar="DAY", group="Which", default="today", help="up to and with this day"),
        Option(
            names=("--by",), metavar="WHAT", group="Which", default="day", help="day, kind, key, tenant or label:NAME"
        ),
        Option(names=("--kind",), metavar="KIND", group="Which", help="code, function, batch or job"),
        LABEL,
        TENANT,
        *COMMON,
    ),
    examples=(Example("casemate usage --by label:project", "this month, a line for each project"),),
)
USAGE_JOB: Final = Command(
    name="usage job",
    module=_ACCOUNTS,
    function="show_job",
    optional=0,
    summary="show what a job has used and what it costs",
    arguments=(Argument(metavar="ID", help="the job's"),),
    options=COMMON,
)
BUDGET_NAME: Final = Argument(metavar="NAME", help="the budget")
BUDGET_SET: Final = Command(
    name="budget set",
    module=_ACCOUNTS,
    function="set_budget",
    optional=0,
    summary="make or change a budget",
    about="At the soft bound webhooks are told; at the hard one what runs ends as denied, and nothing more is taken "
    "until the next period, or until the budget is raised.",
    arguments=(BUDGET_NAME,),
    options=(
        Option(names=("--soft",), metavar="AMOUNT", group="Budget", help="tell of it from here on"),
        Option(names=("--hard",), metavar="AMOUNT", group="Budget", help="stop here"),
        Option(
            names=("--unit",),
            metavar="UNIT",
            group="Budget",
            default="cost",
            help="cost, runs, cpu_s, wall_s, memory_gib_s or network_gib",
        ),
        Option(names=("--period",), metavar="PERIOD", group="Budget", default="month", help="day, month or total"),
        TENANT,
        *COMMON,
    ),
    examples=(Example("casemate budget set lab --soft 80 --hard 100", "in the currency of the prices, a month"),),
)
BUDGET_LIST: Final = Command(
    name="budget list",
    module=_ACCOUNTS,
    function="list_budgets",
    optional=0,
    summary="list the budgets, with what is spent",
    options=(TENANT, *COMMON),
)
BUDGET_DELETE: Final = Command(
    name="budget delete",
    module=_ACCOUNTS,
    function="delete_budget",
    optional=0,
    summary="remove a budget",
    arguments=(BUDGET_NAME,),
    options=(TENANT, *PLACE, COMMON[-1]),
)
WEBHOOK_ID: Final = Argument(metavar="ID", help="the webhook's")
WEBHOOK_CREATE: Final = Command(
    name="webhook create",
    module=_ACCOUNTS,
    function="create_webhook",
    optional=0,
    summary="have events sent to an address, signed",
    about="Prints the secret that notices are signed with; it is told this once.",
    arguments=(Argument(metavar="URL", help="where to: https://HOST/PATH"),),
    options=(
        Option(
            names=("--event",),
            metavar="KIND",
            repeatable=True,
            group="Webhook",
            default="*",
            help="job.failed, job.*, budget.hard, …",
        ),
        *COMMON,
    ),
    examples=(Example("casemate webhook create https://hooks.example.com/c --event 'budget.*'", "and nothing else"),),
)
WEBHOOK_LIST: Final = Command(
    name="webhook list",
    module=_ACCOUNTS,
    function="list_webhooks",
    optional=0,
    summary="list the webhooks",
    options=(LIMIT, *COMMON),
)
WEBHOOK_NOTICES: Final = Command(
    name="webhook notices",
    module=_ACCOUNTS,
    function="list_notices",
    optional=0,
    summary="show what was sent, and what became of it",
    arguments=(WEBHOOK_ID,),
    options=(
        Option(names=("--state",), metavar="STATE", group="Which", help="waiting, delivered or failed"),
        LIMIT,
        *COMMON,
    ),
)
WEBHOOK_TEST: Final = Command(
    name="webhook test",
    module=_ACCOUNTS,
    function="try_webhook",
    optional=0,
    summary="send a test event",
    arguments=(WEBHOOK_ID,),
    options=COMMON,
)
WEBHOOK_DELETE: Final = Command(
    name="webhook delete",
    module=_ACCOUNTS,
    function="delete_webhook",
    optional=0,
    summary="send nothing there any more",
    arguments=(WEBHOOK_ID,),
    options=(*PLACE, COMMON[-1]),
)
COMMANDS: Final = {
    command.name: command
    for command in (
        *(USAGE, USAGE_JOB, BUDGET_SET, BUDGET_LIST, BUDGET_DELETE),
        *(WEBHOOK_CREATE, WEBHOOK_LIST, WEBHOOK_NOTICES, WEBHOOK_TEST, WEBHOOK_DELETE),
    )
}

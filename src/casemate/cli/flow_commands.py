"""The command about what jobs try to reach, as data."""

from __future__ import annotations

from typing import Final

from casemate.cli.arguments import Command, Example, Option
from casemate.cli.service_commands import COMMON, LIMIT, SINCE, UNTIL

FLOWS: Final = Command(
    name="flows",
    module="casemate.cli.flows",
    function="flows",
    summary="show what jobs have tried to reach, or follow it",
    about="Prints a line for each attempt of a job to reach something on a network: whether it was allowed, why not, "
    "and how much went through.",
    options=(
        Option(names=("-f", "--follow"), group="Which", help="go on as more comes"),
        Option(names=("--job",), metavar="ID", group="Which", help="of this job"),
        Option(names=("--host",), metavar="HOST", group="Which", help="to this host"),
        Option(names=("--refused",), group="Which", help="only what was refused"),
        SINCE,
        UNTIL,
        LIMIT,
        *COMMON,
    ),
    examples=(
        Example("casemate flows --refused --limit 20", "the last ones that no policy allowed"),
        Example("casemate flows -f --job nightly", "what one job does, as it does it"),
    ),
    notes=("With --json each line is an object.",),
)
COMMANDS: Final = {FLOWS.name: FLOWS}

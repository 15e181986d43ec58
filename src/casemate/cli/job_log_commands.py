"""The commands about what jobs print, as data."""

from __future__ import annotations

from typing import Final

from casemate.cli.arguments import Argument, Command, Example, Option
from casemate.cli.service_commands import COMMON, LIMIT, SINCE, UNTIL

_LOGS: Final = "casemate.cli.job_logs"
JOBS_LOGS: Final = Command(
    name="jobs logs",
    module=_LOGS,
    function="logs",
    optional=0,
    summary="show what a job has printed, or follow it",
    about="Prints what a job has printed: its stdout to stdout and its stderr to stderr, of all its attempts. On a "
    "terminal nothing in it moves a cursor; in a file it is what it was, byte for byte.",
    arguments=(Argument(metavar="ID", help="the job"),),
    options=(
        Option(names=("-f", "--follow"), group="Which", help="go on as more comes, until the job has ended"),
        Option(names=("--tail",), metavar="COUNT", group="Which", help="the last lines alone, and what follows"),
        Option(names=("--times",), group="Which", help="when each line came, and its stream, before it"),
        *COMMON,
    ),
    examples=(
        Example("casemate jobs logs nightly", "all that is kept"),
        Example("casemate jobs logs nightly -f --tail 10", "the last ten lines, and each that comes"),
    ),
    notes=("With --json each line is an object with seq, attempt, stream, level, at, offset, and text or base64.",),
)
JOBS_SEARCH: Final = Command(
    name="jobs search",
    module=_LOGS,
    function="search",
    optional=1,
    summary="search what jobs have printed",
    about="Prints lines of all jobs, the last ones first, in which every word of TEXT begins a word.",
    arguments=(Argument(metavar="TEXT", help="words; without any, all lines"),),
    options=(
        Option(names=("--job",), metavar="ID", group="Which", help="of this job"),
        Option(names=("--runtime",), metavar="NAME", values="runtime", group="Which", help="of this language"),
        Option(names=("--kind",), metavar="KIND", group="Which", help="of jobs: command, code or scheduled"),
        Option(names=("--stream",), metavar="STREAM", group="Which", help="stdout or stderr"),
        Option(names=("--level",), metavar="LEVEL", group="Which", help="debug, info, warning or error"),
        SINCE,
        UNTIL,
        LIMIT,
        *COMMON,
    ),
    examples=(
        Example("casemate jobs search 'connection refused' --level error", "wherever it was"),
        Example("casemate jobs search --job nightly --stream stderr --limit 20", "the last ones of one job"),
    ),
)
COMMANDS: Final = {command.name: command for command in (JOBS_LOGS, JOBS_SEARCH)}

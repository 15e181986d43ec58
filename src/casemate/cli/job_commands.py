"""The commands of `jobs`, as data."""

from __future__ import annotations

from typing import Final

import msgspec

from casemate import job_limits as bound
from casemate.cli import job_log_commands
from casemate.cli.arguments import Argument, Command, Example, Option
from casemate.cli.commands import ALLOW, LIMITS, PLACE, RUNTIME
from casemate.cli.object_commands import JOB_COMMANDS
from casemate.cli.operating_commands import CONFIG_FILE, HELP, JSON
from casemate.cli.service_commands import COMMON, SINCE, UNTIL
from casemate.model.units import format_bytes, format_duration

_JOBS: Final = "casemate.cli.jobs"
_SCHEDULES: Final = "casemate.cli.job_schedules"
ID: Final = Argument(metavar="ID", help="the job's")
WAIT: Final = Option(
    names=("--wait",), group="Other", help="show what it prints until it has ended, and end with its status"
)
STATUS: Final = (
    "Exit status: 0; with --wait the program's own where it ended by itself, 124 time limit, 130 cancelled, 1 any "
    "other failure; 125 when the service could not be asked."
)
SHOWN: Final = Option(names=("--limit",), metavar="COUNT", group="Which", default="50", help="no more than so many")
_DEFAULTS: Final = {
    "timeout": format_duration(bound.JOB_TIMEOUT_S),
    "cpu": f"{bound.JOB_CPU:g}",
    "memory": format_bytes(bound.JOB_MEMORY_BYTES),
    "disk": format_bytes(bound.JOB_DISK_BYTES),
}
"""Where a job's limits are not those of a run; the service's configuration may say others."""
_LIMITS: Final = tuple(
    msgspec.structs.replace(option, default=_DEFAULTS.get(option.key, option.default))
    for option in LIMITS
    if option.key != "output-limit"
)
_WHAT: Final = (
    Option(names=("--shell",), group="Program", help="one word, which is a text for a shell"),
    Option(
        names=("--code",), metavar="FILE", values="file", group="Program", help="code for --runtime, in place of words"
    ),
    RUNTIME,
    Option(
        names=("--template",), metavar="NAME", group="Program", help="what is not given is taken from templates/NAME"
    ),
    Option(
        names=("--from",),
        metavar="FILE",
        values="file",
        group="Program",
        help="all of the job as JSON, as the service takes it; `-` reads it from stdin",
    ),
)
_HOW: Final = (
    Option(names=("--priority",), metavar="NUMBER", group="Queue", default="5", help="0 to 9; more comes first"),
    Option(names=("--retries",), metavar="COUNT", group="Queue", default="0", help="so often again after a failure"),
    Option(
        names=("--backoff",), metavar="TIME", group="Queue", default="1s", help="until then; doubled each time, to 30s"
    ),
    Option(names=("--label",), metavar="NAME=VALUE", repeatable=True, group="Queue", help="a label"),
)
_WITH: Final = (
    *_LIMITS,
    *PLACE,
    Option(
        names=("--secret",),
        metavar="NAME",
        repeatable=True,
        group="Files and environment",
        help="one of the tenant's secrets as a variable of that name",
    ),
    Option(
        names=("--object",),
        metavar="NAME:DST",
        repeatable=True,
        group="Files and environment",
        help="an object of the tenant's as an input",
    ),
    Option(
        names=("--shared",),
        metavar="GLOB",
        repeatable=True,
        group="Files and environment",
        help="shared objects, to be seen below `shared`",
    ),
    Option(
        names=("--collect",),
        metavar="GLOB",
        repeatable=True,
        group="Files and environment",
        help="keep these files, too, not only those below `output`",
    ),
    ALLOW,
)
_REST: Final = "CMD [ARGS…]"
_REST_HELP: Final = "the command; options of Casemate go before it"

SUBMIT: Final = Command(
    name="jobs submit",
    module=_JOBS,
    function="submit",
    summary="have a service run a command once it can",
    about="Submits a command, or code, to the queue of a service, and prints the job's id. Inputs are below `input` in "
    "the work directory; what the program leaves below `output` is kept.",
    options=(
        Option(names=("--id",), metavar="ID", group="Queue", help="an id of yours; the same job twice is one job"),
        *_WHAT,
        *_WITH,
        *_HOW,
        WAIT,
        *COMMON,
    ),
    rest=_REST,
    rest_help=_REST_HELP,
    rest_at_once=True,
    examples=(
        Example("casemate jobs submit --file data.csv -- wc -l input/data.csv", "prints the job's id"),
        Example("casemate jobs submit --wait --file check.sh -- ./check.sh", "shows its output, and ends as it does"),
        Example("casemate jobs submit --shell -- 'sort input/* | uniq -c > output/counts'", "a text for a shell"),
        Example("casemate jobs submit --code plot.R --runtime r --collect '*.png'", "code instead of a command"),
    ),
    notes=(STATUS,),
)
LIST: Final = Command(
    name="jobs list",
    module=_JOBS,
    function="list_jobs",
    optional=0,
    summary="list jobs, youngest first",
    options=(
        Option(names=("--state",), metavar="STATE", group="Which", help="queued, running, failed, dead, …"),
        Option(names=("--reason",), metavar="REASON", group="Which", help="why they ended: timeout, memory, …"),
        Option(names=("--label",), metavar="NAME=VALUE", repeatable=True, group="Which", help="with this label"),
        Option(names=("--schedule",), metavar="ID", group="Which", help="of this schedule"),
        Option(names=("--text",), metavar="TEXT", group="Which", help="in whose logs these words are; alone"),
        SINCE,
        UNTIL,
        SHOWN,
        *COMMON,
    ),
    examples=(Example("casemate jobs list --state failed --since 2030-01-31", "what went wrong"),),
)
SHOW: Final = Command(
    name="jobs show",
    module=_JOBS,
    function="show_job",
    optional=0,
    summary="show a job, its states and how it ended",
    arguments=(ID,),
    options=(WAIT, *COMMON),
    notes=(STATUS,),
)
CANCEL: Final = Command(
    name="jobs cancel",
    module=_JOBS,
    function="cancel",
    optional=0,
    summary="end a job",
    arguments=(ID,),
    options=COMMON,
)
RERUN: Final = Command(
    name="jobs rerun",
    module=_JOBS,
    function="rerun",
    optional=0,
    summary="submit a job again",
    arguments=(ID,),
    options=(Option(names=("--id",), metavar="ID", group="Queue", help="of the new job"), WAIT, *COMMON),
    notes=(STATUS,),
)
DELETE: Final = Command(
    name="jobs delete",
    module=_JOBS,
    function="delete",
    optional=0,
    summary="forget a job that has ended, with its files and its log",
    arguments=(ID,),
    options=COMMON,
)
DEAD: Final = Command(
    name="jobs dead",
    module=_JOBS,
    function="dead",
    optional=2,
    summary="list or retry jobs that failed at their last attempt",
    arguments=(
        Argument(metavar="list|retry", help="list is what it does unless you say otherwise"),
        Argument(metavar="ID", help="which to retry"),
    ),
    options=(SHOWN, *COMMON),
    examples=(
        Example("casemate jobs dead", "those that wait for somebody to look at them"),
        Example("casemate jobs dead retry nightly", "queue one again"),
    ),
)
QUEUE: Final = Command(
    name="jobs queue",
    module=_JOBS,
    function="queue",
    optional=1,
    summary="show, pause or resume the queue",
    arguments=(Argument(metavar="show|pause|resume", help="show is what it does unless you say otherwise"),),
    options=(Option(names=("--all",), group="Which", help="of all tenants; for the operator"), *COMMON),
    examples=(Example("casemate jobs queue pause", "what runs goes on; nothing more is begun"),),
)
SCHEDULE: Final = Command(
    name="jobs schedule",
    module=_SCHEDULES,
    function="schedule",
    summary="have a job made again and again",
    about="Makes a schedule, and prints its id.",
    options=(
        Option(
            names=("--cron",),
            metavar="TIMES",
            group="Times",
            help="minute, hour, day of the month, month, day of the week: '30 2 * * 1-5'",
        ),
        Option(names=("--zone",), metavar="ZONE", group="Times", default="UTC", help="a time zone: Europe/Berlin"),
        Option(
            names=("--missed",),
            metavar="skip|once",
            group="Times",
            default="skip",
            help="what becomes of times at which the service was down",
        ),
        Option(names=("--name",), metavar="NAME", group="Times", help="of the schedule"),
        *_WHAT,
        *_WITH,
        *_HOW,
        *COMMON,
    ),
    rest=_REST,
    rest_help=_REST_HELP,
    rest_at_once=True,
    examples=(
        Example(
            "casemate jobs schedule --cron '30 2 * * *' --zone Europe/Berlin --file nightly.sh -- ./nightly.sh",
            "every night; the file is taken now",
        ),
    ),
)
SCHEDULES: Final = Command(
    name="jobs schedules",
    module=_SCHEDULES,
    function="schedules",
    optional=2,
    summary="list, pause, resume or delete schedules",
    arguments=(
        Argument(metavar="list|pause|resume|delete", help="list is what it does unless you say otherwise"),
        Argument(metavar="ID", help="the schedule's"),
    ),
    options=COMMON,
)
BASE: Final = Command(
    name="jobs base",
    module="casemate.cli.job_base",
    summary="show which of this machine's programs jobs see",
    about="Lists the programs of the base as the configuration of this machine has it, with their sizes. No service is "
    "asked. With --json also what is hidden, and the digest, which the results of jobs name.",
    options=(CONFIG_FILE, JSON, HELP),
)
_OWN: Final = (BASE, SUBMIT, LIST, SHOW, CANCEL, RERUN, DELETE, DEAD, QUEUE, SCHEDULE, SCHEDULES)
COMMANDS: Final = {command.name: command for command in (*_OWN, *job_log_commands.COMMANDS.values(), *JOB_COMMANDS)}

"""The commands that speak with a service, as data: those of `fn`, `runs`, `key` and `tenant`."""

from __future__ import annotations

from typing import Final

from casemate.cli.arguments import Argument, Command, Example, Option
from casemate.cli.commands import LIMITS
from casemate.cli.operating_commands import HELP, JSON

PLACE: Final = (
    Option(
        names=("--url",),
        metavar="URL",
        group="Service",
        default="$CASEMATE_URL",
        help="where the service is; without any, http://127.0.0.1:8700",
    ),
    Option(
        names=("--key-file",),
        metavar="FILE",
        values="file",
        group="Service",
        default="$CASEMATE_KEY",
        help="the file that the key is in; a key on a command line could be seen by others",
    ),
)
COMMON: Final = (*PLACE, JSON, HELP)
NAME: Final = Argument(metavar="NAME", help="the function")
LIMIT: Final = Option(names=("--limit",), metavar="COUNT", group="Which", help="no more than so many")
SINCE: Final = Option(names=("--since",), metavar="TIME", group="Which", help="from this time on: 2030-01-31T12:00:00Z")
UNTIL: Final = Option(names=("--until",), metavar="TIME", group="Which", help="up to this time")
LABEL: Final = Option(names=("--label",), metavar="NAME=VALUE", repeatable=True, group="Function", help="a label")
WHICH: Final = (
    Option(names=("--version",), metavar="NUMBER", group="Function", help="this version"),
    Option(names=("--alias",), metavar="NAME", group="Function", default="live", help="the version it stands for"),
)
RUNTIME: Final = Option(
    names=("--runtime",),
    metavar="NAME",
    values="runtime",
    group="Function",
    help="the language; guessed from the file's ending or its #! line",
)
STYLE: Final = (
    Option(
        names=("--function",),
        metavar="NAME",
        group="Function",
        help="what of the code is called with the data; * is the first; without it the program is run",
    ),
    Option(names=("--spread",), group="Function", help="the data is an array of arguments"),
    Option(names=("--macros",), group="Function", help="with the library of macro helpers"),
)
TIMEOUT: Final = Option(names=("--timeout",), metavar="TIME", group="Function", help="for each call: 500ms, 5s")
CALLED: Final = "Exit status: 0 when every call succeeded, 1 when one did not, 125 when the service could not be asked."
_FN: Final = "casemate.cli.functions"
_RECORDS: Final = "casemate.cli.records"

PUBLISH: Final = Command(
    name="fn publish",
    module=_FN,
    function="publish",
    optional=0,
    summary="publish a version of a function",
    about="Publishes the code of FILE as a new version of the function NAME, and moves an alias to it. Versions never "
    "change: the same code with the same settings is the same version.",
    arguments=(NAME, Argument(metavar="FILE", help="the code; `-` reads it from stdin", values="file")),
    options=(
        RUNTIME,
        *STYLE,
        Option(names=("--normalise",), group="Function", help="take the measurement out of a sample envelope"),
        Option(names=("--description",), metavar="TEXT", group="Function", help="what it does"),
        LABEL,
        Option(
            names=("--input-schema",), metavar="JSON", values="input", group="Function", help="JSON Schema of the data"
        ),
        Option(
            names=("--output-schema",),
            metavar="JSON",
            values="input",
            group="Function",
            help="JSON Schema of the output; both are JSON text or @FILE",
        ),
        Option(names=("--alias",), metavar="NAME", group="Function", default="live", help="moved to this version"),
        Option(names=("--no-alias",), group="Function", help="move none"),
        *(option for option in LIMITS if option.key != "output-limit"),
        *COMMON,
    ),
    examples=(
        Example("casemate fn publish mean mean.py", "the first version, or the next"),
        Example("casemate fn publish mean mean.R --alias next --memory 1Gi", "without touching `live`"),
    ),
)
FN_LIST: Final = Command(
    name="fn list",
    module=_FN,
    function="list_functions",
    optional=0,
    summary="list the functions",
    options=(LIMIT, *COMMON),
    examples=(Example("casemate fn list", "a line for each"),),
)
FN_SHOW: Final = Command(
    name="fn show",
    module=_FN,
    function="show_function",
    optional=0,
    summary="show a function, its versions and aliases, or one version",
    arguments=(NAME,),
    options=(
        Option(names=("--version",), metavar="NUMBER", group="Function", help="one version, with its code"),
        Option(names=("--source",), group="Function", help="the code alone; without --version that of the youngest"),
        *COMMON,
    ),
    examples=(
        Example("casemate fn show mean", "its versions and what its aliases mean"),
        Example("casemate fn show mean --version 1 --source > mean.py", "the code of a version"),
    ),
)
INVOKE: Final = Command(
    name="fn invoke",
    module=_FN,
    function="invoke",
    optional=0,
    summary="call a function once and print its output",
    about="Calls a function and prints its output as one line of JSON. What it printed comes on stderr.",
    arguments=(NAME,),
    options=(
        Option(
            names=("--data",),
            metavar="JSON",
            values="input",
            group="Function",
            default="null",
            help="what it is called with: JSON text, @FILE, or - for stdin",
        ),
        Option(
            names=("--context",), metavar="JSON", values="input", group="Function", help="an object, read-only as ctx"
        ),
        TIMEOUT,
        *WHICH,
        *COMMON,
    ),
    examples=(
        Example("casemate fn invoke mean --data '[1, 2, 6]'", "the version that `live` stands for"),
        Example("casemate fn invoke mean --data @trace.json --version 2", "another one"),
    ),
    notes=(CALLED,),
)
BATCH: Final = Command(
    name="fn batch",
    module=_FN,
    function="batch",
    optional=0,
    summary="call a function with every line of a file",
    about="Calls a function with each item of a file of JSON lines (objects with `data`, and perhaps `id` and "
    "`context`) and prints a line of JSON for each, in their order. No item can hurt another.",
    arguments=(NAME, Argument(metavar="FILE", help="the items; `-` reads them from stdin", values="file")),
    options=(
        Option(names=("--plain",), group="Function", help="each line is the data itself; ids are line numbers"),
        TIMEOUT,
        *WHICH,
        *PLACE,
        HELP,
    ),
    examples=(
        Example("casemate fn batch mean items.ndjson > answers.ndjson", "with a bar on stderr if that is a terminal"),
    ),
    notes=(CALLED,),
)
TEST: Final = Command(
    name="fn test",
    module="casemate.cli.function_test",
    function="test",
    optional=0,
    summary="call a function with examples and compare its outputs",
    about="Calls the function in FILE with every case of a JSON file and compares what comes out with what should. It "
    "runs in sandboxes of this machine; with --service the published function FILE of that name is called instead.",
    arguments=(Argument(metavar="FILE", help="the code, or with --service the function's name", values="file"),),
    options=(
        Option(
            names=("--cases",),
            metavar="FILE",
            values="file",
            group="Cases",
            help="an array of objects with `data` and what is expected: `output`, or a part of the `error`",
        ),
        Option(
            names=("--tolerance",),
            metavar="NUMBER",
            group="Cases",
            default="1e-9",
            help="numbers may differ by this part of themselves",
        ),
        Option(names=("--service",), group="Cases", help="call the function of that name in the service"),
        RUNTIME,
        *STYLE,
        TIMEOUT,
        *WHICH,
        *COMMON,
    ),
    examples=(
        Example("casemate fn test mean.py --cases cases.json", "before it is published"),
        Example("casemate fn test mean --service --cases cases.json --alias next", "after"),
    ),
    notes=("Exit status: 0 when all cases hold, 1 otherwise.",),
)
ALIAS: Final = Command(
    name="fn alias",
    module=_FN,
    function="alias",
    optional=0,
    summary="have an alias stand for another version",
    about="Moves an alias at once. Calls that run go on with their version.",
    arguments=(NAME, Argument(metavar="ALIAS", help="such as live"), Argument(metavar="VERSION", help="its number")),
    options=COMMON,
    examples=(Example("casemate fn alias mean live 3", "from now on version 3 is called"),),
)
ROLLBACK: Final = Command(
    name="fn rollback",
    module=_FN,
    function="rollback",
    optional=1,
    summary="have an alias stand for what it did before",
    arguments=(NAME, Argument(metavar="ALIAS", help="live unless you say otherwise")),
    options=COMMON,
    examples=(Example("casemate fn rollback mean", "undo the last move of `live`"),),
)
LOGS: Final = Command(
    name="fn logs",
    module=_FN,
    function="logs",
    optional=0,
    summary="show what the calls of a function have printed",
    arguments=(NAME,),
    options=(WHICH[0], LIMIT, SINCE, *COMMON),
    examples=(Example("casemate fn logs mean --limit 20", "the youngest, oldest first"),),
)
DIFF: Final = Command(
    name="fn diff",
    module=_FN,
    function="diff",
    optional=0,
    summary="show what differs between two versions",
    arguments=(NAME, Argument(metavar="FROM", help="a version"), Argument(metavar="TO", help="another")),
    options=COMMON,
    examples=(Example("casemate fn diff mean 1 2", "as a unified diff"),),
)
FN_DELETE: Final = Command(
    name="fn delete",
    module=_FN,
    function="delete",
    optional=0,
    summary="remove a function with all its versions",
    arguments=(NAME,),
    options=(*PLACE, HELP),
    examples=(Example("casemate fn delete mean", "calls that run go on to their end"),),
)
RUNS_LIST: Final = Command(
    name="runs list",
    module=_RECORDS,
    function="list_runs",
    optional=0,
    summary="list executions, youngest first",
    options=(
        Option(names=("--state",), metavar="STATE", group="Which", help="queued, running or ended"),
        Option(names=("--status",), metavar="STATUS", group="Which", help="succeeded or failed"),
        Option(names=("--reason",), metavar="REASON", group="Which", help="why they ended: timeout, memory, …"),
        Option(names=("--runtime",), metavar="NAME", values="runtime", group="Which", help="of this language"),
        Option(names=("--function",), metavar="NAME", group="Which", help="of this function"),
        Option(names=("--label",), metavar="NAME=VALUE", repeatable=True, group="Which", help="with this label"),
        SINCE,
        UNTIL,
        Option(names=("--limit",), metavar="COUNT", group="Which", default="50", help="no more than so many"),
        *COMMON,
    ),
    examples=(Example("casemate runs list --status failed --since 2030-01-31", "what went wrong"),),
)
RUN_ID: Final = Argument(metavar="ID", help="the execution's")
RUNS_SHOW: Final = Command(
    name="runs show",
    module=_RECORDS,
    function="show_run",
    optional=0,
    summary="show an execution and its Result",
    arguments=(RUN_ID,),
    options=COMMON,
)
RUNS_CANCEL: Final = Command(
    name="runs cancel",
    module=_RECORDS,
    function="cancel_run",
    optional=0,
    summary="end an execution",
    arguments=(RUN_ID,),
    options=COMMON,
)
SECRET_FILE: Final = Option(
    names=("--out",),
    metavar="FILE",
    values="file",
    group="Key",
    help="write the key into a new file that only you can read, instead of printing it",
)
KEY_CREATE: Final = Command(
    name="key create",
    module=_RECORDS,
    function="create_key",
    optional=0,
    summary="make a key; it is shown once",
    arguments=(Argument(metavar="NAME", help="what it is for"),),
    options=(
        Option(
            names=("--allow",),
            metavar="SCOPE",
            repeatable=True,
            group="Key",
            help="what it may do: executions:run, functions:invoke:*, …",
        ),
        Option(names=("--deny",), metavar="SCOPE", repeatable=True, group="Key", help="and what not; this wins"),
        Option(names=("--tenant",), metavar="ID", group="Key", help="another tenant's; for the operator"),
        Option(names=("--lifetime",), metavar="TIME", group="Key", help="it ends by itself after this: 12h"),
        Option(names=("--rate",), metavar="NUMBER", group="Key", help="requests a second"),
        Option(names=("--burst",), metavar="COUNT", group="Key", help="requests at once beyond that"),
        SECRET_FILE,
        *COMMON,
    ),
    examples=(
        Example("casemate key create ci --allow 'functions:invoke:*' --out ci.key", "for calling functions only"),
    ),
)
KEY_LIST: Final = Command(
    name="key list",
    module=_RECORDS,
    function="list_keys",
    optional=0,
    summary="list the keys, without the keys themselves",
    options=(LIMIT, *COMMON),
)
KEY_ID: Final = Argument(metavar="ID", help="the key's, as `casemate key list` shows it")
KEY_ROTATE: Final = Command(
    name="key rotate",
    module=_RECORDS,
    function="rotate_key",
    optional=0,
    summary="make a key that takes the place of another",
    arguments=(KEY_ID,),
    options=(
        Option(names=("--grace",), metavar="TIME", group="Key", default="0s", help="how long the old one goes on: 10m"),
        SECRET_FILE,
        *COMMON,
    ),
)
KEY_REVOKE: Final = Command(
    name="key revoke",
    module=_RECORDS,
    function="revoke_key",
    optional=0,
    summary="end a key at once",
    arguments=(KEY_ID,),
    options=COMMON,
)
KEY_ROTATE_SIGNING: Final = Command(
    name="key rotate-signing",
    module=_RECORDS,
    function="rotate_signing",
    optional=0,
    summary="replace the secret that signs, for the operator: signed addresses end",
    about="Makes a new secret for signing: all addresses that were signed before are refused at once. What else the "
    "last secret has signed is believed until the next time: signed requests to functions, and notices.",
    options=COMMON,
)
TENANT_CREATE: Final = Command(
    name="tenant create",
    module=_RECORDS,
    function="create_tenant",
    optional=0,
    summary="make a tenant",
    arguments=(Argument(metavar="NAME", help="a-z 0-9 . _ -"),),
    options=(
        Option(names=("--concurrency",), metavar="COUNT", group="Tenant", help="so many executions at a time"),
        Option(names=("--queue",), metavar="COUNT", group="Tenant", help="and so many more that wait"),
        Option(names=("--label",), metavar="NAME=VALUE", repeatable=True, group="Tenant", help="a label"),
        *COMMON,
    ),
)
TENANT_LIST: Final = Command(
    name="tenant list",
    module=_RECORDS,
    function="list_tenants",
    optional=0,
    summary="list the tenants",
    options=(LIMIT, *COMMON),
)
COMMANDS: Final = {
    command.name: command
    for command in (
        *(PUBLISH, FN_LIST, FN_SHOW, INVOKE, BATCH, TEST, ALIAS, ROLLBACK, LOGS, DIFF, FN_DELETE),
        *(RUNS_LIST, RUNS_SHOW, RUNS_CANCEL),
        *(KEY_CREATE, KEY_LIST, KEY_ROTATE, KEY_REVOKE, KEY_ROTATE_SIGNING),
        *(TENANT_CREATE, TENANT_LIST),
    )
}

"""The commands of whoever operates a service on its machine, as data."""

from __future__ import annotations

from typing import Final

from casemate import service_limits as bound
from casemate.cli.arguments import Argument, Command, Example, Option

HELP: Final = Option(names=("-h", "--help"), help="show this page", group="Other")
JSON: Final = Option(names=("--json",), help="print one JSON document instead of text", group="Other")
CONFIG_FILE: Final = Option(
    names=("--config",), metavar="FILE", values="file", group="Configuration", help="read this file and no other"
)
SERVE: Final = Command(
    name="serve",
    module="casemate.cli.serve",
    summary="serve executions, functions and the dashboard over HTTP",
    about="Starts the service and serves until it is told to end: by SIGTERM or Ctrl-C, after which what runs gets a "
    "while to end (`service.drain`). Everything that lasts is in the data directory. The first start shows the key "
    "of the operator, once.",
    options=(
        Option(
            names=("--data",),
            metavar="DIR",
            values="directory",
            group="Service",
            help="where everything that lasts is kept; made if it is missing, for this user alone",
        ),
        Option(names=("--host",), metavar="ADDRESS", group="Service", default="127.0.0.1", help="where to listen"),
        Option(
            names=("--port",), metavar="NUMBER", group="Service", default=str(bound.SERVICE_PORT), help="0 takes any"
        ),
        CONFIG_FILE,
        Option(names=("--check",), group="Configuration", help="only check the configuration and the environment"),
        HELP,
    ),
    examples=(
        Example("casemate serve --data /var/lib/casemate", "serve on this machine's own address"),
        Example("casemate serve --host 0.0.0.0 --port 80", "for others, behind something that speaks TLS"),
        Example("casemate serve --check --config casemate.toml", "before a restart"),
    ),
    notes=(
        "Exit status: 0 when it was told to end, 125 when it cannot begin or a part of it crashes again and again.",
    ),
)
CONFIG: Final = Command(
    name="config",
    module="casemate.cli.config",
    summary="show or check the configuration",
    about="`show` prints what the file and the environment say together, with every default and without secrets; "
    "`check` only says whether it is right.",
    arguments=(Argument(metavar="ACTION", help="show or check", values="config-action"),),
    options=(CONFIG_FILE, JSON, HELP),
    examples=(
        Example("casemate config show", "one line for each key"),
        Example("casemate config check --config casemate.toml", "a file that is not in use yet"),
    ),
    notes=("Exit status: 0 when it is right, 125 otherwise.",),
)
DATA: Final = Option(
    names=("--data",), metavar="DIR", values="directory", group="Service", help="the service's directory"
)
BACKUP: Final = Command(
    name="backup",
    module="casemate.cli.backup",
    optional=0,
    summary="copy everything that a service keeps into a file, also while it runs",
    about="Records, objects and secrets as they are now, in one file for its owner alone. Who has it has the service's "
    "secrets.",
    arguments=(Argument(metavar="FILE", help="where to; it must not be there yet", values="file"),),
    options=(
        DATA,
        CONFIG_FILE,
        Option(
            names=("--without",),
            metavar="PART",
            repeatable=True,
            group="Backup",
            help="records, objects or secrets, where they are kept elsewhere",
        ),
        JSON,
        HELP,
    ),
    examples=(Example("casemate backup /backups/monday.tar --data /var/lib/casemate", "while it runs"),),
)
RESTORE: Final = Command(
    name="restore",
    module="casemate.cli.restore",
    optional=0,
    summary="make a service's directory of a backup",
    about="Whole, or not at all. Jobs that ran when the backup was made are tried again when the service is started.",
    arguments=(Argument(metavar="FILE", help="the backup", values="file"),),
    options=(
        Option(names=("--data",), metavar="DIR", values="directory", group="Service", help="new, or empty"),
        JSON,
        HELP,
    ),
    examples=(Example("casemate restore monday.tar --data /srv/casemate", "then: casemate serve --data …"),),
)

"""Every command and option of the command line, as data. Nothing here imports what it describes."""

from __future__ import annotations

from importlib import import_module
from typing import Final

from casemate import service_limits as bound
from casemate.cli.arguments import Argument, Command, Example, Group, Option
from casemate.cli.operating_commands import BACKUP, CONFIG, HELP, JSON, RESTORE, SERVE
from casemate.model.units import format_bytes, format_duration

_TIMEOUT: Final = Option(
    names=("--timeout",),
    metavar="TIME",
    help="time by the clock: 500ms, 5s, 2m",
    default=format_duration(bound.WALL_DEFAULT_S),
    group="Limits",
)
_OTHER_LIMITS: Final = (
    Option(
        names=("--memory",),
        metavar="SIZE",
        help="memory: 64Mi, 1Gi",
        default=format_bytes(bound.MEMORY_DEFAULT_BYTES),
        group="Limits",
    ),
    Option(
        names=("--cpu",),
        metavar="NUMBER",
        help="share of processors: 0.5, 2",
        default=f"{bound.CPUS_DEFAULT:g}",
        group="Limits",
    ),
    Option(names=("--cpu-time",), metavar="TIME", help="processor time of all its processes together", group="Limits"),
    Option(
        names=("--disk",),
        metavar="SIZE",
        help="what its files hold",
        default=format_bytes(bound.DISK_DEFAULT_BYTES),
        group="Limits",
    ),
    Option(
        names=("--inodes",),
        metavar="COUNT",
        help="number of its files",
        default=str(bound.INODES_DEFAULT),
        group="Limits",
    ),
    Option(
        names=("--processes",),
        metavar="COUNT",
        help="processes and threads",
        default=str(bound.PROCESSES_DEFAULT),
        group="Limits",
    ),
    Option(
        names=("--open-files",),
        metavar="COUNT",
        help="open files of one process",
        default=str(bound.OPEN_FILES_DEFAULT),
        group="Limits",
    ),
    Option(
        names=("--output-limit",),
        metavar="SIZE",
        help="stdout and stderr together",
        default=format_bytes(bound.OUTPUT_DEFAULT_BYTES),
        group="Limits",
    ),
)
LIMITS: Final = (_TIMEOUT, *_OTHER_LIMITS)
LIMIT_KEYS: Final = {option.key: option.key.removesuffix("-limit").replace("-", "_") for option in LIMITS}
"""From the option to the name of the limit."""

PLACE: Final = (
    Option(
        names=("--file",),
        metavar="SRC[:DST]",
        repeatable=True,
        values="file",
        group="Files and environment",
        help="put a file of yours into the work directory, or at DST",
    ),
    Option(
        names=("--env",),
        metavar="NAME[=VALUE]",
        repeatable=True,
        values="variable",
        group="Files and environment",
        help="set a variable; without a value it is passed on from yours",
    ),
)
COLLECT: Final = (
    Option(
        names=("--collect",),
        metavar="GLOB",
        repeatable=True,
        group="Files and environment",
        help="bring files of the work directory back: '*.csv', 'plots/**'",
    ),
    Option(
        names=("--out",),
        metavar="DIR",
        default=".",
        values="directory",
        group="Files and environment",
        help="where collected files go",
    ),
    Option(names=("--force",), group="Files and environment", help="let collected files replace yours"),
)
ALLOW: Final = Option(
    names=("--allow",),
    metavar="HOST[:PORT]",
    repeatable=True,
    group="Isolation",
    help="let it reach this host, *.SUFFIX, address or network; without it there is no network",
)
REQUIRE: Final = Option(
    names=("--require",),
    metavar="LAYER",
    repeatable=True,
    values="layer",
    group="Isolation",
    help="refuse to start without this layer; `casemate doctor` lists them",
)
RUNTIME: Final = Option(
    names=("--runtime",),
    metavar="NAME",
    values="runtime",
    group="Program",
    help="the language; guessed from the file's ending or its #! line",
)
STATUS_NOTE: Final = (
    "Exit status: the program's own; 128+N when signal N ended it; 124 time limit; 137 any other limit; "
    "125 an error of Casemate's; 126 or 127 the program cannot be executed or is not there; 130 interrupted; "
    "2 a wrong command line."
)

DEBUG: Final = Option(
    names=("--debug",),
    metavar="WHAT",
    repeatable=True,
    values="debug",
    group="Debugging",
    help="record what the program does and show it at the end: console, stack, profile, steps, or all",
)

RUN: Final = Command(
    name="run",
    module="casemate.cli.run",
    summary="run a script or a piece of code in a sandbox of its own",
    about="Runs code of any language in a new sandbox, shows its output while it comes, and ends with its status. "
    "What the program leaves in its variable `output` (or returns) is printed last, as one line of JSON.",
    arguments=(Argument(metavar="FILE", help="the code; `-` reads it from stdin", values="file"),),
    options=(
        Option(names=("-c",), metavar="CODE", group="Program", help="the code itself, instead of FILE"),
        RUNTIME,
        Option(
            names=("--input",),
            metavar="JSON",
            group="Program",
            values="input",
            help="the program's variable `input`: JSON text, @FILE, or - for stdin",
        ),
        Option(
            names=("--function",),
            metavar="NAME",
            group="Program",
            help="call this function of the code with the input; * is its first",
        ),
        Option(names=("--spread",), group="Program", help="the input is an array, of that function's arguments"),
        Option(
            names=("--global",),
            metavar="NAME",
            group="Program",
            help="of its globals the program finds only those that are named (javascript)",
        ),
        *LIMITS,
        *PLACE,
        *COLLECT,
        ALLOW,
        REQUIRE,
        DEBUG,
        JSON,
        HELP,
    ),
    rest="ARGS",
    rest_help="arguments of the program",
    examples=(
        Example("casemate run script.py", "a script; what comes on stdin is passed on to it"),
        Example("casemate run macro.js --input '{\"n\": 3}' --timeout 2s", "JSON in, JSON out, two seconds at most"),
        Example("casemate run plot.R --file data.csv --collect '*.png'", "a file in, pictures out"),
        Example("casemate run -c 'print(6 * 7)' --runtime python", "no file at all"),
        Example("curl -s https://example.org/x.sh | casemate run - --runtime bash", "code that nobody has read"),
        Example("casemate run script.py -- --verbose in.txt", "arguments of the program"),
    ),
    notes=(STATUS_NOTE,),
)
CHECK: Final = Command(
    name="check",
    module="casemate.cli.check",
    summary="say whether code can be compiled, without running it",
    about="Has the language itself parse the code, in a sandbox, by the way in which it would compile it.",
    arguments=(Argument(metavar="FILE", help="the code; `-` reads it from stdin", values="file"),),
    options=(
        Option(names=("-c",), metavar="CODE", group="Program", help="the code itself, instead of FILE"),
        RUNTIME,
        JSON,
        HELP,
    ),
    examples=(
        Example("casemate check script.py", "before it is published"),
        Example("casemate check -c 'f <- function(' --runtime r", "no file at all"),
    ),
    notes=("Exit status: 0 when it can be compiled, 1 when it cannot, 125 an error of Casemate's.",),
)
EXEC: Final = Command(
    name="exec",
    module="casemate.cli.exec",
    summary="run a command of this machine in a sandbox of its own",
    about="Runs a program of this machine's /usr in a new sandbox, where it sees nothing of yours.",
    options=(*LIMITS, *PLACE, *COLLECT, ALLOW, REQUIRE, JSON, HELP),
    rest="CMD [ARGS…]",
    rest_help="the command; options of Casemate go before it",
    rest_at_once=True,
    examples=(
        Example("casemate exec -- sh -c 'id; df -h /work'", "look around"),
        Example("casemate exec --file archive.zip -- unzip -l archive.zip", "open something suspicious"),
        Example("casemate exec --memory 1Gi --file main.c --collect a.out -- gcc main.c", "compile"),
    ),
    notes=(STATUS_NOTE,),
)
SHELL: Final = Command(
    name="shell",
    module="casemate.cli.shell",
    summary="open an interactive shell, or a language's prompt, in a sandbox",
    about="Opens a terminal in a new sandbox. It is gone, with all its files and processes, when the shell ends.",
    options=(
        Option(
            names=("--runtime",),
            metavar="NAME",
            values="runtime",
            group="Program",
            default="bash",
            help="whose prompt to open",
        ),
        Option(names=("--timeout",), metavar="TIME", help="time by the clock", default="none", group="Limits"),
        *(option for option in _OTHER_LIMITS if option.key not in {"cpu-time", "output-limit"}),
        *PLACE,
        ALLOW,
        REQUIRE,
        HELP,
    ),
    rest="CMD [ARGS…]",
    rest_help="a command to run on the terminal instead",
    examples=(
        Example("casemate shell", "a shell"),
        Example("casemate shell --runtime python --memory 2Gi", "Python's prompt with more memory"),
        Example("casemate shell --file suspicious.sh", "with a file in its work directory"),
    ),
    notes=(
        "Exit status: the shell's own, as for `casemate run`.",
        "At the start of a line `~.` leaves at once, whatever the sandbox does; `~~` there is one `~`.",
    ),
)
RUNTIMES: Final = Command(
    name="runtimes",
    module="casemate.cli.runtimes",
    summary="list the languages, and make, show or remove sets of packages for them",
    about="Without an action, or with `list`: every runtime that is built in or configured, with its version, asked "
    "for inside a sandbox, and every package set. A package set is a runtime of its own, with packages that are "
    "installed in sandboxes: `build` makes one, `update` makes it anew, `show` tells what it consists of.",
    arguments=(
        Argument(metavar="ACTION", help="list, show, build, update or remove", values="action"),
        Argument(metavar="NAME", help="the package set", values="set"),
    ),
    options=(
        Option(
            names=("--with",),
            metavar="PACKAGES",
            repeatable=True,
            group="Packages",
            help="what to install, with commas between: numpy,scipy or 'pandas>=2,<4'",
        ),
        Option(
            names=("--runtime",),
            metavar="NAME",
            values="runtime",
            group="Packages",
            default="python",
            help="the language that the packages are for",
        ),
        Option(
            names=("--preload",),
            metavar="MODULES",
            repeatable=True,
            group="Packages",
            help="what has to be importable, or building fails; warm interpreters do not import it yet",
        ),
        Option(
            names=("--from",),
            metavar="DIR",
            values="directory",
            group="Packages",
            help="install from the files of this directory, without any network",
        ),
        Option(
            names=("--allow",),
            metavar="HOST[:PORT]",
            repeatable=True,
            group="Packages",
            help="a further host that may be reached while fetching; *.SUFFIX for all below",
        ),
        Option(names=("--check",), group="Packages", help="with `show`: read every file and compare"),
        Option(
            names=("--timeout",),
            metavar="TIME",
            help="time for all of a build",
            default=format_duration(bound.SET_WALL_DEFAULT_S),
            group="Limits",
        ),
        Option(
            names=("--memory",),
            metavar="SIZE",
            help="memory of a build, its files included",
            default=format_bytes(bound.SET_MEMORY_DEFAULT_BYTES),
            group="Limits",
        ),
        Option(
            names=("--disk",),
            metavar="SIZE",
            help="what the files of a build hold",
            default=format_bytes(bound.SET_DISK_DEFAULT_BYTES),
            group="Limits",
        ),
        JSON,
        HELP,
    ),
    examples=(
        Example("casemate runtimes --json", "for programs"),
        Example("casemate runtimes build science --with numpy,scipy,pandas --preload numpy,pandas", "a set"),
        Example("casemate run --runtime science analysis.py", "and its use"),
        Example("casemate runtimes build dates --runtime node --with date-fns", "for another language"),
        Example("casemate runtimes build ours --with ours --from ./dist", "from files of yours, without a network"),
    ),
    notes=("Exit status: 0, or for a list 1 when no runtime is available at all.",),
)
POOLS: Final = Command(
    name="pools",
    module="casemate.cli.pools",
    summary="show what this user's engines keep ready",
    about="Asks every engine of this user, in whatever process, for what it makes ahead: how many of each "
    "kind are ready, being started and busy, how many runs found one ready (hits) or did not (misses), what the ready "
    "ones hold, and why none can be made. Nothing is started, and no engine does anything until it is asked.",
    options=(JSON, HELP),
    examples=(
        Example("casemate pools", "a table for each engine"),
        Example("watch casemate pools", "again and again"),
        Example("casemate pools --json", "for programs"),
    ),
    notes=(
        "An engine can be asked once it has made something ahead; `casemate run` and its like make nothing ahead.",
        "Exit status: 0, or 1 when an engine did not answer.",
    ),
)
DOCTOR: Final = Command(
    name="doctor",
    module="casemate.cli.doctor",
    summary="check what this machine offers and say how to mend what is missing",
    about="Starts a real sandbox and reports every layer of isolation: whether it works here, why not, and the command "
    "that would mend it.",
    options=(JSON, HELP),
    examples=(Example("casemate doctor", "before the first run, and when something fails"),),
    notes=("Exit status: 0 when the standard tier is reached, 1 otherwise.",),
)
SELFTEST: Final = Command(
    name="selftest",
    module="casemate.cli.selftest",
    summary="attack this machine's sandbox and show which wall held",
    about="Starts real sandboxes and does in them what a hostile program would do: look for secrets, escape, reach the "
    "network, exhaust the machine. Takes some ten seconds and leaves nothing behind.",
    options=(JSON, HELP),
    examples=(Example("casemate selftest", "after installing, and after an upgrade of the kernel"),),
    notes=("Exit status: 0 when every wall held, 1 otherwise.",),
)
COMPLETION: Final = Command(
    name="completion",
    module="casemate.cli.completion",
    summary="print the completion script of a shell",
    about="Prints a script that teaches a shell to complete Casemate's commands, options and values.",
    arguments=(Argument(metavar="SHELL", help="bash, zsh or fish", values="shell"),),
    options=(HELP,),
    examples=(
        Example('eval "$(casemate completion bash)"', "in ~/.bashrc"),
        Example('eval "$(casemate completion zsh)"', "in ~/.zshrc"),
        Example("casemate completion fish > ~/.config/fish/completions/casemate.fish", "once"),
    ),
)
COMPLETE: Final = Command(
    name="complete",
    module="casemate.cli.complete",
    summary="print what may come next; for the completion scripts",
    rest="WORDS",
    hidden=True,
)
COMMANDS: Final = {
    command.name: command
    for command in (
        RUN,
        CHECK,
        EXEC,
        SHELL,
        SERVE,
        CONFIG,
        BACKUP,
        RESTORE,
        RUNTIMES,
        POOLS,
        DOCTOR,
        SELFTEST,
        COMPLETION,
        COMPLETE,
    )
}
_SERVICE: Final = "casemate.cli.service_commands"
_JOBS: Final = "casemate.cli.job_commands"
_FLOWS: Final = "casemate.cli.flow_commands"
_ACCOUNTS: Final = "casemate.cli.account_commands"
_OBJECTS: Final = "casemate.cli.object_commands"
GROUPS: Final = {
    group.name: group
    for group in (
        Group(name="fn", module=_SERVICE, summary="publish, call and test functions in a service"),
        Group(name="runs", module=_SERVICE, summary="list, show and cancel executions in a service"),
        Group(name="jobs", module=_JOBS, summary="have a service run commands once it can, and look after them"),
        Group(name="flows", module=_FLOWS, summary="show what jobs have tried to reach, or follow it", is_one=True),
        Group(name="key", module=_SERVICE, summary="make, list, rotate and revoke keys of a service"),
        Group(name="tenant", module=_SERVICE, summary="make and list tenants of a service"),
        Group(name="usage", module=_ACCOUNTS, summary="show what was used and what it costs", default="show"),
        Group(name="budget", module=_ACCOUNTS, summary="bound what may be used"),
        Group(name="objects", module=_OBJECTS, summary="list, send, get, sign and delete objects"),
        Group(name="secrets", module=_OBJECTS, summary="set what jobs are given and nobody is shown"),
        Group(name="audit", module=_OBJECTS, summary="show who has done what, and whether that log is whole"),
        Group(name="webhook", module=_ACCOUNTS, summary="have events sent somewhere"),
    )
}
"""Their commands are declared where only those who use them load them."""


def commands_of(group: Group) -> dict[str, Command]:
    """The commands of a group by their second words; of one that is a single command that, by the group's name."""
    declared: dict[str, Command] = import_module(group.module).COMMANDS
    start = f"{group.name} "
    return {
        name.removeprefix(start): each
        for name, each in declared.items()
        if name == group.name or name.startswith(start)
    }

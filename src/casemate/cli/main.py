"""The command line: finds the command, runs it, turns every ending into an exit status."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from types import FrameType
from typing import NamedTuple, NoReturn

import msgspec

from casemate.cli.arguments import END_OF_OPTIONS, Command, Group, UsageError, parse
from casemate.cli.commands import COMMANDS, GROUPS, commands_of
from casemate.cli.messages import PROGRAM, say, say_hint, show, show_json
from casemate.cli.report import EXIT_BROKEN_PIPE, EXIT_OURS, EXIT_USAGE, SIGNAL_BASE
from casemate.errors import CasemateError, InvalidInput

TERMINATING = (signal.SIGTERM, signal.SIGHUP)


class Terminated(BaseException):
    """A signal asks us to end; unwinding kills the sandbox and restores the terminal."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Problem(NamedTuple):
    """An error of ours or of the command line's, as `--json` shows it; `log` is an installer's."""

    code: str
    field: str | None
    message: str
    hint: str
    log: str | None = None


def main() -> NoReturn:
    """Run the command line and end the process.

    Without a tidy end of the interpreter, which costs more than many a run: all that matters is closed.
    """
    status = EXIT_OURS
    try:
        status = run(sys.argv[1:])
    except Exception:  # noqa: BLE001 - a mistake of ours must not look like the program's own status
        _report_mistake()
    os._exit(status)


def _report_mistake() -> None:
    import traceback

    traceback.print_exc()
    say("internal: a mistake of Casemate's; please report it with the lines above")


def run(words: Sequence[str]) -> int:
    """One command line; its exit status."""
    for number in TERMINATING:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup leaves it
            signal.signal(number, _terminate)
    try:
        return _guarded(words)
    except BrokenPipeError:
        return EXIT_BROKEN_PIPE


def _terminate(number: int, _: FrameType | None) -> NoReturn:
    raise Terminated(number)


def _guarded(words: Sequence[str]) -> int:
    try:
        return _dispatch(words)
    except UsageError as error:
        hint = f"{PROGRAM} {error.command} --help".replace("  ", " ")
        _report(words, Problem("usage", None, error.problem, hint), error.problem)
        return EXIT_USAGE
    except CasemateError as error:
        field = error.field if isinstance(error, InvalidInput) else None
        problem = Problem(error.code, field, error.message, error.hint, getattr(error, "log", None))
        _report(words, problem, f"{error.code}: {error.message}")
        return EXIT_OURS
    except KeyboardInterrupt:
        return _die_of(signal.SIGINT)
    except Terminated as ended:
        return _die_of(ended.number)


def _report(words: Sequence[str], problem: Problem, line: str) -> None:
    """Words for people on stderr; where JSON was asked for, the same as a document on stdout."""
    say(line)
    if problem.hint:
        say_hint(problem.hint)
    before_rest = words[: words.index(END_OF_OPTIONS)] if END_OF_OPTIONS in words else words
    if "--json" in before_rest:
        with suppress(CasemateError):
            shown = {key: value for key, value in problem._asdict().items() if key != "log" or value is not None}
            show_json({"error": shown})


def _die_of(number: int) -> int:
    """Everything is closed: end by the signal itself, without which a shell's loop would go on.

    The status is for whom the signal cannot end, as it cannot the first process of a container.
    """
    if number == signal.SIGINT and sys.stderr.isatty():
        sys.stderr.write("\n")
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    return SIGNAL_BASE + number


def _dispatch(words: Sequence[str]) -> int:
    if words[:1] == ["help"] and words[1:2]:
        words = [*words[1:], "--help"]
    if not words or words[0] in {"-h", "--help", "help"}:
        _overview()
        return 0 if words else EXIT_USAGE
    if words[0] in {"--version", "-v", "-V", "version"}:
        _version()
        return 0
    group = GROUPS.get(words[0])
    if group is not None:
        return _dispatch_in(group, words[1:])
    command = COMMANDS.get(words[0])
    if command is None:
        raise UsageError("", f"unknown command {words[0]!r}{_suggestion(words[0], [*COMMANDS, *GROUPS])}")
    return _carry_out(command, words[1:])


def _dispatch_in(group: Group, words: Sequence[str]) -> int:
    commands = commands_of(group)
    if group.is_one:
        return _carry_out(commands[group.name], words)
    if group.has_default(words):
        return _carry_out(commands[group.default], words)
    if not words or words[0] in {"-h", "--help"}:
        _group_page(group, commands)
        return 0 if words else EXIT_USAGE
    command = commands.get(words[0])
    if command is None:
        raise UsageError(group.name, f"unknown command {words[0]!r}{_suggestion(words[0], commands)}")
    return _carry_out(command, words[1:])


def _carry_out(command: Command, words: Sequence[str]) -> int:
    if {"-h", "--help"}.intersection(words[: words.index(END_OF_OPTIONS)] if END_OF_OPTIONS in words else words):
        command = msgspec.structs.replace(command, optional=None)
    parsed = parse(command, words)
    if parsed.flag("help"):
        _page(command)
        return 0
    status: int = getattr(import_module(command.module), command.function)(parsed)
    return status


def _suggestion(name: str, known: Iterable[str]) -> str:
    import difflib

    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _overview() -> None:
    from casemate.cli.help import overview
    from casemate.cli.style import style_for

    show(overview([*COMMANDS.values(), *GROUPS.values()], style_for(sys.stdout)))


def _group_page(group: Group, commands: Mapping[str, Command]) -> None:
    from casemate.cli.help import group_page
    from casemate.cli.style import style_for

    show(group_page(group, commands, style_for(sys.stdout)))


def _page(command: Command) -> None:
    from casemate.cli.help import page
    from casemate.cli.style import style_for

    show(page(command, style_for(sys.stdout)))


def _version() -> None:
    from casemate import __version__

    show([f"{PROGRAM} {__version__}"])

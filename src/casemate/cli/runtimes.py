"""`casemate runtimes`: the languages, which are there, what to install for the others, and the package sets."""

from __future__ import annotations

import re
import sys
from collections.abc import Collection
from typing import Final

import msgspec

from casemate import limits
from casemate.cli.arguments import Parsed, UsageError
from casemate.cli.messages import printable, show, show_json
from casemate.cli.style import Style, style_for, table
from casemate.config import data_directory
from casemate.engine.drive import drive
from casemate.engine.engine import Engine
from casemate.engine.request import check_limits
from casemate.engine.run import Run, check_command, run_alone
from casemate.errors import CapacityError, LaunchError, RuntimeUnavailable, SetDamaged
from casemate.model.runtime import Runtime
from casemate.model.spec import SandboxSpec
from casemate.runtimes.interpreter import Interpreter, find_interpreter

VERSION_TIMEOUT: Final = "10s"
_NUMBER: Final = re.compile(r"\d+(\.\d+)+")


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One runtime on this machine. `version` is empty where it could not be asked for; `problem` says why."""

    name: str
    available: bool
    aliases: tuple[str, ...]
    extensions: tuple[str, ...]
    interpreter: str = ""
    version: str = ""
    version_text: str = ""
    install: str = ""
    problem: str = ""


def command(parsed: Parsed) -> int:
    """Carry out the action; the exit status."""
    if parsed.words[:1] in {(), ("list",)}:
        return _list(parsed)
    from casemate.cli.sets import change  # most of it is not needed for a list

    return change(parsed)


def _list(parsed: Parsed) -> int:
    """0 if at least one is available."""
    check_options(parsed, "list", {"json"}, named=False)
    with Engine(warm=False) as engine:
        rows = [_row(engine, name, runtime) for name, runtime in engine.runtimes]
        sets = [name for name in engine.runtimes.names if name not in dict(engine.runtimes)]
        rows += [_set_row(engine, name) for name in sets]
    if parsed.flag("json"):
        show_json(rows)
    else:
        show(_lines(rows, style_for(sys.stdout)))
    return 0 if any(row.available for row in rows) else 1


def check_options(parsed: Parsed, action: str, known: Collection[str], *, named: bool) -> None:
    """Refuse options that mean nothing to an action, and a name too few or too many. Raises UsageError."""
    for key in parsed.values:
        if key not in known:
            raise UsageError("runtimes", f"--{key} means nothing to `{action}`")
    if named and len(parsed.words) < len(("ACTION", "NAME")):
        raise UsageError("runtimes", f"`{action}` needs the NAME of a package set")
    if not named and len(parsed.words) > 1:
        raise UsageError("runtimes", f"unexpected argument {parsed.words[1]!r}; `show` is about one")


def _set_row(engine: Engine, name: str) -> Row:
    """A package set: its packages stand where a language has its interpreter."""
    from casemate.runtimes.sets import SetDirectory

    row = Row(name=name, available=False, aliases=(), extensions=())
    try:
        directory = SetDirectory(data_directory(engine.config))
        found = directory.find(name)
        if found is not None:
            directory.check_content(found)
    except SetDamaged as error:
        return msgspec.structs.replace(row, problem=error.message, install=f"casemate runtimes update {name}")
    if found is None:  # removed since
        return row
    packages = ", ".join(f"{each.name} {each.version}" for each in found.manifest.lock)
    base = found.manifest.runtime
    return msgspec.structs.replace(row, available=True, version=found.digest[:12], interpreter=f"{base}: {packages}")


def _row(engine: Engine, name: str, runtime: Runtime) -> Row:
    row = Row(name=name, available=False, aliases=runtime.aliases, extensions=runtime.extensions)
    try:
        interpreter = find_interpreter(name, runtime)
    except RuntimeUnavailable as error:
        return msgspec.structs.replace(row, problem=error.message, install=error.hint)
    row = msgspec.structs.replace(row, interpreter=interpreter.host_path)
    try:
        text = _version_text(engine, interpreter, runtime.version_arguments)
    except (LaunchError, CapacityError) as error:
        return msgspec.structs.replace(row, problem=error.message, install="casemate doctor")
    number = _NUMBER.search(text)
    version = number[0] if number else ""
    return msgspec.structs.replace(row, available=True, version=version, version_text=text)


def _version_text(engine: Engine, interpreter: Interpreter, arguments: tuple[str, ...]) -> str:
    """The first line that the interpreter says about itself, inside: there it has to work."""
    program = check_command([interpreter.path, *arguments], env=interpreter.environment)
    wanted = check_limits(engine.config.default_limits(), {"timeout": VERSION_TIMEOUT})
    spec = SandboxSpec(limits=wanted, mounts=interpreter.mounts)
    run = Run(label="version", spec=spec, program=program, fresh=True, files=(), collect=())
    result = drive(run_alone(engine, run))
    text = (result.stdout.text.strip() or result.stderr.text.strip()) if result.ok else ""
    return printable(text.partition("\n")[0], limits.VERSION_TEXT_MAX_CHARS)


def _lines(rows: list[Row], style: Style) -> list[str]:
    cells = []
    for row in rows:
        names = ", ".join((row.name, *row.aliases))
        where = row.interpreter if row.available else style.paint(row.problem, "yellow")
        hint = f"; to mend it: {style.paint(row.install, 'bold')}" if row.install else ""
        cells.append([style.mark(good=row.available), style.paint(names, "cyan"), row.version or "-", where + hint])
    return table(style, ("", "RUNTIME", "VERSION", "INTERPRETER"), cells)

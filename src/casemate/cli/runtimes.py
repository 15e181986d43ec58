"""`casemate runtimes`: the languages, which are there, and what to install for the others."""

from __future__ import annotations

import re
import sys
from typing import Final

import msgspec

from casemate import limits
from casemate.cli.arguments import Parsed
from casemate.cli.messages import printable, show, show_json
from casemate.cli.style import Style, style_for, table
from casemate.engine.drive import drive
from casemate.engine.engine import Engine
from casemate.engine.run import check_command, run_in
from casemate.engine.session import Session
from casemate.errors import CapacityError, LaunchError, RuntimeUnavailable
from casemate.model.runtime import Runtime
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
    """List them; 0 if at least one is available."""
    with Engine(warm=False) as engine:
        rows = [_row(engine, name, runtime) for name, runtime in engine.runtimes]
    if parsed.flag("json"):
        show_json(rows)
    else:
        show(_lines(rows, style_for(sys.stdout)))
    return 0 if any(row.available for row in rows) else 1


def _row(engine: Engine, name: str, runtime: Runtime) -> Row:
    row = Row(name=name, available=False, aliases=runtime.aliases, extensions=runtime.extensions)
    try:
        interpreter = find_interpreter(name, runtime)
    except RuntimeUnavailable as error:
        return msgspec.structs.replace(row, problem=error.message, install=error.hint)
    row = msgspec.structs.replace(row, interpreter=interpreter.host_path)
    try:
        text = _version_text(engine, name, interpreter, runtime.version_arguments)
    except (LaunchError, CapacityError) as error:
        return msgspec.structs.replace(row, problem=error.message, install="casemate doctor")
    number = _NUMBER.search(text)
    version = number[0] if number else ""
    return msgspec.structs.replace(row, available=True, version=version, version_text=text)


def _version_text(engine: Engine, name: str, interpreter: Interpreter, arguments: tuple[str, ...]) -> str:
    """The first line that the interpreter says about itself, inside: there it has to work."""
    program = check_command([interpreter.path, *arguments], env=interpreter.environment)
    session = Session(engine, runtime=name, limits={"timeout": VERSION_TIMEOUT}, require=())
    try:
        drive(session.start())
        result = drive(run_in(session.sandbox, program, limits=session.limits))
    finally:
        session.close()
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

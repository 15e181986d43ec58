"""`casemate check`: whether code can be compiled, which its language says without running it."""

from __future__ import annotations

from pathlib import Path

from casemate.cli.arguments import Parsed
from casemate.cli.messages import printable, say, show, show_json
from casemate.cli.run import language_of, source_of
from casemate.engine.check import check_syntax
from casemate.engine.engine import Engine
from casemate.model.syntax import SyntaxReport


def command(parsed: Parsed) -> int:
    """0 if it can, 1 if it cannot."""
    source = source_of(parsed, "check")
    with Engine(warm=False) as engine:
        runtime = parsed.one("runtime") or language_of(engine, source)
        name = Path(source.name).name
        report = check_syntax(source.code, runtime, filename=name or None, engine=engine)
    if parsed.flag("json"):
        show_json(report)
    elif report.valid:
        say("the syntax is right")
    else:
        show([_place(name, report) + printable(report.error)])
    return 0 if report.valid else 1


def _place(name: str, report: SyntaxReport) -> str:
    """As compilers write it: FILE:LINE:COLUMN."""
    known = [str(each) for each in (report.line, report.column) if each is not None]
    parts = [printable(name), *known] if name else known
    return ":".join(parts) + ": " if parts else ""

"""Carrying out one prepared run for the command line: live output, the verdict, the files."""

from __future__ import annotations

import gc
import sys

from casemate.cli.arguments import Parsed
from casemate.cli.collected import save
from casemate.cli.messages import say, show, show_json
from casemate.cli.outlet import Outlets
from casemate.cli.report import EXIT_BROKEN_PIPE, EXIT_OURS, document, exit_status, verdict_line
from casemate.engine.drive import drive
from casemate.isolation.waiting import Steps
from casemate.model.resources import Limits
from casemate.model.result import Result


def carry_out(steps: Steps[Result], limits: Limits, parsed: Parsed) -> int:
    """Drive the steps of a run and show what comes; the exit status. Leaving early kills the sandbox."""
    gc.enable()
    quiet = parsed.flag("json")
    outlets = Outlets()
    try:
        result = drive(steps, None if quiet else outlets.take)
        outlets.finish()
    except BrokenPipeError:
        return EXIT_BROKEN_PIPE
    saved, complete = save(result.files, parsed)
    if quiet:
        show_json(document(result, saved))
    else:
        _show_output(result, outlets)
    _show_verdict(result, limits, outlets)
    return exit_status(result) if complete else EXIT_OURS


def _show_output(result: Result, outlets: Outlets) -> None:
    if result.output is None:
        return
    from msgspec import json

    if not outlets.ends_in_line("stdout"):
        show([""])
    show([json.encode(result.output).decode()])


def _show_verdict(result: Result, limits: Limits, outlets: Outlets) -> None:
    text = verdict_line(result, limits)
    if text:
        if not outlets.ends_in_line("stderr"):
            sys.stderr.write("\n")
        say(text)

"""`casemate jobs base`: which of this machine's programs jobs see."""

from __future__ import annotations

import sys
from pathlib import Path

from casemate.cli.arguments import Parsed
from casemate.cli.messages import quoted, say, show, show_json
from casemate.cli.serve import environment_with
from casemate.cli.style import style_for, table
from casemate.config import data_directory, load_config
from casemate.errors import LaunchError
from casemate.jobs.config import load_jobs
from casemate.model.result import MACHINE_BASE
from casemate.model.units import format_bytes
from casemate.node.base import Base, read_base
from casemate.node.bases import interpreters_of, mask_name
from casemate.runtimes.registry import Registry


def command(parsed: Parsed) -> int:
    """The list, or with `--json` also what is hidden."""
    environment = environment_with(parsed)
    config = load_config(environment)
    settings = load_jobs(config, environment)
    if settings.base == MACHINE_BASE:
        _show_machine(parsed)
        return 0
    runtimes = Registry(config.runtimes, lambda: data_directory(config, environment))
    try:
        base = read_base(settings.programs, interpreters_of(runtimes))
    except OSError as error:
        raise LaunchError("the minimal base", error.errno or 0, f"{error.filename}: {error.strerror}") from error
    _show(parsed, base)
    there = {Path(each.path).name for each in base.programs}
    for name in sorted(set(settings.programs) - there):
        say(f"{quoted(name)} is chosen, and not among them")
    return 0


def _show_machine(parsed: Parsed) -> None:
    if parsed.flag("json"):
        show_json({"base": MACHINE_BASE})
    else:
        say("jobs see all programs of this machine")


def _show(parsed: Parsed, base: Base) -> None:
    if parsed.flag("json"):
        hidden = [quoted(path)[1:-1] for path in base.hidden]
        show_json({"base": mask_name(base), "programs": base.programs, "hidden": hidden})
        return
    rows = [[quoted(each.path)[1:-1], format_bytes(each.size_bytes)] for each in base.programs]
    show(table(style_for(sys.stdout), ["PROGRAM", "SIZE"], rows))
    say(f"{mask_name(base)}: {len(rows)} programs are shown, {len(base.hidden)} paths are hidden")

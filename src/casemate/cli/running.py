"""Carrying out one prepared run for the command line: live output, the verdict, the files."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from types import FrameType

from casemate.cli.arguments import Parsed
from casemate.cli.messages import say, show, show_json
from casemate.cli.outlet import Outlets
from casemate.cli.report import EXIT_BROKEN_PIPE, EXIT_OURS, exit_status, network_line, side_line, verdict_line
from casemate.engine.drive import drive
from casemate.engine.engine import Engine
from casemate.isolation.waiting import Steps
from casemate.kernel.cgroup_wake import let_sleep
from casemate.model.document import result_document
from casemate.model.resources import Limits
from casemate.model.result import Result


def carry_out(engine: Engine, steps: Steps[Result], limits: Limits, parsed: Parsed) -> int:
    """Drive the steps of a run and show what comes; the exit status. Leaving early kills the sandbox."""
    quiet = parsed.flag("json")
    outlets = Outlets()
    try:
        with stopping_together(engine):
            result = drive(_preparing(steps), None if quiet else outlets.take)
        outlets.finish()
    except BrokenPipeError:
        return EXIT_BROKEN_PIPE
    from casemate.cli.collected import report_left_out, save

    saved, written = save(result.files, parsed)
    complete = report_left_out(result.events) and written
    if quiet:
        show_json(result_document(result, saved=saved))
    else:
        _show_output(result, outlets)
    _show_verdict(result, limits, outlets, parsed)
    return exit_status(result) if complete else EXIT_OURS


def _preparing(steps: Steps[Result]) -> Steps[Result]:
    """The same steps. Before the first wait, in which a sandbox is being built, what comes after it is imported."""
    with closing(steps):
        try:
            item = next(steps)
            import casemate.cli.collected
            import casemate.engine.inside  # noqa: F401

            gc.freeze()
            gc.enable()
            item = steps.send((yield item))
            let_sleep()
            while True:
                item = steps.send((yield item))
        except StopIteration as end:
            result: Result = end.value
            return result


@contextmanager
def stopping_together(engine: Engine) -> Iterator[None]:
    """Ctrl-Z stops the sandbox, too: it does not run on while nobody watches over it. The clock goes on."""

    def stop(number: int, _: FrameType | None) -> None:
        engine.backend.signal_everything(signal.SIGSTOP)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)  # here we stand until somebody says `fg` or `bg`
        signal.signal(number, stop)
        engine.backend.signal_everything(signal.SIGCONT)

    before = signal.getsignal(signal.SIGTSTP)
    if before is signal.SIG_DFL:
        signal.signal(signal.SIGTSTP, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTSTP, before)


def _show_output(result: Result, outlets: Outlets) -> None:
    if result.output is None:
        return
    from msgspec import json

    if not outlets.ends_in_line("stdout"):
        show([""])
    show([json.encode(result.output).decode()])


def _debug_lines(result: Result, parsed: Parsed) -> tuple[str, ...]:
    if result.debug is None or parsed.flag("json"):
        return ()
    from casemate.cli.debugging import lines  # hardly ever needed

    return tuple(lines(result.debug))


def _show_verdict(result: Result, limits: Limits, outlets: Outlets, parsed: Parsed) -> None:
    said = (network_line(result), side_line(result, limits), verdict_line(result, limits))
    lines = [line for line in said if line]
    if os.isatty(0) and _wanted_stdin(result, parsed):
        lines.append("a terminal is not passed on as stdin; for a program that asks there is `casemate shell`")
    recorded = _debug_lines(result, parsed)
    if (lines or recorded) and not outlets.ends_in_line("stderr"):
        sys.stderr.write("\n")
    sys.stderr.writelines(f"{line}\n" for line in recorded)
    for line in lines:
        say(line)


def _wanted_stdin(result: Result, parsed: Parsed) -> bool:
    """Whether the program seems to have waited for words of the user's: it says so, or is `exec bash` and mute."""
    if result.error is not None and result.error.type == "EOFError":
        return True
    is_bare_command = not parsed.words and not parsed.flag("c") and len(parsed.rest or ()) == 1
    return result.ok and is_bare_command and not result.stdout.total_bytes and not result.stderr.total_bytes

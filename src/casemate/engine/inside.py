"""What happens in a sandbox that is there: files are placed, a program is seen through, files are collected.

Apart from what prepares a run, so that a command line imports this while its sandbox is being built.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import msgspec

from casemate.engine.cancel import Cancelled, CancelToken, until_cancelled
from casemate.engine.collect import Collected, Collector
from casemate.engine.execution import NEVER_RAN, Execution, Outcome, Waiting
from casemate.engine.placed import PlacedProgram
from casemate.engine.program import Program
from casemate.engine.request import InputFile, check_cancel
from casemate.engine.results import NOTHING_COLLECTED, make_result, read_answer
from casemate.engine.transfer import require_directory, write_files
from casemate.errors import LaunchError
from casemate.isolation.native import NativeSandbox
from casemate.isolation.waiting import Steps
from casemate.model.resources import Limits
from casemate.model.result import Reason, Result
from casemate.model.spec import WORK_DIRECTORY

if TYPE_CHECKING:
    from casemate.engine.run import Run


def see_through(
    sandbox: NativeSandbox,
    run: Run,
    waiting: Waiting | None,
    cancel: CancelToken | None,
    on_start: Callable[[], None] | None,
) -> Steps[Result]:
    """A run in a sandbox that is its own, which the caller ends."""
    placed, outcome = None, NEVER_RAN
    with suppress(Cancelled):
        yield from until_cancelled(place(sandbox, run.program, run.files), cancel)
        placed = PlacedProgram(sandbox.work_fd, run.program) if run.collect else None
        outcome = yield from Execution(
            sandbox, run.program.command, run.spec.limits, cancel=cancel, waiting=waiting, on_start=on_start
        ).run()
    outcome, collected = yield from _collect(sandbox, run, placed, outcome, cancel)
    return make_result(sandbox, outcome, read_answer(run.program, outcome), collected)


def place(sandbox: NativeSandbox, program: Program, files: tuple[InputFile, ...]) -> Steps[None]:
    """See that everything is there that the program starts from."""
    if program.command.cwd != WORK_DIRECTORY:
        yield from require_directory(sandbox, PurePosixPath(program.command.cwd))
    yield from write_files(sandbox, files)


def _collect(
    sandbox: NativeSandbox, run: Run, placed: PlacedProgram | None, outcome: Outcome, cancel: CancelToken | None
) -> Steps[tuple[Outcome, Collected]]:
    """The files asked for. A run that is cancelled here keeps those taken until then; one cancelled before, all."""
    if placed is None:
        return outcome, NOTHING_COLLECTED
    collector = Collector(sandbox.work_fd, run.collect)
    wanted = None if outcome.stopped is Reason.CANCELLED else cancel
    try:
        yield from until_cancelled(sandbox.end(), wanted)
        placed.remove(outcome)
        yield from until_cancelled(collector.run(), wanted)
    except Cancelled:
        outcome = msgspec.structs.replace(outcome, stopped=Reason.CANCELLED)
    except LaunchError as error:
        collector.give_up(str(error))  # what ran has its Result, even if something of it will not die
    return outcome, collector.collected()


def run_in(
    sandbox: NativeSandbox,
    program: Program,
    *,
    files: tuple[InputFile, ...] = (),
    limits: Limits,
    cancel: CancelToken | None = None,
) -> Steps[Result]:
    """A run in a sandbox that stays."""
    check_cancel(cancel)
    outcome = NEVER_RAN
    with suppress(Cancelled):
        yield from until_cancelled(place(sandbox, program, (*program.files, *files)), cancel)
        execution = Execution(sandbox, program.command, limits, cancel=cancel, alone=False)
        outcome = yield from _run_placed(sandbox, program, execution)
    return make_result(sandbox, outcome, read_answer(program, outcome), NOTHING_COLLECTED)


def _run_placed(sandbox: NativeSandbox, program: Program, execution: Execution) -> Steps[Outcome]:
    """Run the program, and remove its own file however that ends."""
    placed = PlacedProgram(sandbox.work_fd, program)
    outcome = None
    try:
        outcome = yield from execution.run()
        return outcome
    finally:
        placed.remove(outcome)

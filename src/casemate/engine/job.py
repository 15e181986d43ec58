"""A run of a job: with inputs of its own, samples of what it uses while it runs, and its files as streams."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import suppress
from enum import StrEnum
from functools import partial
from pathlib import PurePosixPath
from typing import Final, TypeAlias, TypeVar

import msgspec

from casemate import job_limits as bound
from casemate.engine.cancel import Cancelled, CancelToken, until_cancelled
from casemate.engine.collect import Bounds, Collected, Collector
from casemate.engine.engine import Engine
from casemate.engine.execution import NEVER_RAN, Execution, Outcome, Waiting
from casemate.engine.inside import place
from casemate.engine.placed import PlacedProgram
from casemate.engine.results import NOTHING_COLLECTED, make_result, read_answer
from casemate.engine.run import Run, Seeing, run_alone, run_by
from casemate.engine.transfer import make_directories
from casemate.engine.valve import Valve
from casemate.errors import CasemateError, LaunchError
from casemate.isolation.native import NativeSandbox
from casemate.isolation.waiting import Ready, Steps, Wait
from casemate.kernel.processes import process_tree
from casemate.kernel.watchdog import sample
from casemate.model.flow import Flow
from casemate.model.result import Chunk, Event, FileChunk, Reason, Result, Sample
from casemate.model.runtime import Channel
from casemate.model.spec import WORK_DIRECTORY, Mount

T = TypeVar("T")
OUTPUT_DIRECTORY: Final = PurePosixPath(WORK_DIRECTORY, "output")
OUTPUT_PATTERN: Final = "output/**"
_INIT_PROCESSES: Final = 1


class Stage(StrEnum):
    """How far a run is."""

    RUNNING = "running"
    COLLECTING = "collecting"


News: TypeAlias = Chunk | Sample | Stage | Flow
"""Files come as chunks, too: see FileChunk. Flows come from runs that tell them."""

JobSteps: TypeAlias = Generator[Wait | News, Ready, T]


def with_inputs(run: Run, inputs: Iterable[Mount], links: Iterable[tuple[str, str]]) -> Run:
    """The same run with directories of the machine that are its own: nothing that was made ahead has them."""
    spec = msgspec.structs.replace(run.spec, inputs=tuple(inputs), links=tuple(links))
    return msgspec.structs.replace(run, spec=spec, fresh=True) if spec.inputs else run


def unforked(run: Run) -> Run:
    """The same run in no fork of a zygote, where not all forbidden system calls can be watched.

    But for a runtime whose zygotes have imported what each run would have to import anew.
    """
    if run.runtime is None or run.runtime.preload:
        return run
    return msgspec.structs.replace(run, program=msgspec.structs.replace(run.program, zygote=()))


def run_job(
    engine: Engine, run: Run, cancel: CancelToken, valve: Valve, patterns: tuple[str, ...] = ()
) -> JobSteps[Result]:
    """As `run_alone`, and what is below `output` or matches the patterns comes as chunks of files at the end.

    Everything that ran in the sandbox has ended before the first of them comes. An isolate has no files.
    """
    if run.program.channel is Channel.ISOLATE:
        yield Stage.RUNNING
        return (yield from run_alone(engine, run, cancel))
    seeing: Seeing[News] = partial(_see_through, valve, (OUTPUT_PATTERN, *patterns))
    steps: JobSteps[Result] = run_by(engine, run, cancel, seeing)
    return (yield from steps)


def _see_through(  # noqa: PLR0917 - what one run has come to
    valve: Valve,
    patterns: tuple[str, ...],
    sandbox: NativeSandbox,
    run: Run,
    waiting: Waiting | None,
    cancel: CancelToken | None,
    on_start: Callable[[], None] | None,
) -> JobSteps[Result]:
    placed, outcome = None, NEVER_RAN
    with suppress(Cancelled):
        yield from until_cancelled(place(sandbox, run.program, run.files), cancel)
        yield from until_cancelled(make_directories(sandbox, OUTPUT_DIRECTORY), cancel)
        placed = PlacedProgram(sandbox.work_fd, run.program)
        execution = Execution(
            sandbox,
            run.program.command,
            run.spec.limits,
            cancel=cancel,
            waiting=waiting,
            on_start=on_start,
            valve=valve,
        )
        yield Stage.RUNNING
        outcome = yield from _sampled(execution.run(), sandbox)
    collected = NOTHING_COLLECTED
    if placed is not None:
        yield Stage.COLLECTING
        outcome, collected = yield from _collect(sandbox, run, patterns, placed, outcome, cancel)
    return make_result(sandbox, outcome, read_answer(run.program, outcome), collected)


def _sampled(steps: Steps[T], sandbox: NativeSandbox) -> JobSteps[T]:
    """The same steps, with a sample now and then: they come to a wait many times a second."""
    began_s = time.monotonic()
    due_s = began_s + bound.SAMPLE_PERIOD_S
    try:
        item = next(steps)
        while True:
            if time.monotonic() >= due_s:
                due_s = time.monotonic() + bound.SAMPLE_PERIOD_S
                if (found := _sample(sandbox, began_s)) is not None:
                    yield found
            ready = yield item
            item = steps.send(ready)
    except StopIteration as stop:
        value: T = stop.value
        return value
    finally:
        steps.close()


def _sample(sandbox: NativeSandbox, began_s: float) -> Sample | None:
    """None: there is nothing to be seen just now, and whoever watches the limits will say why."""
    with suppress(OSError, CasemateError):
        return _measured(sandbox, began_s)
    return None


def _measured(sandbox: NativeSandbox, began_s: float) -> Sample | None:
    wall_s = time.monotonic() - began_s
    if sandbox.cgroup is None:
        found = sample(sandbox.pid)
        if found is None:
            return None
        cpu_s = found.cpu_user_s + found.cpu_system_s
        return Sample(cpu_s=cpu_s, memory_bytes=found.memory_bytes, processes=found.processes, wall_s=wall_s)
    counted = sandbox.cgroup.counters()
    return Sample(
        cpu_s=counted.cpu_user_s + counted.cpu_system_s,
        memory_bytes=counted.memory_now_bytes or 0,
        processes=max(0, len(process_tree(sandbox.pid)) - _INIT_PROCESSES),
        wall_s=wall_s,
    )


def _collect(  # noqa: PLR0917 - what one run has come to
    sandbox: NativeSandbox,
    run: Run,
    patterns: tuple[str, ...],
    placed: PlacedProgram,
    outcome: Outcome,
    cancel: CancelToken | None,
) -> Steps[tuple[Outcome, Collected]]:
    """A run that is cancelled here has sent the files taken until then; of one cancelled before all are taken."""
    own = frozenset(PurePosixPath(mount.target).name for mount in run.spec.inputs) | {
        name for name, _ in run.spec.links
    }
    collector = Streaming(sandbox.work_fd, patterns, run.spec.limits.disk_bytes, own)
    wanted = None if outcome.stopped is Reason.CANCELLED else cancel
    try:
        yield from sandbox.end()
        placed.remove(outcome)
        yield from until_cancelled(collector.run(), wanted)
    except Cancelled:
        outcome = msgspec.structs.replace(outcome, stopped=Reason.CANCELLED)
    except LaunchError as error:
        collector.give_up(str(error))  # what ran has its Result, even if something of it will not die
    return outcome, collector.collected()


class Streaming(Collector):
    """A collection that keeps nothing: every piece goes out as it is read.

    What lies on the sandbox's disk is no larger than that; only what says it is larger, and is not, is left out.
    """

    def __init__(self, directory_fd: int, patterns: tuple[str, ...], disk_bytes: int, own: frozenset[str]) -> None:
        """`own`: names in the work directory that are not the program's, unless it has files of that name there."""
        bounds = Bounds(files=bound.COLLECT_FILES_MAX, total_bytes=disk_bytes, time_s=bound.COLLECT_TIME_MAX_S)
        super().__init__(directory_fd, patterns, bounds, passed_over=own)

    def _keep(self, path: str, fd: int, size_bytes: int) -> Steps[None]:
        digest, offset = hashlib.sha256(), 0
        for piece in self._pieces(fd, size_bytes, bound.COLLECT_PIECE_BYTES):
            digest.update(piece)
            yield FileChunk("file", piece, offset, path)
            offset += len(piece)
            yield from self._turn.pause()
        self._count += 1
        yield FileChunk("file", b"", offset, path, digest.hexdigest())

    def _without_match(self) -> list[Event]:
        """Nobody has asked for an output; a program without one has done nothing wrong."""
        return [event for event in super()._without_match() if event.detail != repr(OUTPUT_PATTERN)]

"""Programs in isolates: each in a fresh one, made by a resident worker that serves only its tenant.

A worker runs one execution at a time and lives in an ordinary sandbox with all its walls. Whatever has to be stopped is
stopped by ending the worker; the isolate's own limits spare it where they suffice.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Final

from casemate import limits
from casemate.clock import now_us
from casemate.engine.cancel import Cancelled, CancelToken, until_cancelled
from casemate.engine.drive import drive
from casemate.engine.engine import Engine
from casemate.engine.execution import start_process
from casemate.engine.isolate_execution import IsolateExecution, Measured, Outcome
from casemate.engine.program import Command
from casemate.engine.results import Answer, answer_of, cancelled_result
from casemate.engine.run import Run
from casemate.engine.verdict import Ending, judge
from casemate.errors import CasemateError, LaunchError, RuntimeUnavailable
from casemate.isolation.native import NativeSandbox
from casemate.isolation.protocol import Report, ReportKind, expect_report
from casemate.isolation.waiting import Steps, Wait
from casemate.model.resources import Limits
from casemate.model.result import Event, Reason, Result, Usage, WorkerSample
from casemate.model.spec import WORK_DIRECTORY, SandboxSpec
from casemate.model.values import (
    READY_FRAME,
    ExceptionReply,
    ReplyProblem,
)
from casemate.pool import decide
from casemate.pool.decide import Retirement
from casemate.pool.isolates import WorkerPool
from casemate.pool.worker import Kind, Worker
from casemate.runtimes.interpreter import ADDON_HINT

ATTEMPTS: Final = 2
"""An execution whose worker was lost before anything of it could be seen is tried once more."""

FAILED_EXIT: Final = 1 << 8
"""A wait status: the program ended with status 1, as its interpreter would."""


# Workers ----------------------------------------------------------------------------------------


def make_pool(engine: Engine, announce: Callable[[], None]) -> WorkerPool:
    """The pool of an engine. `announce` is called before a worker is made for the next execution."""
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

    def start(kind: Kind) -> Steps[Worker]:
        announce()
        return start_worker(engine, kind)

    return WorkerPool(
        start,
        lambda kind: drive(start(kind)),
        most=decide.most_workers(len(os.sched_getaffinity(0)), memory_bytes),
    )


def kind_of(run: Run) -> Kind:
    """The kind of worker that can serve a run."""
    heap_bytes = decide.heap_class(run.spec.limits.memory_bytes)
    command = run.program.command
    wanted = Limits(
        cpus=run.spec.limits.cpus,
        memory_bytes=decide.worker_memory(heap_bytes),
        processes=limits.WORKER_PROCESSES,
    )
    return Kind(
        tenant=run.tenant,
        argv=(*command.argv, str(heap_bytes // limits.MIB)),
        environment=tuple(command.environment.items()),
        spec=SandboxSpec(limits=wanted, mounts=run.spec.mounts, require=run.spec.require),
    )


def start_worker(engine: Engine, kind: Kind) -> Steps[Worker]:
    """A worker that is ready to serve. Raises what starting a sandbox does, or RuntimeUnavailable."""
    try:
        return (yield from _ready_worker(engine, kind))
    except CasemateError:
        engine.check_open()  # closing it ends what is being made, which then has no reason of its own
        raise


def _ready_worker(engine: Engine, kind: Kind) -> Steps[Worker]:
    sandbox = yield from engine.start(kind.spec)
    with ExitStack() as stack:
        stack.callback(engine.backend.bury, sandbox)
        channel, spawned = yield from _spawn(sandbox, kind)
        stack.pop_all()
    stdout, stderr, request, reply = spawned.fds
    worker = Worker(kind, sandbox, channel, (stdout, stderr, request, reply), engine.backend.bury)
    try:
        yield from _until_ready(worker)
    except BaseException:
        worker.close()
        raise
    return worker


def _spawn(sandbox: NativeSandbox, kind: Kind) -> Steps[tuple[socket.socket, Report]]:
    command = Command(argv=kind.argv, environment=dict(kind.environment), cwd=WORK_DIRECTORY, request=b"")
    return (yield from start_process(sandbox, command)).hand_over()


def _until_ready(worker: Worker) -> Steps[None]:
    """It says so with an empty frame; if it ends instead, what it has printed is the reason."""
    deadline_s = time.monotonic() + limits.WORKER_START_TIMEOUT_S
    ready = yield Wait(read=(worker.reply_fd, worker.channel.fileno()), deadline_s=deadline_s)
    if not ready:
        raise LaunchError("start of the worker", errno.ETIMEDOUT, "it does not get ready")
    with suppress(BlockingIOError):
        if os.read(worker.reply_fd, len(READY_FRAME)) == READY_FRAME:
            return
    said = ""
    with suppress(BlockingIOError):
        said = os.read(worker.stderr_fd, limits.ERROR_TEXT_MAX_CHARS).decode("utf-8", "replace")
    if not said and (yield from _was_killed(worker)):
        raise LaunchError("start of the worker", errno.ECHILD, "it was killed")
    reason = next((line for line in said.splitlines() if "Error" in line), "it ended at once")
    raise RuntimeUnavailable(f"the worker does not start: {reason[:200]}", hint=f"build it again: {ADDON_HINT}")


def _was_killed(worker: Worker) -> Steps[bool]:
    """By somebody else, or with its sandbox."""
    if not (yield Wait(read=(worker.channel.fileno(),), deadline_s=time.monotonic() + limits.DYING_S)):
        return False
    report = expect_report(worker.channel, ReportKind.EXITED)
    return report is None or (os.WIFSIGNALED(report.value) and os.WTERMSIG(report.value) == signal.SIGKILL)


# Executions -------------------------------------------------------------------------------------


def run_in_isolate(engine: Engine, run: Run, cancel: CancelToken | None = None) -> Steps[Result]:
    """A program in an isolate of its own."""
    kind = kind_of(run)
    is_warm = engine.is_warm and not run.fresh
    for attempt in range(1, ATTEMPTS + 1):
        found = engine.isolates.take(kind) if is_warm else start_worker(engine, kind)
        try:
            worker = yield from until_cancelled(found, cancel)
        except Cancelled:
            return cancelled_result(engine.backend.name)
        retire: Retirement | None = Retirement.STOPPED
        try:
            outcome = yield from IsolateExecution(worker, run, cancel).run()
            retire = _retirement(outcome)
            if outcome.lost:
                engine.check_open()
            if not outcome.lost or attempt == ATTEMPTS or outcome.stdout.total_bytes or outcome.stderr.total_bytes:
                return _result(worker, run, outcome)
        finally:
            if is_warm:
                engine.isolates.give_back(worker, retire)
            else:
                worker.close()
    raise AssertionError("unreachable: the last attempt returns")


def _retirement(outcome: Outcome) -> Retirement | None:
    if outcome.stopped is not None:
        return Retirement.STOPPED
    if outcome.silent:
        return Retirement.SILENT
    if outcome.measured is None or outcome.measured.last:
        return Retirement.CRASHED
    return Retirement.DISTRUSTED if isinstance(outcome.reply, ReplyProblem) else None


# Results ----------------------------------------------------------------------------------------


def _result(worker: Worker, run: Run, outcome: Outcome) -> Result:
    measured = outcome.measured or Measured()
    stopped = outcome.stopped or (Reason.MEMORY if measured.memory else None)
    answer = answer_of(outcome.reply, stopped=stopped is not None, debug=run.program.debug)
    verdict = judge(
        Ending(
            stopped=stopped,
            wait_status=_wait_status(outcome),
            oom_kills=outcome.counted.oom_kills,
            guest_exception=answer.error is not None,
            output_invalid=answer.invalid,
        )
    )
    return Result(
        status=verdict.status,
        reason=verdict.reason,
        exit_code=verdict.exit_code,
        signal=verdict.signal,
        output=answer.output,
        stdout=outcome.stdout,
        stderr=outcome.stderr,
        error=answer.error,
        usage=Usage(
            wall_s=outcome.wall_s,
            cpu_user_s=outcome.counted.cpu_user_s,
            cpu_system_s=outcome.counted.cpu_system_s,
            memory_peak_bytes=(measured.total + measured.external) or None,
            disk_bytes=0,
        ),
        isolation=worker.sandbox.isolation,
        events=_events(outcome, answer),
        debug=answer.debug,
        worker=None if outcome.measured is None else _sample(worker, outcome.measured),
    )


def _sample(worker: Worker, measured: Measured) -> WorkerSample:
    return WorkerSample(
        worker=worker.id,
        at_us=now_us(),
        heap_used_bytes=measured.used,
        heap_total_bytes=measured.total,
        external_bytes=measured.external,
        malloced_bytes=measured.malloced,
        resident_bytes=measured.rss,
    )


def _wait_status(outcome: Outcome) -> int | None:
    """As an interpreter of its own would have ended."""
    if outcome.measured is None:
        return None if outcome.lost else outcome.died
    if outcome.measured.memory or outcome.stopped is not None:
        return None
    return FAILED_EXIT if isinstance(outcome.reply, ExceptionReply | ReplyProblem) else 0


def _events(outcome: Outcome, answer: Answer) -> tuple[Event, ...]:
    found = []
    if outcome.counted.oom_kills or (outcome.measured and outcome.measured.memory):
        found.append(Event(kind="memory-limit", detail="the isolate's heap is full", at_s=outcome.wall_s))
    if answer.problem:
        found.append(Event(kind="bad-reply", detail=answer.problem, at_s=outcome.wall_s))
    return tuple(found)

"""Code whose variables stay: calls in one live interpreter, one after the other, and copies of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any, Final

import msgspec

from casemate import limits
from casemate.engine.cancel import Cancelled, CancelToken, until_cancelled
from casemate.engine.copies import check_count, fork_copies
from casemate.engine.execution import NEVER_RAN, Outcome
from casemate.engine.live import LiveProcess, start_live
from casemate.engine.live_call import CallOutcome, LiveCall
from casemate.engine.program import HARNESS_FILE, NO_INPUT, Command, check_input
from casemate.engine.request import InputFile, check_cancel, check_code
from casemate.engine.results import NOTHING_COLLECTED, Answer, answer_of, make_result
from casemate.engine.transfer import write_files
from casemate.engine.turns import Turns
from casemate.errors import InvalidInput, StateLost
from casemate.isolation.native import NativeSandbox
from casemate.isolation.waiting import Steps
from casemate.model.resources import Limits
from casemate.model.result import Event, Reason, Result
from casemate.model.runtime import Runtime
from casemate.model.spec import BASE_ENVIRONMENT, GUEST_DIRECTORY, WORK_DIRECTORY
from casemate.model.values import frame
from casemate.runtimes.interpreter import Interpreter

CALL_OPTIONS: Final = frozenset({"input", "files", "limits"})
INTERRUPTED: Final = "KeyboardInterrupt"


def session_command(runtime: Runtime, interpreter: Interpreter) -> Command:
    """How an interpreter that stays is started. Raises InvalidInput if the runtime has none."""
    if not runtime.session:
        raise InvalidInput(
            "stateful", "this runtime keeps no variables", hint="those do that declare `session`: `casemate runtimes`"
        )
    words = {"{interpreter}": interpreter.path, "{guest}": GUEST_DIRECTORY, "{harness}": HARNESS_FILE}
    argv = runtime.session
    for word, text in words.items():
        argv = tuple(each.replace(word, text) for each in argv)
    environment = {**BASE_ENVIRONMENT, **runtime.environment, **interpreter.environment, **runtime.harness_environment}
    return Command(argv=argv, environment=environment, cwd=WORK_DIRECTORY, request=b"")


def session_files(runtime: Runtime) -> tuple[InputFile, ...]:
    """What the harness of a declared runtime is."""
    return (InputFile(PurePosixPath(HARNESS_FILE), runtime.harness.encode()),) if runtime.harness else ()


def check_call_options(options: Mapping[str, Any]) -> None:
    """What belongs to a process cannot be given to one of many calls in it."""
    for name, value in options.items():
        if name not in CALL_OPTIONS and value not in (None, (), [], {}):
            raise InvalidInput(name, "code that keeps its variables has none", hint="leave out stateful=True")


class Context:
    """One live interpreter and the line of those who want to call it. Safe from many threads and tasks."""

    def __init__(self, command: Command, files: tuple[InputFile, ...] = (), process: LiveProcess | None = None) -> None:
        self._command = command
        self._files = files
        self._process = process
        self._turns = Turns()
        self._lock = threading.Lock()
        self._call: LiveCall | None = None
        self._is_busy = False
        self.is_closed = False

    def start(self, sandbox: NativeSandbox) -> Steps[None]:
        """Start the interpreter, a new one in place of one that there is; what that held is lost."""
        yield from self._turns.take()
        with self._busy():
            if self._process is not None:
                self._process.close()
            yield from write_files(sandbox, self._files)
            self._process = yield from start_live(sandbox, self._command)

    def close(self) -> None:
        """End the interpreter. Idempotent."""
        with self._lock:
            self.is_closed = True
            if self._is_busy and self._process is not None:
                self._process.kill("it was closed")  # and whoever has the turn releases it
            else:
                self._release()

    def _release(self) -> None:
        if self._process is not None:
            self._process.close()

    @contextmanager
    def _busy(self) -> Iterator[None]:
        """For whoever has the turn: the descriptors stay open meanwhile, for closed ones could soon be other files."""
        with self._lock:
            self._is_busy = True
        try:
            if self.is_closed:
                raise StateLost("the interpreter has ended: it was closed")
            yield
        finally:
            with self._lock:
                self._is_busy = False
                if self.is_closed:
                    self._release()
            self._turns.give_back()

    def interrupt(self) -> bool:
        """Have the running call stop, as Ctrl-C would; whether there is one."""
        with self._lock:
            if self._call is not None:
                self._call.interrupt()
            return self._call is not None

    def call(
        self,
        sandbox: NativeSandbox,
        code: str,
        options: Mapping[str, Any],
        wanted: Limits,
        files: tuple[InputFile, ...],
        *,
        cancel: CancelToken | None,
        live: bool,
    ) -> Steps[Result]:
        """Run code when its turn comes. Raises StateLost if the interpreter has ended."""
        check_cancel(cancel)
        check_call_options(options)
        code, value = check_code(code), check_input(options.get("input", NO_INPUT))
        try:
            yield from until_cancelled(self._turns.take(), cancel)
        except Cancelled:
            return make_result(sandbox, NEVER_RAN, Answer(), NOTHING_COLLECTED)
        with self._busy():
            process = self._live_process()
            yield from write_files(sandbox, files)
            number, request_id = process.next_request()
            request = frame(
                {
                    "op": "run",
                    "id": request_id,
                    "number": number,
                    "code": code,
                    "live": live,
                    "has_input": value is not None,
                    "input": msgspec.Raw(value or b"null"),
                }
            )
            outcome = yield from self._run(LiveCall(process, request, request_id, wanted, cancel))
            return _result(sandbox, process, outcome)

    def _run(self, call: LiveCall) -> Steps[CallOutcome]:
        with self._lock:
            self._call = call
        try:
            return (yield from call.run())
        finally:
            with self._lock:
                self._call = None
            call.close()

    def fork(self, count: int) -> Steps[list[Context]]:
        """So many copies of the interpreter as it is between two calls."""
        check_count(count)
        yield from self._turns.take()
        with self._busy():
            copies = yield from fork_copies(self._live_process(), count)
            return [Context(self._command, process=copy) for copy in copies]

    def _live_process(self) -> LiveProcess:
        if self._process is None:
            raise StateLost("the interpreter was never started", hint="restart() begins anew")
        self._process.check()
        return self._process


def _result(sandbox: NativeSandbox, process: LiveProcess, outcome: CallOutcome) -> Result:
    answer = Answer() if outcome.done is None else answer_of(outcome.done.reply, stopped=outcome.stopped is not None)
    if outcome.problem:
        answer = msgspec.structs.replace(answer, problem=outcome.problem)
    result = make_result(sandbox, _as_execution(process, outcome, answer), answer, NOTHING_COLLECTED)
    events = (*result.events, *_events(process, outcome))[: limits.EVENTS_MAX]
    return msgspec.structs.replace(result, displays=outcome.displays, events=events)


def _as_execution(process: LiveProcess, outcome: CallOutcome, answer: Answer) -> Outcome:
    """A call ends as a program of its own would: with an exit code, also where the interpreter goes on."""
    was_interrupted = outcome.interrupted and answer.error is not None and answer.error.type == INTERRUPTED
    status = process.wait_status if outcome.done is None else outcome.done.exit_code << 8
    return Outcome(
        stopped=outcome.stopped or (Reason.CANCELLED if was_interrupted else None),
        wait_status=status,
        exec_errno=0,
        stdout=outcome.stdout,
        stderr=outcome.stderr,
        reply=b"",
        reply_overflow=False,
        wall_s=outcome.wall_s,
        counted=outcome.counted,
        problem=outcome.failure,
    )


def _events(process: LiveProcess, outcome: CallOutcome) -> list[Event]:
    found = []
    if outcome.displays_dropped:
        detail = f"{outcome.displays_dropped} beyond what is kept of one call"
        found.append(Event(kind="displays-dropped", detail=detail, at_s=outcome.wall_s))
    if process.lost:
        detail = f"the interpreter has ended: {process.lost}; its variables are gone"
        found.append(Event(kind="state-lost", detail=detail, at_s=outcome.wall_s))
    return found

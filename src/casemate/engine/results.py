"""From what was observed, and what the guest says of itself, to the Result."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from casemate import limits
from casemate.engine.collect import Collected, is_full, used_bytes
from casemate.engine.execution import Outcome
from casemate.engine.program import Program
from casemate.engine.verdict import DENIED_ERRORS, Ending, judge
from casemate.isolation.native import NativeSandbox
from casemate.model.debug import Debug, DebugRecord, bounded
from casemate.model.result import Event, GuestError, Isolation, Reason, Result, Status, Usage
from casemate.model.runtime import Channel
from casemate.model.values import (
    NO_DEBUG,
    ExceptionReply,
    InvalidReply,
    Reply,
    ReplyProblem,
    ValueReply,
    parse_debug,
    parse_reply,
    parse_text_output,
)

NAME_MAX_CHARS: Final = 80
WALL_DIGITS: Final = 6
"""Microseconds: what is finer depends on when we were woken."""

BUILTINS: Final = frozenset({"alias", "cd", "exit", "export", "set", "source", "ulimit", "umask", "unset"})
"""Of the parts of shells that are no programs, what people try to run most."""

NOTHING_COLLECTED: Final = Collected((), ())


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What the guest's side of the channel came to. `problem` is set when it made no sense."""

    output: Any = None
    error: GuestError | None = None
    invalid: bool = False
    out_of_memory: bool = False
    problem: str = ""
    debug: DebugRecord | None = None


def read_answer(program: Program, outcome: Outcome) -> Answer:
    """What the guest's side of the channel came to, and whether it says that it was refused memory."""
    answer = _read_reply(program, outcome)
    if not program.memory_errors or outcome.wait_status == 0:
        return answer
    return msgspec.structs.replace(answer, out_of_memory=_tells_of_memory(program, outcome, answer.error))


def _tells_of_memory(program: Program, outcome: Outcome, error: GuestError | None) -> bool:
    """By its error; one that ends too hard for that, or has no way to tell, by the last that it printed."""
    if error is not None:
        return any(error.type == text or error.message.startswith(text) for text in program.memory_errors)
    said = (outcome.stderr.tail or outcome.stderr.head)[-limits.LAST_WORDS_BYTES :]
    return any(text.encode() in said for text in program.memory_errors)


def _read_reply(program: Program, outcome: Outcome) -> Answer:
    """A killed program's half reply is no protocol offence."""
    if program.channel is Channel.NONE:
        return Answer()
    if outcome.reply_overflow:
        return Answer(invalid=True, problem=f"output larger than {limits.VALUE_MAX_BYTES} bytes")
    if program.channel is Channel.TEXT:
        return Answer(output=parse_text_output(outcome.reply))
    return answer_of(parse_reply(outcome.reply), stopped=outcome.stopped is not None, debug=program.debug)


def answer_of(parsed: Reply | ReplyProblem | None, *, stopped: bool, debug: Debug | None = None) -> Answer:
    """The same for a reply that is parsed already. `debug`: what was to be recorded."""
    answer = _answer_of(parsed, stopped=stopped)
    return answer if debug is None else _with_debug(answer, parsed, debug)


def _with_debug(answer: Answer, parsed: Reply | ReplyProblem | None, debug: Debug) -> Answer:
    """With an empty record if nothing was said, and a problem if it made no sense."""
    raw = NO_DEBUG if parsed is None or isinstance(parsed, ReplyProblem) else parsed.debug
    found = parse_debug(raw) if raw else DebugRecord()
    problem = answer.problem or ("" if found is not None else "what was recorded makes no sense")
    record = bounded(found or DebugRecord(), debug, answer.error.traceback if answer.error else "")
    return msgspec.structs.replace(answer, debug=record, problem=problem)


def _answer_of(parsed: Reply | ReplyProblem | None, *, stopped: bool) -> Answer:
    if isinstance(parsed, ReplyProblem):
        return Answer(problem="" if stopped else parsed.why)
    if isinstance(parsed, ExceptionReply):
        return Answer(error=parsed.error)
    if isinstance(parsed, InvalidReply):
        return Answer(error=parsed.error, invalid=True)
    return Answer(output=parsed.output if isinstance(parsed, ValueReply) else None)


def make_result(sandbox: NativeSandbox, outcome: Outcome, answer: Answer, collected: Collected) -> Result:
    """The one Result of an execution. The sandbox's directory must still be open."""
    counted = outcome.counted
    verdict = judge(
        Ending(
            stopped=outcome.stopped,
            wait_status=outcome.wait_status,
            exec_errno=outcome.exec_errno,
            oom_kills=counted.oom_kills,
            process_limit_hits=max(counted.process_limit_hits, counted.process_limit_reached),
            disk_full=is_full(sandbox.work_fd),
            guest_exception=answer.error is not None,
            output_invalid=answer.invalid,
            allocation_refused=answer.out_of_memory and sandbox.cgroup is None,
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
        error=answer.error or exec_error(outcome.exec_errno, outcome.program),
        usage=Usage(
            wall_s=round(outcome.wall_s, WALL_DIGITS),
            cpu_user_s=counted.cpu_user_s,
            cpu_system_s=counted.cpu_system_s,
            memory_peak_bytes=counted.memory_peak_bytes,
            processes_peak=counted.processes_peak,
            disk_bytes=used_bytes(sandbox.work_fd),
        ),
        isolation=sandbox.isolation,
        events=(*_events(outcome, answer), *_tried(sandbox, outcome.wall_s), *collected.events)[: limits.EVENTS_MAX],
        files=collected.files,
        debug=answer.debug,
    )


def cancelled_result(backend: str) -> Result:
    """The Result of a run that was cancelled before there was a sandbox."""
    isolation = Isolation(backend=backend, layers=())
    return Result(status=Status.FAILED, reason=Reason.CANCELLED, isolation=isolation)


def exec_error(number: int, program: str) -> GuestError | None:
    """Why a program could not be executed, and what to do about it; None if it was."""
    name = repr(program[:NAME_MAX_CHARS])
    if number == errno.ENOENT:
        problem = f"there is no program {name} in the sandbox; {_remedy(program)}"
        return GuestError(type="CommandNotFound", message=problem)
    if number == errno.EACCES:
        remedy = "make it executable (chmod +x), or name the program that runs it"
        return GuestError(type="NotExecutable", message=f"the program {name} may not be executed; {remedy}")
    if number in DENIED_ERRORS:
        remedy = "a script needs a first line such as #!/bin/sh"
        return GuestError(type="NotExecutable", message=f"the program {name} cannot be executed; {remedy}")
    if number == errno.EAGAIN:
        return GuestError(type="ProcessLimit", message="the process limit leaves no room for another program")
    return GuestError(type="NotExecutable", message=f"the path {name} does not name a program") if number else None


def _remedy(program: str) -> str:
    if program in BUILTINS:
        return f"it is a part of shells: sh -c '{program} …'"
    if any(char.isspace() for char in program):
        return "a command and its arguments are words of their own, or sh -c 'COMMAND'"
    if "/" in program:
        return "it sees /usr and the files that were put in, and a script's #! line must name what is there, too"
    return f"it finds programs of /usr; a file that was put in is ./{program}"


def _tried(sandbox: NativeSandbox, at_s: float) -> Iterator[Event]:
    """An event for each forbidden system call that is worth telling of."""
    for name, count in sorted(sandbox.tried().items()):
        yield Event(kind="syscall", detail=f"{name}: {count} refused", at_s=at_s)


def _events(outcome: Outcome, answer: Answer) -> tuple[Event, ...]:
    counted, at_s = outcome.counted, outcome.wall_s
    found = []
    if counted.oom_kills:
        found.append(Event(kind="memory-limit", detail=f"{counted.oom_kills} out-of-memory kills", at_s=at_s))
    if counted.process_limit_hits:
        found.append(Event(kind="process-limit", detail=f"{counted.process_limit_hits} refused", at_s=at_s))
    elif counted.process_limit_reached:
        found.append(Event(kind="process-limit", detail="all in use", at_s=at_s))
    if outcome.problem:
        found.append(Event(kind="internal", detail=outcome.problem, at_s=at_s))
    if answer.problem:
        found.append(Event(kind="bad-reply", detail=answer.problem, at_s=at_s))
    return tuple(found)

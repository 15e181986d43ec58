"""One execution in a worker: the request, what comes back, and every limit it meets."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from typing import Final

import msgspec

from casemate import limits
from casemate.engine.cancel import CancelToken
from casemate.engine.program import STREAMS
from casemate.engine.run import Run
from casemate.engine.supervise import Counted, Supervisor
from casemate.isolation.protocol import ReportKind, expect_report
from casemate.isolation.waiting import Ready, Steps, Wait
from casemate.model.capture import Capture
from casemate.model.debug import Count
from casemate.model.result import Chunk, Reason
from casemate.model.result import Stream as Kept
from casemate.model.values import FRAME_HEAD, NO_DEBUG, Reply, ReplyProblem, parse_body
from casemate.pool import decide
from casemate.pool.worker import Worker

ANSWER_MAX_BYTES: Final = limits.VALUE_MAX_BYTES + limits.DEBUG_MAX_BYTES + 64 * limits.KIB
SILENT: Final = "the worker gives no sign of life"


class Measured(msgspec.Struct, frozen=True):
    """What a worker says of itself and of the isolate, in bytes. `last`: it will serve no more."""

    rss: Count = 0
    used: Count = 0
    total: Count = 0
    external: Count = 0
    malloced: Count = 0
    memory: bool = False
    last: bool = False


class _Answered(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    reply: msgspec.Raw
    worker: Measured
    debug: msgspec.Raw = NO_DEBUG


_decoder: Final = msgspec.json.Decoder(_Answered, strict=True)


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What was observed of one execution. `died` is the wait status of a worker that ended under it."""

    stopped: Reason | None
    reply: Reply | ReplyProblem | None
    measured: Measured | None
    died: int | None
    silent: bool
    stdout: Kept
    stderr: Kept
    wall_s: float
    counted: Counted

    @property
    def lost(self) -> bool:
        """The worker was taken from us; the program had no part in that."""
        killed = self.died is None or not os.WIFSIGNALED(self.died) or os.WTERMSIG(self.died) == signal.SIGKILL
        return self.stopped is None and self.measured is None and killed and not self.counted.oom_kills


class IsolateExecution:
    """One execution in a worker, from the request to the answer, or to the worker's end."""

    def __init__(self, worker: Worker, run: Run, cancel: CancelToken | None) -> None:
        self._worker = worker
        self._limits = run.spec.limits
        self._cancel = cancel
        self._pending = memoryview(run.program.command.request or b"")
        self._captures = {name: Capture() for name in STREAMS}
        self._streams = {worker.stdout_fd: STREAMS[0], worker.stderr_fd: STREAMS[1]}
        self._frames = bytearray()
        self._body: bytes | None = None
        self._problem: str = ""
        self._taken_s: float | None = None
        self._heard_s = 0.0
        self._stopped: Reason | None = None
        self._ended = False
        self._died: int | None = None

    def run(self) -> Steps[Outcome]:
        """See it through. Leaving early is for the caller to notice: the worker is then of no use."""
        wanted = msgspec.structs.replace(self._limits, memory_bytes=self._worker.kind.spec.limits.memory_bytes)
        supervisor = Supervisor(self._worker.sandbox, wanted)
        try:
            self._heard_s = started_s = time.monotonic()
            self._worker.heard()
            self._write()
            while not self._is_over():
                ready = yield self._wait(supervisor)
                yield from self._transfer(ready)
                self._judge(ready, supervisor)
            if self._stopped is not None or self._problem:
                self._worker.sandbox.kill()
            yield from self._drain()
            return self._outcome(time.monotonic() - started_s, supervisor.read())
        finally:
            supervisor.close()

    def _is_over(self) -> bool:
        return self._body is not None or self._ended or self._stopped is not None or bool(self._problem)

    # What to wait for ---------------------------------------------------------------------------

    @property
    def _silence_ends_s(self) -> float:
        if self._taken_s is None:
            return self._heard_s + limits.WORKER_HANDOVER_TIMEOUT_S / min(1.0, self._limits.cpus)
        return self._heard_s + decide.silence_max_s(self._limits.cpus)

    @property
    def _wall_ends_s(self) -> float:
        """The clock starts when the worker has taken the program."""
        return float("inf") if self._taken_s is None else self._taken_s + self._limits.wall_s

    def _wait(self, supervisor: Supervisor) -> Wait:
        worker = self._worker
        read = [worker.channel.fileno(), worker.reply_fd, *self._streams]
        if self._cancel is not None:
            read.append(self._cancel.fd)
        write = (worker.request_fd,) if self._pending else ()
        return Wait(tuple(read), write, min(self._silence_ends_s, self._wall_ends_s, supervisor.next_look_s))

    def _judge(self, ready: Ready, supervisor: Supervisor) -> None:
        """Whether it has to be stopped. An answer that is there counts more than anything else."""
        now_s = time.monotonic()
        if self._body is None and self._worker.channel.fileno() in ready:
            report = expect_report(self._worker.channel, ReportKind.EXITED)
            self._died = report.value if report is not None else None
            self._ended = True
        if self._is_over():
            return
        if self._cancel is not None and self._cancel.fd in ready:
            self._stopped = Reason.CANCELLED
        elif now_s >= supervisor.next_look_s:
            self._stopped = supervisor.look()
        if self._stopped is None and now_s >= self._wall_ends_s:
            self._stopped = Reason.TIMEOUT
        if self._stopped is None and now_s >= self._silence_ends_s:
            self._problem = SILENT

    # Bytes to and fro ---------------------------------------------------------------------------

    def _transfer(self, ready: Ready) -> Steps[None]:
        if self._worker.request_fd in ready:
            self._write()
        for fd in [fd for fd in self._streams if fd in ready]:
            yield from self._read_stream(fd)
        if self._worker.reply_fd in ready:
            self._read_frames()

    def _write(self) -> None:
        try:
            while self._pending:
                self._pending = self._pending[os.write(self._worker.request_fd, self._pending) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._pending = memoryview(b"")  # it has ended, as its channel will say

    def _read_stream(self, fd: int) -> Steps[bool]:
        """Take one piece; False when there is none now, or never again."""
        try:
            data = os.read(fd, limits.READ_CHUNK_BYTES)
        except BlockingIOError:
            return False
        if not data:
            del self._streams[fd]
            return False
        self._heard_s = time.monotonic()
        capture = self._captures[self._streams[fd]]
        chunk = Chunk(self._streams[fd], data, capture.total_bytes)
        capture.feed(data)
        if sum(each.total_bytes for each in self._captures.values()) > self._limits.output_bytes:
            self._stopped = self._stopped or Reason.OUTPUT
        yield chunk
        self._heard_s = time.monotonic()  # whoever takes the output may have kept us for long
        return True

    def _drain(self) -> Steps[None]:
        """What was written before the answer, or the end, is in the pipes."""
        budget_bytes = sum(each.total_bytes for each in self._captures.values()) + limits.DRAIN_MAX_BYTES
        for fd in list(self._streams):
            while fd in self._streams and (yield from self._read_stream(fd)):
                if sum(each.total_bytes for each in self._captures.values()) > budget_bytes:
                    break

    def _read_frames(self) -> None:
        with suppress(BlockingIOError):
            data = os.read(self._worker.reply_fd, limits.READ_CHUNK_BYTES)
            self._frames += data
            self._heard_s = time.monotonic()
            self._worker.heard()
        while self._body is None and not self._problem and self._next_frame():
            continue
        if self._body is not None and self._frames:
            self._problem = "more than one answer"

    def _next_frame(self) -> bool:
        """Take one whole frame. An empty one says that the program was taken, or that the worker lives."""
        if len(self._frames) < FRAME_HEAD.size:
            return False
        (length,) = FRAME_HEAD.unpack_from(self._frames)
        if length > ANSWER_MAX_BYTES:
            self._problem = f"larger than {ANSWER_MAX_BYTES} bytes"
            return False
        end = FRAME_HEAD.size + length
        if len(self._frames) < end:
            return False
        if length:
            self._body = bytes(self._frames[FRAME_HEAD.size : end])
        elif self._taken_s is None:
            self._taken_s = time.monotonic()
        del self._frames[:end]
        return True

    def _outcome(self, wall_s: float, counted: Counted) -> Outcome:
        reply, measured = self._parsed()
        if measured is not None:
            self._worker.served(measured.rss, counted.cpu_user_s + counted.cpu_system_s)
        return Outcome(
            stopped=self._stopped,
            reply=reply,
            measured=measured,
            died=self._died,
            silent=self._problem == SILENT,
            stdout=self._captures["stdout"].finish(),
            stderr=self._captures["stderr"].finish(),
            wall_s=wall_s,
            counted=counted,
        )

    def _parsed(self) -> tuple[Reply | ReplyProblem | None, Measured | None]:
        if self._problem and self._problem != SILENT:
            return ReplyProblem(self._problem), Measured(last=True)
        return (None, None) if self._body is None else parse_answer(self._body)


def parse_answer(body: bytes) -> tuple[Reply | ReplyProblem, Measured]:
    """A worker's answer: hostile bytes, like everything from inside."""
    try:
        answered = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError, RecursionError):
        return ReplyProblem("not an answer"), Measured(last=True)
    reply = parse_body(bytes(answered.reply))
    if not isinstance(reply, ReplyProblem):
        reply = msgspec.structs.replace(reply, debug=answered.debug)  # the isolate has no word in what is recorded
    return reply, answered.worker

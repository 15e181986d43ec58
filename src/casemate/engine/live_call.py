"""One call in an interpreter that stays: from the request to the answer, or to the interpreter's end."""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress

import msgspec

from casemate import limits
from casemate.engine.cancel import CancelToken
from casemate.engine.execution import await_report
from casemate.engine.live import LiveProcess
from casemate.engine.program import STREAMS
from casemate.engine.supervise import Counted, Supervisor
from casemate.errors import CasemateError
from casemate.isolation.protocol import ReportKind
from casemate.isolation.waiting import Ready, Steps, Wait, open_event
from casemate.model.capture import Capture
from casemate.model.display import Display
from casemate.model.live import Done, Shown, Taken, parse_said
from casemate.model.resources import Limits
from casemate.model.result import Chunk, Reason, Stream
from casemate.model.values import ReplyProblem


class CallOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What was observed of one call. `died`: the interpreter did; `problem`: what it said made no sense."""

    stopped: Reason | None
    interrupted: bool
    done: Done | None
    died: bool
    problem: str
    failure: str
    displays: tuple[Display, ...]
    displays_dropped: int
    stdout: Stream
    stderr: Stream
    wall_s: float
    counted: Counted


class LiveCall:
    """The state of one call; `run` drives it, `interrupt` may come from any thread while it does."""

    def __init__(
        self, process: LiveProcess, request: bytes, request_id: str, wanted: Limits, cancel: CancelToken | None
    ) -> None:
        self._process = process
        self._pending = memoryview(request)
        self._request_id = request_id
        self._limits = wanted
        self._cancel = cancel
        self._captures = {name: Capture() for name in STREAMS}
        self._streams = {process.stdout_fd: STREAMS[0], process.stderr_fd: STREAMS[1]}
        self._output_bytes = 0
        self._displays: list[Display] = []
        self._displays_bytes = 0
        self._displays_dropped = 0
        self._is_taken = False
        self._done: Done | None = None
        self._problem = ""
        self._failure = ""
        self._died = False
        self._stopped: Reason | None = None
        self._kill_s = float("inf")
        self._wants_interrupt = False
        self._was_interrupted = False
        self._answers: list[socket.socket] = []
        self._interrupts_fd = open_event()

    def interrupt(self) -> None:
        """Have the code stop, as Ctrl-C would."""
        os.eventfd_write(self._interrupts_fd, 1)

    def close(self) -> None:
        """Release what the call holds beside the interpreter."""
        os.close(self._interrupts_fd)
        for answer in self._answers:
            answer.close()

    def run(self) -> Steps[CallOutcome]:
        """See it through. Leaving early kills the interpreter."""
        supervisor = Supervisor(self._process.sandbox, self._limits)
        started_s = time.monotonic()
        try:
            yield from self._watch(supervisor, started_s + self._limits.wall_s)
            yield from self._drain()
            if self._problem or (self._done is None and not self._died):
                yield from self._process.killed(self._why_killed())
            else:
                yield from self._settle_interrupts()
            return self._outcome(time.monotonic() - started_s, self._counted(supervisor))
        except BaseException:
            self._process.kill("a call was broken off")
            raise
        finally:
            supervisor.close()

    # Until it is over ---------------------------------------------------------------------------

    def _watch(self, supervisor: Supervisor, wall_deadline_s: float) -> Steps[None]:
        try:
            while not self._is_over():
                wall_s = wall_deadline_s if self._stopped is None else self._kill_s
                ready = yield self._wait(min(wall_s, supervisor.next_look_s))
                yield from self._transfer(ready)
                if not self._is_over():
                    self._judge(ready, supervisor, wall_deadline_s)
                if self._wants_interrupt and self._is_taken and not self._is_over():
                    self._wants_interrupt = False
                    self._answers.append((yield from self._process.interrupt()))
        except (OSError, CasemateError) as error:
            self._stopped = self._stopped or Reason.INTERNAL
            self._failure = error.message if isinstance(error, CasemateError) else os.strerror(error.errno or 0)
            self._process.sandbox.kill()

    def _is_over(self) -> bool:
        return self._done is not None or self._died or bool(self._problem) or time.monotonic() >= self._kill_s

    def _wait(self, deadline_s: float) -> Wait:
        process = self._process
        read = [process.channel.fileno(), process.reply_fd, self._interrupts_fd, *self._streams]
        if self._cancel is not None and self._stopped is not Reason.CANCELLED:
            read.append(self._cancel.fd)
        return Wait(tuple(read), (process.request_fd,) if self._pending else (), deadline_s)

    def _judge(self, ready: Ready, supervisor: Supervisor, wall_deadline_s: float) -> None:
        if self._process.channel.fileno() in ready:
            self._process.take_end()
            self._died = True
            return
        if self._interrupts_fd in ready:
            with suppress(BlockingIOError):
                os.eventfd_read(self._interrupts_fd)
            self._wants_interrupt = self._was_interrupted = True
        now_s = time.monotonic()
        if self._cancel is not None and self._cancel.fd in ready:
            self._stop(Reason.CANCELLED)
        if now_s >= supervisor.next_look_s and (found := supervisor.look()) is not None:
            self._stop(found)
        if now_s >= wall_deadline_s:
            self._stop(Reason.TIMEOUT)

    def _stop(self, reason: Reason) -> None:
        """The first reason counts. Memory cannot wait; everything else is interrupted first."""
        if reason is Reason.MEMORY:
            self._stopped, self._kill_s = reason, 0.0
        elif self._stopped is None:
            self._stopped = reason
            self._kill_s = time.monotonic() + limits.SESSION_GRACE_S
            self._wants_interrupt = True

    def _why_killed(self) -> str:
        if self._problem:
            return "what it said made no sense"
        return f"it did not stop when it was interrupted ({self._stopped})" if self._stopped else "it was given up"

    def _settle_interrupts(self) -> Steps[None]:
        """An interrupt that is still on its way would meet the next call."""
        try:
            for answer in self._answers:
                yield from await_report(answer, self._process.sandbox, ReportKind.DONE, fds=0)
        except CasemateError:
            self._process.kill("an interrupt could not be delivered")

    # Bytes to and fro ---------------------------------------------------------------------------

    def _transfer(self, ready: Ready) -> Steps[None]:
        if self._process.request_fd in ready:
            self._write()
        for fd in [fd for fd in self._streams if fd in ready]:
            yield from self._read_stream(fd)
        if self._process.reply_fd in ready:
            self._read_frames()

    def _write(self) -> None:
        with suppress(BlockingIOError):
            try:
                self._pending = self._pending[
                    os.write(self._process.request_fd, self._pending[: limits.READ_CHUNK_BYTES]) :
                ]
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
        room = max(0, self._limits.output_bytes - self._output_bytes)
        self._count_output(len(data))
        if kept := data[:room]:
            name = self._streams[fd]
            chunk = Chunk(name, kept, self._captures[name].total_bytes)
            self._captures[name].feed(kept)
            yield chunk
        return True

    def _count_output(self, size_bytes: int) -> None:
        self._output_bytes += size_bytes
        if self._output_bytes > self._limits.output_bytes:
            self._stop(Reason.OUTPUT)

    def _drain(self) -> Steps[None]:
        """What was written before the answer, or the end, is in the pipes."""
        for fd in list(self._streams):
            for _ in range(limits.DRAIN_READS_MAX):
                if not (yield from self._read_stream(fd)) or fd not in self._streams:
                    break
        for _ in range(limits.DRAIN_READS_MAX):
            if self._done is not None or not self._died or not self._read_frames():
                break

    def _read_frames(self) -> bool:
        """Take one piece; False when there is none now, or never again."""
        frames = self._process.frames
        try:
            data = os.read(self._process.reply_fd, limits.READ_CHUNK_BYTES)
        except BlockingIOError:
            return False
        frames.feed(data)
        while self._done is None and not self._problem and (body := frames.next()) is not None:
            if isinstance(body, ReplyProblem):
                self._problem = body.why
            else:
                self._take(body)
        return bool(data)

    def _take(self, body: bytes) -> None:
        """One frame. One that nobody has asked for is the end of the interpreter, not of us."""
        said = parse_said(body)
        if isinstance(said, ReplyProblem):
            self._problem = said.why
        elif said.id != self._request_id:
            self._problem = "an answer to another request"
        elif isinstance(said, Shown) and self._is_taken:
            self._keep(said.display, len(body))
        elif isinstance(said, Done) and self._is_taken:
            self._done = said
        elif isinstance(said, Taken) and not self._is_taken:
            self._is_taken = True
        else:
            self._problem = "an answer out of turn"

    def _keep(self, display: Display, size_bytes: int) -> None:
        """Beyond the bounds it is thrown away, and counts as output: it costs us as much."""
        self._displays_bytes += size_bytes
        if len(self._displays) < limits.DISPLAYS_MAX and self._displays_bytes <= limits.DISPLAYS_TOTAL_MAX_BYTES:
            self._displays.append(display)
        else:
            self._displays_dropped += 1
            self._count_output(size_bytes)

    # What it came to ----------------------------------------------------------------------------

    def _counted(self, supervisor: Supervisor) -> Counted:
        try:
            return supervisor.read()
        except (OSError, CasemateError):
            return supervisor.latest

    def _outcome(self, wall_s: float, counted: Counted) -> CallOutcome:
        return CallOutcome(
            stopped=self._stopped,
            interrupted=self._was_interrupted,
            done=self._done,
            died=self._died or bool(self._process.lost),
            problem=self._problem,
            failure=self._failure,
            displays=tuple(self._displays),
            displays_dropped=self._displays_dropped,
            stdout=self._captures["stdout"].finish(),
            stderr=self._captures["stderr"].finish(),
            wall_s=wall_s,
            counted=counted,
        )

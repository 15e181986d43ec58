"""Copies of a live interpreter: forked by itself inside its sandbox, and adopted by the sandbox's init.

A process inside cannot make namespaces, so copies share the sandbox: its limits, its files, and by copy-on-write all
memory that none of them has written to since.
"""

from __future__ import annotations

import errno
import os
import time
from contextlib import ExitStack
from typing import Final

from casemate import limits
from casemate.engine.execution import await_report, raise_if_exhausted
from casemate.engine.live import LiveProcess
from casemate.errors import CapacityError, InvalidInput, LaunchError, StateLost
from casemate.isolation.native import NativeSandbox
from casemate.isolation.protocol import ReportKind, encode_adopt
from casemate.isolation.waiting import Steps, Wait
from casemate.model.live import Forked, parse_said
from casemate.model.values import READY_FRAME, frame

CHANNEL_FDS: Final = (1, 2, 63, 62)
"""Where a copy has its stdout, its stderr, its requests and its replies; the harness has the same numbers."""


ADOPTION: Final = "adoption of a copy"
"""The step of the LaunchError about a copy that has ended, or is none."""


def check_count(count: object) -> int:
    """How many copies are wanted. Raises InvalidInput."""
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= limits.COPIES_MAX:
        raise InvalidInput("count", f"must be a whole number from 1 to {limits.COPIES_MAX}")
    return count


def fork_copies(process: LiveProcess, count: int) -> Steps[list[LiveProcess]]:
    """So many copies, or none. Raises CapacityError, LaunchError, or StateLost if the interpreter has ended."""
    process.check()
    number, request_id = process.next_request()
    try:
        request = frame({"op": "fork", "id": request_id, "number": number, "count": count})
        body = yield from _asked(process, request)
        pids = _told(body, request_id)
    except OSError as error:
        yield from process.killed("it did not fork")
        raise StateLost(f"the interpreter does not fork: {error.strerror}", hint="restart() begins anew") from error
    except BaseException:
        process.kill("it did not fork")
        raise
    return (yield from _adopted(process.sandbox, pids, count))


def _asked(process: LiveProcess, request: bytes) -> Steps[bytes]:
    """The frame that answers a short request."""
    deadline_s = time.monotonic() + limits.FORK_TIMEOUT_S
    os.write(process.request_fd, request)
    while (body := process.frames.next()) is None:
        ready = yield Wait(read=(process.reply_fd, process.channel.fileno()), deadline_s=deadline_s)
        if process.reply_fd not in ready:
            raise OSError(errno.ETIMEDOUT, "it has ended" if ready else "it does not answer")
        data = os.read(process.reply_fd, limits.READ_CHUNK_BYTES)
        if not data:
            raise OSError(errno.EPIPE, "it has ended")
        process.frames.feed(data)
    if not isinstance(body, bytes):
        raise OSError(errno.EPROTO, body.why)
    return body


def _told(body: bytes, request_id: str) -> tuple[int, ...]:
    said = parse_said(body)
    if not isinstance(said, Forked) or said.id != request_id:
        raise OSError(errno.EPROTO, "its answer makes no sense")
    return said.pids


def _adopted(sandbox: NativeSandbox, pids: tuple[int, ...], count: int) -> Steps[list[LiveProcess]]:
    with ExitStack() as stack:
        found = []
        for pid in pids[:count]:
            copy = yield from _adopt(sandbox, pid)
            stack.callback(copy.close)
            found.append(copy)
        if len(found) < count:
            for copy in found:  # whoever asks for fewer next is to find their room
                yield from copy.killed("there was no room for all")
            raise CapacityError(
                f"the sandbox has room for {len(found)} of {count} copies", hint="raise limits.processes"
            )
        stack.pop_all()
    return found


def _adopt(sandbox: NativeSandbox, pid: int) -> Steps[LiveProcess]:
    """Have init take a process inside for one that it has started, and give us the other ends of its pipes."""
    channel = yield from sandbox.ask(encode_adopt(sandbox.next_id(), pid, CHANNEL_FDS))
    with ExitStack() as stack:
        stack.callback(channel.close)
        report = yield from await_report(channel, sandbox, ReportKind.SPAWNED, fds=len(CHANNEL_FDS))
        raise_if_exhausted(report.error)
        if report.error:
            raise LaunchError(ADOPTION, report.error, os.strerror(report.error))
        copy = LiveProcess(sandbox, channel, report)
        stack.pop_all()
    try:
        os.write(copy.request_fd, READY_FRAME)
    except OSError as error:
        copy.close()
        raise LaunchError(ADOPTION, error.errno or 0, "the copy has ended") from error
    return copy

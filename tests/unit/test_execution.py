"""What an execution reads and how much of it: bounded whatever the program does."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from casemate import limits
from casemate.engine.drive import drive
from casemate.engine.execution import REPLY, Execution
from casemate.engine.program import STREAMS, Command
from casemate.model.resources import Limits
from casemate.model.result import Reason


class Sandbox:
    """Counts its kills; init takes no request."""

    def __init__(self, *, is_told: bool) -> None:
        self.is_told = is_told
        self.calls: list[str] = []

    def next_id(self) -> int:
        return 1

    def signal(self, spawn_id: int, number: int) -> bool:
        self.calls.append(f"signal {spawn_id} {number}")
        return self.is_told

    def kill(self) -> None:
        self.calls.append("kill")


def execution(sandbox: Any, *, alone: bool = True, wanted: Limits | None = None) -> Execution:
    command = Command(argv=("true",), environment={}, cwd="/")
    return Execution(sandbox, command, wanted or Limits(), alone=alone)


@pytest.mark.parametrize("stream", [*STREAMS, REPLY])
def test_a_stream_without_end_is_not_read_without_end(stream: str) -> None:
    """Orphans that write on while the last of what the program had written is read."""
    with Path("/dev/zero").open("rb") as endless:
        made = execution(Sandbox(is_told=True))
        made._readers = {endless.fileno(): stream}
        drive(made._drain())
    assert made._received_bytes <= limits.DRAIN_MAX_BYTES + limits.READ_CHUNK_BYTES


def test_a_stream_in_small_pieces_is_not_read_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "READ_CHUNK_BYTES", 1)
    with Path("/dev/zero").open("rb") as endless:
        made = execution(Sandbox(is_told=True))
        made._readers = {endless.fileno(): STREAMS[0]}
        drive(made._drain())
    assert made._received_bytes == limits.DRAIN_READS_MAX


def test_a_reply_beyond_its_bound_counts_as_output() -> None:
    made = execution(Sandbox(is_told=True), wanted=Limits(output_bytes=10))
    made._take_reply(bytes(limits.VALUE_MAX_BYTES + 4))
    assert (made._reply_overflow, made._stopped) == (False, None)
    made._take_reply(bytes(10))
    assert (made._reply_overflow, made._stopped) == (True, None)
    made._take_reply(b"x")
    assert made._stopped is Reason.OUTPUT


@pytest.mark.parametrize(
    ("is_told", "alone", "calls"),
    [
        (True, False, ["signal 1 9"]),
        (False, False, ["signal 1 9", "kill"]),
        (True, True, ["kill"]),
    ],
)
def test_what_init_cannot_be_told_to_kill_dies_with_its_sandbox(is_told: bool, alone: bool, calls: list[str]) -> None:
    sandbox = Sandbox(is_told=is_told)
    execution(sandbox, alone=alone)._abandon()
    assert sandbox.calls == calls


def test_a_descriptor_that_cannot_be_fed_is_closed_with_the_others() -> None:
    made = execution(Sandbox(is_told=True))
    closed = os.dup(0)
    os.close(closed)
    made._fds = {closed}
    with pytest.raises(OSError, match="Bad file descriptor"):
        made._feed(closed, b"x")
    assert made._fds == {closed}

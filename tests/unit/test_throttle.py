"""A processor share without a control group: who is stopped, when, for how long, and that it ends."""

from __future__ import annotations

import signal
import socket
import struct

import pytest

from casemate import limits
from casemate.errors import CapacityError, SandboxClosed
from casemate.isolation.throttle import Throttle

MUCH_S = 2 * limits.THROTTLE_DEBT_S


class Recorder:
    """Stands for a sandbox and remembers what it was told."""

    def __init__(self) -> None:
        self.signals: list[int] = []
        self.is_killed = False
        self.problem: Exception | None = None

    def request(self, message: bytes) -> socket.socket:
        if self.problem is not None:
            raise self.problem
        self.signals.append(struct.unpack("<IIII", message)[3])
        return socket.socket()

    def kill(self) -> None:
        self.is_killed = True


@pytest.fixture
def sandbox() -> Recorder:
    return Recorder()


@pytest.fixture
def throttle(sandbox: Recorder) -> Throttle:
    return Throttle(sandbox, cpus=1.0)


def test_within_its_share_nothing_is_stopped(sandbox: Recorder, throttle: Throttle) -> None:
    throttle.enter(5.0, 0.0)
    for second in range(1, 10):
        throttle.look(5.0 + second, float(second))
    throttle.leave()
    assert sandbox.signals == []


def test_what_runs_ahead_is_stopped_until_its_debt_is_paid(sandbox: Recorder, throttle: Throttle) -> None:
    throttle.enter(0.0, 0.0)
    throttle.look(2.0, 1.0)
    throttle.look(2.0, 1.9)
    throttle.look(2.0, 2.0)
    throttle.look(2.0, 2.1)
    assert sandbox.signals == [signal.SIGSTOP, signal.SIGSTOP, signal.SIGCONT]


def test_a_run_pays_nothing_for_what_was_used_before_it(sandbox: Recorder, throttle: Throttle) -> None:
    throttle.enter(0.0, 0.0)
    throttle.look(9.0, 1.0)
    throttle.leave()
    throttle.enter(20.0, 1.1)
    throttle.look(20.01, 1.12)
    assert sandbox.signals == [signal.SIGSTOP, signal.SIGCONT]


def test_a_pause_earns_nothing(sandbox: Recorder, throttle: Throttle) -> None:
    throttle.enter(0.0, 0.0)
    throttle.look(0.0, 100.0)
    throttle.look(0.1 + MUCH_S, 100.1)
    assert sandbox.signals == [signal.SIGSTOP]


def test_one_run_s_end_does_not_continue_what_another_has_to_hold(sandbox: Recorder, throttle: Throttle) -> None:
    throttle.enter(0.0, 0.0)
    throttle.enter(0.5, 0.5)
    throttle.look(3.0, 1.0)
    throttle.leave()
    assert sandbox.signals == [signal.SIGSTOP]
    throttle.leave()
    assert sandbox.signals == [signal.SIGSTOP, signal.SIGCONT]


def test_samples_that_shrink_are_not_counted_again(sandbox: Recorder, throttle: Throttle) -> None:
    throttle.enter(0.0, 0.0)
    for step in range(1, 50):
        throttle.look(0.0 if step % 2 else 0.02, step / 1000)
    assert sandbox.signals == []


def test_a_stop_that_could_not_be_told_is_told_at_the_next_look(sandbox: Recorder, throttle: Throttle) -> None:
    throttle.enter(0.0, 0.0)
    sandbox.problem = CapacityError("no descriptor")
    throttle.look(5.0, 1.0)
    sandbox.problem = None
    throttle.look(5.0, 1.1)
    assert sandbox.signals == [signal.SIGSTOP]


def test_what_cannot_be_continued_at_the_end_is_killed(sandbox: Recorder, throttle: Throttle) -> None:
    throttle.enter(0.0, 0.0)
    throttle.look(5.0, 1.0)
    sandbox.problem = CapacityError("no descriptor")
    throttle.leave()
    assert sandbox.is_killed


def test_a_sandbox_that_has_ended_needs_no_word(sandbox: Recorder, throttle: Throttle) -> None:
    throttle.enter(0.0, 0.0)
    throttle.look(5.0, 1.0)
    sandbox.problem = SandboxClosed("gone")
    throttle.leave()
    assert not sandbox.is_killed

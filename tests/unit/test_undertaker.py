"""The thread that releases killed sandboxes: at once when they are dead, never twice, in bounded number and time."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest

from casemate import limits
from casemate.errors import LaunchError
from casemate.isolation.undertaker import Undertaker


class Sandbox:
    """One whose end the test decides."""

    def __init__(self, *, dies: bool = True, breaks: bool = False) -> None:
        self.pidfd = os.eventfd(int(dies), os.EFD_CLOEXEC)
        self.calls: list[str] = []
        self.breaks = breaks
        self.closed = threading.Event()

    def die(self) -> None:
        os.eventfd_write(self.pidfd, 1)

    def kill(self) -> None:
        self.calls.append("kill")

    def close(self) -> None:
        self.calls.append("close")
        os.close(self.pidfd)
        self.closed.set()
        if self.breaks:
            raise LaunchError("ending the sandbox", 0, "it does not die")


@pytest.fixture
def undertaker() -> Iterator[Undertaker]:
    made = Undertaker()
    yield made
    made.close()


def test_kills_at_once_and_releases_when_dead(undertaker: Undertaker) -> None:
    sandbox = Sandbox(dies=False)
    undertaker.bury(sandbox)
    assert sandbox.calls == ["kill"]
    sandbox.die()
    assert sandbox.closed.wait(10)
    assert sandbox.calls == ["kill", "close"]


def test_each_is_released_once_however_many_bury(undertaker: Undertaker) -> None:
    """Descriptors are given to the next as soon as they are closed; nothing may go by their numbers."""
    sandboxes: list[Sandbox] = []

    def bury_many() -> None:
        for _ in range(200):
            sandboxes.append(Sandbox())
            undertaker.bury(sandboxes[-1])

    threads = [threading.Thread(target=bury_many) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    undertaker.settle()
    assert len(sandboxes) == 800
    assert {tuple(sandbox.calls) for sandbox in sandboxes} == {("kill", "close")}


def test_one_that_is_slow_to_die_holds_up_no_other(undertaker: Undertaker) -> None:
    slow, quick = Sandbox(dies=False), Sandbox()
    undertaker.bury(slow)
    undertaker.bury(quick)
    assert quick.closed.wait(10)
    assert not slow.closed.is_set()
    slow.die()
    undertaker.settle()
    assert slow.closed.is_set()


def test_beyond_the_bound_the_caller_waits(undertaker: Undertaker) -> None:
    waiting = [Sandbox(dies=False) for _ in range(limits.BURIALS_WAITING_MAX)]
    for sandbox in waiting:
        undertaker.bury(sandbox)
    one_more = Sandbox()
    undertaker.bury(one_more)
    assert one_more.calls == ["kill", "close"]
    for sandbox in waiting:
        sandbox.die()


def test_one_that_does_not_die_in_time_is_logged(
    undertaker: Undertaker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(limits, "KILL_TIMEOUT_S", 0.01)
    undertaker.bury(Sandbox(dies=False, breaks=True))
    undertaker.close()
    assert "it does not die" in caplog.text


def test_closing_waits_for_all_and_later_ones_are_the_caller_s(undertaker: Undertaker) -> None:
    sandbox = Sandbox()
    undertaker.bury(sandbox)
    undertaker.close()
    assert sandbox.closed.is_set()
    late = Sandbox()
    undertaker.bury(late)
    assert late.closed.is_set()
    undertaker.close()

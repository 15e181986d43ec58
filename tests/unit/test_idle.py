"""The idle time-out: it begins when work ends, is never over while something works, and comes once."""

from __future__ import annotations

import gc
import threading
import weakref
from types import SimpleNamespace

import pytest

from casemate.engine import idle as module
from casemate.engine.idle import IdleLimit, check_idle
from casemate.errors import InvalidInput, SandboxClosed

LONG_S = 20.0


class Alarms:
    """A clock that is set, and an alarm that rings when it is told to."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.due_s: list[float] = []

    def set(self, when_s: float, _: IdleLimit) -> None:
        self.due_s.append(when_s)


@pytest.fixture
def alarms(monkeypatch: pytest.MonkeyPatch) -> Alarms:
    made = Alarms()
    monkeypatch.setattr(module, "_alarms", made)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: made.now_s))
    return made


def test_it_ends_once_when_nothing_works_for_so_long() -> None:
    ended = threading.Event()
    idle = IdleLimit(0.02, ended.set)
    with idle.working():
        pass
    assert ended.wait(LONG_S)
    with pytest.raises(SandboxClosed, match="nothing ran"):
        idle.begin()


def test_work_is_never_idle_however_long_it_takes(alarms: Alarms) -> None:
    ended = threading.Event()
    idle = IdleLimit(10, ended.set)
    with idle.working():
        pass
    alarms.now_s = 5
    with idle.working():
        alarms.now_s = 100
        idle.ring()
        with idle.working():
            pass
        idle.ring()
        assert not ended.is_set()
    assert alarms.due_s == [10, 110]
    alarms.now_s = 110
    idle.ring()
    assert ended.is_set()


def test_later_work_puts_the_end_off(alarms: Alarms) -> None:
    ended = threading.Event()
    idle = IdleLimit(10, ended.set)
    for alarms.now_s in (0, 6):
        with idle.working():
            pass
    alarms.now_s = 10
    idle.ring()
    assert not ended.is_set()
    assert alarms.due_s == [10, 16]
    alarms.now_s = 16
    idle.ring()
    assert ended.is_set()


def test_without_a_time_there_is_no_end_and_no_alarm() -> None:
    idle = IdleLimit(None, lambda: None)
    with idle.working():
        pass
    assert not idle._is_armed


def test_an_earlier_alarm_does_not_wait_for_a_later_one() -> None:
    ended = threading.Event()
    later, sooner = IdleLimit(60, lambda: None), IdleLimit(0.02, ended.set)
    for each in (later, sooner):
        with each.working():
            pass
    assert ended.wait(LONG_S)


def test_what_is_gone_is_not_kept_for_its_alarm() -> None:
    idle = IdleLimit(60, lambda: None)
    with idle.working():
        pass
    gone = weakref.ref(idle)
    del idle
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize(("wanted", "seconds"), [("10m", 600.0), (1.5, 1.5), (None, None)])
def test_a_time_is_written_as_people_do(wanted: str | float | None, seconds: float | None) -> None:
    assert check_idle(wanted) == seconds


@pytest.mark.parametrize("wanted", [0, -1, "x", 1e12])
def test_a_time_that_is_none_is_refused(wanted: str | float) -> None:
    with pytest.raises(InvalidInput, match="idle_timeout"):
        check_idle(wanted)

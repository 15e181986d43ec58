"""The idle time-out: it begins when work ends, is never over while something works, and comes once."""

from __future__ import annotations

import gc
import threading
import time
import weakref

import pytest

from casemate.engine.idle import IdleLimit, check_idle
from casemate.errors import InvalidInput, SandboxClosed

LONG_S = 20.0


def test_it_ends_once_when_nothing_works_for_so_long() -> None:
    ended = threading.Event()
    idle = IdleLimit(0.02, ended.set)
    with idle.working():
        pass
    assert ended.wait(LONG_S)
    with pytest.raises(SandboxClosed, match="nothing ran"):
        idle.begin()


def test_work_is_never_idle_however_long_it_takes() -> None:
    ended = threading.Event()
    idle = IdleLimit(0.02, ended.set)
    with idle.working():
        pass
    with idle.working():
        assert not ended.wait(0.1)
        with idle.working():
            pass
        assert not ended.wait(0.1)
    assert ended.wait(LONG_S)


def test_later_work_puts_the_end_off() -> None:
    ended = threading.Event()
    idle = IdleLimit(0.3, ended.set)
    began_s = time.monotonic()
    while time.monotonic() < began_s + 0.6:
        with idle.working():
            ended.wait(0.01)
    last_s = time.monotonic()
    assert not ended.is_set()
    assert ended.wait(LONG_S)
    assert time.monotonic() >= last_s + 0.25


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

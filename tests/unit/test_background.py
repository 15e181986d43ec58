"""Calls that block, beside steps: their values, their errors, and what happens to those that nobody waits for."""

from __future__ import annotations

import select
import threading

import pytest

from casemate.engine.background import in_thread
from casemate.engine.drive import drive
from casemate.isolation.waiting import Wait


def test_what_a_call_returns_or_raises_comes_back() -> None:
    assert drive(in_thread(lambda: 7)) == 7
    with pytest.raises(ZeroDivisionError):
        drive(in_thread(lambda: 1 // 0))


def test_it_runs_on_a_thread_of_its_own() -> None:
    assert drive(in_thread(threading.get_ident)) != threading.get_ident()


def test_what_comes_of_a_call_that_was_left_is_undone() -> None:
    go, undone = threading.Event(), threading.Event()
    values: list[str] = []

    def undo(value: str) -> None:
        values.append(value)
        undone.set()

    def call() -> str:
        go.wait()
        return "made"

    steps = in_thread(call, undo)
    next(steps)
    steps.close()
    assert values == []
    go.set()
    assert undone.wait(10)
    assert values == ["made"]


def test_what_was_there_but_not_taken_is_undone_at_once() -> None:
    done = threading.Event()
    values: list[None] = []
    steps = in_thread(done.set, values.append)
    wait = next(steps)
    assert done.wait(10)
    assert isinstance(wait, Wait)
    select.select(wait.read, [], [])
    steps.close()
    assert values == [None]


def test_an_error_of_a_call_that_was_left_is_nobody_s() -> None:
    go, raised = threading.Event(), threading.Event()

    def call() -> None:
        go.wait()
        raised.set()
        raise OSError

    steps = in_thread(call)
    next(steps)
    steps.close()
    go.set()
    assert raised.wait(10)

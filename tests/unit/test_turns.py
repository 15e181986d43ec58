"""Turns: one at a time, in the order of coming, and nobody who leaves takes a turn along."""

from __future__ import annotations

import os
import select
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.engine.drive import drive
from casemate.engine.turns import Turns
from casemate.isolation.waiting import Wait


class Taker:
    """Somebody who takes a turn, as a driver would, one wait at a time."""

    def __init__(self, turns: Turns) -> None:
        self.steps = turns.take()
        self.wait = next(self.steps, None)

    @property
    def is_waiting(self) -> bool:
        return self.wait is not None

    def go_on(self) -> None:
        """It is this one's turn now."""
        assert isinstance(self.wait, Wait)
        assert select.select(self.wait.read, [], [], 0)[0]
        with pytest.raises(StopIteration):
            self.steps.send(frozenset(self.wait.read))

    def leave(self) -> None:
        self.steps.close()


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_the_first_has_its_turn_at_once_and_the_next_when_it_is_given_back() -> None:
    turns = Turns()
    assert not Taker(turns).is_waiting
    second = Taker(turns)
    assert second.is_waiting
    turns.give_back()
    second.go_on()
    third = Taker(turns)
    assert third.is_waiting
    third.leave()


def test_turns_come_in_the_order_of_the_line() -> None:
    turns = Turns()
    drive(turns.take())
    line = [Taker(turns) for _ in range(3)]
    for each in line:
        turns.give_back()
        each.go_on()
    turns.give_back()
    assert not Taker(turns).is_waiting


@given(st.lists(st.sampled_from(["take", "leave", "give back", "leave at one's turn"]), max_size=30))
def test_whoever_leaves_never_takes_the_turn_along(events: list[str]) -> None:
    turns, line, before = Turns(), list[Taker](), descriptors()
    drive(turns.take())
    for event in events:
        if event == "take":
            line.append(Taker(turns))
            assert line[-1].is_waiting
        elif line and event == "leave":
            line.pop().leave()
        elif line and event == "give back":
            turns.give_back()
            line.pop(0).go_on()
        elif len(line) > 1:
            turns.give_back()
            line.pop(0).leave()
            line.pop(0).go_on()
    for each in line:
        each.leave()
    turns.give_back()
    drive(turns.take())
    assert descriptors() == before


def test_many_threads_never_have_the_turn_together() -> None:
    turns, inside, most = Turns(), [0], [0]

    def work() -> None:
        for _ in range(20):
            drive(turns.take())
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            os.sched_yield()
            inside[0] -= 1
            turns.give_back()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (inside, most) == ([0], [1])

"""The table of a start's steps names what there is."""

from __future__ import annotations

from bench.steps import Stopwatch, watched_methods


def test_every_step_that_is_timed_is_there() -> None:
    watch = Stopwatch()
    with watched_methods(watch):
        assert watch.seconds == {}

"""How many to keep ready: never more than allowed, more with more demand, nothing without."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from casemate import limits
from casemate.model.pool import Bounds
from casemate.pool.sizing import next_change_s, wanted

NOW_S = 1000.0
BOUNDS = Bounds(ready_max=8, memory_bytes=1, idle_s=60.0)
TIMES = st.lists(st.floats(0.0, NOW_S, allow_nan=False), max_size=300).map(sorted)


def test_one_take_is_no_demand_yet() -> None:
    assert wanted([], NOW_S, BOUNDS) == 0
    assert wanted([NOW_S], NOW_S, BOUNDS) == 0
    assert wanted([NOW_S - 0.1, NOW_S], NOW_S, BOUNDS) >= 1


def test_steady_demand_keeps_one_and_a_burst_keeps_more() -> None:
    steady = [NOW_S - pause_s for pause_s in (30.0, 20.0, 10.0)]
    burst = [NOW_S - 0.01 * number for number in range(50, 0, -1)]
    assert wanted(steady, NOW_S, BOUNDS) == 1
    assert wanted(burst, NOW_S, BOUNDS) == 1 + 50 * limits.POOL_HORIZON_S


def test_after_a_while_without_demand_only_what_was_asked_for_stays() -> None:
    takes = [1.0, 2.0, 3.0]
    assert wanted(takes, 3.0 + BOUNDS.idle_s, BOUNDS) == 0
    assert wanted(takes, 3.0 + BOUNDS.idle_s, BOUNDS, kept=3) == 3


@given(TIMES, st.integers(0, 20), st.integers(0, 20))
def test_never_more_than_allowed_and_never_less_than_kept(takes_s: list[float], most: int, kept: int) -> None:
    bounds = Bounds(ready_max=most, memory_bytes=1, idle_s=60.0)
    assert kept <= wanted(takes_s, NOW_S, bounds, kept) <= max(most, kept)


@given(TIMES)
def test_more_demand_never_means_fewer(takes_s: list[float]) -> None:
    assert wanted([*takes_s, NOW_S], NOW_S, BOUNDS) >= wanted(takes_s, NOW_S, BOUNDS)


@given(TIMES)
def test_time_alone_makes_fewer_and_in_the_end_none(takes_s: list[float]) -> None:
    now_s, left = NOW_S, wanted(takes_s, NOW_S, BOUNDS)
    for _ in range(10):
        change_s = next_change_s(takes_s, now_s, BOUNDS)
        if change_s is None:
            break
        assert change_s > now_s
        now_s = change_s
        assert wanted(takes_s, now_s, BOUNDS) <= left
        left = wanted(takes_s, now_s, BOUNDS)
    assert wanted(takes_s, now_s, BOUNDS) == 0

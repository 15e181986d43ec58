"""When workers are made, kept and retired."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate import limits
from casemate.limits import GIB, MIB
from casemate.pool.decide import (
    Retirement,
    heap_class,
    idle_order,
    is_leaking,
    missing_workers,
    most_workers,
    next_waiter,
    retirement,
    silence_max_s,
    worker_memory,
)


@pytest.mark.parametrize(
    ("samples", "leaks"),
    [
        (range(10), True),
        (range(100), True),
        (range(9), False),
        ([], False),
        ([5] * 10, False),
        ([*range(5), 3, *range(4, 8)], False),
        ([9, 9, 9, *range(10)], True),
        ([0, 1, 2, 3, 4, 5, 6, 7, 8, 8], False),
    ],
)
def test_s1_60_only_a_series_that_rises_throughout_is_a_leak(samples: list[int], leaks: bool) -> None:
    assert is_leaking(list(samples)) is leaks


@given(st.lists(st.integers(), max_size=limits.LEAK_SAMPLES - 1))
def test_s1_60_fewer_than_ten_samples_are_never_a_leak(samples: list[int]) -> None:
    assert not is_leaking(samples)


def test_workers_retire_on_age_count_and_leak() -> None:
    rising = list(range(10))
    assert retirement(age_s=0, runs=0, samples=()) is None
    assert retirement(age_s=limits.WORKER_AGE_MAX_S, runs=0, samples=()) is Retirement.AGE
    assert retirement(age_s=0, runs=limits.WORKER_RUNS_MAX, samples=()) is Retirement.COUNT
    assert retirement(age_s=0, runs=1, samples=rising) is Retirement.LEAK


@given(st.integers(1, 1024), st.integers(0, 4096 * GIB))
def test_the_pool_fits_the_machine(processors: int, memory_bytes: int) -> None:
    most = most_workers(processors, memory_bytes)
    assert 1 <= most <= limits.WORKERS_MAX
    assert most <= processors * limits.WORKERS_PER_PROCESSOR
    assert most == 1 or most * limits.WORKER_USUAL_BYTES <= memory_bytes * limits.WORKERS_MEMORY_SHARE


@given(st.integers(limits.ISOLATE_HEAP_MIN_BYTES, limits.ISOLATE_HEAP_MAX_BYTES))
def test_a_worker_has_room_for_every_heap_of_its_class(heap_bytes: int) -> None:
    size = heap_class(heap_bytes)
    assert heap_bytes <= size
    assert size == limits.ISOLATE_HEAP_DEFAULT_BYTES or size < 2 * heap_bytes
    assert size & (size - 1) == 0
    assert worker_memory(size) >= 2 * size + 128 * MIB


@given(st.integers(0, 64), st.integers(0, 64), st.integers(0, 3), st.integers(0, 64), st.integers(1, 64))
def test_no_more_are_started_beforehand_than_were_needed_or_fit(
    present: int, demand: int, waiting: int, total: int, most: int
) -> None:
    missing = missing_workers(present=present, demand=demand, waiting=waiting, total=total, most=most)
    assert missing >= 0
    assert present + missing <= max(present, demand)
    assert total + missing <= max(total, most)
    assert waiting == 0 or missing == 0


@pytest.mark.parametrize(
    ("same_kind", "waited_s", "turns", "expected"),
    [
        ([], [], [], None),
        ([True, True], [0.5, 0.1], [0, 0], 0),
        ([False, True], [0.5, 0.1], [0, 0], 1),
        ([False, False], [0.5, 0.1], [0, 0], 0),
        ([False, True], [limits.WAITED_ENOUGH_S, 0.1], [0, 0], 0),
        ([True, True, False], [5.0, 5.0, limits.WAITED_ENOUGH_S], [1, 1, 0], 2),
        ([True, True, False], [5.0, 5.0, 0.1], [1, 1, 0], 0),
        ([False, False, False, False], [9.0, 8.0, 2.0, 1.0], [3, 3, 1, 2], 2),
    ],
)
def test_who_is_next_in_line(
    same_kind: list[bool], waited_s: list[float], turns: list[int], expected: int | None
) -> None:
    assert next_waiter(same_kind, waited_s, turns) == expected


def test_with_little_of_a_processor_silence_may_last_longer() -> None:
    assert silence_max_s(2.0) == limits.WORKER_SILENCE_MAX_S
    assert silence_max_s(0.1) == pytest.approx(10 * limits.WORKER_SILENCE_MAX_S)


def test_the_worker_used_last_is_taken_unless_it_is_still_preparing() -> None:
    soon = limits.WORKER_PREPARES_S / 2
    assert idle_order([10.0, 1.0, 5.0]) == [1, 2, 0]
    assert idle_order([10.0, soon, 5.0]) == [2, 0, 1]
    assert idle_order([soon / 2, soon]) == [1, 0]
    assert idle_order([]) == []

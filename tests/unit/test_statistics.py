"""Many executions in numbers: against known runs, and what holds of any."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.executions.statistics import (
    HISTOGRAM_BINS,
    ExecutionRecord,
    Grouping,
    error_category,
    grouped,
    histogram,
    percentile,
    statistics,
    within,
)
from casemate.model.result import Reason, Status

COUNTS = st.integers(0, 1 << 40)


def record(reason: Reason = Reason.EXIT, **fields: Any) -> ExecutionRecord:
    fields.setdefault("status", Status.SUCCEEDED if reason is Reason.EXIT else Status.FAILED)
    return ExecutionRecord(**{"reason": reason, "started_us": 0, "wall_us": 0, **fields})


RECORDS = st.lists(
    st.builds(
        ExecutionRecord,
        status=st.sampled_from(Status),
        reason=st.sampled_from(Reason),
        started_us=COUNTS,
        wall_us=COUNTS,
        memory_peak_bytes=st.none() | COUNTS,
        error_type=st.sampled_from(["", "SyntaxError", "ValueError"]),
        runtime=st.sampled_from(["python", "r"]),
        function=st.sampled_from(["", "mean"]),
        tenant=st.sampled_from(["a", "b", "c"]),
    ),
    max_size=60,
)


def test_s1_67_counts_match_a_known_run() -> None:
    found = statistics([record(), record(), record(Reason.EXCEPTION)])
    assert (found.total, found.successful, found.failed) == (3, 2, 1)


def test_s1_68_mean_and_percentiles_of_known_times() -> None:
    found = statistics([record(wall_us=time) for time in range(100, 0, -1)])
    assert found.mean_wall_us == 50.5
    assert (found.p50_wall_us, found.p95_wall_us, found.p99_wall_us) == (50, 95, 99)


@pytest.mark.parametrize(
    ("ordered", "percent", "expected"),
    [([], 50, None), ([7], 99, 7), ([1, 9], 50, 1), ([1, 9], 51, 9), ([15, 20, 35, 40, 50], 30, 20), ([3], 0, 3)],
)
def test_s1_68_a_percentile_is_the_nearest_rank(ordered: list[int], percent: int, expected: int | None) -> None:
    assert percentile(ordered, percent) == expected


@given(st.lists(COUNTS, min_size=1), st.integers(1, 100))
def test_s1_68_so_many_of_a_hundred_do_not_exceed_a_percentile(values: list[int], percent: int) -> None:
    found = percentile(sorted(values), percent)
    assert found in values
    assert sum(value <= found for value in values) * 100 >= percent * len(values)
    assert sum(value < found for value in values) * 100 < percent * len(values)


@given(st.lists(COUNTS))
def test_s1_69_ten_bins_sum_to_the_total(values: list[int]) -> None:
    bins = histogram(values)
    assert len(bins) == HISTOGRAM_BINS
    assert sum(each.count for each in bins) == len(values)
    assert all(one.high == other.low for one, other in pairwise(bins))
    assert bins[0].low == 0
    assert bins[-1].high >= max(values, default=0)


@given(st.lists(COUNTS))
def test_s1_69_each_value_is_counted_in_its_bin(values: list[int]) -> None:
    *bins, last = histogram(values)
    for each in bins:
        assert each.count == sum(each.low <= value < each.high for value in values)
    assert last.count == sum(last.low <= value <= last.high for value in values)


@pytest.mark.parametrize(
    ("reason", "error_type", "category"),
    [
        (Reason.TIMEOUT, "", "timeout"),
        (Reason.CPU, "", "timeout"),
        (Reason.MEMORY, "", "memory"),
        (Reason.EXCEPTION, "SyntaxError", "syntax"),
        (Reason.EXCEPTION, "ValueError", "runtime"),
        (Reason.SIGNAL, "", "runtime"),
        (Reason.PROCESSES, "", "processes"),
        (Reason.DISK, "", "disk"),
        (Reason.OUTPUT, "", "output"),
        (Reason.VALIDATION, "", "output"),
        (Reason.DENIED, "", "denied"),
        (Reason.CANCELLED, "", "cancelled"),
        (Reason.LOST, "", "lost"),
        (Reason.INTERNAL, "", "internal"),
    ],
)
def test_s1_70_errors_are_counted_apart_by_kind(reason: Reason, error_type: str, category: str) -> None:
    assert statistics([record(), record(reason, error_type=error_type)]).errors == {category: 1}


@pytest.mark.parametrize("reason", Reason)
def test_s1_70_every_failure_has_a_category(reason: Reason) -> None:
    assert error_category(record(reason, status=Status.FAILED)) is not None
    assert error_category(record(reason, status=Status.SUCCEEDED)) is None


def test_s1_71_what_was_started_outside_of_the_range_is_left_out() -> None:
    records = [record(started_us=time) for time in (1, 2, 3, 4)]
    assert [each.started_us for each in within(records, since_us=2, until_us=4)] == [2, 3]
    assert within(records) == tuple(records)


@given(RECORDS, COUNTS, COUNTS)
def test_s1_71_two_ranges_that_meet_hold_everything_once(records: list[ExecutionRecord], one: int, other: int) -> None:
    low, high = sorted((one, other))
    parts = (
        within(records, until_us=low),
        within(records, since_us=low, until_us=high),
        within(records, since_us=high),
    )
    assert sum(map(len, parts)) == len(records)


@given(RECORDS, st.sampled_from(Grouping))
def test_groups_sum_to_the_whole(records: list[ExecutionRecord], by: Grouping) -> None:
    whole, groups = statistics(records), grouped(records, by)
    for name in ("total", "successful", "failed", "memory_unknown"):
        assert sum(getattr(group, name) for group in groups.values()) == getattr(whole, name)
    assert whole.failed == sum(whole.errors.values())
    assert whole.memory_unknown + sum(each.count for each in whole.memory) == whole.total

"""What became of many executions, in numbers: pure functions of frozen records, with the time range passed in."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Final, TypeVar

import msgspec

from casemate.model.result import Reason, Status

Number = TypeVar("Number", int, float)
HISTOGRAM_BINS: Final = 10
SYNTAX_ERRORS: Final = frozenset({"SyntaxError", "IndentationError", "TabError", "ParseError"})
"""Types of errors with which the languages refuse to begin."""


class ErrorCategory(StrEnum):
    """What went wrong, as people count it."""

    TIMEOUT = "timeout"
    MEMORY = "memory"
    SYNTAX = "syntax"
    RUNTIME = "runtime"
    PROCESSES = "processes"
    DISK = "disk"
    OUTPUT = "output"
    DENIED = "denied"
    CANCELLED = "cancelled"
    LOST = "lost"
    INTERNAL = "internal"


class Grouping(StrEnum):
    """By what executions can be told apart."""

    RUNTIME = "runtime"
    FUNCTION = "function"
    TENANT = "tenant"


_CATEGORIES: Final = {
    Reason.TIMEOUT: ErrorCategory.TIMEOUT,
    Reason.CPU: ErrorCategory.TIMEOUT,
    Reason.MEMORY: ErrorCategory.MEMORY,
    Reason.PROCESSES: ErrorCategory.PROCESSES,
    Reason.DISK: ErrorCategory.DISK,
    Reason.OUTPUT: ErrorCategory.OUTPUT,
    Reason.VALIDATION: ErrorCategory.OUTPUT,
    Reason.DENIED: ErrorCategory.DENIED,
    Reason.CANCELLED: ErrorCategory.CANCELLED,
    Reason.LOST: ErrorCategory.LOST,
    Reason.INTERNAL: ErrorCategory.INTERNAL,
}


class ExecutionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What is counted of one execution that has ended. `error_type` is that of its error, if it had one."""

    status: Status
    reason: Reason
    started_us: int
    wall_us: int
    memory_peak_bytes: int | None = None
    error_type: str = ""
    runtime: str = ""
    function: str = ""
    tenant: str = ""


class HistogramBin(msgspec.Struct, frozen=True, kw_only=True):
    """How many lie from `low` up to `high`; the last bin holds its upper end as well."""

    low: int
    high: int
    count: int


class Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """Many executions in numbers. Without any, times are None.

    `memory` counts those of which the peak is known, `memory_unknown` the others. Percentiles are by nearest rank: the
    smallest time that so many of a hundred did not exceed, which is one that was measured.
    """

    total: int
    successful: int
    failed: int
    mean_wall_us: float | None
    p50_wall_us: int | None
    p95_wall_us: int | None
    p99_wall_us: int | None
    memory: tuple[HistogramBin, ...]
    memory_unknown: int
    errors: dict[str, int]


def error_category(record: ExecutionRecord) -> ErrorCategory | None:
    """What went wrong; None if nothing did."""
    if record.status is Status.SUCCEEDED:
        return None
    known = _CATEGORIES.get(record.reason)
    if known is not None:
        return known
    return ErrorCategory.SYNTAX if record.error_type in SYNTAX_ERRORS else ErrorCategory.RUNTIME


def within(
    records: Iterable[ExecutionRecord], *, since_us: int | None = None, until_us: int | None = None
) -> tuple[ExecutionRecord, ...]:
    """Those that were started in a range of time; its end is not in it."""
    low = -math.inf if since_us is None else since_us
    high = math.inf if until_us is None else until_us
    return tuple(record for record in records if low <= record.started_us < high)


def statistics(records: Sequence[ExecutionRecord]) -> Statistics:
    """The numbers of these executions."""
    walls = sorted(record.wall_us for record in records)
    peaks = [record.memory_peak_bytes for record in records if record.memory_peak_bytes is not None]
    successful = sum(record.status is Status.SUCCEEDED for record in records)
    return Statistics(
        total=len(records),
        successful=successful,
        failed=len(records) - successful,
        mean_wall_us=sum(walls) / len(walls) if walls else None,
        p50_wall_us=percentile(walls, 50),
        p95_wall_us=percentile(walls, 95),
        p99_wall_us=percentile(walls, 99),
        memory=histogram(peaks),
        memory_unknown=len(records) - len(peaks),
        errors=dict(Counter(category.value for each in records if (category := error_category(each)) is not None)),
    )


def grouped(records: Iterable[ExecutionRecord], by: Grouping) -> dict[str, Statistics]:
    """The numbers of each group, by its name."""
    groups: dict[str, list[ExecutionRecord]] = {}
    for record in records:
        groups.setdefault(getattr(record, by), []).append(record)
    return {name: statistics(found) for name, found in sorted(groups.items())}


def percentile(ordered: Sequence[Number], percent: int) -> Number | None:
    """By nearest rank, of numbers in ascending order; None of none."""
    if not ordered:
        return None
    rank = -(-percent * len(ordered) // 100)
    return ordered[max(1, rank) - 1]


def histogram(values: Sequence[int]) -> tuple[HistogramBin, ...]:
    """Ten bins of one width from 0 to the largest value. Their counts are as many as the values."""
    width = -(-max(values, default=0) // HISTOGRAM_BINS) or 1
    counts = Counter(min(max(value, 0) // width, HISTOGRAM_BINS - 1) for value in values)
    return tuple(HistogramBin(low=at * width, high=(at + 1) * width, count=counts[at]) for at in range(HISTOGRAM_BINS))

"""Executions of a time range as series for charts. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from casemate.executions.statistics import percentile
from casemate.model.units import SECOND_US
from casemate.service_limits import STATISTICS_ROWS_MAX
from casemate.store.executions import FAILED, Measured

_PERCENTS: Final = (50, 95, 99)


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """One value for each point of time; None where nothing ended. Times are seconds since 1970, latencies seconds.

    `is_cut`: there were more executions than are counted, and the oldest of them are missing.
    """

    at_s: list[float]
    step_s: float
    rate: list[float]
    failures: list[float]
    p50: list[float | None]
    p95: list[float | None]
    p99: list[float | None]
    memory_bytes: list[int | None]
    total: int
    failed: int
    errors: dict[str, int]
    is_cut: bool


def series_of(rows: Iterable[Measured], *, since_us: int, until_us: int, points: int) -> Series:
    """The series: a point stands for what ended in the step that follows it."""
    step_us = max(1, -(-(until_us - since_us) // points))
    steps: list[list[Measured]] = [[] for _ in range(points)]
    errors: dict[str, int] = {}
    for row in rows:
        steps[min(points - 1, (row.ended_us - since_us) // step_us)].append(row)
        if row.status == FAILED:
            name = row.error_category or row.reason
            errors[name] = errors.get(name, 0) + 1
    step_s = step_us / SECOND_US
    failed = [sum(each.status == FAILED for each in step) for step in steps]
    latencies = [_latencies(step) for step in steps]
    return Series(
        at_s=[(since_us + number * step_us) / SECOND_US for number in range(points)],
        step_s=step_s,
        rate=[len(step) / step_s for step in steps],
        failures=[count / step_s for count in failed],
        p50=[each[0] for each in latencies],
        p95=[each[1] for each in latencies],
        p99=[each[2] for each in latencies],
        memory_bytes=[max((each.memory_peak_bytes or 0 for each in step), default=None) for step in steps],
        total=sum(map(len, steps)),
        failed=sum(failed),
        errors=dict(sorted(errors.items(), key=lambda each: -each[1])),
        is_cut=sum(map(len, steps)) >= STATISTICS_ROWS_MAX,
    )


def _latencies(step: Sequence[Measured]) -> tuple[float | None, float | None, float | None]:
    walls = sorted(each.wall_us / SECOND_US for each in step if each.wall_us is not None)
    p50, p95, p99 = (percentile(walls, percent) for percent in _PERCENTS)
    return p50, p95, p99

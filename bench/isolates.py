"""Rows about programs in isolates beside the bare interpreter: first ones, later ones, and how many at once."""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Iterator
from typing import Final

import casemate
from bench import peers
from bench.loads import rate
from bench.measure import Action, Times, interleaved
from bench.rows import Row

CODE: Final = "output = input.map((n) => n ** 2)"
INPUT: Final = [1, 2, 3]
BARE: Final = ("node", "-e", "console.log(JSON.stringify([1, 2, 3].map((n) => n ** 2)))")
WARM: Final = "warm"
BARE_NAME: Final = "bare node -e"
WARM_RATIO_MAX: Final = 0.1
IN_A_ROW: Final = 10
PAUSE_S: Final = 0.1
CONCURRENCY: Final = (1, 2, 8)
TIMEOUT_S: Final = 30.0


def _run(engine: casemate.Engine, *, fresh: bool = False) -> Action:
    def run() -> None:
        limits = {"timeout": TIMEOUT_S}
        result = casemate.run(CODE, "javascript", input=INPUT, limits=limits, engine=engine, fresh=fresh)
        if result.output != [1, 4, 9]:
            raise RuntimeError(str(result))

    return run


def isolates(rounds: int) -> Iterator[Row]:
    """Request to Result: in a new worker, in one that is there, and by the bare interpreter."""
    if shutil.which(BARE[0]):
        with casemate.Engine() as engine:
            yield from _isolates(engine, rounds)


def _isolates(engine: casemate.Engine, rounds: int) -> Iterator[Row]:
    warm, cold, bare = _run(engine), _run(engine, fresh=True), peers.process(*BARE)
    group = "A program in an isolate"
    once = interleaved({WARM: warm, "in a new worker": cold, BARE_NAME: bare}, rounds)
    several = interleaved({WARM: warm, BARE_NAME: bare}, max(3, rounds // 4), in_a_row=IN_A_ROW)
    paused = interleaved({WARM: warm, BARE_NAME: bare}, rounds, pause_s=PAUSE_S)
    for how, times in {"": once, ", ten in a row": several, ", after a pause of 100 ms": paused}.items():
        for name, measured in times.items():
            yield _row(group, name + how, measured)
        share = times[WARM].ratio(times[BARE_NAME])
        yield Row(group=group, name=f"{WARM} / {BARE_NAME}{how}", value=share, unit="times", bound=WARM_RATIO_MAX)
    for threads in CONCURRENCY:
        per_second = statistics.median(rate(warm, threads) for _ in range(3))
        yield Row(group=group, name=f"{threads} at once", value=per_second, unit="/s", note=_tail(warm, threads))


def _row(group: str, name: str, measured: Times) -> Row:
    note = f"p95 {measured.percentile_ms(0.95):.2f}, p99 {measured.percentile_ms(0.99):.2f}"
    return Row(group=group, name=name, value=measured.median_ms, unit="ms", note=note)


def _tail(action: Action, threads: int) -> str:
    """The latencies while so many run at once."""
    seen: list[float] = []

    def timed() -> None:
        started = time.perf_counter()
        action()
        seen.append(time.perf_counter() - started)

    rate(timed, threads)
    measured = Times(tuple(seen))
    return f"p50 {measured.median_ms:.2f} ms, p99 {measured.percentile_ms(0.99):.2f} ms"

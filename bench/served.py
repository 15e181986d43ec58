"""Rows about a service: how soon Results come, cold and ready, from several threads, back to back and after pauses."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

import casemate
from bench.measure import Times
from bench.rows import Row
from casemate.errors import CasemateError

PAUSES_S: Final = (0.0, 0.1)
CONCURRENCY: Final = (1, 2, 8)
SPREAD_MAX: Final = 5.0
SPREAD_AT: Final = 2
"""So many threads at once are promised that the slowest hundredth is not much slower than the rest."""

OTHERS_SHARE: Final = 0.25
"""Of the rounds: some of them take half a second."""

PRINTS: Final = {
    "python": "print(1)",
    "node": "console.log(1)",
    "r": "cat(1)",
    "bash": "echo 1",
    "javascript": "console.log(1)",
}


class Served:
    """What many threads saw of their runs."""

    def __init__(self, run: Callable[[], bool], threads: int, each: int, pause_s: float) -> None:
        self._run = run
        self._each = each
        self._pause_s = pause_s
        self._seconds: list[float] = []
        self.good = 0
        workers = [threading.Thread(target=self._work) for _ in range(threads)]
        started_s = time.monotonic()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        self.rate = len(self._seconds) / (time.monotonic() - started_s)

    def _work(self) -> None:
        for _ in range(self._each):
            time.sleep(self._pause_s)
            started_s = time.perf_counter()
            good = self._run()
            self._seconds.append(time.perf_counter() - started_s)
            self.good += good

    @property
    def times(self) -> Times:
        return Times(tuple(self._seconds))

    @property
    def more(self) -> dict[str, float]:
        """Everything beside the median."""
        count = len(self._seconds)
        found = {f"p{share:.0f}_ms": self.times.percentile_ms(share / 100) for share in (95, 99)}
        return {**found, "succeeded_percent": 100 * self.good / count, "runs": count, "runs_per_s": self.rate}


def served(rounds: int) -> Iterator[Row]:
    """Every language, cold and ready. Each line is of so many runs of each thread."""
    for runtime in PRINTS:
        share = 1.0 if runtime == "python" else OTHERS_SHARE
        with casemate.Engine() as engine:
            for fresh in (True, False):
                yield from _language(engine, runtime, max(3, round(rounds * share)), fresh=fresh)


def _language(engine: casemate.Engine, runtime: str, rounds: int, *, fresh: bool) -> Iterator[Row]:
    group = f"Runs of {runtime}, {'each in a new sandbox' if fresh else 'ready by demand'}"

    def run() -> bool:
        try:
            return casemate.run(PRINTS[runtime], runtime, engine=engine, fresh=fresh).ok
        except CasemateError:
            return False

    for _ in range(3):
        run()
    for pause_s in PAUSES_S:
        for threads in CONCURRENCY:
            found = Served(run, threads, max(2, rounds // threads), pause_s)
            name = f"{threads} at once, {f'pauses of {pause_s * 1000:.0f} ms' if pause_s else 'back to back'}"
            yield Row(group=group, name=name, value=found.times.median_ms, unit="ms", more=found.more)
            if runtime == "python" and threads == SPREAD_AT and not fresh:
                spread = found.times.percentile_ms(0.99) / found.times.median_ms
                yield Row(group=group, name=f"{name}, p99 / p50", value=spread, unit="times", bound=SPREAD_MAX)

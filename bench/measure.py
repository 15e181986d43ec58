"""Timing of several things side by side.

On a shared machine the speed changes from second to second. So the candidates take turns, each once per
round in a new order, and two of them are compared round by round: the ratio is the median of those of the
rounds, which a slow minute hits on both sides.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

Action = Callable[[], object]

WARM_UP_ROUNDS: Final = 3


class Times(msgspec.Struct, frozen=True):
    """The times of one candidate in seconds, in the order of the rounds."""

    seconds: tuple[float, ...]

    @property
    def median_ms(self) -> float:
        return statistics.median(self.seconds) * 1e3

    def percentile_ms(self, share: float) -> float:
        return sorted(self.seconds)[min(len(self.seconds) - 1, int(share * len(self.seconds)))] * 1e3

    def ratio(self, other: Times) -> float:
        """How many times as long as the other, by rounds."""
        return statistics.median(a / b for a, b in zip(self.seconds, other.seconds, strict=True))

    def over(self, *others: Times) -> float:
        """How many times as long as the others together, by rounds."""
        sums = [sum(parts) for parts in zip(*(other.seconds for other in others), strict=True)]
        return self.ratio(Times(tuple(sums)))


def timed(action: Action) -> float:
    """Seconds that it takes."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def interleaved(
    candidates: Mapping[str, Action], rounds: int, *, pause_s: float = 0.0, in_a_row: int = 1
) -> dict[str, Times]:
    """Each candidate so many times in a row per round, in a new order each time; the first rounds do not count."""
    chance = random.Random(rounds)
    found: dict[str, list[float]] = {name: [] for name in candidates}
    for number in range(-WARM_UP_ROUNDS, rounds):
        names = list(candidates)
        chance.shuffle(names)
        for name in (name for name in names for _ in range(in_a_row)):
            if pause_s:
                time.sleep(pause_s)
            seconds = timed(candidates[name])
            if number >= 0:
                found[name].append(seconds)
    return {name: Times(tuple(seconds)) for name, seconds in found.items()}

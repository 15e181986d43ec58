"""A bucket of tokens that fills at a steady rate: bounds bytes or names a second. Pure: the time is passed in."""

from __future__ import annotations


class Bucket:
    """Holds at most `burst`; `rate` are the tokens that come a second."""

    def __init__(self, rate: float, burst: float, now_s: float) -> None:
        self.rate = rate
        self._burst = burst
        self._level = burst
        self._at_s = now_s

    def take(self, most: int, now_s: float) -> int:
        """How many of `most` tokens there are; they are taken."""
        self._fill(now_s)
        found = max(0, min(most, int(self._level)))
        self._level -= found
        return found

    def owe(self, count: int) -> None:
        """Take tokens that there may not be yet: whoever comes next waits for them."""
        self._level -= count

    def give_back(self, count: int) -> None:
        """Tokens that were taken and not used."""
        self._level = min(self._burst, self._level + count)

    def wait_s(self, count: int, now_s: float) -> float:
        """How long until there are so many tokens, or until it is full."""
        self._fill(now_s)
        return max(0.0, (min(count, self._burst) - self._level) / self.rate)

    def _fill(self, now_s: float) -> None:
        self._level = min(self._burst, self._level + max(0.0, now_s - self._at_s) * self.rate)
        self._at_s = max(self._at_s, now_s)

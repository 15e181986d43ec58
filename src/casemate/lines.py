"""A line for each of many who bring something, and one who takes from all of them by turns. Pure."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class Lines(Generic[K, T]):
    """Together they hold about `most`, and no line grows beyond the room that is left.

    So whoever brings more than is taken loses what is its own, and leaves room, and a turn, to everybody else.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._count = 0
        self._lines: OrderedDict[K, deque[T]] = OrderedDict()

    def __len__(self) -> int:
        return self._count

    def has_room(self, whose: K) -> bool:
        """Whether somebody's line is shorter than its share."""
        return len(self._lines.get(whose, ())) < self._most - self._count

    def add(self, whose: K, item: T) -> None:
        """Add to somebody's line, whether it has room or not."""
        self._lines.setdefault(whose, deque()).append(item)
        self._count += 1

    def take(self, count: int) -> list[T]:
        """Up to so many, one of each line at a time; of each in their order."""
        taken: list[T] = []
        while self._lines and len(taken) < count:
            whose, line = next(iter(self._lines.items()))
            taken.append(line.popleft())
            if line:
                self._lines.move_to_end(whose)
            else:
                del self._lines[whose]
        self._count -= len(taken)
        return taken

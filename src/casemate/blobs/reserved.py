"""Room that is set aside for objects which come by a way that is not ours, until it is known what has come."""

from __future__ import annotations

import math

import msgspec


class _Place(msgspec.Struct, frozen=True):
    bytes_count: int
    until_s: float


class Reserved:
    """Of one tenant, by key: whatever is put under one key takes the place of what was there."""

    def __init__(self) -> None:
        self._places: dict[str, _Place] = {}
        self._total_bytes = 0
        self._next_s = math.inf

    def held_bytes(self, at_s: float) -> int:
        """What is set aside at that time."""
        if at_s >= self._next_s:
            self._places = {key: place for key, place in self._places.items() if place.until_s > at_s}
            self._add_up()
        return self._total_bytes

    def __len__(self) -> int:
        return len(self._places)

    def of(self, key: str) -> int:
        """What is set aside for that key already."""
        return self._places[key].bytes_count if key in self._places else 0

    def put(self, key: str, bytes_count: int, until_s: float) -> None:
        """Set aside so much; what was promised before for that key stays promised."""
        was = self._places.get(key, _Place(0, 0.0))
        self._places[key] = _Place(max(was.bytes_count, bytes_count), max(was.until_s, until_s))
        self._add_up()

    def _add_up(self) -> None:
        self._total_bytes = sum(place.bytes_count for place in self._places.values())
        self._next_s = min((place.until_s for place in self._places.values()), default=math.inf)

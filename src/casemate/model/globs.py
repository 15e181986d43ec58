"""Patterns of paths: `*`, `?` and `[…]` within a name, `**` for any depth. Pure."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from typing import Final

ANY_DEPTH: Final = "**"


def matches(names: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a path, as its names, matches a pattern, as its parts.

    Different people choose the one and the other, so the work is bounded by the product of their lengths.
    """
    reached = _skipped({0}, pattern)
    for name in names:
        open_places = {place for place in reached if place < len(pattern)}
        kept = {place for place in open_places if pattern[place] == ANY_DEPTH}
        passed = {place + 1 for place in open_places - kept if fnmatch.fnmatchcase(name, pattern[place])}
        reached = _skipped(kept | passed, pattern)
    return len(pattern) in reached


def _skipped(places: set[int], pattern: Sequence[str]) -> set[int]:
    """The places in the pattern, and those behind a `**` there, which may stand for no name at all."""
    found = set(places)
    for place in range(len(pattern)):
        if place in found and pattern[place] == ANY_DEPTH:
            found.add(place + 1)
    return found

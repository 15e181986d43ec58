"""How code that waits for the kernel is written once for threads and for asyncio.

A `Steps` generator never blocks: it yields a `Wait` and is resumed with the descriptors that are ready
(none: the deadline has passed), or it yields a `Chunk` of live output for whoever listens. Small drivers
in `engine/drive.py` do the waiting.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeAlias, TypeVar

import msgspec

from casemate.model.result import Chunk


class Wait(msgspec.Struct, frozen=True):
    """Wait until one of the descriptors is ready or the monotonic clock reaches `deadline_s`."""

    read: tuple[int, ...] = ()
    write: tuple[int, ...] = ()
    deadline_s: float | None = None


Ready: TypeAlias = frozenset[int]
T = TypeVar("T")
Steps: TypeAlias = Generator[Wait | Chunk, Ready, T]

"""How code that waits for the kernel is written once for threads and for asyncio.

A `Steps` generator never blocks: it yields a `Wait` and is resumed with the descriptors that are ready
(none: the deadline has passed), or it yields a `Chunk` of live output for whoever listens. Small drivers
in `engine/drive.py` do the waiting.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Generator
from typing import TypeAlias, TypeVar

import msgspec

from casemate import limits
from casemate.errors import CapacityError
from casemate.model.result import Chunk


class Wait(msgspec.Struct, frozen=True):
    """Wait until one of the descriptors is ready or the monotonic clock reaches `deadline_s`."""

    read: tuple[int, ...] = ()
    write: tuple[int, ...] = ()
    deadline_s: float | None = None


Ready: TypeAlias = frozenset[int]
T = TypeVar("T")
Steps: TypeAlias = Generator[Wait | Chunk, Ready, T]


def open_event() -> int:
    """A descriptor to be waited for, which `os.eventfd_write` makes readable. Raises CapacityError."""
    try:
        return os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    except OSError as error:
        raise CapacityError(f"no descriptor for an event: {error.strerror}") from error


class Turn:
    """For steps that have much to do between their waits: whoever runs in the same thread gets a turn now and then."""

    def __init__(self) -> None:
        self._until_s = time.monotonic() + limits.TURN_MAX_S

    def pause(self) -> Steps[None]:
        """Let the others go first if this has gone on for long."""
        if time.monotonic() > self._until_s:
            yield Wait(deadline_s=0.0)
            self._until_s = time.monotonic() + limits.TURN_MAX_S


def readable(fd: int, timeout_s: float) -> bool:
    """Whether a descriptor is, or becomes so within that time, for which the calling thread waits."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(timeout_s * 1000))

"""What comes from one run and waits to be taken, in bounded memory: when there is much, the program is made to wait."""

from __future__ import annotations

import asyncio
from collections import deque

from casemate import job_limits as bound
from casemate.cluster.messages import Answer
from casemate.engine.valve import Valve
from casemate.errors import CapacityError


class Outbox:
    """Answers in the order in which they came. While it is full its `valve` is shut."""

    def __init__(self) -> None:
        self.valve = Valve()
        self._answers: deque[tuple[Answer, int]] = deque()
        self._bytes = 0
        self._has_ended = False
        self._changed = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()

    @property
    def is_full(self) -> bool:
        return not self.valve.is_open

    @property
    def is_overfull(self) -> bool:
        """Whether even that is to be left out which cannot be made to wait, and of which there may be much."""
        return self._bytes >= 2 * bound.OUTBOX_BYTES

    def put(self, answer: Answer, size_bytes: int) -> None:
        """Keep one more, whether there is room for it or not."""
        self._answers.append((answer, size_bytes))
        self._bytes += size_bytes
        if self._bytes >= bound.OUTBOX_BYTES:
            self.valve.shut()
            self._has_room.clear()
        self._changed.set()

    async def room(self) -> None:
        """Wait until it is not full. Raises CapacityError if nobody takes anything for too long."""
        try:
            async with asyncio.timeout(bound.OUTBOX_STALL_MAX_S):
                await self._has_room.wait()
        except TimeoutError:
            raise CapacityError("nobody takes what the run has to say") from None

    def end(self) -> None:
        """Nothing more will come."""
        self._has_ended = True
        self._changed.set()

    async def take(self) -> Answer | None:
        """The next answer; None after the last."""
        while not self._answers:
            if self._has_ended:
                return None
            self._changed.clear()
            await self._changed.wait()
        answer, size_bytes = self._answers.popleft()
        self._bytes -= size_bytes
        if self._bytes < bound.OUTBOX_BYTES:
            self.valve.open()
            self._has_room.set()
        return answer

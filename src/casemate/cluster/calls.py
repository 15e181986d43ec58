"""What both kinds of Bus and both ends of one share: what a node does, and how much of a call may be under way."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Final, TypeAlias

from casemate import service_limits as bound
from casemate.cluster.messages import LAST, Answer, Output, Question, RunJob
from casemate.cluster.refusals import refused
from casemate.errors import CasemateError, InternalError, NodeLost

Handler: TypeAlias = Callable[[Question, asyncio.Event], AsyncGenerator[Answer, None]]
"""What a node does with a question. Closing the iterator ends the work at once; when the event is set the work ends
soon, and its last answer comes as ever. Raises CasemateError for what it refuses."""

LOST: Final = "the node has ended, or the way to it"
_LOG: Final = logging.getLogger(__name__)


async def answers_of(handler: Handler, question: Question, stop: asyncio.Event) -> AsyncGenerator[Answer, None]:
    """What a handler answers, to the last answer; its errors are answers, too. Mistakes of ours are in the log."""
    try:
        async with aclosing(handler(question, stop)) as answers:
            async for answer in answers:
                yield answer
                if isinstance(answer, LAST):
                    return
        yield refused(question.id, InternalError("the node did not answer to the end"))
    except CasemateError as error:
        yield refused(question.id, error)
    except Exception:  # noqa: BLE001 - a mistake in one call is not to end all others
        _LOG.exception("a mistake of ours in call %s", question.id)
        yield refused(question.id, InternalError("a mistake of ours; it is in the node's log"))


class Work:
    """One call that a node works on."""

    def __init__(self, question: Question) -> None:
        self.window = Window(drops_output=not isinstance(question, RunJob))
        self.stop = asyncio.Event()


class Window:
    """How much of one call is on its way to whoever asked and has not been taken."""

    def __init__(self, *, drops_output: bool = True) -> None:
        self._drops_output = drops_output
        self._untaken_bytes = 0
        self._has_room = asyncio.Event()
        self._has_room.set()

    async def admit(self, answer: Answer, size_bytes: int) -> bool:
        """Whether the answer is to be sent, when there is room for it.

        Live output that finds none is dropped, so that no program waits for whoever reads it: the offsets of what
        follows show the gap, and the Result has its head and tail. Of a job nothing is dropped: its program waits. The
        last answer always has room.
        """
        if not isinstance(answer, LAST):
            if self._drops_output and isinstance(answer, Output) and not self._has_room.is_set():
                return False
            await self._has_room.wait()
        self._count(size_bytes)
        return True

    def taken(self, bytes_count: int) -> None:
        """So much has arrived with whoever asked."""
        self._count(-max(0, bytes_count))

    def _count(self, change_bytes: int) -> None:
        self._untaken_bytes = max(0, self._untaken_bytes + change_bytes)
        if self._untaken_bytes < bound.CALL_WINDOW_BYTES:
            self._has_room.set()
        else:
            self._has_room.clear()


class Inbox:
    """The answers of one call that have come and wait to be taken. `on_taken` is told of bytes as they are."""

    def __init__(self, on_taken: Callable[[int], None]) -> None:
        self._on_taken = on_taken
        self._answers: deque[tuple[Answer, int]] = deque()
        self._waiting_bytes = 0
        self._untold_bytes = 0
        self._is_lost = False
        self._came = asyncio.Event()

    def put(self, answer: Answer, size_bytes: int) -> bool:
        """Keep an answer; False if the other side sends more than it may."""
        if self._waiting_bytes >= bound.CALL_WINDOW_BYTES and not isinstance(answer, LAST):
            return False
        self._answers.append((answer, size_bytes))
        self._waiting_bytes += size_bytes
        self._came.set()
        return True

    def lose(self) -> None:
        """Nothing more will come."""
        self._is_lost = True
        self._came.set()

    async def take(self) -> Answer:
        """The next answer. Raises NodeLost when none will come."""
        while not self._answers:
            if self._is_lost:
                raise NodeLost(LOST, hint="what it ran has ended; run it again if that does no harm")
            self._came.clear()
            await self._came.wait()
        answer, size_bytes = self._answers.popleft()
        self._waiting_bytes -= size_bytes
        self._untold_bytes += size_bytes
        if self._untold_bytes >= bound.CALL_TAKEN_STEP_BYTES:
            self._on_taken(self._untold_bytes)
            self._untold_bytes = 0
        return answer

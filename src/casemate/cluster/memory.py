"""A Bus without a node's process: the handler runs in the service's own loop. For tests, and what they stand on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from casemate.cluster.calls import LOST, Handler, Inbox, Work, answers_of
from casemate.cluster.frames import FRAME_HEAD, decode_answer, decode_question, encode
from casemate.cluster.messages import LAST, Answer, Cancel, Question
from casemate.errors import Conflict, NodeUnavailable


class MemoryBus:
    """A Bus to a handler. `lose` does what the end of a node does, `restore` what its restart does."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._works: dict[str, Work] = {}
        self._tasks: dict[asyncio.Task[None], Inbox] = {}
        self.connected = asyncio.Event()
        self.connected.set()

    @property
    def is_connected(self) -> bool:
        return self.connected.is_set()

    def restore(self) -> None:
        """There is a node again."""
        self.connected.set()

    async def lose(self) -> None:
        """The node is gone, with all that it did."""
        self.connected.clear()
        lost, self._tasks = self._tasks, {}
        for task, inbox in lost.items():
            task.cancel()
            inbox.lose()
        if lost:
            await asyncio.wait(lost)

    async def close(self) -> None:
        await self.lose()

    async def call(self, question: Question) -> AsyncGenerator[Answer, None]:
        """As that of every Bus."""
        if not self.is_connected:
            raise NodeUnavailable(LOST)
        if isinstance(question, Cancel):
            if question.id in self._works:
                self._works[question.id].stop.set()
            return
        work = Work(question)
        if self._works.setdefault(question.id, work) is not work:
            raise Conflict(f"a call {question.id!r} is under way")
        inbox = Inbox(work.window.taken)
        task = asyncio.create_task(self._work(question, work, inbox))
        self._tasks[task] = inbox
        task.add_done_callback(lambda done: self._tasks.pop(done, None))
        try:
            while True:
                answer = await inbox.take()
                yield answer
                if isinstance(answer, LAST):
                    return
        finally:
            del self._works[question.id]
            task.cancel()

    async def _work(self, question: Question, work: Work, inbox: Inbox) -> None:
        """Through the same bytes as on any other way, so that nothing passes here that would not there."""
        asked = decode_question(encode(question)[FRAME_HEAD.size :])
        async with aclosing(answers_of(self._handler, asked, work.stop)) as answers:  # type: ignore[arg-type]
            async for answer in answers:
                frame = encode(answer)
                if await work.window.admit(answer, len(frame)):
                    inbox.put(decode_answer(frame[FRAME_HEAD.size :]), len(frame))

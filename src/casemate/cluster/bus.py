"""How the service reaches its nodes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Protocol

from casemate.cluster.messages import Answer, Question


class Bus(Protocol):
    """Carries questions to a node and answers back.

    `call` yields every answer to a question, the last of which is one of `LAST`. Closing the iterator early ends the
    work on the node. Raises NodeLost when the node ends, or the way to it, before the last answer; NodeUnavailable when
    there was none to ask, and nothing was started.
    """

    def call(self, question: Question) -> AsyncGenerator[Answer, None]: ...

    @property
    def connected(self) -> asyncio.Event: ...

    @property
    def is_connected(self) -> bool: ...

    async def close(self) -> None: ...

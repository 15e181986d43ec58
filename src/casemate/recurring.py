"""What a service does by itself, turn after turn, for as long as it is open."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final, Self

from casemate.errors import CasemateError

_LOG: Final = logging.getLogger(__name__)


class Recurring:
    """Carries out turns in a task, one after the other; a turn waits by itself until there is something to do.

    Whatever goes wrong in one is logged, and the next comes after a pause: nothing that only happens once ends it.
    """

    def __init__(self, turn: Callable[[], Awaitable[object]], *, name: str, pause_s: float) -> None:
        self._turn = turn
        self._name = name
        self._pause_s = pause_s
        self._task: asyncio.Task[None] | None = None
        self._is_over = False

    def begin(self) -> None:
        """Go on until the end."""
        self._is_over = False
        self._task = asyncio.create_task(self._go_on(), name=self._name)

    async def end(self) -> None:
        """Cancel the turn, and wait for its end. Idempotent."""
        self._is_over = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def __aenter__(self) -> Self:
        self.begin()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.end()

    async def _go_on(self) -> None:
        while not self._is_over:  # a turn may have had something else to say than that it was cancelled
            try:
                await self._turn()
            except CasemateError as error:
                _LOG.warning("%s: %s", self._name, error, extra={"code": error.code})
                await asyncio.sleep(self._pause_s)
            except Exception:  # noqa: BLE001  (whatever it is, the next turn may be well)
                _LOG.exception("%s: a mistake of ours", self._name)
                await asyncio.sleep(self._pause_s)

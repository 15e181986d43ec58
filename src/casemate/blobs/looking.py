"""Whether the object store answers: asked seldom and within a bound, however often somebody wants to know."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

from casemate.blobs.protocol import Blobs
from casemate.errors import CasemateError
from casemate.object_limits import OBJECTS_LOOK_GIVEN_UP_S, OBJECTS_LOOK_KEPT_S, OBJECTS_LOOK_TIMEOUT_S

OK: Final = "ok"
UNAVAILABLE: Final = "objects_unavailable"
_LOG: Final = logging.getLogger(__name__)


class Looking:
    """Looks once for all who ask meanwhile, and remembers for a while what it saw."""

    def __init__(
        self, blobs: Blobs, *, wait_s: float = OBJECTS_LOOK_TIMEOUT_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._blobs = blobs
        self._wait_s = wait_s
        self._clock = clock
        self._found = UNAVAILABLE
        self._good_until_s = 0.0
        self._looking: asyncio.Task[None] | None = None
        self._began_s = 0.0

    async def state(self) -> str:
        """`ok`, or in a word what is wrong.

        A look that takes long is waited for no longer, and goes on; until it is given up, what was seen last counts.
        """
        if self._looking is None and self._clock() >= self._good_until_s:
            self._began_s = self._clock()
            self._looking = asyncio.create_task(self._look(), name="looking at the object store")
        if self._looking is not None:
            left_s = max(0.0, self._began_s + self._wait_s - self._clock())
            await asyncio.wait([self._looking], timeout=left_s)
        return self._found

    async def _look(self) -> None:
        try:
            async with asyncio.timeout(OBJECTS_LOOK_GIVEN_UP_S):
                await self._blobs.look()
            self._found = OK
        except (CasemateError, TimeoutError) as error:
            _LOG.warning("the object store does not answer: %s", error)
            self._found = UNAVAILABLE
        finally:
            self._good_until_s = self._clock() + OBJECTS_LOOK_KEPT_S
            self._looking = None

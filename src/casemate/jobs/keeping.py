"""The files of one attempt on their way to the objects: what cannot be kept is left out, and the rest is kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable
from typing import Final

import msgspec

from casemate.errors import InvalidInput, TooManyRequests
from casemate.jobs.ports import Collecting
from casemate.limits import EVENTS_MAX
from casemate.model.result import Event, Result

NO_OBJECT: Final = "no object can have that name, or that size"
NO_ROOM: Final = "the tenant has as many bytes of objects as it may"


class Keeping:
    """What a program calls its files, and how large they are, is no reason to lose its result, or its other files.

    Nor is it one to run it again that its tenant has no room for them: there would be no more of it then.
    """

    def __init__(self, files: Collecting) -> None:
        self._files = files
        self._left_out: str | None = None
        self._counts: Counter[str] = Counter()

    async def piece(self, path: str, offset: int, data: bytes) -> None:
        """The next piece of a file. Raises what the store does, but for a file that it can never take."""
        if path != self._left_out:
            await self._passed_on(path, self._files.piece(path, offset, data))

    async def ended(self, path: str, size_bytes: int, digest: str) -> None:
        """All of the file has come."""
        if path != self._left_out:
            await self._passed_on(path, self._files.ended(path, size_bytes, digest))
        self._left_out = None

    async def _passed_on(self, path: str, passing: Awaitable[None]) -> None:
        try:
            await passing
        except (InvalidInput, TooManyRequests) as error:
            self._left_out = path
            self._counts[NO_OBJECT if isinstance(error, InvalidInput) else NO_ROOM] += 1
            await self._files.close()

    def told(self, result: Result) -> Result:
        """The same Result with what was left out."""
        if not self._counts:
            return result
        left_out = (
            Event(kind="not-collected", detail=f"{count} left out: {why}") for why, count in self._counts.items()
        )
        return msgspec.structs.replace(result, events=(*left_out, *result.events)[:EVENTS_MAX])

    async def close(self) -> None:
        """Forget a file that is not whole. Idempotent."""
        await self._files.close()

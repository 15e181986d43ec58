"""The files of one attempt on their way to the objects: one that no object can be is left out, and the rest is kept."""

from __future__ import annotations

from collections.abc import Awaitable

import msgspec

from casemate.errors import InvalidInput
from casemate.jobs.ports import Collecting
from casemate.limits import EVENTS_MAX
from casemate.model.result import Event, Result


class Keeping:
    """What a program calls its files, and how large they are, is no reason to lose its result, or its other files."""

    def __init__(self, files: Collecting) -> None:
        self._files = files
        self._left_out: str | None = None
        self._count = 0

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
        except InvalidInput:
            self._left_out = path
            self._count += 1
            await self._files.close()

    def told(self, result: Result) -> Result:
        """The same Result with what was left out."""
        if not self._count:
            return result
        detail = f"{self._count} left out: no object can have that name, or that size"
        events = (Event(kind="not-collected", detail=detail), *result.events)
        return msgspec.structs.replace(result, events=events[:EVENTS_MAX])

    async def close(self) -> None:
        """Forget a file that is not whole. Idempotent."""
        await self._files.close()

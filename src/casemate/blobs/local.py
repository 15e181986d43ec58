"""Objects on a local disk: one sealed file each, below directories whose names tell nothing.

A file is written under another name and takes its place when all of it is on the disk, so that an object is there whole
or not at all. What a process that died has left behind lies apart, and `sweep` removes it.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from casemate.blobs.envelope import MasterKeys
from casemate.blobs.files import (
    DIRECTORY_MODE,
    Reading,
    Writing,
    blobs_in,
    delete,
    entries,
    group_of,
    groups_in,
    hidden,
    told,
)
from casemate.blobs.keys import place_of
from casemate.blobs.pieces import batches
from casemate.blobs.protocol import Blob, is_as_of
from casemate.errors import ConfigError, RecordsUnavailable
from casemate.model.units import SECOND_US

T = TypeVar("T")
NEW: Final = "new"
_OTHERS: Final = 0o077


class LocalBlobs:
    """Implements Blobs in a directory of its own, with files that only their owner may open."""

    def __init__(self, directory: Path, keys: MasterKeys, clock: Callable[[], float] = time.time) -> None:
        self._directory = directory
        self._keys = keys
        self._clock = clock
        with told():
            for each in (directory, directory / NEW):
                each.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
            found = directory.lstat()
        if found.st_uid != os.geteuid() or found.st_mode & _OTHERS:
            raise ConfigError("objects", f"{directory} is open to others", hint=f"chmod 700 {directory}")

    async def put(self, key: str, data: AsyncIterator[bytes], *, size_max_bytes: int) -> Blob:
        """As the protocol says."""
        place_of(key)
        writing = await in_thread(lambda: Writing(self._directory / NEW, key, self._keys), undo=Writing.close)
        try:
            async for batch in batches(data, size_max_bytes):
                await in_thread(partial(writing.write, batch))
            return await in_thread(lambda: writing.keep(self._path(key), int(self._clock() * SECOND_US)))
        finally:
            await in_thread(writing.close)

    async def head(self, key: str) -> Blob:
        """As the protocol says."""
        return await in_thread(lambda: self._look(key))

    def _look(self, key: str) -> Blob:
        reading = Reading(self._path(key), key, self._keys, 0)
        reading.close()
        return reading.head.blob

    async def get(self, key: str, *, offset: int = 0, as_of: Blob | None = None) -> AsyncIterator[bytes]:
        """As the protocol says."""
        reading = await in_thread(lambda: Reading(self._path(key), key, self._keys, offset), undo=Reading.close)
        try:
            is_as_of(reading.head.blob, as_of)
            while piece := await in_thread(reading.read):
                yield piece
        finally:
            reading.close()

    async def list(self, prefix: str) -> AsyncIterator[Blob]:
        """As the protocol says. In memory is what one job has, or one tenant shares."""
        for _, group in await in_thread(lambda: groups_in(self._directory, prefix, self._keys, NEW)):
            for blob in await in_thread(partial(blobs_in, group, self._keys)):
                if blob.key.startswith(prefix):
                    yield blob

    async def delete(self, key: str) -> bool:
        """As the protocol says."""
        return await in_thread(lambda: delete(self._path(key)))

    async def look(self) -> None:
        """As the protocol says."""
        await in_thread(self._look_at_directory)

    def _look_at_directory(self) -> None:
        try:
            with told():
                (self._directory / NEW).stat()
        except FileNotFoundError as error:
            raise RecordsUnavailable("io", "the directory of the objects is gone") from error

    def sweep(self) -> int:
        """Remove what a process that died has begun to write; how much that was. Only while nobody writes."""
        with told():
            found = list((self._directory / NEW).iterdir())
            for each in found:
                each.unlink()
        return len(found)

    # Where things are -----------------------------------------------------------------------------

    def _path(self, key: str) -> Path:
        tenant, _, _ = key.partition("/")
        return self._directory / hidden(tenant) / hidden(group_of(key)) / hidden(key)


def has_objects(directory: Path) -> bool:
    """Whether there is anything that needs a key."""
    return any(each.name != NEW for each in entries(directory))


async def in_thread(work: Callable[[], T], undo: Callable[[T], object] | None = None) -> T:
    """Work of a thread, which is at its end when this returns, also when the caller gives up: it uses a file of his.

    `undo` is for what it has made then, of which nobody knows.
    """
    task: asyncio.Future[Any] = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        found: T = await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        if task.exception() is None and undo is not None:
            undo(task.result())
        raise
    return found

"""Where objects are kept: by key, as streams of bytes.

A key is `TENANT/jobs/JOB/AREA/PATH`, `TENANT/templates/PATH` or `TENANT/shared/PATH`: see `keys`, which alone makes
them. What stands behind the protocol never sees a key that could mean a place of another tenant, or one of the host.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

import msgspec

from casemate.errors import Conflict


class Blob(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one object.

    `digest`: SHA-256 of its bytes, in hexadecimal. In lists of objects in S3, and for those that somebody else has
    written there, it is empty.
    """

    key: str
    size_bytes: int
    digest: str
    modified_us: int


class Blobs(Protocol):
    """Six methods, one suite over all that implement them (`tests/conformance/test_blobs.py`).

    An object is there whole or not at all: a `put` that fails, or whose process dies, leaves what was there before.
    Keys are listed in their order.
    """

    async def put(self, key: str, data: AsyncIterator[bytes], *, size_max_bytes: int) -> Blob:
        """Write an object in the place of one that is there. Raises InvalidInput where it is larger than that."""

    async def head(self, key: str) -> Blob:
        """What is known of it. Raises NotFound."""

    def get(self, key: str, *, offset: int = 0, as_of: Blob | None = None) -> AsyncIterator[bytes]:
        """Its bytes, from an offset on.

        Raises NotFound, RecordsDamaged where they are not what was written, InvalidInput for an offset behind its end,
        and Conflict where it is not any more what it was, as `head` has told.
        """

    def list(self, prefix: str) -> AsyncIterator[Blob]:
        """Every object whose key begins with that."""

    async def delete(self, key: str) -> bool:
        """False: it was not there."""

    async def look(self) -> None:
        """Raise RecordsUnavailable where the place of objects is not there. It is cheap, and reads no object."""


def is_as_of(found: Blob, wanted: Blob | None) -> None:
    """Raise Conflict where another object has taken the place of the one that is wanted."""
    if wanted is None:
        return
    differs = (found.size_bytes, found.modified_us) != (wanted.size_bytes, wanted.modified_us)
    if differs or (found.digest and wanted.digest and found.digest != wanted.digest):
        raise Conflict("the object has been replaced meanwhile", hint="ask again")

"""Objects that come in parts, in any order and again after a break; they are one when they are complete."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Final

import msgspec

from casemate.blobs.keys import UPLOADS, key_of, place_of, prefix_of, upload_key
from casemate.blobs.objects import Objects
from casemate.blobs.pieces import pieces_of
from casemate.blobs.protocol import Blob
from casemate.errors import Conflict, InvalidInput, NotFound, TooManyRequests
from casemate.model.ids import is_id, new_id
from casemate.object_limits import UPLOAD_PARTS_MAX, UPLOADS_A_TENANT_MAX

_ABOUT: Final = "about"
_PREFIX: Final = "upl"
_RETRY_S: Final = 60.0


class Upload(msgspec.Struct, frozen=True, kw_only=True):
    """One that is not complete. `parts` are those that have come, by their numbers."""

    id: str
    name: str
    digest: str = ""
    parts: dict[int, Blob] = {}


class _About(msgspec.Struct, frozen=True):
    name: str
    digest: str


class Uploads:
    """Parts lie beside the objects until they are one, or until they are too old."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    async def begin(self, tenant: str, name: str, digest: str) -> Upload:
        """An upload of that object. Raises InvalidInput for a wrong name, and TooManyRequests."""
        key_of(tenant, name)
        if await self._count(tenant) >= UPLOADS_A_TENANT_MAX:
            problem = f"this tenant has {UPLOADS_A_TENANT_MAX} uploads that are not complete"
            raise TooManyRequests(problem, retry_after_s=_RETRY_S, hint="complete or delete some")
        upload = Upload(id=new_id(_PREFIX), name=name, digest=digest)
        about = msgspec.json.encode(_About(name, digest))
        await self._objects.put_key(upload_key(tenant, upload.id, _ABOUT), pieces_of(about))
        return upload

    async def _count(self, tenant: str) -> int:
        async with self._objects.listing(tenant):
            begun = self._objects.blobs.list(prefix_of(tenant, f"{UPLOADS}/"))
            return len({place_of(blob.key).group async for blob in begun})

    async def look(self, tenant: str, upload_id: str) -> Upload:
        """What has come of it. Raises NotFound."""
        about = await self._about(tenant, upload_id)
        parts = {}
        async for blob in self._objects.blobs.list(upload_key(tenant, upload_id, "x").removesuffix("x")):
            part = place_of(blob.key).path
            if part != _ABOUT:
                parts[int(part)] = blob
        return Upload(id=upload_id, name=about.name, digest=about.digest, parts=parts)

    async def _about(self, tenant: str, upload_id: str) -> _About:
        missing = NotFound(f"there is no upload {upload_id[:80]!r}", hint="it may be complete, or too old")
        if not is_id(upload_id, _PREFIX):
            raise missing
        try:
            async with aclosing(self._objects.blobs.get(upload_key(tenant, upload_id, _ABOUT))) as pieces:  # type: ignore[type-var]
                return msgspec.json.decode(b"".join([piece async for piece in pieces]), type=_About)
        except NotFound as error:
            raise missing from error

    async def put_part(
        self, tenant: str, upload_id: str, number: int, data: AsyncIterator[bytes], *, digest: str
    ) -> Blob:
        """A part, in the place of one of that number. Raises NotFound, and InvalidInput."""
        if not 1 <= number <= UPLOAD_PARTS_MAX:
            raise InvalidInput("part", f"must be from 1 to {UPLOAD_PARTS_MAX}")
        await self._about(tenant, upload_id)
        return await self._objects.put_key(upload_key(tenant, upload_id, f"{number:05}"), data, digest=digest)

    async def complete(self, tenant: str, upload_id: str) -> Blob:
        """Make one object of its parts. Raises NotFound, Conflict where one is missing, InvalidInput for its digest."""
        upload = await self.look(tenant, upload_id)
        if sorted(upload.parts) != list(range(1, len(upload.parts) + 1)):
            missing = next(number for number in range(1, UPLOAD_PARTS_MAX + 1) if number not in upload.parts)
            raise Conflict(f"part {missing} has not come", hint="send it, and ask again")
        blob = await self._objects.put(tenant, upload.name, self._all(upload), digest=upload.digest)
        await self.delete(tenant, upload_id)
        return blob

    async def _all(self, upload: Upload) -> AsyncIterator[bytes]:
        for number in sorted(upload.parts):
            async with aclosing(self._objects.get(upload.parts[number])) as pieces:  # type: ignore[type-var]
                async for piece in pieces:
                    yield piece

    async def delete(self, tenant: str, upload_id: str) -> None:
        """Forget it and what has come of it. Raises NotFound."""
        await self._about(tenant, upload_id)
        await self._objects.delete_all(upload_key(tenant, upload_id, "x").removesuffix("x"))

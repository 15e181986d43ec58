"""The objects of tenants, by the names that tenants give them: bounded, checked by digest, and counted."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from weakref import WeakValueDictionary

import msgspec

from casemate.blobs import signed
from casemate.blobs.keys import UPLOADS, job_prefix, key_of, name_in, place_of, prefix_of
from casemate.blobs.protocol import Blob, Blobs
from casemate.blobs.reserved import Reserved
from casemate.errors import InvalidInput, NotFound, TooManyRequests
from casemate.object_config import ObjectsTerms
from casemate.object_limits import (
    DIRECT_ADDRESSES_A_TENANT_MAX,
    DIRECT_COUNTED_AFTER_S,
    DIRECT_PUT_MAX_BYTES,
    OBJECT_OVERHEAD_BYTES,
)

_RETRY_S = 60.0


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """Some of a tenant's objects. `next_name`: behind which the next page begins; None: there is no more."""

    items: tuple[Blob, ...]
    next_name: str | None = None


class Objects:
    """What one tenant names is never another's: its id stands before every name."""

    def __init__(self, blobs: Blobs, terms: ObjectsTerms) -> None:
        self.blobs = blobs
        self.terms = terms
        self.room = Room(blobs, terms.tenant_max_bytes)
        self._changing: dict[str, _Standing] = {}
        self._listing: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def put(
        self,
        tenant: str,
        name: str,
        data: AsyncIterator[bytes],
        *,
        digest: str = "",
        size_max_bytes: int | None = None,
    ) -> Blob:
        """Write an object. `digest`: what it has to have, or empty.

        Raises InvalidInput for a wrong name, digest or size, and TooManyRequests where the tenant has too much already.
        """
        return await self.put_key(key_of(tenant, name), data, digest=digest, size_max_bytes=size_max_bytes)

    async def put_key(
        self, key: str, data: AsyncIterator[bytes], *, digest: str = "", size_max_bytes: int | None = None
    ) -> Blob:
        """The same, for what is no object of a tenant's naming."""
        most = self.terms.object_max_bytes
        most = most if size_max_bytes is None else min(most, size_max_bytes)
        tenant = place_of(key).tenant
        async with self._standing(key) as standing:
            taken = await self.room.taking(tenant)
            try:
                blob = await self.blobs.put(key, taken.counted(checked(data, digest)), size_max_bytes=most)
            except BaseException:
                taken.give_back()
                raise
            self.room.give_back(tenant, standing.replaced(cost_of(blob)))
        return blob

    @asynccontextmanager
    async def _standing(self, key: str) -> AsyncIterator[_Standing]:
        """What an object costs, for those who change it: what two of them replace at once is given back once."""
        standing = self._changing.setdefault(key, _Standing())
        standing.users += 1
        try:
            async with standing.lock:
                if not standing.is_known:
                    standing.cost_bytes, standing.is_known = await self._cost_of(key), True
            yield standing
        finally:
            standing.users -= 1
            if not standing.users:
                del self._changing[key]

    async def _cost_of(self, key: str) -> int:
        try:
            return cost_of(await self.blobs.head(key))
        except NotFound:
            return 0

    async def head(self, tenant: str, name: str) -> Blob:
        """What is known of it. Raises InvalidInput for a wrong name, and NotFound."""
        return await self._told(self.blobs.head(key_of(tenant, name)), name)

    async def _told(self, looking: object, name: str) -> Blob:
        try:
            found: Blob = await looking  # type: ignore[misc]
        except NotFound as error:
            raise NotFound(f"there is no object {name[:200]!r}") from error
        return found

    def get(self, blob: Blob, *, offset: int = 0) -> AsyncIterator[bytes]:
        """The bytes of what `head` has told of. Raises Conflict where it is not that any more."""
        return self.blobs.get(blob.key, offset=offset, as_of=blob)

    async def list(self, tenant: str, prefix: str, *, limit: int, behind: str = "") -> Listing:
        """Objects whose names begin so, in the order of their names. One list of a tenant at a time: all are read."""
        async with self.listing(tenant):
            return await self._listed(tenant, prefix, limit, behind)

    def listing(self, tenant: str) -> asyncio.Lock:
        """Held by who goes through all that a tenant has."""
        return self._listing.setdefault(tenant, asyncio.Lock())

    async def _listed(self, tenant: str, prefix: str, limit: int, behind: str) -> Listing:
        found: list[Blob] = []
        async with aclosing(self.blobs.list(prefix_of(tenant, prefix))) as blobs:  # type: ignore[type-var]
            async for blob in blobs:
                name = name_in(tenant, blob.key)
                if name <= behind or name.startswith(f"{UPLOADS}/"):
                    continue
                if len(found) == limit:
                    return Listing(items=tuple(found), next_name=name_in(tenant, found[-1].key))
                found.append(blob)
        return Listing(items=tuple(found))

    async def direct(self, tenant: str, name: str, *, method: str, life_s: float, size_bytes: int | None) -> str:
        """An address at the store itself. What may be put there is set aside until it has been counted.

        Raises InvalidInput, and TooManyRequests.
        """
        presigned = getattr(self.blobs, "presigned", None)
        if presigned is None:
            raise InvalidInput("direct", "objects are not in S3 here", hint="leave it out")
        key, is_put = key_of(tenant, name), method == signed.PUT
        if is_put:
            size_bytes = self._size_of_direct(size_bytes)
            kept_s = life_s + DIRECT_COUNTED_AFTER_S
            await self.room.reserve(tenant, key, size_bytes + OBJECT_OVERHEAD_BYTES, life_s=kept_s)
        found: str = await presigned(key, life_s=life_s, size_bytes=size_bytes if is_put else None)
        return found

    def _size_of_direct(self, size_bytes: int | None) -> int:
        most = min(self.terms.object_max_bytes, DIRECT_PUT_MAX_BYTES)
        if size_bytes is None:
            hint = "exactly so many bytes can be put there"
            raise InvalidInput("size_max_bytes", "is missing: the object store has to be told", hint=hint)
        if size_bytes > most:
            raise InvalidInput("size_max_bytes", f"must be at most {most} with direct", hint="put it in parts")
        return size_bytes

    async def delete(self, tenant: str, name: str) -> bool:
        """False: it was not there. Raises InvalidInput for a wrong name."""
        key = key_of(tenant, name)
        async with self._standing(key) as standing:
            is_gone = await self.blobs.delete(key)
            if is_gone:
                self.room.give_back(tenant, standing.replaced(0))
        return is_gone

    async def delete_job(self, tenant: str, job: str) -> None:
        """All files of a job. Idempotent."""
        await self.delete_all(job_prefix(tenant, job))

    async def delete_tenant(self, tenant: str) -> None:
        """All that a tenant has. Idempotent."""
        await self.delete_all(prefix_of(tenant))
        self.room.forget(tenant)

    async def delete_all(self, prefix: str) -> None:
        """Whatever has a key with that beginning. Idempotent."""
        tenant = prefix.partition("/")[0]
        async with aclosing(self.blobs.list(prefix)) as blobs:  # type: ignore[type-var]
            async for blob in blobs:
                if await self.blobs.delete(blob.key):
                    self.room.give_back(tenant, cost_of(blob))


class _Standing:
    """What somebody is changing: what it costs as long as they do, and how many they are."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.users = 0
        self.is_known = False
        self.cost_bytes = 0

    def replaced(self, cost_bytes: int) -> int:
        """It costs that now; what it did before."""
        before, self.cost_bytes = self.cost_bytes, cost_bytes
        return before


def cost_of(blob: Blob) -> int:
    """What an object counts for: an empty one takes a place on the disk, too."""
    return blob.size_bytes + OBJECT_OVERHEAD_BYTES


async def checked(data: AsyncIterator[bytes], digest: str) -> AsyncIterator[bytes]:
    """The same bytes. Raises InvalidInput at their end where they are not those that were meant."""
    seen = hashlib.sha256()
    async for piece in data:
        if digest:
            seen.update(piece)
        yield piece
    if digest and seen.hexdigest() != digest:
        raise InvalidInput("digest", "is not that of what has come", hint="send it again")


class Room:
    """How much each tenant keeps, counted when it first matters, and anew now and then; and what is set aside."""

    def __init__(self, blobs: Blobs, most_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._blobs = blobs
        self._most_bytes = most_bytes
        self._clock = clock
        self._held: dict[str, int] = {}
        self._reserved: dict[str, Reserved] = {}
        self._counting: dict[str, asyncio.Lock] = {}

    async def taking(self, tenant: str) -> Taking:
        """For one object that is coming. Raises TooManyRequests."""
        await self._know(tenant)
        taking = Taking(self, tenant)
        taking.take(OBJECT_OVERHEAD_BYTES)
        return taking

    async def _know(self, tenant: str) -> None:
        if tenant not in self._held:
            async with self._counting.setdefault(tenant, asyncio.Lock()):
                if tenant not in self._held:
                    self._held[tenant] = await self._counted(tenant)
            self._counting.pop(tenant, None)

    async def reserve(self, tenant: str, key: str, count: int, *, life_s: float) -> None:
        """Set room aside for what may be put under a key by a way that is not ours. Raises TooManyRequests."""
        await self._know(tenant)
        reserved = self._reserved.setdefault(tenant, Reserved())
        at_s = self._clock()
        reserved.held_bytes(at_s)
        more = count - reserved.of(key)
        if not reserved.of(key) and len(reserved) >= DIRECT_ADDRESSES_A_TENANT_MAX:
            problem = f"this tenant has {DIRECT_ADDRESSES_A_TENANT_MAX} addresses at the object store to put something"
            raise TooManyRequests(problem, retry_after_s=_RETRY_S, hint="wait until some have expired")
        self._check(tenant, self._held.get(tenant, 0) + max(0, more))
        reserved.put(key, count, at_s + life_s)

    async def _counted(self, tenant: str) -> int:
        async with aclosing(self._blobs.list(prefix_of(tenant))) as blobs:  # type: ignore[type-var]
            return sum([cost_of(blob) async for blob in blobs])

    def take(self, tenant: str, count: int) -> None:
        """Have so much more. Raises TooManyRequests."""
        held = self._held.get(tenant, 0) + count
        self._check(tenant, held)
        self._held[tenant] = held

    def _check(self, tenant: str, held: int) -> None:
        if held + self._set_aside(tenant) > self._most_bytes:
            problem = f"this tenant's objects have {self._most_bytes} bytes already, which is all they may"
            raise TooManyRequests(problem, retry_after_s=_RETRY_S, hint="delete what nobody needs")

    def _set_aside(self, tenant: str) -> int:
        reserved = self._reserved.get(tenant)
        return 0 if reserved is None else reserved.held_bytes(self._clock())

    def give_back(self, tenant: str, count: int) -> None:
        """Have so much less."""
        if tenant in self._held:
            self._held[tenant] = max(0, self._held[tenant] - count)

    def held_by(self, tenant: str) -> int:
        """How much that is, as far as it is known, with what is set aside."""
        return self._held.get(tenant, 0) + self._set_aside(tenant)

    def counted(self, found: Mapping[str, int]) -> None:
        """What there really is."""
        self._held = {tenant: found.get(tenant, 0) for tenant in {*self._held, *found}}

    def forget(self, tenant: str) -> None:
        """Count anew when it next matters."""
        self._held.pop(tenant, None)
        self._reserved.pop(tenant, None)


class Taking:
    """The room that one object takes while it comes."""

    def __init__(self, room: Room, tenant: str) -> None:
        self._room = room
        self._tenant = tenant
        self._bytes = 0

    async def counted(self, data: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The same bytes. Raises TooManyRequests where there is no room for them."""
        async for piece in data:
            self.take(len(piece))
            yield piece

    def take(self, count: int) -> None:
        """So much more. Raises TooManyRequests."""
        self._room.take(self._tenant, count)
        self._bytes += count

    def give_back(self) -> None:
        """It has not come after all."""
        self._room.give_back(self._tenant, self._bytes)
        self._bytes = 0

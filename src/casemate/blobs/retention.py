"""What becomes of objects that nobody deletes: each area has its days, and what is older goes."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import aclosing
from typing import Final

import msgspec

from casemate.blobs.keys import place_of
from casemate.blobs.objects import Objects, cost_of
from casemate.blobs.protocol import Blob
from casemate.errors import InvalidInput
from casemate.object_limits import ORPHAN_KEPT_US

_LOG: Final = logging.getLogger(__name__)


class Swept(msgspec.Struct, frozen=True, kw_only=True):
    """What a sweep has found: bytes of each tenant that are kept, and how many objects are not any more."""

    kept_bytes: dict[str, int]
    removed: int


def is_expired(blob: Blob, kept_us: Mapping[str, int], tenants: Collection[str], *, at_us: int) -> bool:
    """Whether an object is older than its area's are kept, or belongs to a tenant that is no more."""
    place = place_of(blob.key)
    age_us = at_us - blob.modified_us
    if place.tenant not in tenants:
        return age_us > ORPHAN_KEPT_US
    most_us = kept_us.get(place.area)
    return most_us is not None and age_us > most_us


async def sweep(objects: Objects, tenants: Collection[str], *, at_us: int) -> Swept:
    """Look at every object, and remove those that have expired."""
    kept: Counter[str] = Counter()
    costs: Counter[str] = Counter()
    removed = 0
    async with aclosing(objects.blobs.list("")) as blobs:  # type: ignore[type-var]
        async for blob in blobs:
            try:
                expired = is_expired(blob, objects.terms.kept_us, tenants, at_us=at_us)
            except InvalidInput:
                _LOG.warning("there is an object that no name of ours leads to")
                continue
            if expired:
                removed += await objects.blobs.delete(blob.key)
            else:
                tenant = blob.key.partition("/")[0]
                kept[tenant] += blob.size_bytes
                costs[tenant] += cost_of(blob)
    objects.room.counted(costs)
    return Swept(kept_bytes=dict(kept), removed=removed)

"""How often: token buckets. Pure, the clock is passed in."""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from casemate.service_limits import RATE_BUCKETS_MAX


class Bucket(msgspec.Struct, frozen=True):
    """So many tokens there were at that time."""

    tokens: float
    at_s: float


def take(bucket: Bucket | None, *, rate_per_s: float, burst: int, now_s: float) -> tuple[Bucket, float]:
    """Take a token of a bucket, a full one at first; and how long to wait for one: 0 if it was there.

    A refusal takes nothing: who asks too often gets its rate nevertheless.
    """
    tokens = float(burst) if bucket is None else bucket.tokens + max(0.0, now_s - bucket.at_s) * rate_per_s
    tokens = min(tokens, float(burst))
    if tokens >= 1.0:
        return Bucket(tokens - 1.0, now_s), 0.0
    return Bucket(tokens, now_s), (1.0 - tokens) / rate_per_s


class Rates:
    """The buckets of all keys. Beyond a number of them, the one that was used longest ago is forgotten: it is full
    again, unless so many keys are in use at a time.
    """

    def __init__(self, buckets_max: int = RATE_BUCKETS_MAX) -> None:
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()
        self._buckets_max = buckets_max

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, key_id: str, *, rate_per_s: float, burst: int, now_s: float) -> float:
        """How long a key has to wait before it asks again: 0 if it may go on."""
        bucket, wait_s = take(self._buckets.get(key_id), rate_per_s=rate_per_s, burst=burst, now_s=now_s)
        self._buckets[key_id] = bucket
        self._buckets.move_to_end(key_id)
        if len(self._buckets) > self._buckets_max:
            self._buckets.popitem(last=False)
        return wait_s

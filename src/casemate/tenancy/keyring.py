"""Proves keys: which key a text is, and whether it may go on. Over the records, with what was read lately in memory."""

from __future__ import annotations

import hmac
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import partial

import msgspec

from casemate.errors import TooManyRequests, Unauthenticated
from casemate.model.units import SECOND_US
from casemate.service_limits import KEY_CACHED_S, KEY_USE_NOTED_S, KEYS_CACHED_MAX
from casemate.store.database import Database
from casemate.store.keys import Key, Owned, note_use, with_digest, with_id
from casemate.store.tenants import ACTIVE, Tenant
from casemate.tenancy.keys import digest, is_key
from casemate.tenancy.rate import Rates
from casemate.tenancy.scopes import Scopes
from casemate.tenancy.terms import Principal


class Keyring:
    """Keys that were proven lately. Whoever changes keys or tenants in this process calls `forget`."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock
        self._rates = Rates()
        self._known: OrderedDict[bytes, tuple[Owned, float]] = OrderedDict()
        self._generation = 0

    async def authenticate(self, text: str) -> Principal:
        """Who a key is. Raises Unauthenticated for every key that is none (unknown, revoked, expired), in the same
        words and after the same look-up.
        """
        wanted = digest(text)
        owned = self._remembered(wanted)
        if owned is None and is_key(text):
            owned = await self._looked_up(wanted)
        now_us = int(self._clock() * SECOND_US)
        if owned is None or not hmac.compare_digest(owned.key.digest, wanted) or not owned.key.is_live(now_us):
            raise Unauthenticated("the key is not known", hint="keys begin with cm_; revoked and expired keys are gone")
        if owned.tenant.state != ACTIVE:
            raise Unauthenticated("the tenant of this key is suspended")
        self._note_use(wanted, owned, now_us)
        return _principal(owned.key, owned.tenant)

    async def principal_of(self, key_id: str) -> Principal | None:
        """Whose key has that id, if it may go on; for requests that prove by a signature that they have it."""
        owned = await self._database.read(partial(with_id, key_id=key_id))
        if owned is None or not owned.key.is_live(int(self._clock() * SECOND_US)) or owned.tenant.state != ACTIVE:
            return None
        return _principal(owned.key, owned.tenant)

    def admit(self, principal: Principal) -> None:
        """Count a request. Raises TooManyRequests for a key that is over its rate."""
        wait_s = self._rates.take(
            principal.key_id, rate_per_s=principal.rate_per_s, burst=principal.burst, now_s=time.monotonic()
        )
        if wait_s > 0:
            allowed = f"{principal.rate_per_s:g} requests a second, {principal.burst} at once"
            raise TooManyRequests(f"the key may send {allowed}", retry_after_s=wait_s)

    def forget(self) -> None:
        """Look everything up anew: keys or tenants have changed."""
        self._generation += 1
        self._known.clear()

    def _remembered(self, wanted: bytes) -> Owned | None:
        owned, read_s = self._known.get(wanted, (None, 0.0))
        return owned if time.monotonic() - read_s < KEY_CACHED_S else None

    async def _looked_up(self, wanted: bytes) -> Owned | None:
        generation = self._generation
        read_s = time.monotonic()
        owned = await self._database.read(partial(with_digest, digest=wanted))
        if owned is not None and owned.key.revoked_us is None and generation == self._generation:
            self._remember(wanted, owned, read_s)
        return owned

    def _remember(self, wanted: bytes, owned: Owned, read_s: float) -> None:
        self._known[wanted] = (owned, read_s)
        self._known.move_to_end(wanted)
        if len(self._known) > KEYS_CACHED_MAX:
            self._known.popitem(last=False)

    def _note_use(self, wanted: bytes, owned: Owned, now_us: int) -> None:
        """Remember when the key was last used, not for every request."""
        key = owned.key
        if key.last_used_us is not None and now_us - key.last_used_us < KEY_USE_NOTED_S * SECOND_US:
            return
        self._database.post(partial(note_use, tenant_id=key.tenant_id, key_id=key.id, at_us=now_us))
        if wanted in self._known:
            used = Owned(msgspec.structs.replace(key, last_used_us=now_us), owned.tenant)
            self._known[wanted] = (used, self._known[wanted][1])


def scopes_of(key: Key) -> Scopes:
    """What a key may do, by its row. A row that does not say what is denied is none that we have written."""
    return Scopes(allow=tuple(key.scopes["allow"]), deny=tuple(key.scopes["deny"]))


def _principal(key: Key, tenant: Tenant) -> Principal:
    return Principal(
        tenant_id=tenant.id,
        tenant_name=tenant.name,
        key_id=key.id,
        scopes=scopes_of(key),
        rate_per_s=key.rate_per_s,
        burst=key.burst,
        concurrency_max=tenant.concurrency_max,
        queue_max=tenant.queue_max,
        expires_us=key.expires_us,
    )

"""Signed addresses: given by a key, and good for as long as that key is, if not for less."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from casemate.blobs import signed
from casemate.blobs.keys import key_of
from casemate.blobs.signed import Grant
from casemate.errors import AddressRefused, InvalidInput
from casemate.model.units import SECOND_US
from casemate.tenancy.secrets import Signing
from casemate.tenancy.tenants import Tenancy
from casemate.tenancy.terms import Principal

READ: Final = "objects:read"
WRITE: Final = "objects:write"
SCOPES: Final = {signed.GET: READ, signed.PUT: WRITE}


class Addresses:
    """Gives them, and tells whether one is good."""

    def __init__(
        self, signing: Signing, tenancy: Tenancy, *, life_max_s: float, clock: Callable[[], float] = time.time
    ) -> None:
        self._signing = signing
        self._tenancy = tenancy
        self._life_max_s = life_max_s
        self._clock = clock

    def give(self, who: Principal, *, name: str, method: str, life_s: float, size_max_bytes: int) -> tuple[Grant, str]:
        """A grant and its token. Raises InvalidInput, and PermissionDenied for what the key may not do itself."""
        if method not in SCOPES:
            raise InvalidInput("method", "must be GET or PUT")
        who.scopes.require(SCOPES[method])
        key_of(who.tenant_id, name)
        if not 0 < life_s <= self._life_max_s:
            raise InvalidInput("expires_in_s", f"must be above 0 and at most {self._life_max_s:g}")
        grant = Grant(
            tenant=who.tenant_id,
            key_id=who.key_id,
            method=method,
            name=name,
            expires_us=int((self._clock() + life_s) * SECOND_US),
            size_max_bytes=size_max_bytes,
        )
        return grant, signed.token_of(grant, self._signing.address_secrets(who.key_id)[0])

    async def checked(self, token: str, *, method: str) -> Grant:
        """What a token grants. Raises AddressRefused, also where the key that has given it is none any more."""
        claimed = signed.claimed(token)
        secrets = self._signing.address_secrets(claimed.key_id)
        grant = signed.check(token, secrets, method=method, at_us=int(self._clock() * SECOND_US))
        giver = await self._tenancy.principal_of(grant.key_id)
        if giver is None or giver.tenant_id != grant.tenant or not giver.scopes.permits(SCOPES[grant.method]):
            raise AddressRefused("the key that has given this address is no more, or may do less")
        return grant

"""Tenants and keys: made, changed, rotated, revoked. A change counts before its caller is told of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import msgspec

from casemate.errors import Conflict
from casemate.model.ids import new_id
from casemate.model.units import SECOND_US
from casemate.service_limits import KEY_BURST_MAX, KEY_RATE_MAX_PER_S, PAGE_DEFAULT_COUNT
from casemate.store import keys as key_rows
from casemate.store import tenants as tenant_rows
from casemate.store.database import Database, Records
from casemate.store.keys import Key
from casemate.store.pages import Page
from casemate.store.tenants import ACTIVE, Tenant
from casemate.tenancy.keyring import Keyring, scopes_of
from casemate.tenancy.keys import digest, new_key, shown
from casemate.tenancy.scopes import ADMIN, Scopes
from casemate.tenancy.terms import OPERATOR, KeyTerms, Principal, TenantTerms, check_key, check_tenant

T = TypeVar("T")


class NewKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key that was just made. `text` is shown once: it is nowhere else."""

    key: Key
    text: str


class Tenancy:
    """Who may ask. Each method about a tenant's keys takes that tenant: another's are not found."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock
        self.keyring = Keyring(database, clock)

    async def first_start(self) -> str | None:
        """Make the operator's tenant and a key that may do everything, and return that; None if it is there already."""
        terms = KeyTerms(
            name="first", scopes=Scopes(allow=(ADMIN,)), rate_per_s=KEY_RATE_MAX_PER_S, burst=KEY_BURST_MAX
        )
        tenant = self._tenant(TenantTerms(name=OPERATOR))
        made = self._key(tenant.id, terms)
        is_first = await self._change(partial(_begin, tenant=tenant, key=made.key))
        return made.text if is_first else None

    async def authenticate(self, text: str) -> Principal:
        """Who a key is. Raises Unauthenticated."""
        return await self.keyring.authenticate(text)

    async def principal_of(self, key_id: str) -> Principal | None:
        """Whose key has that id; None if nobody's may go on."""
        return await self.keyring.principal_of(key_id)

    def admit(self, principal: Principal) -> None:
        """Count a request of a key. Raises TooManyRequests."""
        self.keyring.admit(principal)

    # Tenants --------------------------------------------------------------------------------------

    async def create_tenant(self, terms: TenantTerms) -> Tenant:
        """Raises InvalidInput, and Conflict where the name is taken."""
        check_tenant(msgspec.structs.asdict(terms))
        tenant = self._tenant(terms)
        await self._change(partial(tenant_rows.insert_tenant, tenant=tenant))
        return tenant

    async def tenant(self, tenant_id: str) -> Tenant:
        """Raises NotFound."""
        return await self._database.read(partial(tenant_rows.get, tenant_id=tenant_id))

    async def list_tenants(self, *, limit: int = PAGE_DEFAULT_COUNT, cursor: str | None = None) -> Page[Tenant]:
        return await self._database.read(partial(tenant_rows.list_tenants, limit=limit, cursor=cursor))

    async def change_tenant(self, tenant_id: str, **values: str | int | dict[str, str]) -> Tenant:
        """Change `name`, `state`, `concurrency_max`, `queue_max` or `labels`.

        Raises InvalidInput, NotFound, and Conflict where a name is taken.
        """
        check_tenant(values)
        return await self._change(partial(_change_tenant, tenant_id=tenant_id, values=values))

    async def delete_tenant(self, tenant_id: str) -> None:
        """Delete a tenant with all that belongs to it. Raises NotFound, and Conflict for the operator's."""
        await self._change(partial(_delete_tenant, tenant_id=tenant_id))

    # Keys -----------------------------------------------------------------------------------------

    async def create_key(
        self, tenant_id: str, terms: KeyTerms, *, granting: Scopes | None = None, until_us: int | None = None
    ) -> NewKey:
        """A new key, which may do no more than one with the scopes `granting` that makes it, nor after `until_us`.

        Raises InvalidInput, PermissionDenied, NotFound, Conflict.
        """
        check_key(terms)
        if granting is not None:
            terms = msgspec.structs.replace(terms, scopes=terms.scopes.within(granting))
        made = _ending(self._key(tenant_id, terms), until_us)
        await self._change(partial(key_rows.insert_key, key=made.key))
        return made

    async def key(self, tenant_id: str | None, key_id: str) -> Key:
        """Raises NotFound."""
        return await self._database.read(partial(key_rows.get, tenant_id=tenant_id, key_id=key_id))

    async def list_keys(
        self, tenant_id: str | None, *, limit: int = PAGE_DEFAULT_COUNT, cursor: str | None = None
    ) -> Page[Key]:
        """None: of all tenants."""
        return await self._database.read(partial(key_rows.list_keys, tenant_id=tenant_id, limit=limit, cursor=cursor))

    async def rotate_key(
        self,
        tenant_id: str | None,
        key_id: str,
        *,
        granting: Scopes | None = None,
        until_us: int | None = None,
        grace_s: float = 0.0,
    ) -> NewKey:
        """A new key in the place of one, which ends after `grace_s`. Raises NotFound, PermissionDenied, Conflict."""
        old = await self.key(tenant_id, key_id)
        if granting is not None:
            scopes_of(old).require_within(granting)
        made = _ending(_with_text(old, self._now_us()), until_us)
        await self._change(partial(_rotate, old=old, new=made.key, grace_us=int(grace_s * SECOND_US)))
        return made

    async def revoke_key(self, tenant_id: str | None, key_id: str) -> Key:
        """End a key at once. Raises NotFound, and Conflict for the operator's last key that may do everything."""
        return await self._change(partial(_revoke, tenant_id=tenant_id, key_id=key_id, at_us=self._now_us()))

    # Inside ---------------------------------------------------------------------------------------

    async def _change(self, operation: Callable[[Records], T]) -> T:
        """Write, and have the keys looked up anew, also when the caller gives up meanwhile."""
        return await asyncio.shield(asyncio.ensure_future(self._write_and_forget(operation)))

    async def _write_and_forget(self, operation: Callable[[Records], T]) -> T:
        try:
            return await self._database.write(operation)
        finally:
            self.keyring.forget()

    def _now_us(self) -> int:
        return int(self._clock() * SECOND_US)

    def _tenant(self, terms: TenantTerms) -> Tenant:
        return Tenant(id=new_id("ten"), state=ACTIVE, created_us=self._now_us(), **msgspec.structs.asdict(terms))

    def _key(self, tenant_id: str, terms: KeyTerms) -> NewKey:
        now_us = self._now_us()
        text = new_key()
        lifetime_us = None if terms.lifetime_s is None else int(terms.lifetime_s * SECOND_US)
        key = Key(
            id=new_id("key"),
            tenant_id=tenant_id,
            name=terms.name,
            prefix=shown(text),
            digest=digest(text),
            scopes=terms.scopes.as_dict(),
            rate_per_s=terms.rate_per_s,
            burst=terms.burst,
            created_us=now_us,
            expires_us=None if lifetime_us is None else now_us + lifetime_us,
        )
        return NewKey(key=key, text=text)


def _with_text(old: Key, now_us: int) -> NewKey:
    text = new_key()
    key = msgspec.structs.replace(
        old, id=new_id("key"), prefix=shown(text), digest=digest(text), created_us=now_us, last_used_us=None
    )
    return NewKey(key=key, text=text)


def _ending(made: NewKey, until_us: int | None) -> NewKey:
    """No key outlives the one that has made it, or a key for an hour would be one for ever."""
    ends_us = [each for each in (made.key.expires_us, until_us) if each is not None]
    return NewKey(key=msgspec.structs.replace(made.key, expires_us=min(ends_us, default=None)), text=made.text)


# Operations of more than one statement ------------------------------------------------------------


def _begin(records: Records, *, tenant: Tenant, key: Key) -> bool:
    if tenant_rows.named(records, OPERATOR) is not None:
        return False
    tenant_rows.insert_tenant(records, tenant)
    key_rows.insert_key(records, key)
    return True


def _change_tenant(records: Records, *, tenant_id: str, values: dict[str, Any]) -> Tenant:
    if tenant_rows.get(records, tenant_id).name == OPERATOR and values.keys() & {"name", "state"}:
        raise Conflict("the operator's tenant keeps its name and is never suspended")
    return tenant_rows.change(records, tenant_id, values)


def _delete_tenant(records: Records, *, tenant_id: str) -> None:
    if tenant_rows.get(records, tenant_id).name == OPERATOR:
        raise Conflict("the operator's tenant is never deleted")
    tenant_rows.remove(records, tenant_id)


def _rotate(records: Records, *, old: Key, new: Key, grace_us: int) -> None:
    if not key_rows.get(records, old.tenant_id, old.id).is_live(new.created_us):
        raise Conflict("the key has been revoked or has expired", hint="make a new one")
    key_rows.insert_key(records, new)
    if grace_us > 0:
        key_rows.expire(records, old.tenant_id, old.id, at_us=new.created_us + grace_us)
    else:
        key_rows.revoke(records, old.tenant_id, old.id, at_us=new.created_us)


def _revoke(records: Records, *, tenant_id: str | None, key_id: str, at_us: int) -> Key:
    key = key_rows.get(records, tenant_id, key_id)
    if tenant_rows.get(records, key.tenant_id).name == OPERATOR and _is_last_admin(records, key, at_us):
        raise Conflict("this is the operator's last key that may do everything", hint="make another first")
    return key_rows.revoke(records, tenant_id, key_id, at_us=at_us)


def _is_last_admin(records: Records, key: Key, now_us: int) -> bool:
    admins = [each.id for each in key_rows.live_keys(records, key.tenant_id, now_us=now_us) if _is_admin(each)]
    return admins == [key.id]


def _is_admin(key: Key) -> bool:
    return ADMIN in key.scopes["allow"] and not key.scopes["deny"] and key.expires_us is None

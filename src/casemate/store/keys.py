"""Keys, as rows: what is kept is the digest of a key, never the key."""

from __future__ import annotations

from typing import Final

import msgspec
from sqlalchemy import ColumnElement, Connection, func, insert, select, update

from casemate.errors import Conflict, NotFound
from casemate.service_limits import KEYS_A_TENANT_MAX, PAGE_DEFAULT_COUNT
from casemate.store.pages import Page, newest_first, page_of
from casemate.store.schema import keys as table
from casemate.store.schema import tenants
from casemate.store.tenants import Tenant


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """One key. `prefix` is its beginning, for people to tell keys apart."""

    id: str
    tenant_id: str
    name: str
    prefix: str
    digest: bytes
    scopes: dict[str, list[str]]
    rate_per_s: float
    burst: int
    created_us: int
    expires_us: int | None = None
    revoked_us: int | None = None
    last_used_us: int | None = None

    def is_live(self, now_us: int) -> bool:
        return self.revoked_us is None and (self.expires_us is None or now_us < self.expires_us)


class Owned(msgspec.Struct, frozen=True):
    """A key and whose it is."""

    key: Key
    tenant: Tenant


_OWNED: Final = [
    *(table.c[name].label(f"key_{name}") for name in Key.__struct_fields__),
    *(tenants.c[name].label(f"tenant_{name}") for name in Tenant.__struct_fields__),
]


def insert_key(connection: Connection, key: Key) -> None:
    """Add a key. Raises Conflict where the tenant has as many as it may, and NotFound without the tenant."""
    if connection.execute(select(tenants.c.id).where(tenants.c.id == key.tenant_id)).one_or_none() is None:
        raise NotFound(f"there is no tenant {key.tenant_id!r}")
    live = (table.c.tenant_id == key.tenant_id, table.c.revoked_us.is_(None))
    if connection.execute(select(func.count()).select_from(table).where(*live)).scalar_one() >= KEYS_A_TENANT_MAX:
        raise Conflict(f"the tenant has {KEYS_A_TENANT_MAX} keys already", hint="revoke those that nobody uses")
    connection.execute(insert(table), msgspec.structs.asdict(key))


def get(connection: Connection, tenant_id: str | None, key_id: str) -> Key:
    """One of a tenant's. Raises NotFound, also for another tenant's."""
    query = select(table).where(table.c.id == key_id)
    if tenant_id is not None:
        query = query.where(table.c.tenant_id == tenant_id)
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        raise NotFound(f"there is no key {key_id!r}")
    return Key(**row)


def with_digest(connection: Connection, digest: bytes) -> Owned | None:
    """The key with that digest, revoked or not, and its tenant."""
    return _owned(connection, table.c.digest == digest)


def with_id(connection: Connection, key_id: str) -> Owned | None:
    """The key with that id, revoked or not, and its tenant."""
    return _owned(connection, table.c.id == key_id)


def _owned(connection: Connection, which: ColumnElement[bool]) -> Owned | None:
    query = select(*_OWNED).join(tenants, tenants.c.id == table.c.tenant_id).where(which)
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        return None
    return Owned(
        Key(**{name: row[f"key_{name}"] for name in Key.__struct_fields__}),
        Tenant(**{name: row[f"tenant_{name}"] for name in Tenant.__struct_fields__}),
    )


def live_keys(connection: Connection, tenant_id: str, *, now_us: int) -> tuple[Key, ...]:
    """All of a tenant's that may be used."""
    query = select(table).where(table.c.tenant_id == tenant_id, table.c.revoked_us.is_(None))
    rows = [Key(**row) for row in connection.execute(query.limit(KEYS_A_TENANT_MAX)).mappings()]
    return tuple(key for key in rows if key.is_live(now_us))


def list_keys(
    connection: Connection, tenant_id: str | None, *, limit: int = PAGE_DEFAULT_COUNT, cursor: str | None = None
) -> Page[Key]:
    """Of a tenant, or of all; newest first, the revoked ones, too."""
    query = select(table) if tenant_id is None else select(table).where(table.c.tenant_id == tenant_id)
    query = newest_first(query, table, limit=limit, cursor=cursor)
    rows = [Key(**row) for row in connection.execute(query).mappings()]
    return page_of(rows, limit, [(row.created_us, row.id) for row in rows])


def revoke(connection: Connection, tenant_id: str | None, key_id: str, *, at_us: int) -> Key:
    """End a key for good. Raises NotFound; one that has been revoked stays so from then."""
    found = get(connection, tenant_id, key_id)
    if found.revoked_us is None:
        connection.execute(update(table).where(table.c.id == key_id).values(revoked_us=at_us))
    return get(connection, tenant_id, key_id)


def expire(connection: Connection, tenant_id: str | None, key_id: str, *, at_us: int) -> None:
    """Have a key end at a time, if it does not end before. Raises NotFound."""
    found = get(connection, tenant_id, key_id)
    if found.expires_us is None or found.expires_us > at_us:
        connection.execute(update(table).where(table.c.id == key_id).values(expires_us=at_us))


def note_use(connection: Connection, tenant_id: str, key_id: str, *, at_us: int) -> None:
    """Remember when a key was last used."""
    one = (table.c.id == key_id, table.c.tenant_id == tenant_id)
    connection.execute(update(table).where(*one).values(last_used_us=at_us))

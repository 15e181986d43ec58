"""What tenants keep secret, as rows: a name, and what nobody can read without a key that is not here."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet

import msgspec
from sqlalchemy import Connection, delete, func, insert, select, update

from casemate.errors import Conflict, NotFound
from casemate.object_limits import SECRETS_A_TENANT_MAX
from casemate.store.schema import secrets as table
from casemate.store.schema import tenants


class Secret(msgspec.Struct, frozen=True, kw_only=True):
    """One secret, without what it is. `updated_by`: the key that has set it."""

    tenant_id: str
    name: str
    created_us: int
    updated_us: int
    updated_by: str


def put(connection: Connection, secret: Secret, sealed: bytes) -> Secret:
    """Set a secret, in the place of one of that name. Raises Conflict beyond SECRETS_A_TENANT_MAX, and NotFound."""
    one = (table.c.tenant_id == secret.tenant_id, table.c.name == secret.name)
    created_us = connection.execute(select(table.c.created_us).where(*one)).scalar()
    if created_us is not None:
        values = {"sealed": sealed, "updated_us": secret.updated_us, "updated_by": secret.updated_by}
        connection.execute(update(table).where(*one).values(values))
        return msgspec.structs.replace(secret, created_us=created_us)
    if connection.execute(select(tenants.c.id).where(tenants.c.id == secret.tenant_id)).first() is None:
        raise NotFound(f"there is no tenant {secret.tenant_id!r}")
    mine = select(func.count()).select_from(table).where(table.c.tenant_id == secret.tenant_id)
    if connection.execute(mine).scalar_one() >= SECRETS_A_TENANT_MAX:
        raise Conflict(f"the tenant has {SECRETS_A_TENANT_MAX} secrets already")
    connection.execute(insert(table), {**msgspec.structs.asdict(secret), "sealed": sealed})
    return secret


def list_secrets(connection: Connection, tenant_id: str) -> list[Secret]:
    """All of a tenant's, by their names."""
    columns = [table.c[name] for name in Secret.__struct_fields__]
    query = select(*columns).where(table.c.tenant_id == tenant_id).order_by(table.c.name).limit(SECRETS_A_TENANT_MAX)
    return [Secret(**row) for row in connection.execute(query).mappings()]


def sealed_values(connection: Connection, tenant_id: str, names: Sequence[str]) -> dict[str, bytes]:
    """What is kept of some of a tenant's, by their names; those that are not there are left out."""
    query = select(table.c.name, table.c.sealed).where(table.c.tenant_id == tenant_id, table.c.name.in_(names))
    return {row.name: row.sealed for row in connection.execute(query)}


def missing(connection: Connection, tenant_id: str, names: AbstractSet[str]) -> AbstractSet[str]:
    """Which of these a tenant has not."""
    query = select(table.c.name).where(table.c.tenant_id == tenant_id, table.c.name.in_(names))
    return names - set(connection.execute(query).scalars())


def remove(connection: Connection, tenant_id: str, name: str) -> None:
    """Forget one. Raises NotFound."""
    if not connection.execute(delete(table).where(table.c.tenant_id == tenant_id, table.c.name == name)).rowcount:
        raise NotFound(f"there is no secret {name[:80]!r}")


def is_any(connection: Connection) -> bool:
    """Whether any tenant has one."""
    return connection.execute(select(table.c.name).limit(1)).first() is not None

"""Tenants, as rows."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from casemate.errors import Conflict, NotFound
from casemate.service_limits import PAGE_DEFAULT_COUNT
from casemate.store import job_logs
from casemate.store.pages import Page, newest_first, page_of
from casemate.store.schema import tenants as table

ACTIVE: Final = "active"
SUSPENDED: Final = "suspended"


class Tenant(msgspec.Struct, frozen=True, kw_only=True):
    """Who things belong to. `concurrency_max` runs at a time, and `queue_max` more that wait."""

    id: str
    name: str
    state: str
    concurrency_max: int
    queue_max: int
    created_us: int
    labels: dict[str, str] = {}


def insert_tenant(connection: Connection, tenant: Tenant) -> None:
    """Add a tenant. Raises Conflict where the name is taken."""
    try:
        with connection.begin_nested():
            connection.execute(insert(table), msgspec.structs.asdict(tenant))
    except IntegrityError as error:
        raise Conflict(f"there is a tenant {tenant.name!r} already") from error


def get(connection: Connection, tenant_id: str) -> Tenant:
    """Raises NotFound."""
    row = connection.execute(select(table).where(table.c.id == tenant_id)).mappings().one_or_none()
    if row is None:
        raise NotFound(f"there is no tenant {tenant_id!r}")
    return Tenant(**row)


def named(connection: Connection, name: str) -> Tenant | None:
    """The tenant of that name, if there is one."""
    row = connection.execute(select(table).where(table.c.name == name)).mappings().one_or_none()
    return None if row is None else Tenant(**row)


def list_tenants(connection: Connection, *, limit: int = PAGE_DEFAULT_COUNT, cursor: str | None = None) -> Page[Tenant]:
    """Newest first."""
    query = newest_first(select(table), table, limit=limit, cursor=cursor)
    rows = [Tenant(**row) for row in connection.execute(query).mappings()]
    return page_of(rows, limit, [(row.created_us, row.id) for row in rows])


def all_ids(connection: Connection) -> set[str]:
    """Of all tenants, suspended ones among them."""
    return set(connection.execute(select(table.c.id)).scalars())


def change(connection: Connection, tenant_id: str, values: dict[str, Any]) -> Tenant:
    """Change some fields. Raises NotFound, and Conflict where a new name is taken."""
    try:
        with connection.begin_nested():
            if values:
                connection.execute(update(table).where(table.c.id == tenant_id).values(**values))
    except IntegrityError as error:
        raise Conflict(f"there is a tenant {values.get('name')!r} already") from error
    return get(connection, tenant_id)


def remove(connection: Connection, tenant_id: str) -> None:
    """Delete a tenant and all that belongs to it. Raises NotFound."""
    job_logs.forget_tenant(connection, tenant_id)
    if connection.execute(delete(table).where(table.c.id == tenant_id)).rowcount == 0:
        raise NotFound(f"there is no tenant {tenant_id!r}")

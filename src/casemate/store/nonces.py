"""Signed requests that were seen: each is taken once."""

from __future__ import annotations

from sqlalchemy import Connection, delete, insert, select
from sqlalchemy.exc import IntegrityError

from casemate.service_limits import SWEEP_MAX_COUNT
from casemate.store.schema import nonces as table


def use(connection: Connection, tenant_id: str, nonce: str, *, expires_us: int) -> bool:
    """Take a nonce of a tenant. False if it was taken before."""
    try:
        with connection.begin_nested():
            connection.execute(insert(table), {"tenant_id": tenant_id, "nonce": nonce, "expires_us": expires_us})
    except IntegrityError:
        return False
    return True


def sweep(connection: Connection, *, at_us: int) -> int:
    """Forget some that are too old to be taken anyway, and say how many; 0: there are no more."""
    old = select(table.c.tenant_id, table.c.nonce).where(table.c.expires_us < at_us).limit(SWEEP_MAX_COUNT)
    rows = connection.execute(old).all()
    for row in rows:
        connection.execute(delete(table).where(table.c.tenant_id == row.tenant_id, table.c.nonce == row.nonce))
    return len(rows)

"""Rows for tests of the records."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from casemate.model.ids import new_id
from casemate.store import executions, tenants
from casemate.store.database import Database
from casemate.store.executions import Ending, Execution
from casemate.store.tenants import Tenant

Place: TypeAlias = str | Path
"""A file of SQLite's, or the address of a PostgreSQL; the fixture `place` gives first the one and then the other."""


@contextmanager
def opened(place: Place) -> Iterator[Database]:
    database = Database.open(place)
    try:
        yield database
    finally:
        database.close_now()


def tenant(name: str = "one", **changes: Any) -> Tenant:
    values: dict[str, Any] = {"state": "active", "concurrency_max": 4, "queue_max": 10, "created_us": 1}
    return Tenant(id=new_id("ten"), name=name, **(values | changes))


def with_tenant(database: Database, name: str = "one") -> str:
    """The id of a new tenant."""
    added = tenant(name)
    database.write_now(partial(tenants.insert_tenant, tenant=added))
    return added.id


def execution(tenant_id: str, **changes: Any) -> Execution:
    values: dict[str, Any] = {"key_id": "key_x", "kind": "code", "runtime": "python", "created_us": 1, "epoch": 1}
    return Execution(tenant_id=tenant_id, **({"id": new_id("exe")} | values | changes))


def with_execution(database: Database, tenant_id: str, **changes: Any) -> str:
    """The id of an execution that was accepted."""
    added = execution(tenant_id, **changes)
    database.write_now(partial(executions.insert_execution, execution=added))
    return added.id


def ending(**changes: Any) -> Ending:
    values: dict[str, Any] = {"status": "succeeded", "reason": "exit", "ended_us": 100}
    return Ending(**(values | changes))

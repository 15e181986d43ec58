"""Budgets, as rows: how much a tenant may use in a time, and how much of that it has used.

What is spent is counted with each end of a run, in its transaction. A new period begins with the first end in it.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

import msgspec
from sqlalchemy import ColumnElement, Connection, Integer, bindparam, case, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from casemate.account_limits import BUDGETS_A_TENANT_MAX
from casemate.errors import Conflict, NotFound
from casemate.model.accounting import first_day
from casemate.store.account_schema import budgets as table
from casemate.store.account_schema import usage
from casemate.store.prepared import Prepared
from casemate.store.usage import Used

NEVER: Final = -1
_COLUMNS: Final = {
    "cost": usage.c.cost_nano,
    "runs": usage.c.runs,
    "cpu_s": usage.c.cpu_us,
    "wall_s": usage.c.wall_us,
    "memory_gib_s": usage.c.memory_kib_ms,
    "network_gib": usage.c.sent_bytes + usage.c.received_bytes,
}


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """One row. Amounts are in small units of `unit`; `first_day` is that of the period that `spent` is of.

    `is_imposed`: the operator has made it, and the tenant cannot change it.
    """

    id: str
    tenant_id: str
    name: str
    unit: str
    period: str
    soft: int | None
    hard: int | None
    is_imposed: bool
    created_us: int
    first_day: int = 0
    spent: int = 0
    soft_told: int = NEVER
    hard_told: int = NEVER

    def at(self, day: int) -> Budget:
        """As it is on a day: a period that has ended has spent nothing in the next."""
        begun = first_day(self.period, day)
        return self if begun <= self.first_day else msgspec.structs.replace(self, first_day=begun, spent=0)

    @property
    def is_used_up(self) -> bool:
        return self.hard is not None and self.spent >= self.hard


def amounts_of(used: Used) -> dict[str, int]:
    """What counts against a budget of each unit."""
    return {
        "cost": used.cost_nano,
        "runs": used.runs,
        "cpu_s": used.cpu_us,
        "wall_s": used.wall_us,
        "memory_gib_s": used.memory_kib_ms,
        "network_gib": used.sent_bytes + used.received_bytes,
    }


_MORE: Final = case(
    {unit: bindparam(f"more_{unit}") for unit in _COLUMNS}, value=table.c.unit, else_=bindparam("more_of_none")
)
_DAY: Final = case(
    {period: bindparam(f"begun_{period}", type_=Integer) for period in ("day", "month", "total")},
    value=table.c.period,
    else_=0,
)
_SPEND: Final = Prepared(
    update(table)
    .where(table.c.tenant_id == bindparam("of_tenant"))
    .values(
        spent=case((table.c.first_day >= _DAY, table.c.spent + _MORE), else_=_MORE),
        first_day=case((table.c.first_day >= _DAY, table.c.first_day), else_=_DAY),
    )
)
_OF: Final = select(table).where(table.c.tenant_id == bindparam("of_tenant")).order_by(table.c.name)
_CROSSED: Final = _OF.where(
    ((table.c.soft <= table.c.spent) & (table.c.soft_told != table.c.first_day))
    | ((table.c.hard <= table.c.spent) & (table.c.hard_told != table.c.first_day))
)
_LIMITING: Final = _OF.where(table.c.hard <= table.c.spent)
_IS_LIMITED: Final = Prepared(
    select(table.c.id).where(table.c.tenant_id == bindparam("of_tenant"), table.c.hard <= table.c.spent).limit(1)
)


def spend(connection: Connection, used: Used) -> tuple[Budget, ...]:
    """Count it, and say which budgets have come to a bound that was not told yet. One statement where there is none."""
    begun = {f"begun_{period}": first_day(period, used.day) for period in ("day", "month", "total")}
    more = {f"more_{unit}": amount for unit, amount in amounts_of(used).items()}
    values = {"of_tenant": used.tenant_id, "more_of_none": 0, **begun, **more}
    if not _SPEND.run(connection, values).rowcount:
        return ()
    return _found(connection, _CROSSED, used.tenant_id)


def told(connection: Connection, budget: Budget, bound: str) -> None:
    """Note that its owner was told of a bound, `soft` or `hard`, in this period."""
    this = table.c.id == budget.id
    connection.execute(update(table).where(this).values({f"{bound}_told": budget.first_day}))


def used_up(connection: Connection, tenant_id: str, day: int) -> Budget | None:
    """A hard budget of the tenant that has nothing left, if there is one."""
    if _IS_LIMITED.run(connection, {"of_tenant": tenant_id}).first is None:
        return None
    found = (each.at(day) for each in _found(connection, _LIMITING, tenant_id))
    return next((each for each in found if each.is_used_up), None)


def hard_ones(connection: Connection, day: int, live: Collection[str] = ()) -> tuple[Budget, ...]:
    """Those hard ones that are used up, and all of the tenants in `live`."""
    wanted = (table.c.hard <= table.c.spent) | ((table.c.hard > 0) & table.c.tenant_id.in_(live))
    rows = connection.execute(select(table).where(wanted)).mappings()
    return tuple(Budget(**row).at(day) for row in rows)


def _found(connection: Connection, query: Any, tenant_id: str) -> tuple[Budget, ...]:  # noqa: ANN401 - a Select
    return tuple(Budget(**row) for row in connection.execute(query, {"of_tenant": tenant_id}).mappings())


# Keeping them -------------------------------------------------------------------------------------


def put(connection: Connection, budget: Budget, *, day: int) -> Budget:
    """Add a budget, or change the one of that name; what its period has used so far counts.

    Raises Conflict beyond BUDGETS_A_TENANT_MAX.
    """
    begun = first_day(budget.period, day)
    budget = msgspec.structs.replace(
        budget, first_day=begun, spent=_spent_since(connection, budget.tenant_id, budget.unit, begun)
    )
    existing = named(connection, budget.tenant_id, budget.name)
    values = msgspec.structs.asdict(budget)
    if existing is not None:
        values |= {"id": existing.id, "created_us": existing.created_us}
        connection.execute(update(table).where(table.c.id == existing.id).values(values))
        return Budget(**values)
    of_tenant = table.c.tenant_id == budget.tenant_id
    if (
        connection.execute(select(func.count()).select_from(table).where(of_tenant)).scalar_one()
        >= BUDGETS_A_TENANT_MAX
    ):
        raise Conflict(f"the tenant has {BUDGETS_A_TENANT_MAX} budgets already")
    try:
        with connection.begin_nested():
            connection.execute(insert(table), values)
    except IntegrityError as error:
        raise NotFound(f"there is no tenant {budget.tenant_id!r}") from error
    return budget


def _spent_since(connection: Connection, tenant_id: str, unit: str, begun: int) -> int:
    within: list[ColumnElement[bool]] = [usage.c.tenant_id == tenant_id, usage.c.day >= begun]
    return int(connection.execute(select(func.coalesce(func.sum(_COLUMNS[unit]), 0)).where(*within)).scalar_one())


def named(connection: Connection, tenant_id: str, name: str) -> Budget | None:
    """The tenant's budget of that name, if there is one."""
    this = (table.c.tenant_id == tenant_id, table.c.name == name)
    row = connection.execute(select(table).where(*this)).mappings().one_or_none()
    return None if row is None else Budget(**row)


def list_budgets(connection: Connection, tenant_id: str, *, day: int) -> tuple[Budget, ...]:
    """A tenant's, by their names."""
    return tuple(each.at(day) for each in _found(connection, _OF, tenant_id))


def remove(connection: Connection, budget: Budget) -> None:
    """Delete it."""
    connection.execute(delete(table).where(table.c.id == budget.id))

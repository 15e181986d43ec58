"""Budgets: set, looked at and removed. One that the operator has set for a tenant is not the tenant's to change."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from casemate.account_limits import BUDGET_NAME_MAX_CHARS
from casemate.clock import now_us
from casemate.errors import Conflict, InvalidInput, NotFound
from casemate.model.accounting import BUDGET_UNITS, PERIODS, amount_of, day_of
from casemate.model.ids import new_id
from casemate.store import budgets as rows
from casemate.store.budgets import Budget
from casemate.store.database import Database, Records


class BudgetTerms(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A budget as it is asked for: amounts as people write them, of which at least one is given."""

    unit: str = "cost"
    period: str = "month"
    soft: str | float | None = None
    hard: str | float | None = None


class Budgets:
    """Those of all tenants. `by_operator`: who asks looks after all of them."""

    def __init__(self, database: Database, clock: Callable[[], int] = now_us) -> None:
        self._database = database
        self._clock = clock

    async def put(self, tenant_id: str, name: str, terms: BudgetTerms, *, by_operator: bool) -> Budget:
        """Set a budget, or change the one of that name. Raises InvalidInput, NotFound, Conflict."""
        at_us = self._clock()
        budget = made(tenant_id, name, terms, is_imposed=by_operator, at_us=at_us)

        def put(records: Records) -> Budget:
            existing = rows.named(records, tenant_id, name)
            if existing is not None:
                _check_may_change(existing, by_operator=by_operator)
            return rows.put(records, budget, day=day_of(at_us))

        return await self._database.write(put)

    async def list_budgets(self, tenant_id: str) -> tuple[Budget, ...]:
        """A tenant's, by their names, with what is spent of them."""
        day = day_of(self._clock())
        return await self._database.read(lambda records: rows.list_budgets(records, tenant_id, day=day))

    async def delete(self, tenant_id: str, name: str, *, by_operator: bool) -> None:
        """Raises NotFound, and Conflict for one that is not the tenant's to remove."""

        def delete(records: Records) -> None:
            existing = rows.named(records, tenant_id, name)
            if existing is None:
                raise NotFound(f"there is no budget {name!r}")
            _check_may_change(existing, by_operator=by_operator)
            rows.remove(records, existing)

        await self._database.write(delete)


def made(tenant_id: str, name: str, terms: BudgetTerms, *, is_imposed: bool, at_us: int) -> Budget:
    """A budget from what was asked for. Raises InvalidInput."""
    if not name.strip() or len(name) > BUDGET_NAME_MAX_CHARS or not name.isprintable():
        raise InvalidInput("name", f"must be 1 to {BUDGET_NAME_MAX_CHARS} characters that can be shown")
    for field, value, known in (("unit", terms.unit, tuple(BUDGET_UNITS)), ("period", terms.period, PERIODS)):
        if value not in known:
            raise InvalidInput(field, "must be one of " + ", ".join(known))
    soft, hard = (
        None if amount is None else amount_of(amount, terms.unit, field)
        for field, amount in (("soft", terms.soft), ("hard", terms.hard))
    )
    if soft is None and hard is None:
        raise InvalidInput("hard", "is missing, and so is soft: one of them has to be given")
    if soft is not None and hard is not None and soft > hard:
        raise InvalidInput("soft", "is above hard")
    return Budget(
        id=new_id("bud"),
        tenant_id=tenant_id,
        name=name,
        unit=terms.unit,
        period=terms.period,
        soft=soft,
        hard=hard,
        is_imposed=is_imposed,
        created_us=at_us,
    )


def _check_may_change(budget: Budget, *, by_operator: bool) -> None:
    if budget.is_imposed and not by_operator:
        raise Conflict(f"the budget {budget.name!r} was set by the operator", hint="ask the operator to change it")

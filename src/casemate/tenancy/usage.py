"""The meter: what each run has used is counted in the transaction that ends it, and budgets are held to.

So nothing that has ended is uncounted, or counted twice, whatever is killed; and it costs no transaction of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Final, Self

import msgspec

from casemate import account_limits as bound
from casemate.clock import now_us
from casemate.errors import BudgetExceeded
from casemate.model.accounting import BUDGET_UNITS, Accounting, Spent, day_of, next_period, spent_by, text_of_amount
from casemate.model.job import Job
from casemate.model.result import Reason, Result
from casemate.recurring import Recurring
from casemate.store import budgets as rows
from casemate.store import usage
from casemate.store.budgets import Budget
from casemate.store.database import Database, Records
from casemate.store.usage import Used
from casemate.tenancy.webhooks import Notices

JOB: Final = "job"
UNCOUNTED: Final = frozenset({Reason.INTERNAL, Reason.VALIDATION, Reason.LOST})
"""Runs that ended so and have used nothing, as far as is known, were none."""

NOTHING: Final[Mapping[str, Spent]] = {}
SOFT: Final = "soft"
HARD: Final = "hard"
Stop = Callable[[str, str], Awaitable[object]]
"""Ends whatever a tenant has running; the second text says why."""


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """A run that has ended, as far as the meter cares."""

    tenant_id: str
    key_id: str
    kind: str
    labels: Mapping[str, str]
    ended_us: int
    spent: Spent
    is_success: bool


class Meter:
    """Counts and checks. What takes `Records` is for within a transaction, and does nothing but statements."""

    def __init__(
        self, database: Database, accounting: Accounting, notices: Notices, clock: Callable[[], int] = now_us
    ) -> None:
        self._database = database
        self._notices = notices
        self._clock = clock
        self._on_used_up: Callable[[], None] = lambda: None
        self.prices = accounting.prices

    # Counting -------------------------------------------------------------------------------------

    def note(self, records: Records, job: Job, result: Result) -> None:
        """Add what an attempt at a job has used, as it ends."""
        spent = spent_by(result.usage)
        if counts(result, spent):
            ended = Ended(
                tenant_id=job.tenant_id,
                key_id=job.key_id,
                kind=JOB,
                labels=job.spec.labels,
                ended_us=self._clock(),
                spent=spent,
                is_success=result.ok,
            )
            usage.add_job(records, job.id, self.count(records, ended))

    def count(self, records: Records, ended: Ended) -> Used:
        """Add what a run has used, and tell of budgets that it brings to a bound."""
        used = Used(
            tenant_id=ended.tenant_id,
            day=day_of(ended.ended_us),
            kind=ended.kind,
            key_id=ended.key_id,
            labels=dict(ended.labels),
            runs=1,
            failed=int(not ended.is_success),
            cost_nano=self.prices.cost_nano(ended.spent),
            **msgspec.structs.asdict(ended.spent),
        )
        usage.add(records, used)
        for budget in rows.spend(records, used):
            self._tell(records, budget)
        return used

    def _tell(self, records: Records, budget: Budget) -> None:
        """Each bound once in a period."""
        for name in (SOFT, HARD):
            amount = getattr(budget, name)
            if amount is None or budget.spent < amount or getattr(budget, f"{name}_told") == budget.first_day:
                continue
            rows.told(records, budget, name)
            self._notices.post(records, budget.tenant_id, f"budget.{name}", budget_document(budget))
        if budget.is_used_up:
            self._on_used_up()

    # Checking -------------------------------------------------------------------------------------

    async def check(self, tenant_id: str) -> None:
        """Raise BudgetExceeded where a hard budget of the tenant is used up."""
        await self._database.read(lambda records: self.check_in(records, tenant_id))

    def check_in(self, records: Records, tenant_id: str) -> None:
        """The same, within a transaction."""
        at_us = self._clock()
        found = rows.used_up(records, tenant_id, day_of(at_us))
        if found is not None:
            raise exceeded(found, at_us)

    async def used_up(self, live: Mapping[str, Spent] = NOTHING) -> dict[str, BudgetExceeded]:
        """The tenants of whom a budget is used up, and which one it is. `live`: what counts besides, of their runs."""
        at_us = self._clock()
        found = await self._database.read(lambda records: rows.hard_ones(records, day_of(at_us), tuple(live)))
        return {each.tenant_id: exceeded(each, at_us) for each in found if self._is_used_up(each, live)}

    def _is_used_up(self, budget: Budget, live: Mapping[str, Spent]) -> bool:
        spent = live.get(budget.tenant_id)
        if budget.is_used_up or spent is None or budget.hard is None:
            return budget.is_used_up
        used = Used(cost_nano=self.prices.cost_nano(spent, runs=0), **msgspec.structs.asdict(spent))
        return budget.spent + rows.amounts_of(used)[budget.unit] >= budget.hard

    def when_used_up(self, tell: Callable[[], None]) -> None:
        """Have that called, in the thread that writes, when a hard budget may have been used up."""
        self._on_used_up = tell


class BudgetWatch:
    """Ends what tenants have running whose hard budget is used up, for as long as it is open."""

    def __init__(self, meter: Meter, stop: Stop, live: Callable[[], Mapping[str, Spent]] = lambda: NOTHING) -> None:
        self._meter = meter
        self._stop = stop
        self._live = live
        self._woken = asyncio.Event()
        self._watching = Recurring(self._watch, name="budgets", pause_s=bound.BUDGET_LOOK_S)

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()

        def wake() -> None:
            with suppress(RuntimeError):  # the loop has ended, and with it whatever ran
                loop.call_soon_threadsafe(self._woken.set)

        self._meter.when_used_up(wake)
        self._watching.begin()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._meter.when_used_up(lambda: None)
        await self._watching.end()

    async def _watch(self) -> None:
        await self.look()
        with suppress(TimeoutError):
            async with asyncio.timeout(bound.BUDGET_LOOK_S):
                await self._woken.wait()
        self._woken.clear()

    async def look(self) -> None:
        """Once, now."""
        found = await self._meter.used_up(self._live())
        await asyncio.gather(*(self._stop(tenant_id, error.message) for tenant_id, error in found.items()))


def counts(result: Result, spent: Spent) -> bool:
    """Whether a run is one that is counted."""
    return spent != Spent() or result.reason not in UNCOUNTED


def exceeded(budget: Budget, at_us: int) -> BudgetExceeded:
    """That a budget is used up, and when there is another period."""
    amount = text_of_amount(budget.hard or 0, BUDGET_UNITS[budget.unit])
    whose = "the operator" if budget.is_imposed else "whoever may manage budgets"
    period = "in all" if budget.period == "total" else f"a {budget.period}"
    end = next_period(budget.period, at_us)
    return BudgetExceeded(
        f"the budget {budget.name!r} of {amount} {budget.unit} {period} is used up",
        hint=f"{whose} can raise it"
        + ("" if end is None else f"; the next {budget.period} begins at {end.isoformat()}"),
    )


def budget_document(budget: Budget) -> dict[str, Any]:
    """A budget as it is told, with amounts as text, which is exact."""
    scale = BUDGET_UNITS[budget.unit]
    return {
        "name": budget.name,
        "tenant_id": budget.tenant_id,
        "unit": budget.unit,
        "period": budget.period,
        "soft": None if budget.soft is None else text_of_amount(budget.soft, scale),
        "hard": None if budget.hard is None else text_of_amount(budget.hard, scale),
        "spent": text_of_amount(budget.spent, scale),
        "is_imposed": budget.is_imposed,
        "is_used_up": budget.is_used_up,
    }

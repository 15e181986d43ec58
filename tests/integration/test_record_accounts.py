"""Records of what was used, of budgets, and of notices on their way."""

from __future__ import annotations

from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert
from tests.integration.records import ending, opened, with_execution, with_tenant

from casemate import account_limits as bound
from casemate.errors import BudgetExceeded, Conflict, InvalidInput, NotFound
from casemate.model.accounting import Accounting, Prices, Spent
from casemate.model.job import Job, JobSpec, JobState
from casemate.model.result import Isolation, Reason, Result, Status, Usage
from casemate.store import budgets, jobs, schema, usage, webhooks
from casemate.store.budgets import Budget
from casemate.store.database import Database
from casemate.store.jobs import row_of
from casemate.store.usage import Asked, Used
from casemate.store.webhooks import Notice, Webhook
from casemate.tenancy.budgets import BudgetTerms, made
from casemate.tenancy.usage import Ended, Meter
from casemate.tenancy.webhooks import Notices

DAY = 20_000
DAY_US = 86_400 * 10**6
ISOLATION = Isolation(backend="native", layers=())


class Clock:
    def __init__(self, day: int = DAY) -> None:
        self.now_us = day * DAY_US + 5

    def __call__(self) -> int:
        return self.now_us


def used(tenant_id: str, **changes: Any) -> Used:
    values: dict[str, Any] = {"day": DAY, "kind": "code", "key_id": "key_a", "runs": 1, "cpu_us": 10, "cost_nano": 7}
    return Used(tenant_id=tenant_id, **(values | changes))


def add(database: Database, found: Used) -> None:
    database.write_now(partial(usage.add, used=found))


def asked(tenant_id: str | None, **changes: Any) -> Asked:
    return Asked(**({"tenant_id": tenant_id, "first_day": DAY, "last_day": DAY} | changes))


def total(database: Database, found: Asked) -> tuple[int, int, int]:
    summed = database.read_now(partial(usage.total, asked=found))
    return summed.runs, summed.cpu_us, summed.cost_nano


# Usage --------------------------------------------------------------------------------------------


def test_s2_94_usage_adds_up_by_tenant_key_label_kind_and_day(database: Database) -> None:
    one, other = with_tenant(database, "one"), with_tenant(database, "other")
    for _ in range(3):
        add(database, used(one, labels={"project": "a", "x": "1"}))
    add(database, used(one, labels={"x": "1"}, key_id="key_b", kind="job"))
    add(database, used(one, day=DAY + 1))
    add(database, used(other))
    assert total(database, asked(one)) == (4, 40, 28)
    assert total(database, asked(None, last_day=DAY + 1)) == (6, 60, 42)
    assert total(database, asked(one, key_id="key_b")) == (1, 10, 7)
    assert total(database, asked(one, kind="code")) == (3, 30, 21)
    assert total(database, asked(one, labels={"project": "a"})) == (3, 30, 21)
    assert total(database, asked(one, first_day=DAY - 9, last_day=DAY - 1)) == (0, 0, 0)
    week = asked(None, last_day=DAY + 1)
    by_tenant = database.read_now(partial(usage.by_columns, asked=week, names=["tenant_id"]))
    assert {each.tenant_id: each.runs for each in by_tenant} == {one: 5, other: 1}
    by_day = database.read_now(partial(usage.by_columns, asked=week, names=["day"]))
    assert [(each.day, each.runs) for each in by_day] == [(DAY, 5), (DAY + 1, 1)]
    by_label = database.read_now(partial(usage.by_label, asked=week, name="project"))
    assert {value: each.runs for value, each in by_label.items()} == {"": 3, "a": 3}


def test_labels_in_another_order_are_the_same(database: Database) -> None:
    owner = with_tenant(database)
    add(database, used(owner, labels={"a": "1", "b": "2"}))
    add(database, used(owner, labels={"b": "2", "a": "1"}))
    with database._reading.begin() as connection:
        assert len(connection.exec_driver_sql("select * from usage").all()) == 1


def test_many_sets_of_labels_stay_bounded_and_the_sums_right(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage, "USAGE_ROWS_A_DAY_MAX", 5)
    owner = with_tenant(database)
    for number in range(20):
        add(database, used(owner, labels={"n": str(number)}))
    assert total(database, asked(owner)) == (20, 200, 140)
    with database._reading.begin() as connection:
        assert len(connection.exec_driver_sql("select * from usage").all()) == 6


def test_what_is_old_is_put_together_by_month(database: Database) -> None:
    owner = with_tenant(database)
    days = range(DAY - 70, DAY + 1)
    for day in days:
        add(database, used(owner, day=day, labels={"n": "1"}))
    while database.write_now(partial(usage.fold, before_day=DAY - 10)):
        pass
    everything = asked(owner, first_day=0)
    assert total(database, everything)[0] == len(days)
    found = database.read_now(partial(usage.by_columns, asked=everything, names=["day"]))
    assert len(found) == 11 + 3  # the days that are kept, and three months
    assert total(database, asked(owner, first_day=DAY - 10)) == (11, 110, 77)


def test_more_than_can_be_added_up_is_refused(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, "USAGE_READ_MAX_COUNT", 2)
    owner = with_tenant(database)
    for number in range(3):
        add(database, used(owner, labels={"n": str(number)}))
    with pytest.raises(InvalidInput, match="shorter"):
        database.read_now(partial(usage.by_label, asked=asked(owner), name="n"))


# Budgets ------------------------------------------------------------------------------------------


def put(database: Database, tenant_id: str, name: str = "b", day: int = DAY, **terms: Any) -> Budget:
    budget = made(tenant_id, name, BudgetTerms(**({"unit": "runs"} | terms)), is_imposed=False, at_us=day * DAY_US)
    return database.write_now(partial(budgets.put, budget=budget, day=day))


def spend(database: Database, found: Used) -> tuple[str, ...]:
    return tuple(each.name for each in database.write_now(partial(budgets.spend, used=found)))


def used_up(database: Database, tenant_id: str, day: int = DAY) -> str | None:
    found = database.read_now(partial(budgets.used_up, tenant_id=tenant_id, day=day))
    return None if found is None else found.name


def test_a_budget_begins_with_what_its_period_has_used(database: Database) -> None:
    owner = with_tenant(database)
    add(database, used(owner, day=DAY - 300))
    add(database, used(owner))
    assert [put(database, owner, period, period=period, hard=9).spent for period in ("day", "month", "total")] == [
        1,
        1,
        2,
    ]


def test_each_unit_counts_its_own(database: Database) -> None:
    owner = with_tenant(database)
    for unit in ("cost", "runs", "cpu_s", "wall_s", "memory_gib_s", "network_gib"):
        put(database, owner, unit, unit=unit, hard=1000)
    spend(
        database, used(owner, cpu_us=1, wall_us=2, memory_kib_ms=3, sent_bytes=4, received_bytes=5, cost_nano=6, runs=8)
    )
    found = database.read_now(partial(budgets.list_budgets, tenant_id=owner, day=DAY))
    assert {each.name: each.spent for each in found} == {
        "cost": 6,
        "runs": 8,
        "cpu_s": 1,
        "wall_s": 2,
        "memory_gib_s": 3,
        "network_gib": 9,
    }


def test_a_new_period_begins_at_nothing(database: Database) -> None:
    owner = with_tenant(database)
    for period in ("day", "month", "total"):
        put(database, owner, period, period=period, hard=2)
    for _ in range(2):
        spend(database, used(owner))
    assert used_up(database, owner) == "day"
    assert used_up(database, owner, DAY + 1) == "month"
    assert used_up(database, owner, DAY + 40) == "total"
    spend(database, used(owner, day=DAY + 40))
    found = database.read_now(partial(budgets.list_budgets, tenant_id=owner, day=DAY + 40))
    assert {each.name: each.spent for each in found} == {"day": 1, "month": 1, "total": 3}


def test_a_clock_that_is_set_back_opens_no_old_period(database: Database) -> None:
    owner = with_tenant(database)
    put(database, owner, period="day", hard=2)
    spend(database, used(owner))
    spend(database, used(owner, day=DAY - 1))
    assert used_up(database, owner) == "b"


def test_budgets_of_others_are_not_touched(database: Database) -> None:
    owner, other = with_tenant(database, "one"), with_tenant(database, "two")
    put(database, owner, hard=1)
    assert spend(database, used(other)) == ()
    assert used_up(database, owner) is None


def test_budgets_are_bounded_in_number(database: Database) -> None:
    owner = with_tenant(database)
    for number in range(bound.BUDGETS_A_TENANT_MAX):
        put(database, owner, str(number), hard=1)
    put(database, owner, "0", hard=2)
    with pytest.raises(Conflict):
        put(database, owner, "more", hard=1)
    with pytest.raises(NotFound):
        put(database, "ten_nobody", hard=1)


# The meter ----------------------------------------------------------------------------------------


def metered(database: Database, clock: Clock) -> Meter:
    return Meter(database, Accounting(prices=Prices({"cpu_s": Decimal(1)}, "EUR")), Notices(clock), clock)


def count(database: Database, meter: Meter, tenant_id: str, cpu_us: int = 1_000_000) -> None:
    ended = Ended(
        tenant_id=tenant_id,
        key_id="key_a",
        kind="code",
        labels={},
        ended_us=DAY * DAY_US,
        spent=Spent(cpu_us=cpu_us),
        is_success=True,
    )
    database.write_now(partial(meter.count, ended=ended))


def subscribe(database: Database, tenant_id: str, *events: str) -> str:
    webhook = Webhook(
        id=f"whk_{tenant_id[-8:]}", tenant_id=tenant_id, url="https://x.example", events=list(events), created_us=1
    )
    database.write_now(partial(webhooks.insert_webhook, webhook=webhook))
    return webhook.id


def kinds(database: Database, tenant_id: str) -> list[str]:
    page = database.read_now(partial(webhooks.list_notices, tenant_id=tenant_id))
    return [each.kind for each in reversed(page.items)]


def test_a_budget_tells_of_each_bound_once_in_a_period(database: Database) -> None:
    owner, clock = with_tenant(database), Clock()
    meter = metered(database, clock)
    subscribe(database, owner, "budget.*")
    put(database, owner, unit="cost", soft="1.5", hard="2.5")
    told = []
    for _ in range(5):
        count(database, meter, owner)
        told.append(kinds(database, owner))
    assert [len(each) for each in told] == [0, 1, 2, 2, 2]
    assert told[-1] == ["budget.soft", "budget.hard"]


def test_a_used_up_budget_is_named_when_more_is_asked_for(database: Database) -> None:
    owner, clock = with_tenant(database), Clock()
    meter = metered(database, clock)
    put(database, owner, "lab money", unit="cost", hard=2)
    woken: list[int] = []
    meter.when_used_up(lambda: woken.append(1))
    count(database, meter, owner)
    database.read_now(partial(meter.check_in, tenant_id=owner))
    assert not woken
    count(database, meter, owner)
    assert woken
    with pytest.raises(BudgetExceeded, match=r"lab money.*2 cost a month") as raised:
        database.read_now(partial(meter.check_in, tenant_id=owner))
    assert "begins at 2024-11-01" in raised.value.hint
    put(database, owner, "lab money", unit="cost", hard=3)
    database.read_now(partial(meter.check_in, tenant_id=owner))


def test_a_budget_survives_its_process(place: str | Path) -> None:
    clock = Clock()
    with opened(place) as database:
        owner = with_tenant(database)
        put(database, owner, unit="cost", hard=2)
        for _ in range(2):
            count(database, metered(database, clock), owner)
    with opened(place) as database, pytest.raises(BudgetExceeded):
        database.read_now(partial(metered(database, clock).check_in, tenant_id=owner))


def test_usage_of_an_attempt_is_there_exactly_if_its_end_is(database: Database) -> None:
    owner, clock = with_tenant(database), Clock()
    meter = metered(database, clock)
    job = Job(
        id="job_x", tenant_id=owner, key_id="key_a", spec=JobSpec(labels={"project": "p"}), state=JobState.SUCCEEDED
    )
    database.write_now(lambda connection: connection.execute(insert(schema.jobs), {**row_of(job), "place": "out"}))
    result = Result(
        status=Status.SUCCEEDED, reason=Reason.EXIT, usage=Usage(wall_s=1.0, cpu_user_s=1.0), isolation=ISOLATION
    )

    def failing(connection: Any) -> None:
        meter.note(connection, job, result)
        raise Conflict("the lease is not held any more")

    with pytest.raises(Conflict):
        database.write_now(failing)
    assert total(database, asked(owner))[0] == 0
    for _ in range(2):
        database.write_now(lambda connection: meter.note(connection, job, result))
    of_job = database.read_now(partial(usage.of_job, tenant_id=owner, job_id=job.id))
    assert (of_job.runs, of_job.cpu_us, of_job.cost_nano) == (2, 2_000_000, 2 * 10**9)
    assert total(database, asked(owner, kind="job", labels={"project": "p"})) == (2, 2_000_000, 2 * 10**9)
    database.write_now(partial(jobs.delete_job, tenant_id=owner, job_id=job.id))
    assert database.read_now(partial(usage.of_job, tenant_id=owner, job_id=job.id)).runs == 0


@pytest.mark.parametrize("reason", [Reason.LOST, Reason.INTERNAL, Reason.VALIDATION])
def test_a_run_that_never_was_is_not_counted(database: Database, reason: Reason) -> None:
    owner = with_tenant(database)
    job = Job(id="job_x", tenant_id=owner, key_id="key_a", spec=JobSpec())
    result = Result(status=Status.FAILED, reason=reason, isolation=ISOLATION)
    database.write_now(lambda connection: metered(database, Clock()).note(connection, job, result))
    assert total(database, asked(owner))[0] == 0


# Notices ------------------------------------------------------------------------------------------


def notice(tenant_id: str, webhook_id: str, **changes: Any) -> Notice:
    values: dict[str, Any] = {"event_id": "evt_x", "kind": "test", "body": "{}", "created_us": 1, "due_us": 1}
    return Notice(tenant_id=tenant_id, webhook_id=webhook_id, **(values | changes))


def test_of_no_tenant_more_than_a_few_notices_are_sent_at_once(database: Database) -> None:
    owners = [with_tenant(database, name) for name in ("one", "two")]
    for owner, number in zip(owners, (50, 2), strict=True):
        hook = subscribe(database, owner, "*")
        posted = [notice(owner, hook, due_us=each) for each in range(number)]
        assert database.write_now(partial(webhooks.post, found=posted)) == number
    due = database.read_now(partial(webhooks.due, at_us=100, limit=64))
    count_of = [sum(each.tenant_id == owner for each, _ in due) for owner in owners]
    assert count_of == [bound.NOTICES_AT_ONCE_A_TENANT, 2]
    assert {url for _, url in due} == {"https://x.example"}
    assert database.read_now(partial(webhooks.due, at_us=-1, limit=64)) == ()


def test_a_notice_is_settled_once(database: Database) -> None:
    owner = with_tenant(database)
    hook = subscribe(database, owner, "*")
    database.write_now(partial(webhooks.post, found=[notice(owner, hook)]))
    [(found, _)] = database.read_now(partial(webhooks.due, at_us=1, limit=1))
    settle = partial(webhooks.settle, notice=found, at_us=5)
    assert database.write_now(partial(settle, state="waiting", problem="no", due_us=9))
    assert database.read_now(webhooks.next_due_us) == 9
    assert database.write_now(partial(settle, state="delivered"))
    assert not database.write_now(partial(settle, state="failed"))
    assert database.read_now(webhooks.next_due_us) is None
    assert database.write_now(partial(webhooks.sweep, before_us=5)) == 0
    assert database.write_now(partial(webhooks.sweep, before_us=6)) == 1


def test_what_waits_for_a_tenant_is_bounded(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "NOTICES_WAITING_A_TENANT_MAX", 3)
    owner = with_tenant(database)
    hook = subscribe(database, owner, "*")
    posted = [notice(owner, hook)] * 2
    assert [database.write_now(partial(webhooks.post, found=posted)) for _ in range(3)] == [2, 1, 0]


def test_notices_come_in_pages_and_go_with_their_webhook(database: Database) -> None:
    owner = with_tenant(database)
    hook = subscribe(database, owner, "*")
    database.write_now(partial(webhooks.post, found=[notice(owner, hook, event_id=f"evt_{n}") for n in range(5)]))
    first = database.read_now(partial(webhooks.list_notices, tenant_id=owner, limit=3))
    rest = database.read_now(partial(webhooks.list_notices, tenant_id=owner, limit=3, cursor=first.next_cursor))
    assert [each.event_id for each in (*first.items, *rest.items)] == [f"evt_{n}" for n in reversed(range(5))]
    with pytest.raises(NotFound):
        database.write_now(partial(webhooks.remove, tenant_id="ten_other", webhook_id=hook))
    database.write_now(partial(webhooks.remove, tenant_id=owner, webhook_id=hook))
    assert kinds(database, owner) == []


def test_a_tenant_goes_with_its_accounts(database: Database) -> None:
    from casemate.store import tenants

    owner = with_tenant(database)
    subscribe(database, owner, "*")
    add(database, used(owner))
    put(database, owner, hard=1)
    database.write_now(partial(tenants.remove, tenant_id=owner))
    assert total(database, asked(None)) == (0, 0, 0)
    assert used_up(database, owner) is None


def test_an_execution_that_has_ended_is_not_counted_again(database: Database) -> None:
    from casemate.store import executions

    owner = with_tenant(database)
    execution_id = with_execution(database, owner)
    end = partial(executions.end, tenant_id=owner, execution_id=execution_id, ending=ending())
    assert [database.write_now(end), database.write_now(end)] == [True, False]

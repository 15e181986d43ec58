"""What one tenant may have in the records: beyond that its work goes on, and less of it is kept."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import text

from casemate.errors import Conflict, RecordsUnavailable
from casemate.executions.book import Book
from casemate.functions.published import Functions
from casemate.model.function import Source
from casemate.model.result import Isolation, Reason, Result, Status, Stream
from casemate.store import executions as rows
from casemate.store import sqlite
from casemate.store.database import Database
from casemate.store.stored import Stored, count_bytes
from casemate.tenancy.scopes import checked
from casemate.tenancy.tenants import Tenancy
from casemate.tenancy.terms import KeyTerms, TenantTerms

LARGE = Result(
    status=Status.SUCCEEDED,
    reason=Reason.EXIT,
    output="x" * 50_000,
    stdout=Stream(head=b"y" * 10_000),
    isolation=Isolation(backend="", layers=()),
)


def test_s10_a_tenant_fills_its_share_of_the_disk_and_no_more(tmp_path: Path) -> None:
    async def act() -> None:
        database = Database.open(tmp_path / "records.db")
        try:
            await fill(database)
        finally:
            await database.close()

    asyncio.run(act())


async def fill(database: Database) -> None:
    tenancy, book = Tenancy(database), Book(database, epoch=1)
    callers = []
    for name in ("greedy", "other"):
        tenant = await tenancy.create_tenant(TenantTerms(name=name))
        made = await tenancy.create_key(tenant.id, KeyTerms(name="x", scopes=checked(["admin"])))
        callers.append(await tenancy.authenticate(made.text))
    database.stored = Stored(200_000)
    sizes = []
    for caller in (*[callers[0]] * 6, callers[1]):
        row = await book.accept(caller, kind="code", runtime="python", request_id="r")
        await book.ended(row, LARGE)
        kept = await database.read(partial(rows.get, tenant_id=row.tenant_id, execution_id=row.id))
        assert (kept.state, kept.status, kept.reason) == ("ended", "succeeded", "exit")
        sizes.append(len(kept.result or b""))
    assert [size > 50_000 for size in sizes] == [True, True, True, False, False, False, True]
    assert b"is not kept" in await bare(database)
    with pytest.raises(Conflict):
        await Functions(database).publish(callers[0], "f", Source(runtime="python", code="#" * 50_000))
    await Functions(database).publish(callers[1], "f", Source(runtime="python", code="#" * 50_000))
    found = await database.read(count_bytes)
    assert found[callers[0].tenant_id] == sum(sizes[:6])
    assert found[callers[1].tenant_id] > sizes[6] + 50_000
    database.stored.counted(found)
    assert not database.stored.takes(callers[0].tenant_id, 50_000)


async def bare(database: Database) -> bytes:
    """The document of one that was kept without its output."""
    page = await database.read(lambda records: rows.list_executions(records, None))
    one = await database.read(lambda records: rows.get(records, None, page.items[1].id))
    document = msgspec.json.decode(one.result or b"{}")
    assert document["output"] is None
    return one.result or b""


def test_s9_a_search_that_takes_long_is_ended_and_the_next_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endless = text("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n")
    monkeypatch.setattr(sqlite, "READ_MAX_S", 0.2)
    database = Database.open(tmp_path / "records.db")
    try:
        for _ in range(2):
            with pytest.raises(RecordsUnavailable) as caught:
                database.read_now(lambda records: records.execute(endless).scalar_one())
            assert caught.value.problem == "slow"
        assert database.read_now(count_bytes) == {}
    finally:
        database.close_now()

"""The chain of the audit log: whatever is changed, left out, added or cut off is found, and named."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, delete, insert, select, update

from casemate.errors import ConfigError
from casemate.store import audit as rows
from casemate.store.database import Database
from casemate.store.schema import audit as table
from casemate.store.schema import audit_ends as ends
from casemate.tenancy.audit import AuditLog, Verdict, open_audit

COUNT = 12
Work = Callable[[AuditLog, Database], Coroutine[Any, Any, Any]]


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


def run(path: str | Path, work: Work, *, notes: int = COUNT) -> Any:
    async def main() -> Any:
        database = Database.open(path)
        try:
            log = AuditLog(database, b"s" * 32)
            await log.begin()
            for number in range(notes):
                await log.note("ten_a", "key_a", "jobs.submit", f"jobs/{number}", request_id="r", detail="201")
            return await work(log, database)
        finally:
            await database.close()

    return asyncio.run(main())


def after(path: str | Path, change: Callable[[Connection], Any]) -> Verdict:
    async def work(log: AuditLog, database: Database) -> Verdict:
        assert (await log.verify()).broken_seq is None
        await database.write(change)
        return await log.verify()

    found: Verdict = run(path, work)
    return found


def test_s2_78_a_log_that_is_as_it_was_is_whole(place: str | Path) -> None:
    async def work(log: AuditLog, _: Database) -> Verdict:
        return await log.verify()

    assert run(place, work).count == COUNT
    assert run(place, work, notes=3).count == COUNT + 3


def test_s2_78_an_empty_log_is_whole(place: str | Path) -> None:
    async def work(log: AuditLog, _: Database) -> Verdict:
        return await log.verify()

    assert run(place, work, notes=0) == Verdict(count=0, last_seq=0, last_digest="00" * 32)


COLUMNS = ("id", "tenant_id", "key_id", "action", "target", "detail", "request_id")


@pytest.mark.parametrize("column", [*COLUMNS, "created_us", "digest"])
def test_s2_78_any_changed_field_is_found(place: str | Path, column: str) -> None:
    value = {"created_us": 1, "digest": b"x" * 32}.get(column, "other")
    verdict = after(
        place, lambda records: records.execute(update(table).where(table.c.seq == 7).values({column: value}))
    )
    assert verdict.broken_seq == 7


@pytest.mark.parametrize("seq", [1, 6, COUNT])
def test_s2_78_a_record_that_is_left_out_is_found(place: str | Path, seq: int) -> None:
    verdict = after(place, lambda records: records.execute(delete(table).where(table.c.seq == seq)))
    assert verdict.broken_seq == seq
    assert "missing" in verdict.problem


def without_youngest(records: Connection) -> None:
    records.execute(delete(table).where(table.c.seq > 9))
    digest = records.execute(select(table.c.digest).where(table.c.seq == 9)).scalar_one()
    records.execute(update(ends).where(ends.c.name == rows.LAST).values(seq=9, digest=digest))


def without_oldest(records: Connection) -> None:
    digest = records.execute(select(table.c.digest).where(table.c.seq == 3)).scalar_one()
    records.execute(delete(table).where(table.c.seq <= 3))
    records.execute(update(ends).where(ends.c.name == rows.BEFORE).values(seq=3, digest=digest))


@pytest.mark.parametrize(("cut", "end"), [(without_youngest, "ends"), (without_oldest, "begins")])
def test_s2_78_records_that_are_cut_off_at_either_end_are_found(
    place: str | Path, cut: Callable[[Connection], None], end: str
) -> None:
    verdict = after(place, cut)
    assert verdict.broken_seq is not None
    assert end in verdict.problem


def test_s2_78_two_records_that_change_places_are_found(place: str | Path) -> None:
    def swap(records: Connection) -> None:
        for old, new in ((4, 1000), (5, 4), (1000, 5)):
            records.execute(update(table).where(table.c.seq == old).values(seq=new))

    assert after(place, swap).broken_seq == 4


def test_s2_78_a_record_that_was_slipped_in_is_found(place: str | Path) -> None:
    def slip(records: Connection) -> None:
        row = dict(records.execute(select(table).where(table.c.seq == COUNT)).mappings().one())
        records.execute(insert(table), {**row, "seq": COUNT + 1, "id": "aud_other"})
        records.execute(update(ends).where(ends.c.name == rows.LAST).values(seq=COUNT + 1))

    assert after(place, slip).broken_seq is not None


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_s2_78_who_has_the_records_but_not_the_secret_makes_no_whole_log(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Recomputing all codes with another secret is of no use."""
    path = tmp_path_factory.mktemp("log") / "r"
    seq = data.draw(st.integers(1, COUNT))

    async def work(log: AuditLog, database: Database) -> Verdict:
        forger = AuditLog(database, b"x" * 32)

        def forge(records: Connection) -> None:
            found = rows.records_behind(records, 0, limit=COUNT)
            digest = rows.START
            for record in found:
                if record.seq < seq:
                    digest = record.digest
                    continue
                digest = forger.seal(digest, record)
                records.execute(update(table).where(table.c.seq == record.seq).values(digest=digest))

        await database.write(forge)
        return await log.verify()

    assert run(path, work).broken_seq == seq


def test_s2_78_old_records_go_and_the_rest_stays_whole(place: str | Path) -> None:
    async def work(log: AuditLog, database: Database) -> None:
        clock = Clock()
        log = AuditLog(database, b"s" * 32, clock)
        for number in range(2000):
            clock.now_s += 1
            await log.note("ten_a", "key_a", "a.b", str(number))
        while await log.sweep(int((clock.now_s - 99.5) * 1e6)):
            pass
        verdict = await log.verify()
        assert (verdict.broken_seq, verdict.count) == (None, 100)
        await log.note("ten_a", "key_a", "a.b", "after")
        assert (await log.verify()).count == 101
        while await log.sweep(int((clock.now_s + 1) * 1e6)):
            pass
        assert (await log.verify()).count == 0
        await log.note("ten_a", "key_a", "a.b", "again")
        assert (await log.verify()).count == 1

    run(place, work, notes=0)


def test_s2_78_of_many_who_note_at_once_none_is_lost(place: str | Path) -> None:
    async def work(log: AuditLog, _: Database) -> Verdict:
        await asyncio.gather(*(log.note("ten_a", "key_a", "a.b", str(number)) for number in range(200)))
        return await log.verify()

    assert run(place, work, notes=0).count == 200


def test_a_target_is_kept_as_far_as_is_worth_it(place: str | Path) -> None:
    async def work(log: AuditLog, _: Database) -> str:
        await log.note("ten_a", "key_a", "a.b", "x\0\ud800" + "y" * 5000)
        return (await log.list("ten_a")).items[0].target

    assert run(place, work, notes=0) == "x\\ud800" + "y" * 1017


def test_the_secret_of_the_log_is_a_file_for_its_owner_alone(tmp_path: Path) -> None:
    database = Database.open(tmp_path / "r")
    try:
        open_audit(database, tmp_path)
        (tmp_path / "secrets" / "audit.key").chmod(0o644)
        with pytest.raises(ConfigError, match="open to others"):
            open_audit(database, tmp_path)
    finally:
        database.close_now()

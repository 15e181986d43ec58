"""The database: transactions, groups of writes, errors, the schema, and executions as rows."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from sqlalchemy import Connection, insert, select, text
from tests.integration.records import Place, ending, execution, opened, tenant, with_execution, with_tenant

from casemate.errors import (
    ConfigError,
    Conflict,
    InternalError,
    InvalidInput,
    NotFound,
    RecordsUnavailable,
)
from casemate.service_limits import PAGE_MAX_COUNT, WRITES_WAITING_MAX
from casemate.store import executions, tenants
from casemate.store.database import Database
from casemate.store.executions import Filters
from casemate.store.schema import settings

JOIN_TIMEOUT_S = 30

Operations: TypeAlias = list[Callable[[Connection], str]]


def put(connection: Connection, name: str) -> str:
    connection.execute(insert(settings), {"name": name, "value": {"of": name}})
    return name


def names(connection: Connection) -> set[str]:
    return set(connection.execute(select(settings.c.name)).scalars())


# Writing and reading ------------------------------------------------------------------------------


def test_what_is_written_is_read_and_is_there_after_a_restart(place: Place) -> None:
    async def scenario() -> None:
        database = Database.open(place)
        assert await database.write(partial(put, name="a")) == "a"
        assert await database.read(names) == {"a"}
        await database.close()

    asyncio.run(scenario())
    with opened(place) as again:
        assert again.read_now(names) == {"a"}


def test_the_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    (tmp_path / "wide.db").touch(mode=0o666)
    with opened(tmp_path / "wide.db") as database:
        database.write_now(partial(put, name="a"))
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert set(modes) == {"wide.db", "wide.db-wal", "wide.db-shm"}
    assert set(modes.values()) == {0o600}


def test_a_link_in_the_place_of_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to(tmp_path / "elsewhere.db")
    with pytest.raises(RecordsUnavailable):
        Database.open(tmp_path / "link.db")
    assert not (tmp_path / "elsewhere.db").exists()


def test_a_write_that_fails_fails_alone(database: Database) -> None:
    async def scenario() -> list[str | BaseException]:
        def fails_late(connection: Connection) -> str:
            put(connection, "half")
            raise Conflict("no")

        def is_wrong(connection: Connection) -> str:
            return str(connection.execute(text("select nonsense from nowhere")).scalar())

        wanted: Operations = [
            partial(put, name="a"),
            partial(put, name="a"),
            fails_late,
            is_wrong,
            partial(put, name="b"),
        ]
        return await asyncio.gather(*(database.write(each) for each in wanted), return_exceptions=True)

    outcomes = asyncio.run(scenario())
    assert [type(each) for each in outcomes] == [str, InternalError, Conflict, InternalError, str]
    assert database.read_now(names) == {"a", "b"}


def test_reading_operations_cannot_write(database: Database) -> None:
    with pytest.raises(RecordsUnavailable):
        database.read_now(partial(put, name="a"))
    assert database.read_now(names) == set()


def test_a_reader_sees_one_state_however_much_is_written_meanwhile(database: Database) -> None:
    database.write_now(partial(put, name="a"))

    def reads_twice(connection: Connection) -> tuple[set[str], set[str]]:
        before = names(connection)
        database.write_now(partial(put, name="b"))
        return before, names(connection)

    assert database.read_now(reads_twice) == ({"a"}, {"a"})
    assert database.read_now(names) == {"a", "b"}


def test_many_threads_and_loops_write_at_once(database: Database) -> None:
    async def loop(number: int) -> None:
        await asyncio.gather(*(database.write(partial(put, name=f"{number}/{each}")) for each in range(50)))

    threads = [threading.Thread(target=lambda number=number: asyncio.run(loop(number))) for number in range(4)]
    for thread in threads:
        thread.start()
    for each in range(50):
        database.write_now(partial(put, name=f"plain/{each}"))
    for thread in threads:
        thread.join(JOIN_TIMEOUT_S)
    assert len(database.read_now(names)) == 250


def test_a_write_whose_caller_gave_up_is_done_nonetheless(database: Database) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def slow(connection: Connection) -> None:
        entered.set()
        assert go_on.wait(JOIN_TIMEOUT_S)

    async def scenario() -> None:
        blocking = asyncio.create_task(database.write(slow))
        assert await asyncio.to_thread(entered.wait, JOIN_TIMEOUT_S)
        waiting = asyncio.create_task(database.write(partial(put, name="a")))
        await asyncio.sleep(0)
        waiting.cancel()
        go_on.set()
        await asyncio.gather(waiting, blocking, return_exceptions=True)
        assert waiting.cancelled()
        await database.write(lambda _: None)

    asyncio.run(scenario())
    assert database.read_now(names) == {"a"}


def test_closing_carries_out_what_waits_and_takes_nothing_more(place: Place) -> None:
    async def scenario() -> None:
        database = Database.open(place)
        waiting = [asyncio.create_task(database.write(partial(put, name=str(each)))) for each in range(500)]
        database.post(partial(put, name="posted"))
        await asyncio.sleep(0)
        await database.close()
        await asyncio.gather(*waiting)
        with pytest.raises(RecordsUnavailable) as caught:
            await database.write(partial(put, name="late"))
        assert caught.value.problem == "closed"
        with pytest.raises(RecordsUnavailable):
            await database.read(names)
        await database.close()

    asyncio.run(scenario())
    with opened(place) as again:
        assert len(again.read_now(names)) == 501


def test_the_line_of_writes_is_bounded(database: Database) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def slow(connection: Connection) -> None:
        entered.set()
        assert go_on.wait(JOIN_TIMEOUT_S)

    database.post(slow)
    assert entered.wait(JOIN_TIMEOUT_S)
    try:
        for _ in range(WRITES_WAITING_MAX):
            assert database.post(lambda _: None)
        with pytest.raises(RecordsUnavailable) as caught:
            database.write_now(lambda _: None)
        assert caught.value.problem == "busy"
        assert not database.post(lambda _: None), "what may be lost costs its caller nothing"
    finally:
        go_on.set()


def test_fifty_who_wait_have_all_that_they_write_written(database: Database) -> None:
    async def writer(number: int) -> None:
        for each in range(40):
            await database.write(partial(put, name=f"{number}/{each}"))

    async def scenario() -> None:
        await asyncio.gather(*(writer(number) for number in range(50)))

    asyncio.run(scenario())
    wanted = {f"{number}/{each}" for number in range(50) for each in range(40)}
    assert wanted <= database.read_now(names)


# Schema -------------------------------------------------------------------------------------------


def test_a_database_of_a_newer_schema_is_refused_by_name(place: Place) -> None:
    with opened(place) as database:
        named = database.dialect.place
        database.write_now(lambda connection: connection.execute(text("update alembic_version set version_num='0999'")))
    with pytest.raises(ConfigError, match="0999") as caught:
        Database.open(place)
    assert named in str(caught.value)


def test_somebody_elses_database_is_refused(tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "records.db")
    other.execute("create table theirs (x)")
    other.close()
    with pytest.raises(ConfigError):
        Database.open(tmp_path / "records.db")


# Executions ---------------------------------------------------------------------------------------


def test_an_execution_is_accepted_started_and_ended_once(database: Database) -> None:
    owner = with_tenant(database)
    asked = execution(owner, labels={"a": "b"}, spec=b"asked", priority=7, function="f", version=3)
    database.write_now(partial(executions.insert_execution, execution=asked))
    assert database.read_now(partial(executions.get, tenant_id=owner, execution_id=asked.id)) == asked
    one: dict[str, Any] = {"tenant_id": owner, "execution_id": asked.id}
    assert database.write_now(partial(executions.start, **one, at_us=5))
    assert not database.write_now(partial(executions.start, **one, at_us=6))
    assert database.write_now(partial(executions.end, **one, ending=ending(result=b"first", wall_us=9)))
    assert not database.write_now(partial(executions.end, **one, ending=ending(result=b"second")))
    assert not database.write_now(partial(executions.start, **one, at_us=7))
    found = database.read_now(partial(executions.get, **one))
    assert (found.state, found.started_us, found.ended_us, found.wall_us) == ("ended", 5, 100, 9)
    assert (found.status, found.reason, found.result) == ("succeeded", "exit", b"first")


def test_many_who_end_one_execution_at_once_end_it_once(database: Database) -> None:
    owner = with_tenant(database)
    found = with_execution(database, owner)

    async def scenario() -> list[bool]:
        one = partial(executions.end, tenant_id=owner, execution_id=found, ending=ending())
        return await asyncio.gather(*(database.write(one) for _ in range(20)))

    assert sum(asyncio.run(scenario())) == 1


def test_x10_another_tenants_execution_is_not_there(database: Database) -> None:
    mine, theirs = with_tenant(database, "mine"), with_tenant(database, "theirs")
    found = with_execution(database, theirs)
    for wrong in (found, "exe_nowhere"):
        with pytest.raises(NotFound, match=wrong):
            database.read_now(partial(executions.get, tenant_id=mine, execution_id=wrong))
        assert not database.write_now(partial(executions.start, tenant_id=mine, execution_id=wrong, at_us=1))
        assert not database.write_now(partial(executions.end, tenant_id=mine, execution_id=wrong, ending=ending()))
    assert database.read_now(partial(executions.list_executions, tenant_id=mine)).items == ()
    assert database.read_now(partial(executions.unfinished, tenant_id=mine)) == 0
    ended: dict[str, Any] = {"since_us": 0, "until_us": 10**18}
    database.write_now(partial(executions.end, tenant_id=theirs, execution_id=found, ending=ending()))
    assert database.read_now(partial(executions.statistics_rows, tenant_id=mine, **ended)) == ()
    assert database.write_now(partial(executions.delete_older, tenant_id=mine, ended_before_us=10**18)) == 0
    assert len(database.read_now(partial(executions.statistics_rows, tenant_id=None, **ended))) == 1


def test_lists_come_in_pages_that_miss_and_repeat_nothing(database: Database) -> None:
    owner = with_tenant(database)
    accepted = [with_execution(database, owner, created_us=each // 4) for each in range(23)]
    seen: list[str] = []
    cursor: str | None = None
    while True:
        page = database.read_now(partial(executions.list_executions, tenant_id=owner, limit=5, cursor=cursor))
        seen += [each.id for each in page.items]
        with_execution(database, owner, created_us=99)
        if page.next_cursor is None:
            break
        cursor = page.next_cursor
    assert sorted(seen) == sorted(accepted)
    assert len(seen) == 23


@pytest.mark.parametrize("cursor", ["", "x", "Zm9v", "é", "a" * 500, "LTEvZXhl", "MS9h\n", "MS8gYQ", "99999" * 50])
def test_a_cursor_that_no_list_gave_is_refused(database: Database, cursor: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        database.read_now(partial(executions.list_executions, tenant_id=None, cursor=cursor))
    assert caught.value.field == "cursor"


@pytest.mark.parametrize("limit", [0, -1, PAGE_MAX_COUNT + 1])
def test_a_page_has_a_size(database: Database, limit: int) -> None:
    with pytest.raises(InvalidInput):
        database.read_now(partial(executions.list_executions, tenant_id=None, limit=limit))


def test_lists_are_narrowed_by_every_filter(database: Database) -> None:
    owner = with_tenant(database)
    odd = {'say "what"': "it's", "$.a[0]": "%_", "": "empty"}
    found = with_execution(
        database, owner, runtime="r", function="f", kind="function", key_id="key_y", labels=odd, created_us=50
    )
    other = with_execution(database, owner, labels={"a": "c", 'say "what"': "else"}, created_us=10)
    database.write_now(
        partial(executions.end, tenant_id=owner, execution_id=found, ending=ending(status="failed", reason="memory"))
    )

    def listed(**wanted: Any) -> list[str]:
        filters = Filters(**wanted)
        page = database.read_now(partial(executions.list_executions, tenant_id=owner, filters=filters))
        return [each.id for each in page.items]

    narrowing: list[dict[str, Any]] = [
        {"state": "ended"},
        {"status": "failed"},
        {"reason": "memory"},
        {"kind": "function"},
        {"runtime": "r"},
        {"function": "f"},
        {"key_id": "key_y"},
        {"since_us": 50},
        *({"labels": {name: value}} for name, value in odd.items()),
        {"labels": odd},
    ]
    for wanted in narrowing:
        assert listed(**wanted) == [found], wanted
    assert listed(until_us=50) == [other]
    assert listed(labels={"a": "b"}) == []
    assert listed(labels={"%": "c"}) == []
    assert listed() == [found, other]


def test_those_of_an_earlier_epoch_are_lost_and_others_are_not(database: Database) -> None:
    owner = with_tenant(database)
    queued = with_execution(database, owner, epoch=1)
    running = with_execution(database, owner, epoch=2, state="running")
    ended = with_execution(database, owner, epoch=1)
    database.write_now(partial(executions.end, tenant_id=owner, execution_id=ended, ending=ending()))
    ours = with_execution(database, owner, epoch=3)
    lost = database.write_now(partial(executions.mark_lost, epoch=3, at_us=7, result=b"lost"))
    assert {each.id for each in lost} == {queued, running}
    assert {each.tenant_id for each in lost} == {owner}
    found = database.read_now(partial(executions.get, tenant_id=owner, execution_id=running))
    assert (found.state, found.status, found.reason, found.result, found.ended_us) == (
        "ended",
        "failed",
        "lost",
        b"lost",
        7,
    )
    assert database.write_now(partial(executions.mark_lost, epoch=3, at_us=8)) == ()
    assert database.read_now(partial(executions.unfinished, tenant_id=owner)) == 1
    assert database.read_now(partial(executions.get, tenant_id=owner, execution_id=ours)).state == "queued"


def test_old_executions_are_deleted_in_pieces(database: Database) -> None:
    owner = with_tenant(database)
    for each in range(5):
        found = with_execution(database, owner)
        done = ending(ended_us=each)
        database.write_now(partial(executions.end, tenant_id=owner, execution_id=found, ending=done))
    kept = with_execution(database, owner)
    sweep = partial(executions.delete_older, tenant_id=None, ended_before_us=3)
    assert [database.write_now(sweep), database.write_now(sweep)] == [3, 0]
    page = database.read_now(partial(executions.list_executions, tenant_id=owner))
    assert len(page.items) == 3
    assert kept in {each.id for each in page.items}


# Tenants ------------------------------------------------------------------------------------------


def test_names_of_tenants_are_taken_once(database: Database) -> None:
    first, second = with_tenant(database, "one"), with_tenant(database, "two")
    with pytest.raises(Conflict):
        with_tenant(database, "one")
    with pytest.raises(Conflict):
        database.write_now(partial(tenants.change, tenant_id=second, values={"name": "one"}))
    changed = database.write_now(
        partial(tenants.change, tenant_id=first, values={"queue_max": 3, "labels": {"a": "b"}})
    )
    assert (changed.queue_max, changed.labels) == (3, {"a": "b"})
    with pytest.raises(NotFound):
        database.write_now(partial(tenants.change, tenant_id="ten_x", values={"name": "new"}))
    assert len(database.read_now(tenants.list_tenants).items) == 2


def test_a_tenant_goes_with_all_that_is_its(database: Database) -> None:
    mine, theirs = with_tenant(database, "mine"), with_tenant(database, "theirs")
    with_execution(database, mine)
    kept = with_execution(database, theirs)
    database.write_now(partial(tenants.remove, tenant_id=mine))
    page = database.read_now(partial(executions.list_executions, tenant_id=None))
    assert [each.id for each in page.items] == [kept]
    with pytest.raises(NotFound):
        database.write_now(partial(tenants.remove, tenant_id=mine))
    with pytest.raises(InternalError):
        with_execution(database, mine)
    assert tenant("x") is not None

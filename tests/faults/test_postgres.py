"""Records on a server that is killed, that is locked, that answers late, or that is not there."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import psycopg
import pytest
from sqlalchemy import Connection, insert, select, text
from tests.conformance.test_queue import Desk
from tests.integration.records import opened

from casemate.errors import ConfigError, Conflict, RecordsUnavailable
from casemate.queue.leases import RecordsQueue
from casemate.service_limits import RECORDS_BUSY_TIMEOUT_S
from casemate.store import postgres as dialect
from casemate.store.database import Database
from casemate.store.migrate import upgrade
from casemate.store.schema import settings

if TYPE_CHECKING:
    from tests.postgres import Server

STEP_TIMEOUT_S = 30

Operations: TypeAlias = list[Callable[[Connection], None]]


@pytest.fixture
def address(own_postgres: Server) -> str:
    return own_postgres.new()


def put(connection: Connection, name: str) -> None:
    connection.execute(insert(settings), {"name": name, "value": 1})


def names(connection: Connection) -> set[str]:
    return set(connection.execute(select(settings.c.name)).scalars())


def test_s10_a_server_that_ends_is_told_and_its_return_is_noticed(own_postgres: Server, address: str) -> None:
    with opened(address) as database:
        database.write_now(partial(put, name="before"))
        own_postgres.stop(signal.SIGINT)
        try:
            for _ in range(2):
                with pytest.raises(RecordsUnavailable) as caught:
                    database.write_now(partial(put, name="meanwhile"))
                assert (caught.value.problem, caught.value.retryable) == ("io", True)
                with pytest.raises(RecordsUnavailable):
                    database.read_now(names)
        finally:
            own_postgres.start()
        database.write_now(partial(put, name="after"))
        assert database.read_now(names) == {"before", "after"}
        own_postgres.stop(signal.SIGINT)
        own_postgres.start()
        database.write_now(partial(put, name="again"))
        assert database.read_now(names) == {"before", "after", "again"}, "who asks later meets no error"


def soon_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is not the owner is told so after a moment: nobody here lets go of it meanwhile."""
    quick = dialect.WRITING.replace(f"lock_timeout={int(RECORDS_BUSY_TIMEOUT_S * 1000)}", "lock_timeout=20")
    monkeypatch.setattr(dialect, "WRITING", quick)


def test_one_owner_writes_and_the_next_when_that_one_is_gone(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    soon_refused(monkeypatch)
    first = Database.open(address, owner="one:/data")
    try:
        with pytest.raises(Conflict, match="in use by another `casemate serve`: casemate one:/data") as caught:
            Database.open(address, owner="two:/data")
        assert "password" not in caught.value.message
        with pytest.raises(RecordsUnavailable, match="one:/data"):
            Database.open(address, owner="one:/data")  # what is left of it ends soon
        first.write_now(partial(put, name="first"))
    finally:
        first.close_now()
    second = Database.open(address, owner="two:/data")
    try:
        assert second.read_now(names) == {"first"}
    finally:
        second.close_now()


def test_a_killed_owner_lets_go(address: str) -> None:
    program = "import sys; from casemate.store.database import Database; "
    program += "Database.open(sys.argv[1], owner='one:/data'); print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", program, address]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline()
        child.kill()
        child.wait()
        found: Database | None = None
        while found is None:
            with suppress(Conflict):  # the server sees it when it looks
                found = Database.open(address, owner="two:/data")
        found.close_now()


def test_who_has_lost_the_records_writes_no_more_while_another_has_them(
    own_postgres: Server, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    soon_refused(monkeypatch)
    first = Database.open(address, owner="one:/data")
    try:
        own_postgres.stop(signal.SIGINT)
        own_postgres.start()
        second = Database.open(address, owner="two:/data")
        with pytest.raises(RecordsUnavailable, match="two:/data") as caught:
            first.write_now(partial(put, name="late"))
        assert caught.value.retryable
        second.write_now(partial(put, name="second"))
        second.close_now()
        first.write_now(partial(put, name="first"))
        assert first.read_now(names) == {"first", "second"}
    finally:
        first.close_now()


def test_the_name_of_an_owner_fits_and_differs_from_others() -> None:
    long = [f"host:/{'x' * 100}/{name}/{'y' * 100}" for name in ("a", "b")]
    found = [dialect.name_of(each) for each in (*long, "host:/data", "höst:/data")]
    assert len(set(found)) == len(found)
    assert all(len(each) <= dialect.NAME_MAX_CHARS and each.isascii() for each in found)


def test_what_another_transaction_holds_is_told_and_waited_out(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = dialect.WRITING.replace(f"lock_timeout={int(RECORDS_BUSY_TIMEOUT_S * 1000)}", "lock_timeout=20")
    monkeypatch.setattr(dialect, "WRITING", quick)
    with opened(address) as database, psycopg.connect(address) as other:
        database.write_now(partial(put, name="a"))
        other.execute("select * from settings for update")

        def change(connection: Connection) -> None:
            connection.execute(settings.update().values(value=2))

        async def scenario() -> list[BaseException | None]:
            wanted: Operations = [partial(put, name="b"), change, partial(put, name="c")]
            return await asyncio.gather(*(database.write(each) for each in wanted), return_exceptions=True)

        outcomes = asyncio.run(scenario())
        assert [getattr(each, "problem", each) for each in outcomes] == [None, "locked", None]
        other.rollback()
        database.write_now(change)
        assert database.read_now(names) == {"a", "b", "c"}


def test_of_two_that_want_what_the_other_has_both_get_it_in_the_end(address: str) -> None:
    with opened(address) as one, opened(address) as other:
        for name in ("x", "y"):
            one.write_now(partial(put, name=name))
        met = threading.Barrier(2)
        attempts: list[str] = []

        def both(connection: Connection, first: str, second: str) -> None:
            attempts.append(first)
            update = settings.update().where(settings.c.name == first)
            connection.execute(update.values(value=first))
            if len(attempts) <= 2:
                met.wait(STEP_TIMEOUT_S)
            connection.execute(settings.update().where(settings.c.name == second).values(value=first))

        async def scenario() -> None:
            await asyncio.gather(
                one.write(partial(both, first="x", second="y")), other.write(partial(both, first="y", second="x"))
            )

        asyncio.run(scenario())
        assert sorted(attempts[:2]) == ["x", "y"]
        assert len(attempts) == 3, "one of them was done again"


def test_a_commit_that_the_server_refuses_costs_no_other(address: str) -> None:
    def breaks_the_end(connection: Connection) -> None:
        connection.execute(text("create temp table one (x int primary key deferrable initially deferred)"))
        connection.execute(text("insert into one values (1), (1)"))

    with opened(address) as database:

        async def scenario() -> list[BaseException | None]:
            wanted: Operations = [partial(put, name="before"), breaks_the_end, partial(put, name="behind")]
            return await asyncio.gather(*(database.write(each) for each in wanted), return_exceptions=True)

        outcomes = asyncio.run(scenario())
        assert [outcomes[0], outcomes[2]] == [None, None]
        assert isinstance(outcomes[1], Exception)
        assert database.read_now(names) == {"before", "behind"}


def test_an_operation_that_breaks_the_connection_costs_no_other(address: str) -> None:
    def closes(connection: Connection) -> None:
        driver = connection.connection.driver_connection
        assert driver is not None
        driver.close()

    with opened(address) as database:

        async def scenario() -> list[BaseException | None]:
            wanted: Operations = [partial(put, name="before"), closes, partial(put, name="behind")]
            return await asyncio.gather(*(database.write(each) for each in wanted), return_exceptions=True)

        outcomes = asyncio.run(scenario())
        assert [outcomes[0], outcomes[2]] == [None, None]
        assert isinstance(outcomes[1], Exception)
        assert database.read_now(names) == {"before", "behind"}


def test_a_search_that_takes_too_long_is_ended(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialect, "READING", dialect.READING.replace("statement_timeout=5000", "statement_timeout=500"))

    def slow(connection: Connection) -> None:
        connection.execute(text("select pg_sleep(30)"))

    def slow_on_purpose(connection: Connection) -> None:
        database.dialect.take_time(connection)
        connection.execute(text("select pg_sleep(0.6)"))

    with opened(address) as database:
        with pytest.raises(RecordsUnavailable) as caught:
            database.read_now(slow)
        assert caught.value.problem == "slow"
        database.read_now(slow_on_purpose)


def test_many_that_open_an_empty_database_at_once_make_its_tables_once(address: str) -> None:
    async def scenario() -> None:
        found = await asyncio.gather(*(asyncio.to_thread(Database.open, address) for _ in range(4)))
        for number, database in enumerate(found):
            await database.write(partial(put, name=str(number)))
        for database in found:
            assert await database.read(names) == {"0", "1", "2", "3"}
            await database.close()

    asyncio.run(scenario())


def test_another_process_that_submits_wakes_those_who_wait(address: str) -> None:
    async def scenario() -> None:
        with opened(address) as here, opened(address) as there:
            waiting, submitting = RecordsQueue(here), Desk(there)
            owner = await submitting.tenant()
            await waiting.wait(0)
            heard = asyncio.Event()
            loop = asyncio.get_running_loop()

            def hear() -> None:
                loop.call_soon_threadsafe(heard.set)

            here.listen(hear)
            await heard.wait()  # listening has begun
            heard.clear()
            job = await submitting.submit(owner)
            async with asyncio.timeout(STEP_TIMEOUT_S):
                await heard.wait()
            (lease,) = await waiting.claim("here", count=1, lease_s=30)
            assert lease.job.id == job.id

    asyncio.run(scenario())


def test_two_processes_never_claim_the_same(address: str) -> None:
    async def scenario() -> None:
        with opened(address) as here, opened(address) as there:
            desks = [Desk(here), Desk(there)]
            owners = [await desks[0].tenant(name, concurrency_max=30) for name in "abc"]
            for number in range(90):
                await desks[number % 2].submit(owners[number % 3])
            found = await asyncio.gather(*(desk.claim(5) for _ in range(10) for desk in desks))
            leased = [lease.job.id for each in found for lease in each]
            rest = [lease.job.id for lease in await desks[0].claim(100)]
            assert len(leased + rest) == len({*leased, *rest}) == 90

    asyncio.run(scenario())


def test_two_processes_that_submit_one_id_submit_one_job(address: str) -> None:
    async def scenario() -> None:
        with opened(address) as here, opened(address) as there:
            desks = [Desk(here), Desk(there)]
            owner = await desks[0].tenant()
            found = await asyncio.gather(*(desks[number % 2].submit(owner, f"{number // 2}") for number in range(40)))
            assert len({(job.id, job.created_us) for job in found}) == 20
            assert len(await desks[0].claimed()) == 20

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ("postgresql://casemate@/nowhere?host={directory}", RecordsUnavailable),
        ("postgresql://casemate@/postgres?host={directory}/nowhere", RecordsUnavailable),
        ("postgresql://host:many/x", ConfigError),
    ],
)
def test_a_server_that_is_not_there_is_told_without_the_password(
    own_postgres: Server, wrong: str, error: type[Exception]
) -> None:
    with pytest.raises(error) as caught:
        Database.open(wrong.format(directory=own_postgres.directory).replace("casemate@", "casemate:hunter2@"))
    assert "hunter2" not in str(caught.value)


def test_the_place_is_told_without_the_password(own_postgres: Server) -> None:
    found = dialect.Postgres(f"postgresql://casemate:hunter2@/x?host={own_postgres.directory}")
    assert "hunter2" not in found.place
    assert "casemate" in found.place


def test_somebody_elses_database_is_refused(address: str, tmp_path: Path) -> None:
    with psycopg.connect(address) as other:
        other.execute("create table theirs (x int)")
    with pytest.raises(ConfigError, match="of something else"):
        Database.open(address)


def described(address: str) -> list[tuple[object, ...]]:
    """Columns, constraints and indexes."""
    queries = (
        (
            "select table_name, column_name, data_type, is_nullable, character_maximum_length, column_default "
            "from information_schema.columns where table_schema = 'public' order by 1, 2"
        ),
        "select tablename, indexname, indexdef from pg_indexes where schemaname = 'public' order by 1, 2",
        (
            "select conrelid::regclass::text, conname, pg_get_constraintdef(oid) from pg_constraint "
            "where connamespace = 'public'::regnamespace order by 1, 2"
        ),
    )
    with psycopg.connect(address) as connection:
        return [row for query in queries for row in connection.execute(query.encode()).fetchall()]


def test_migrations_make_the_same_tables_as_a_new_database_has(own_postgres: Server, address: str) -> None:
    with opened(address):
        pass
    migrated = own_postgres.new()
    server = dialect.Postgres(migrated)
    engine = server.open_engine(writes=True)
    with server.changing_tables(engine) as connection:
        upgrade(connection)
    engine.dispose()
    new = [row for row in described(address) if row[0] != "alembic_version"]
    assert [row for row in described(migrated) if row[0] != "alembic_version"] == new != []
    with opened(migrated) as database:
        database.write_now(partial(put, name="a"))

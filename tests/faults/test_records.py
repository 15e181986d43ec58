"""Records on a disk that is full, in a file that is locked or damaged, in a process that is killed."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from textwrap import dedent
from typing import TypeAlias

import pytest
from sqlalchemy import Connection, insert, select, text
from tests.integration.records import opened, with_execution, with_tenant

from casemate.errors import RecordsDamaged, RecordsUnavailable
from casemate.store import executions, sqlite
from casemate.store.database import Database
from casemate.store.schema import settings

KILLS = 20
STEP_TIMEOUT_S = 30

Operations: TypeAlias = list[Callable[[Connection], None]]


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with opened(tmp_path / "records.db") as found:
        yield found


def put(connection: Connection, name: str, size_bytes: int = 0) -> None:
    connection.execute(insert(settings), {"name": name, "value": "x" * size_bytes})


def names(connection: Connection) -> set[str]:
    return set(connection.execute(select(settings.c.name)).scalars())


@contextmanager
def nearly_full(path: Path, spare_pages: int) -> Iterator[Database]:
    """A database on a disk that has so much room; it has it again on every new connection."""
    with opened(path) as database:
        used = database.read_now(lambda connection: connection.execute(text("PRAGMA page_count")).scalar_one())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite, "PRAGMAS", (*sqlite.PRAGMAS, f"PRAGMA max_page_count = {used + spare_pages}"))
        with opened(path) as database:
            yield database


def make_room(connection: Connection) -> None:
    connection.execute(text("PRAGMA max_page_count = 100000"))


def test_s10_a_full_disk_refuses_what_does_not_fit_and_nothing_else(tmp_path: Path) -> None:
    async def scenario(database: Database) -> list[BaseException | None]:
        wanted: Operations = [partial(put, name=f"small {each}") for each in range(3)]
        wanted.insert(1, partial(put, name="large", size_bytes=1_000_000))
        return await asyncio.gather(*(database.write(each) for each in wanted), return_exceptions=True)

    with nearly_full(tmp_path / "records.db", spare_pages=8) as database:
        outcomes = asyncio.run(scenario(database))
        assert isinstance(outcomes[1], RecordsUnavailable)
        assert (outcomes[1].problem, outcomes[1].retryable) == ("full", True)
        assert [outcomes[0], *outcomes[2:]] == [None, None, None]
        assert database.read_now(names) == {"small 0", "small 1", "small 2"}


def test_s10_when_there_is_room_again_writing_goes_on(tmp_path: Path) -> None:
    with nearly_full(tmp_path / "records.db", spare_pages=0) as database:
        for _ in range(3):
            with pytest.raises(RecordsUnavailable):
                database.write_now(partial(put, name="large", size_bytes=1_000_000))
        database.write_now(make_room)
        database.write_now(partial(put, name="large", size_bytes=1_000_000))
        assert database.read_now(names) == {"large"}


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")
def test_s10_a_file_system_that_is_full_in_truth(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", disk], check=True)
    try:
        with opened(disk / "records.db") as database:
            (disk / "filler").write_bytes(b"x" * 100_000)
            written = set()
            for each in range(1000):
                try:
                    database.write_now(partial(put, name=str(each), size_bytes=5000))
                except RecordsUnavailable as error:
                    assert error.problem in {"full", "io"}
                    break
                written.add(str(each))
            assert database.read_now(names) == written
            (disk / "filler").unlink()
            database.write_now(partial(put, name="after", size_bytes=5000))
            assert database.read_now(names) == written | {"after"}
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_transaction_that_the_database_ends_is_done_again_write_by_write(database: Database) -> None:
    def ends_it(connection: Connection) -> None:
        put(connection, "half")
        connection.exec_driver_sql("ROLLBACK")
        raise RecordsUnavailable("io", "the transaction is gone")

    async def scenario() -> list[BaseException | None]:
        wanted: Operations = [partial(put, name="before"), ends_it, partial(put, name="behind")]
        return await asyncio.gather(*(database.write(each) for each in wanted), return_exceptions=True)

    outcomes = asyncio.run(scenario())
    assert [outcomes[0], outcomes[2]] == [None, None]
    assert isinstance(outcomes[1], RecordsUnavailable)
    assert database.read_now(names) == {"before", "behind"}


def test_a_commit_that_fails_acknowledges_nothing_that_is_not_there(database: Database) -> None:
    def breaks_the_end(connection: Connection) -> None:
        connection.exec_driver_sql("PRAGMA defer_foreign_keys = ON")
        values = {"tenant_id": "ten_nowhere", "nonce": "n", "expires_us": 1}
        connection.exec_driver_sql("insert into nonces values (:tenant_id, :nonce, :expires_us)", values)

    async def scenario() -> list[BaseException | None]:
        wanted: Operations = [
            partial(put, name="before"),
            breaks_the_end,
            partial(put, name="behind"),
        ]
        return await asyncio.gather(*(database.write(each) for each in wanted), return_exceptions=True)

    outcomes = asyncio.run(scenario())
    assert [outcomes[0], outcomes[2]] == [None, None]
    assert isinstance(outcomes[1], Exception)
    assert database.read_now(names) == {"before", "behind"}


def test_a_lock_of_another_process_is_told_and_waited_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = tuple("PRAGMA busy_timeout = 10" if "busy_timeout" in each else each for each in sqlite.PRAGMAS)
    monkeypatch.setattr(sqlite, "PRAGMAS", quick)
    with opened(tmp_path / "records.db") as database:
        other = sqlite3.connect(tmp_path / "records.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")

        async def scenario() -> list[BaseException | None]:
            wanted: Operations = [partial(put, name=str(each)) for each in range(3)]
            return await asyncio.gather(*(database.write(each) for each in wanted), return_exceptions=True)

        outcomes = asyncio.run(scenario())
        assert {getattr(each, "problem", each) for each in outcomes} == {"locked"}
        assert database.read_now(names) == set()
        other.execute("ROLLBACK")
        other.close()
        database.write_now(partial(put, name="a"))
        assert database.read_now(names) == {"a"}


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "records.db").write_bytes(b"certainly no database " * 1000)
    with pytest.raises(RecordsDamaged) as caught:
        Database.open(tmp_path / "records.db")
    assert not caught.value.retryable
    assert (tmp_path / "records.db").read_bytes().startswith(b"certainly")


def test_a_damaged_table_is_told_and_others_go_on(tmp_path: Path) -> None:
    path = tmp_path / "records.db"
    with opened(path) as database:
        for each in range(50):
            database.write_now(partial(put, name=str(each), size_bytes=1000))
    plain = sqlite3.connect(path)
    page = plain.execute("select rootpage from sqlite_schema where name = 'settings'").fetchone()[0]
    size = plain.execute("PRAGMA page_size").fetchone()[0]
    plain.close()
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)
    with opened(path) as database:
        for _ in range(2):
            with pytest.raises(RecordsDamaged):
                database.read_now(names)
            with pytest.raises(RecordsDamaged):
                database.write_now(partial(put, name="a"))
        owner = with_tenant(database)
        with_execution(database, owner)
        assert database.read_now(partial(executions.unfinished, tenant_id=owner)) == 1


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecordsUnavailable, match="nowhere"):
        Database.open(tmp_path / "nowhere" / "records.db")


def test_an_operation_that_breaks_the_connection_costs_no_other(database: Database) -> None:
    def closes(connection: Connection) -> None:
        driver = connection.connection.driver_connection
        assert driver is not None
        driver.close()

    async def scenario() -> list[BaseException | None]:
        wanted: Operations = [partial(put, name="before"), closes, partial(put, name="behind")]
        return await asyncio.gather(*(database.write(each) for each in wanted), return_exceptions=True)

    outcomes = asyncio.run(scenario())
    assert [outcomes[0], outcomes[2]] == [None, None]
    assert isinstance(outcomes[1], Exception)
    assert database.read_now(names) == {"before", "behind"}


WRITES_UNTIL_KILLED = dedent(
    """
    import asyncio, os, sys
    from functools import partial
    from sqlalchemy import insert
    from casemate.store.database import Database
    from casemate.store.schema import settings

    def put(connection, name):
        connection.execute(insert(settings), {"name": name, "value": 1})

    async def writer(database, number, life):
        each = 0
        while True:
            name = f"{life}/{number}/{each}"
            await database.write(partial(put, name=name))
            os.write(1, f"{name}\\n".encode())
            each += 1

    async def main(path, life):
        database = Database.open(path)
        await asyncio.gather(*(writer(database, number, life) for number in range(10)))

    asyncio.run(main(*sys.argv[1:]))
    """
)


@pytest.mark.slow
def test_nothing_that_was_acknowledged_is_lost_when_the_process_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "records.db"
    acknowledged: set[str] = set()
    for life in range(KILLS):
        command = [sys.executable, "-c", WRITES_UNTIL_KILLED, str(path), str(life)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(random.randrange(1, 200)):
                acknowledged.add(process.stdout.readline().strip())
            process.kill()
            acknowledged |= {line.strip() for line in process.stdout if line.endswith("\n")}
    acknowledged.discard("")
    with opened(path) as database:
        assert acknowledged - database.read_now(names) == set()
        assert len(acknowledged) >= KILLS
        check = database.read_now(lambda connection: connection.execute(text("PRAGMA integrity_check")).scalars().all())
        assert check == ["ok"]

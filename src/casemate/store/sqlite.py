"""All that is particular to SQLite: how it is opened, how transactions begin, what its errors mean."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from casemate.errors import CasemateError, InternalError, RecordsDamaged, RecordsUnavailable
from casemate.service_limits import READ_LOOK_STEPS, READ_MAX_S, READERS, RECORDS_BUSY_TIMEOUT_S, RECORDS_LOG_MAX_BYTES
from casemate.store.dialect import OPTION, Found, Parameters
from casemate.store.job_log_words import SqliteWords

FILE_MODE: Final = 0o600
PRAGMAS: Final = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = NORMAL",
    "PRAGMA foreign_keys = ON",
    f"PRAGMA busy_timeout = {int(RECORDS_BUSY_TIMEOUT_S * 1000)}",
    f"PRAGMA journal_size_limit = {RECORDS_LOG_MAX_BYTES}",
    "PRAGMA trusted_schema = OFF",
)
READ_ONLY: Final = "PRAGMA query_only = ON"
NO_TEMPORARY_FILES: Final = "PRAGMA temp_store = MEMORY"
"""For what a transaction may have to take back, which is little: a process that is killed leaves no file then."""


FULL: Final = frozenset({"SQLITE_FULL"})
INTERRUPTED: Final = "SQLITE_INTERRUPT"
LOCKED: Final = frozenset({"SQLITE_BUSY", "SQLITE_LOCKED"})
DAMAGED: Final = frozenset({"SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_FORMAT"})
FAILING: Final = frozenset({"SQLITE_IOERR", "SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_NOMEM", "SQLITE_PERM"})


class Sqlite:
    """A file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def place(self) -> str:
        return str(self.path)

    @property
    def words(self) -> SqliteWords:
        return SqliteWords()

    def make(self) -> None:
        """Make the file before SQLite does, for its owner alone; its companions get the same mode."""
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE)
        try:
            os.fchmod(descriptor, FILE_MODE)
        finally:
            os.close(descriptor)

    def open_engine(self, *, writes: bool) -> Engine:
        """An engine for one writing thread, or for the reading ones. Nothing is opened yet."""
        engine = create_engine(
            URL.create("sqlite", database=str(self.path)),
            connect_args={"check_same_thread": False},
            json_serializer=_to_json,
            json_deserializer=msgspec.json.decode,
            pool_size=1 if writes else READERS,
            max_overflow=0,
            execution_options={OPTION: self},
        )
        event.listen(engine, "connect", _prepare_writing if writes else _prepare_reading)
        event.listen(engine, "begin", _begin_writing if writes else _begin_reading)
        return engine

    @contextmanager
    def changing_tables(self, engine: Engine) -> Iterator[Connection]:
        """A transaction in which a table can be put in the place of another, and rows that refer to it stay."""
        with engine.connect() as connection:
            driver: Any = connection.connection.driver_connection
            driver.execute("PRAGMA foreign_keys = OFF")  # which has no effect within a transaction
            try:
                with connection.begin():
                    yield connection
            finally:
                driver.execute("PRAGMA foreign_keys = ON")

    def check_references(self, connection: Connection) -> None:
        """Raises RecordsDamaged for rows that refer to what is not there."""
        found = connection.exec_driver_sql("PRAGMA foreign_key_check").first()
        if found is not None:
            told = f"the records have a row of {found[0]} that refers to nothing in {found[2]}"
            raise RecordsDamaged("damaged", told)

    def take_time(self, connection: Connection) -> None:
        _driver(connection).set_progress_handler(None, 0)

    def run(self, connection: Connection, statement: str, parameters: Parameters) -> Found:
        try:
            cursor = _driver(connection).execute(statement, parameters)
            rows = cursor.fetchall()
        except sqlite3.Error as error:
            raise DBAPIError.instance(
                statement, None, error, sqlite3.Error, hide_parameters=True, dialect=connection.dialect
            ) from error
        names = [each[0] for each in cursor.description or ()]
        return Found(cursor.rowcount, [dict(zip(names, row, strict=True)) for row in rows])

    # Transactions and savepoints are begun and ended with the driver: through SQLAlchemy they take as long as the
    # statements within them.

    def set_savepoint(self, connection: Connection) -> None:
        _command(connection, "SAVEPOINT one")

    def release_savepoint(self, connection: Connection) -> None:
        _command(connection, "RELEASE one")

    def roll_back_to_savepoint(self, connection: Connection) -> None:
        _command(connection, "ROLLBACK TO one")
        _command(connection, "RELEASE one")

    def goes_on(self, connection: Connection, error: Exception) -> bool:  # noqa: ARG002 - the driver knows
        return _driver(connection).in_transaction

    def is_undone(self, error: Exception) -> bool:  # noqa: ARG002 - whatever it is
        return True

    def is_passing(self, error: Exception) -> bool:  # noqa: ARG002 - it has waited for locks already
        return False

    def translated(self, error: DBAPIError) -> CasemateError:
        return translated(error)

    def notify(self, connection: Connection) -> None:
        """Nothing: SQLite tells other processes nothing."""

    def listen(self, called: Callable[[], None]) -> Callable[[], None]:  # noqa: ARG002 - as above
        return lambda: None


def _to_json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _prepare_writing(connection: sqlite3.Connection, _: object) -> None:
    """The driver begins transactions when it likes to, and never for a savepoint: we begin them ourselves."""
    _prepare(connection)
    connection.execute(NO_TEMPORARY_FILES)


def _prepare_reading(connection: sqlite3.Connection, _: object) -> None:
    _prepare(connection)
    connection.execute(READ_ONLY)


def _prepare(connection: sqlite3.Connection) -> None:
    connection.isolation_level = None
    for pragma in PRAGMAS:
        connection.execute(pragma)


def _begin_writing(connection: Connection) -> None:
    """A deferred transaction that reads and then writes fails at once, whatever the timeout, if another has written."""
    _command(connection, "BEGIN IMMEDIATE")


def _begin_reading(connection: Connection) -> None:
    until_s = time.monotonic() + READ_MAX_S
    _driver(connection).set_progress_handler(lambda: time.monotonic() > until_s, READ_LOOK_STEPS)
    _command(connection, "BEGIN")


def _driver(connection: Connection) -> sqlite3.Connection:
    found = connection.connection.driver_connection
    assert isinstance(found, sqlite3.Connection)  # noqa: S101  (as opened here)
    return found


def _command(connection: Connection, text: str) -> None:
    """Raises the error of our tree that an error of the database is."""
    try:
        _driver(connection).execute(text)
    except sqlite3.Error as error:
        raise translated(error) from error


def translated(error: DBAPIError | sqlite3.Error) -> CasemateError:
    """The error of our tree that an error of the database is."""
    cause = error if isinstance(error, sqlite3.Error) else error.orig
    name = str(getattr(cause, "sqlite_errorname", ""))
    kind = "_".join(name.split("_")[:2])
    if kind in FULL:
        return RecordsUnavailable(
            "full", "the records take no more: the disk is full", hint="make room; nothing is lost"
        )
    if kind == INTERRUPTED:
        return RecordsUnavailable("slow", "looking for that takes too long", hint="ask for a shorter time, or for less")
    if kind in LOCKED:
        return RecordsUnavailable("locked", "the records are locked by another process")
    if kind in DAMAGED:
        return RecordsDamaged("damaged", f"the records are damaged ({name})", hint="put a backup in their place")
    if kind in FAILING:
        return RecordsUnavailable("io", f"the records cannot be read or written ({name})")
    return InternalError(f"a statement failed: {cause}")

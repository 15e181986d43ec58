"""All that is particular to PostgreSQL: how it is opened, what its errors mean, how it tells other processes."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from casemate.errors import CasemateError, ConfigError, Conflict, InternalError, RecordsDamaged, RecordsUnavailable
from casemate.service_limits import (
    LISTEN_AGAIN_S,
    LISTEN_LOOK_S,
    READ_MAX_S,
    READERS,
    RECORDS_BUSY_TIMEOUT_S,
    RECORDS_CONNECT_TIMEOUT_S,
)
from casemate.store.dialect import OPTION, Found, Parameters
from casemate.store.job_log_words import PostgresWords

try:
    import psycopg
    from psycopg.pq import TransactionStatus
except ImportError as missing:
    _HINT: Final = "install the extra `postgres`"
    raise ConfigError("service.database", "PostgreSQL needs the package psycopg", hint=_HINT) from missing

if TYPE_CHECKING:
    from sqlalchemy.exc import DBAPIError

CHANNEL: Final = "casemate_jobs"
SCHEMA_LOCK: Final = 0x63617365
"""Of one process at a time that looks after the tables."""

_BUSY_MS: Final = int(RECORDS_BUSY_TIMEOUT_S * 1000)
_READ_MS: Final = int(READ_MAX_S * 1000)
OWNER_LOCK: Final = 0x63617366
"""Of the one service that writes."""

NAME_MAX_CHARS: Final = 63
"""Of what a connection is called, as the server keeps it."""

_KEPT_ALIVE: Final = "-c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3"
"""Of a machine that is gone the server knows after 25 seconds; of a process that is gone at once."""

WRITING: Final = f"{_KEPT_ALIVE} -c lock_timeout={_BUSY_MS} -c idle_in_transaction_session_timeout=60000"
READING: Final = (
    "-c default_transaction_read_only=on -c default_transaction_isolation=repeatable\\ read "
    f"-c statement_timeout={_READ_MS}"
)

FULL: Final = frozenset({"53100"})
INTERRUPTED: Final = frozenset({"57014"})
MIXED_UP: Final = frozenset({"40001", "40P01"})
"""Two transactions wanted what the other had: this one can be done again."""

LOCKED: Final = MIXED_UP | {"55P03"}
DAMAGED: Final = frozenset({"XX001", "XX002"})
READ_ONLY: Final = frozenset({"25006"})
FAILING: Final = ("08", "28", "3D", "53", "57", "58", "F0")
"""Classes of errors of the server rather than of the statement: connections, passwords, room, shutdown, its disk."""

_LOG: Final = logging.getLogger(__name__)
_IN_TRANSACTION: Final = frozenset({TransactionStatus.INTRANS, TransactionStatus.INERROR})


class Postgres:
    """A database of a server. Its address is what libpq takes; its password may stand in a file that libpq reads."""

    def __init__(self, address: str, owner: str = "") -> None:
        """`owner`: who is to be the only one that writes; empty: somebody else sees to that."""
        self._url = _url(address)
        self._name = name_of(owner) if owner else ""
        self._is_owned = False

    @property
    def place(self) -> str:
        return self._url.set(drivername="postgresql").render_as_string(hide_password=True)

    @property
    def words(self) -> PostgresWords:
        return PostgresWords()

    def make(self) -> None:
        """Nothing: whoever runs the server has made the database."""

    def open_engine(self, *, writes: bool) -> Engine:
        """An engine for one writing thread, or for the reading ones. Nothing is opened yet."""
        engine = create_engine(
            self._url,
            connect_args={
                "connect_timeout": RECORDS_CONNECT_TIMEOUT_S,
                "application_name": (writes and self._name) or "casemate",
                "options": WRITING if writes else READING,
            },
            json_serializer=_to_json,
            json_deserializer=msgspec.json.decode,
            pool_size=1 if writes else READERS,
            max_overflow=0,
            pool_pre_ping=not writes,  # a server that was started anew must cost no reader an error
            execution_options={OPTION: self},
        )
        if writes and self._name:
            event.listen(engine, "connect", self._own)
        return engine

    def _own(self, driver: psycopg.Connection[Any], _: object) -> None:
        """Be the only one that writes, for as long as this connection lasts: the server ends that with it.

        What is written goes by this very connection, so nothing is written by who is not the only one any more.
        """
        try:
            driver.execute("SELECT pg_advisory_lock(%s)", [OWNER_LOCK])
            driver.commit()
            self._is_owned = True
        except psycopg.errors.LockNotAvailable as error:
            driver.rollback()
            name, place = _owner(driver)
            driver.close()
            raise self._not_owned(name, place) from error
        except BaseException:
            driver.close()
            raise

    def _not_owned(self, name: str, place: str) -> CasemateError:
        """Two that have one name are this service and what is left of it: that ends soon."""
        problem = f"{self.place} is in use by another `casemate serve`: {name}, {place}"
        if self._is_owned or name == self._name:
            return RecordsUnavailable("locked", problem)
        return Conflict(
            problem, hint="end that one, or name another database; one that died lets go within half a minute"
        )

    @contextmanager
    def changing_tables(self, engine: Engine) -> Iterator[Connection]:
        """A transaction in which no other process of ours changes tables."""
        with engine.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": SCHEMA_LOCK})
            yield connection

    def check_references(self, connection: Connection) -> None:
        """Nothing: the server lets no such row come to be."""

    def take_time(self, connection: Connection) -> None:
        _command(connection, "SET LOCAL statement_timeout = 0")

    def run(self, connection: Connection, statement: str, parameters: Parameters) -> Found:
        found = connection.exec_driver_sql(statement, parameters)
        return Found(found.rowcount, [dict(row) for row in found.mappings()] if found.returns_rows else [])

    def set_savepoint(self, connection: Connection) -> None:
        _command(connection, "SAVEPOINT one")

    def release_savepoint(self, connection: Connection) -> None:
        _command(connection, "RELEASE one")

    def roll_back_to_savepoint(self, connection: Connection) -> None:
        _command(connection, "ROLLBACK TO one")
        _command(connection, "RELEASE one")

    def goes_on(self, connection: Connection, error: Exception) -> bool:
        return _driver(connection).info.transaction_status in _IN_TRANSACTION and _state(error) not in MIXED_UP

    def is_undone(self, error: Exception) -> bool:
        """Of a commit that the server has refused nothing is there; where nothing was heard of it nobody knows."""
        return bool(_state(error)) and not _state(error).startswith(FAILING)

    def is_passing(self, error: Exception) -> bool:
        """Two that wanted what the other had; a connection to a server that was started anew since."""
        return _state(error) in MIXED_UP or _is_lost(error)

    def translated(self, error: DBAPIError) -> CasemateError:
        return translated(error)

    def notify(self, connection: Connection) -> None:
        connection.execute(_NOTIFY)

    def listen(self, called: Callable[[], None]) -> Callable[[], None]:
        """A thread with a connection of its own, which it opens again whenever that is lost."""
        listener = _Listener(self._url, called)
        listener.start()
        return listener.stop


_NOTIFY: Final = text(f"SELECT pg_notify('{CHANNEL}', '')")


class _Listener(threading.Thread):
    """Waits for notices."""

    def __init__(self, url: URL, called: Callable[[], None]) -> None:
        super().__init__(name="casemate-listener", daemon=True)
        self._address = url.set(drivername="postgresql").render_as_string(hide_password=False)
        self._called = called
        self._stopped = threading.Event()

    def stop(self) -> None:
        self._stopped.set()
        self.join()

    def run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._listen()
            except psycopg.Error as error:
                _LOG.warning("notices of the records are not heard for the moment: %s", type(error).__name__)
                self._stopped.wait(LISTEN_AGAIN_S)

    def _listen(self) -> None:
        timeout_s = int(RECORDS_CONNECT_TIMEOUT_S)
        with psycopg.connect(self._address, autocommit=True, connect_timeout=timeout_s) as connection:
            connection.execute(f"LISTEN {CHANNEL}")
            self._called()  # for what came before
            while not self._stopped.is_set():
                for _ in connection.notifies(timeout=LISTEN_LOOK_S, stop_after=1):
                    self._called()


def name_of(owner: str) -> str:
    """What the connection of an owner is called; two of them differ by it."""
    name = f"casemate {owner}".encode("ascii", "replace").decode()
    if len(name) <= NAME_MAX_CHARS:
        return name
    begin = f"casemate {hashlib.sha256(owner.encode()).hexdigest()[:8]} "
    return begin + name[len(begin) - NAME_MAX_CHARS :]


def _owner(driver: psycopg.Connection[Any]) -> tuple[str, str]:
    """What the connection is called that has the lock, and where it is from."""
    found = driver.execute(_OWNER, [OWNER_LOCK]).fetchone()
    if found is None:
        return "one that has just let go", "it may be tried again"
    name, address, pid = found
    return name, f"{f'from {address}' if address else 'on the server itself'}, server process {pid}"


_OWNER: Final = """
SELECT a.application_name, host(a.client_addr), a.pid FROM pg_locks AS l JOIN pg_stat_activity AS a ON a.pid = l.pid
WHERE l.locktype = 'advisory' AND l.granted AND l.classid = 0 AND l.objid = %s AND l.objsubid = 1
AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


def _url(address: str) -> URL:
    try:
        url = make_url(address)
    except (ArgumentError, ValueError) as error:
        raise ConfigError("service.database", "is no address", hint="postgresql://user@host/name") from error
    return url.set(drivername="postgresql+psycopg")


def _to_json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _driver(connection: Connection) -> psycopg.Connection[Any]:
    return cast("psycopg.Connection[Any]", connection.connection.driver_connection)


def _command(connection: Connection, command: str) -> None:
    """Raises the error of our tree that an error of the database is."""
    try:
        _driver(connection).execute(command.encode())
    except psycopg.Error as error:
        raise translated(error) from error


def _origin(error: BaseException | None) -> psycopg.Error | None:
    """The driver's error behind one of SQLAlchemy's or ours."""
    while error is not None and not isinstance(error, psycopg.Error):
        error = getattr(error, "orig", None) or error.__cause__
    return error


def _state(error: BaseException) -> str:
    """What the server calls an error; empty if it was not the server."""
    cause = _origin(error)
    return (cause.sqlstate or "") if cause is not None else ""


def _is_lost(error: BaseException) -> bool:
    """Whether the connection is gone, and not a statement wrong."""
    cause = _origin(error)
    said = isinstance(cause, psycopg.OperationalError | psycopg.InterfaceError)
    return said and (not _state(error) or _state(error).startswith(("08", "57P")))


def translated(error: DBAPIError | psycopg.Error) -> CasemateError:
    """The error of our tree that an error of the database is."""
    state = _state(error)
    if state in FULL:
        return RecordsUnavailable(
            "full", "the records take no more: the disk is full", hint="make room; nothing is lost"
        )
    if state in INTERRUPTED:
        return RecordsUnavailable("slow", "looking for that takes too long", hint="ask for a shorter time, or for less")
    if state in LOCKED:
        return RecordsUnavailable("locked", "the records are locked by another process")
    if state in DAMAGED:
        return RecordsDamaged("damaged", f"the records are damaged ({state})", hint="put a backup in their place")
    if _is_lost(error):
        return RecordsUnavailable("io", "the server of the records does not answer")
    if state in READ_ONLY or state.startswith(FAILING):
        return RecordsUnavailable("io", f"the records cannot be read or written ({type(_origin(error)).__name__})")
    return InternalError(f"a statement failed: {_origin(error)}")

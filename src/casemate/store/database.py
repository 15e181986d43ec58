"""The records of the service: one database, one thread that writes, a few that read."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from casemate.errors import RecordsUnavailable
from casemate.service_config import DATABASE_ADDRESSES
from casemate.service_limits import POSTS_WAITING_MAX, READERS, READS_WAITING_MAX, RECORDS_CLOSE_TIMEOUT_S
from casemate.store.dialect import Dialect
from casemate.store.migrate import prepare
from casemate.store.stored import Stored
from casemate.store.writer import Write, Writer, told

T = TypeVar("T")
_LOG: Final = logging.getLogger(__name__)
Records: TypeAlias = Connection
"""What operations are functions of, for those who do not import SQLAlchemy."""


class Database:
    """Writes and reads are functions of a connection, each in a transaction; asked from event loops or from threads.

    An acknowledged write outlives the process. What the computer's own end may take with it is the last moments.
    """

    def __init__(self, dialect: Dialect, writing: Engine, reading: Engine) -> None:
        self.dialect = dialect
        self._writing = writing
        self._reading = reading
        self._writer = Writer(writing, dialect)
        self.stored = Stored()
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="casemate-reader")
        self._reads_waiting = 0
        self._stops: list[Callable[[], None]] = []
        self._is_open = True

    @classmethod
    def open(cls, place: str | Path, *, owner: str = "") -> Database:
        """Open it, and bring its schema up to date: the PostgreSQL at an address, or a file, which is made if need be.

        `owner`: who is to be the only one that writes; of a file it is whoever has its directory.
        Raises RecordsUnavailable, ConfigError, and Conflict where there is another owner.
        """
        dialect = _dialect(place, owner)
        writing = dialect.open_engine(writes=True)
        try:
            dialect.make()
            with dialect.changing_tables(writing) as connection:
                prepare(connection, dialect.place)
        except OSError as error:
            writing.dispose()
            raise RecordsUnavailable("io", f"{dialect.place} cannot be opened: {error.strerror}") from error
        except DBAPIError as error:
            writing.dispose()
            _LOG.error("%s cannot be opened: %s", dialect.place, error.orig)
            raise told(error, dialect) from error
        except BaseException:
            writing.dispose()
            raise
        return cls(dialect, writing, dialect.open_engine(writes=False))

    # From an event loop ---------------------------------------------------------------------------

    async def write(self, operation: Callable[[Connection], T]) -> T:
        """Carry out an operation that writes, and come back when it is committed.

        One that is cancelled while it waits is carried out nonetheless.
        """
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[T] = loop.create_future()
        self._writer.submit(Write(operation, waiter, loop))
        return await waiter

    async def read(self, operation: Callable[[Connection], T]) -> T:
        """Carry out an operation that only reads: it sees what was committed before it began."""
        if self._reads_waiting >= READS_WAITING_MAX:
            raise RecordsUnavailable("busy", f"more than {READS_WAITING_MAX} reads are waiting")
        self._reads_waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._readers, self.read_now, operation)
        except RuntimeError as error:
            if self._is_open:
                raise
            raise RecordsUnavailable("closed", "the records are closed") from error
        finally:
            self._reads_waiting -= 1

    async def close(self) -> None:
        """Carry out the writes that wait, and close the file. Later operations raise RecordsUnavailable."""
        await asyncio.get_running_loop().run_in_executor(None, self.close_now)

    # From a thread --------------------------------------------------------------------------------

    def write_now(self, operation: Callable[[Connection], T]) -> T:
        """As `write`, for callers without an event loop."""
        waiter: Future[T] = Future()
        self._writer.submit(Write(operation, waiter))
        return waiter.result()

    def read_now(self, operation: Callable[[Connection], T]) -> T:
        """As `read`, in the thread that calls."""
        if not self._is_open:
            raise RecordsUnavailable("closed", "the records are closed")
        try:
            with self._reading.begin() as connection:
                return operation(connection)
        except DBAPIError as error:
            raise told(error, self.dialect) from error

    def post(self, operation: Callable[[Connection], Any], *, is_spare: bool = False) -> bool:
        """Have a write carried out that nobody waits for, and that may be lost. False if it is: the line is full.

        For one that is spare it is full much sooner: so who has much to be written down keeps nobody else out of it.
        """
        if is_spare and self._writer.waiting_count >= POSTS_WAITING_MAX:
            return False
        try:
            self._writer.submit(Write(operation, None))
        except RecordsUnavailable as error:
            _LOG.warning("a write that nobody waits for was left out: %s", error)
            return False
        return True

    def listen(self, called: Callable[[], None]) -> None:
        """Have something called, in any thread, when another process has written what is to be looked at.

        Only PostgreSQL tells; with a file there is no other process.
        """
        self._stops.append(self.dialect.listen(called))

    def close_now(self) -> None:
        """As `close`."""
        self._is_open = False
        while self._stops:
            self._stops.pop()()
        self._writer.close(RECORDS_CLOSE_TIMEOUT_S)
        self._readers.shutdown(wait=True)
        self._reading.dispose()
        self._writing.dispose()


def _dialect(place: str | Path, owner: str) -> Dialect:
    if isinstance(place, str) and place.startswith(DATABASE_ADDRESSES):
        from casemate.store.postgres import Postgres

        return Postgres(place, owner)
    from casemate.store.sqlite import Sqlite

    return Sqlite(Path(place).absolute())

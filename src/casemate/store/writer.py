"""The one thread that writes: many operations a transaction, each in a savepoint, so that one that fails fails alone.

A write is acknowledged when its transaction is committed, never before. Operations are functions of a connection; they
may be run again if the database has ended their transaction, so they do nothing but statements.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import DBAPIError

from casemate.errors import CasemateError, InternalError, RecordsUnavailable
from casemate.service_limits import WRITE_TRANSACTION_MAX_S, WRITES_A_TRANSACTION_MAX, WRITES_WAITING_MAX
from casemate.store.dialect import Dialect

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine


class Write:
    """One operation that waits for its transaction, and then what came of it."""

    __slots__ = ("error", "loop", "operation", "value", "waiter")

    def __init__(
        self,
        operation: Callable[[Connection], Any],
        waiter: asyncio.Future[Any] | Future[Any] | None,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.operation = operation
        self.waiter = waiter
        self.loop = loop
        self.value: Any = None
        self.error: Exception | None = None

    def settle(self) -> None:
        """Tell whoever waits; one that was cancelled meanwhile is not told."""
        if self.waiter is None or self.waiter.done():
            return
        if self.error is not None:
            self.waiter.set_exception(self.error)
        else:
            self.waiter.set_result(self.value)


class Writer:
    """Carries out writes in the order in which they came."""

    def __init__(self, engine: Engine, dialect: Dialect) -> None:
        self._engine = engine
        self._dialect = dialect
        self._waiting: deque[Write] = deque()
        self._changed = threading.Condition()
        self._is_open = True
        self._connection: Connection | None = None
        self._thread = threading.Thread(target=self._work, name="casemate-records", daemon=True)
        self._thread.start()

    @property
    def waiting_count(self) -> int:
        return len(self._waiting)

    def submit(self, write: Write) -> None:
        """Put a write into the line. Raises RecordsUnavailable when that is full or closed."""
        with self._changed:
            if not self._is_open:
                raise RecordsUnavailable("closed", "the records are closed")
            if len(self._waiting) >= WRITES_WAITING_MAX:
                raise RecordsUnavailable("busy", f"more than {WRITES_WAITING_MAX} writes are waiting")
            self._waiting.append(write)
            self._changed.notify()

    def close(self, timeout_s: float) -> bool:
        """Carry out what waits, then end the thread. False if that takes longer."""
        with self._changed:
            self._is_open = False
            self._changed.notify()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    # In the thread --------------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            while self._wait_for_work():
                _deliver(self._transact())
        finally:
            self._disconnect()

    def _wait_for_work(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or not self._is_open)
            return bool(self._waiting)

    def _transact(self) -> list[Write]:
        """One transaction; where it fails as a whole, its writes are tried again, each in one of its own."""
        taken: list[Write] = []
        is_committing = False
        try:
            with self._begun() as connection:
                self._take(connection, taken)
                is_committing = True
        except Exception as error:  # noqa: BLE001 - whatever it is, the thread goes on and nobody waits forever
            self._disconnect()
            if not taken:
                taken = self._refuse_waiting(error)
            elif self._may_try_again(error, len(taken), is_committing=is_committing):
                self._retry(taken)
            else:
                self._fail(taken, error)
        return taken

    def _may_try_again(self, error: Exception, count: int, *, is_committing: bool) -> bool:
        """A write may be at fault for others; a commit may have succeeded though nothing was heard of it."""
        if is_committing and not self._dialect.is_undone(error):
            return False
        return count > 1 or self._dialect.is_passing(_cause(error))

    def _retry(self, writes: list[Write]) -> None:
        for index, write in enumerate(writes):
            if self._connection is None:
                try:
                    self._connection = self._engine.connect()
                except Exception as error:  # noqa: BLE001 - as above
                    self._fail(writes[index:], error)
                    return
            self._retry_alone(write)

    def _fail(self, writes: list[Write], error: Exception) -> None:
        for write in writes:
            write.error = told(error, self._dialect)

    def _take(self, connection: Connection, taken: list[Write]) -> None:
        until_s = time.monotonic() + WRITE_TRANSACTION_MAX_S
        while self._waiting and len(taken) < WRITES_A_TRANSACTION_MAX and time.monotonic() < until_s:
            taken.append(self._waiting.popleft())
            self._carry_out(connection, taken[-1])

    def _retry_alone(self, write: Write) -> None:
        write.error = None
        try:
            with self._begun() as connection:
                self._carry_out(connection, write)
        except Exception as error:  # noqa: BLE001 - as above
            self._disconnect()
            write.error = told(error, self._dialect)

    def _refuse_waiting(self, error: Exception) -> list[Write]:
        """No transaction can be begun: a transaction's worth of what waits is told so."""
        refused = [self._waiting.popleft() for _ in range(min(len(self._waiting), WRITES_A_TRANSACTION_MAX))]
        self._fail(refused, error)
        return refused

    def _carry_out(self, connection: Connection, write: Write) -> None:
        """One operation in its savepoint. Its error is the write's, unless it was the end of the whole transaction."""
        self._dialect.set_savepoint(connection)
        try:
            write.value = write.operation(connection)
            self._dialect.release_savepoint(connection)
        except Exception as error:
            if not self._dialect.goes_on(connection, error):
                raise _TransactionEnded from error
            self._dialect.roll_back_to_savepoint(connection)
            write.error = told(error, self._dialect)

    @contextmanager
    def _begun(self) -> Iterator[Connection]:
        if self._connection is None:
            self._connection = self._engine.connect()
        with self._connection.begin():
            yield self._connection

    def _disconnect(self) -> None:
        """Forget the connection, which may be in any state; the next transaction opens another."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.invalidate()
            connection.close()


class _TransactionEnded(Exception):
    """The database has ended the transaction by itself: nothing that was done in it is there."""


def _cause(error: Exception) -> Exception:
    """What has ended the transaction."""
    cause = error.__cause__
    return cause if isinstance(error, _TransactionEnded) and isinstance(cause, Exception) else error


def told(error: Exception, dialect: Dialect) -> Exception:
    """What the caller is told of an error: one of ours; foreign ones keep what they say about the statement."""
    error = _cause(error)
    if isinstance(error, DBAPIError):
        return _caused_by(dialect.translated(error), error)
    if isinstance(error, CasemateError):
        return error
    return _caused_by(InternalError(f"a write failed: {type(error).__name__}: {error}"), error)


def _caused_by(error: CasemateError, cause: BaseException) -> CasemateError:
    error.__cause__ = cause
    return error


def _deliver(done: list[Write]) -> None:
    """Tell everybody, each event loop once."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Write]] = {}
    for write in done:
        if write.loop is None:
            write.settle()
        else:
            by_loop.setdefault(write.loop, []).append(write)
    for loop, writes in by_loop.items():
        with suppress(RuntimeError):  # the loop is closed: nobody waits there any more
            loop.call_soon_threadsafe(_settle, writes)


def _settle(writes: list[Write]) -> None:
    for write in writes:
        write.settle()

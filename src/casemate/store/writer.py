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
from casemate.store.sqlite import (
    is_in_transaction,
    release_savepoint,
    roll_back_to_savepoint,
    set_savepoint,
    translated,
)

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

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
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
        try:
            with self._begun() as connection:
                self._take(connection, taken)
        except Exception as error:  # noqa: BLE001 - whatever it is, the thread goes on and nobody waits forever
            self._disconnect()
            if not taken:
                taken = self._refuse_waiting(error)
            elif len(taken) == 1:
                taken[0].error = told(error)
            else:
                for write in taken:
                    self._retry_alone(write)
        return taken

    def _take(self, connection: Connection, taken: list[Write]) -> None:
        until_s = time.monotonic() + WRITE_TRANSACTION_MAX_S
        while self._waiting and len(taken) < WRITES_A_TRANSACTION_MAX and time.monotonic() < until_s:
            taken.append(self._waiting.popleft())
            _carry_out(connection, taken[-1])

    def _retry_alone(self, write: Write) -> None:
        write.error = None
        try:
            with self._begun() as connection:
                _carry_out(connection, write)
        except Exception as error:  # noqa: BLE001 - as above
            self._disconnect()
            write.error = told(error)

    def _refuse_waiting(self, error: Exception) -> list[Write]:
        """No transaction can be begun: a transaction's worth of what waits is told so."""
        refused = [self._waiting.popleft() for _ in range(min(len(self._waiting), WRITES_A_TRANSACTION_MAX))]
        for write in refused:
            write.error = told(error)
        return refused

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


def _carry_out(connection: Connection, write: Write) -> None:
    """One operation in its savepoint. Its error is the write's, unless it was the end of the whole transaction."""
    set_savepoint(connection)
    try:
        write.value = write.operation(connection)
        release_savepoint(connection)
    except Exception as error:
        if not is_in_transaction(connection):
            raise _TransactionEnded from error
        roll_back_to_savepoint(connection)
        write.error = told(error)


def told(error: BaseException) -> Exception:
    """What the caller is told of an error: one of ours; foreign ones keep what they say about the statement."""
    if isinstance(error, _TransactionEnded) and error.__cause__ is not None:
        return told(error.__cause__)
    if isinstance(error, DBAPIError):
        return _caused_by(translated(error), error)
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

"""A gate for asyncio: so many turns at a time, in the order that `fairness` decides. Whoever waits may go away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec

from casemate.errors import InvalidInput, ServiceUnavailable, TooManyRequests
from casemate.queue.fairness import Bounds, Line, Ticket
from casemate.service_limits import (
    PRIORITY_DEFAULT,
    PRIORITY_MAX,
    PRIORITY_MIN,
    TURN_RETRY_MAX_S,
    TURN_RETRY_MIN_S,
    TURN_TYPICAL_S,
    TURNS_SPARE_DIVISOR,
    TURNS_WAITING_MAX,
)

_OF_THE_OLD = 0.9
"""How much of what turns used to take counts against what the last one took."""


class TenantTurns(msgspec.Struct, frozen=True, kw_only=True):
    """How many of a tenant's wait and run."""

    waiting: int
    running: int


class GateStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What stands before and behind a gate."""

    waiting: int
    running: int
    running_max: int
    refused_total: int
    admitted_total: int
    tenants: dict[str, TenantTurns]


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """A turn that was given, and how long that took."""

    waited_s: float


class Gate:
    """Lets in `running_max` at a time. For one event loop."""

    def __init__(
        self,
        running_max: int,
        *,
        waiting_max: int = TURNS_WAITING_MAX,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._line = Line()
        self._granted: dict[Ticket, asyncio.Future[None]] = {}
        self._running_max = running_max
        self._waiting_max = waiting_max
        self._clock = clock
        self._typical_s = TURN_TYPICAL_S
        self._refused = 0
        self._admitted = 0
        self._is_open = True

    @asynccontextmanager
    async def turn(self, tenant: str, priority: int = PRIORITY_DEFAULT, *, bounds: Bounds) -> AsyncIterator[Turn]:
        """Wait for a turn, and have it until the end of the block.

        Raises TooManyRequests where too many wait already, ServiceUnavailable when the gate closes.
        """
        arrived_s = self._clock()
        await self._wait(tenant, priority, bounds)
        entered_s = self._clock()
        try:
            yield Turn(waited_s=entered_s - arrived_s)
        finally:
            took_s = self._clock() - entered_s
            self._typical_s = _OF_THE_OLD * self._typical_s + (1 - _OF_THE_OLD) * took_s
            self._release(tenant)

    def resize(self, running_max: int) -> None:
        """Let in more or fewer from now on; those that are in stay."""
        self._running_max = running_max
        self._admit()

    def close(self) -> None:
        """Let nobody in any more; whoever waits is told. Turns that were given go on."""
        self._is_open = False
        for ticket, granted in list(self._granted.items()):
            self._line.leave(ticket)
            if not granted.done():
                granted.set_exception(ServiceUnavailable("the service is shutting down"))
        self._granted.clear()

    def statistics(self) -> GateStatistics:
        tenants = {
            name: TenantTurns(waiting=waiting, running=running)
            for name, (waiting, running) in self._line.counts().items()
        }
        return GateStatistics(
            waiting=self._line.waiting,
            running=self._line.running,
            running_max=self._running_max,
            refused_total=self._refused,
            admitted_total=self._admitted,
            tenants=tenants,
        )

    async def _wait(self, tenant: str, priority: int, bounds: Bounds) -> None:
        self.check(tenant, priority, bounds)
        ticket = self._line.add(tenant, bounds, priority)
        granted = self._granted[ticket] = asyncio.get_running_loop().create_future()
        self._admit()
        try:
            await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled() and granted.exception() is None:
                self._release(tenant)
            elif self._granted.pop(ticket, None) is not None:
                self._line.leave(ticket)
                self._admit()
            raise

    def check(self, tenant: str, priority: int, bounds: Bounds) -> None:
        """Raise what `turn` would raise at once: TooManyRequests, ServiceUnavailable or InvalidInput."""
        if not PRIORITY_MIN <= priority <= PRIORITY_MAX:
            raise InvalidInput("priority", f"must be from {PRIORITY_MIN} to {PRIORITY_MAX}")
        if not self._is_open:
            raise ServiceUnavailable("the service is shutting down")
        may_enter = self._line.running < self._running_max and self._line.running_of(tenant) < bounds.running_max
        if may_enter and not self._line.waiting_of(tenant):
            return
        if self._line.waiting_of(tenant) >= bounds.waiting_max:
            self._refuse(f"{bounds.waiting_max} of this tenant are waiting already", self._line.waiting_of(tenant))
        if self._line.waiting >= self._waiting_max and self._has_its_share(tenant):
            self._refuse("too many are waiting already", self._line.waiting)

    def _has_its_share(self, tenant: str) -> bool:
        """Whether it has as much of a full line as each who waits; so nobody can fill it for all others."""
        return self._line.waiting_of(tenant) * self._line.tenants_waiting >= self._waiting_max

    def _refuse(self, message: str, ahead: int) -> None:
        self._refused += 1
        expected_s = self._typical_s * (ahead + 1) / max(1, self._running_max)
        raise TooManyRequests(message, retry_after_s=min(max(expected_s, TURN_RETRY_MIN_S), TURN_RETRY_MAX_S))

    def _admit(self) -> None:
        while (ticket := self._next()) is not None:
            granted = self._granted.pop(ticket)
            if granted.done():  # its waiter was cancelled, and has not come to know yet
                self._line.release(ticket.tenant)
            else:
                self._admitted += 1
                granted.set_result(None)

    def _next(self) -> Ticket | None:
        """Where all turns are taken, whoever has none gets one of a few more, and waits for nobody's long runs."""
        if self._line.running < self._running_max:
            return self._line.take()
        if self._line.running < self._running_max + self._running_max // TURNS_SPARE_DIVISOR:
            return self._line.take(only_idle=True)
        return None

    def _release(self, tenant: str) -> None:
        self._line.release(tenant)
        self._admit()

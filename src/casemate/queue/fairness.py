"""Whose turn it is. Pure: a line of waiting tickets of many tenants, and a decision that can be reasoned about.

Among the tenants that wait and are below their bound, the one with the fewest turns relative to its share is next; of
equals the one that has waited longest since it was last served, or since it came. Within a tenant higher priority comes
first, and whoever came first among equals.

No tenant starves: one that has nothing running is overtaken at most once by each tenant that was waiting when it came,
and by none that came later. So with n others waiting it has a turn after at most n others have been given one, however
many tickets each of them has. A priority counts inside its tenant alone: many urgent tickets delay those beside them.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator, Sequence

import msgspec

from casemate.model.job import Standing
from casemate.service_limits import PRIORITY_DEFAULT


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """What a tenant may have: turns at a time, tickets that wait, and its share of what there is, 1 like all others."""

    running_max: int
    waiting_max: int
    share: float = 1.0


class Ticket:
    """One that waits. It is its own identity."""

    __slots__ = ("is_gone", "priority", "serial", "tenant")

    def __init__(self, tenant: str, priority: int, serial: int) -> None:
        self.tenant = tenant
        self.priority = priority
        self.serial = serial
        self.is_gone = False

    def __lt__(self, other: Ticket) -> bool:
        return (-self.priority, self.serial) < (-other.priority, other.serial)


class _Tenant:
    """What a line knows of a tenant that has tickets or turns."""

    __slots__ = ("bounds", "running", "since", "tickets", "waiting")

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.running = 0
        self.waiting = 0
        self.since = 0
        self.tickets: list[Ticket] = []


class Line:
    """Tickets and turns. A decision looks at each waiting tenant once; adding and leaving take the logarithm of a
    tenant's tickets. Of tenants that have neither tickets nor turns it knows nothing.
    """

    def __init__(self) -> None:
        self._tenants: dict[str, _Tenant] = {}
        self._lined_up: dict[str, _Tenant] = {}
        self._serials: Iterator[int] = itertools.count(1)
        self.waiting = 0
        self.running = 0

    def counts(self) -> dict[str, tuple[int, int]]:
        """Of each tenant: how many wait, how many have a turn."""
        return {name: (tenant.waiting, tenant.running) for name, tenant in self._tenants.items()}

    @property
    def tenants_waiting(self) -> int:
        return len(self._lined_up)

    def waiting_of(self, tenant: str) -> int:
        found = self._tenants.get(tenant)
        return 0 if found is None else found.waiting

    def running_of(self, tenant: str) -> int:
        found = self._tenants.get(tenant)
        return 0 if found is None else found.running

    def add(self, tenant: str, bounds: Bounds, priority: int = PRIORITY_DEFAULT) -> Ticket:
        """Line up. The bounds that are given last are the tenant's."""
        ticket = Ticket(tenant, priority, next(self._serials))
        found = self._tenants.setdefault(tenant, _Tenant(bounds))
        found.bounds = bounds
        if not found.waiting:
            found.since = ticket.serial
            self._lined_up[tenant] = found
        heapq.heappush(found.tickets, ticket)
        found.waiting += 1
        self.waiting += 1
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """Give up waiting."""
        ticket.is_gone = True
        found = self._tenants[ticket.tenant]
        self._stopped_waiting(ticket.tenant, found)
        if len(found.tickets) > 2 * found.waiting:
            found.tickets = [each for each in found.tickets if not each.is_gone]
            heapq.heapify(found.tickets)

    def take(self, *, only_idle: bool = False) -> Ticket | None:
        """The one whose turn it is, which then has it; None if nobody waits who may, or who has none yet."""
        able = [
            name
            for name, tenant in self._lined_up.items()
            if tenant.running < (min(1, tenant.bounds.running_max) if only_idle else tenant.bounds.running_max)
        ]
        if not able:
            return None
        name = min(able, key=self._rank)
        tenant = self._lined_up[name]
        ticket = heapq.heappop(tenant.tickets)
        while ticket.is_gone:
            ticket = heapq.heappop(tenant.tickets)
        tenant.running += 1
        tenant.since = next(self._serials)
        self.running += 1
        self._stopped_waiting(name, tenant)
        return ticket

    def release(self, tenant: str) -> None:
        """End a turn."""
        found = self._tenants[tenant]
        found.running -= 1
        self.running -= 1
        self._forget_idle(tenant, found)

    def _rank(self, name: str) -> tuple[float, int]:
        tenant = self._lined_up[name]
        return tenant.running / tenant.bounds.share, tenant.since

    def _stopped_waiting(self, name: str, tenant: _Tenant) -> None:
        tenant.waiting -= 1
        self.waiting -= 1
        if not tenant.waiting:
            del self._lined_up[name]
            tenant.tickets.clear()
        self._forget_idle(name, tenant)

    def _forget_idle(self, name: str, tenant: _Tenant) -> None:
        if not tenant.waiting and not tenant.running:
            del self._tenants[name]


def share_out(standings: Sequence[Standing], count: int) -> list[str]:
    """Whose turns the next ones are, by the same rule as a Line's: no more than `count`, and than each may have."""
    ranked = [(each.leased, each.since_us, each.tenant_id, each) for each in standings if _may_have_more(each)]
    heapq.heapify(ranked)
    latest = max((each.since_us for each in standings), default=0)
    turns: list[str] = []
    while ranked and len(turns) < count:
        each = heapq.heappop(ranked)[-1]
        turns.append(each.tenant_id)
        served = msgspec.structs.replace(
            each, ready=each.ready - 1, leased=each.leased + 1, since_us=latest + len(turns)
        )
        if _may_have_more(served):
            heapq.heappush(ranked, (served.leased, served.since_us, served.tenant_id, served))
    return turns


def _may_have_more(standing: Standing) -> bool:
    return standing.ready > 0 and standing.leased < standing.leased_max

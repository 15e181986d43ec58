"""The queue of jobs: rows that are leased, one at a time, to whoever carries them out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

import msgspec

from casemate.model.job import Job, JobSpec, JobState, Transition
from casemate.store.database import Records

Beside: TypeAlias = Callable[[Records, Job], None]
"""Called within the transaction that changes a job, with the job as it is then: notices and usage are written so.

If it raises, nothing has changed. It is called in the thread that writes, and only where the job came to another state.
"""


def nothing_beside(_: Records, __: Job) -> None:
    """Nothing else is written."""


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt at a job, held until `until_us` unless it is renewed. `token` is nobody else's."""

    job: Job
    token: str
    until_us: int


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """How an attempt ended. `state` is what the job becomes: one of ENDED, or QUEUED again from `due_us` on.

    `steps`: transitions before the end that were not noted when they came, because the attempt was short.
    """

    state: JobState
    status: str
    reason: str
    exit_code: int | None = None
    result: bytes | None = None
    due_us: int = 0
    detail: str = ""
    steps: tuple[Transition, ...] = ()


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """What renewing found: leases still held, by token, and those of them whose job is to be cancelled."""

    held: frozenset[str]
    cancelled: frozenset[str]


class Queue(Protocol):
    """Accepts jobs and leases them. Every method is one transaction; SQLite and PostgreSQL behave alike.

    The order: priority, then the time at which a job is due, within a tenant; between tenants whoever has the fewest
    leases relative to its share. No tenant has more leases than its bound.
    """

    async def submit(self, job: Job, *, queue_max: int, beside: Beside = nothing_beside) -> Job:
        """Accept it. The same id with the same spec: the job that is there. Raises Conflict, TooManyRequests."""

    async def claim(self, holder: str, *, count: int, lease_s: float) -> tuple[Lease, ...]:
        """Lease up to `count` jobs that are due. Each of them is `preparing` from here on, its attempt counted."""

    async def renew(self, tokens: Sequence[str], *, lease_s: float) -> Held:
        """Hold them longer. Those that are not held any more may have been leased to somebody else."""

    async def holds(self, token: str) -> bool:
        """Whether a lease is held: nobody else has its job."""

    async def note(
        self,
        token: str,
        state: JobState,
        detail: str = "",
        *,
        at_us: int | None = None,
        beside: Beside = nothing_beside,
    ) -> bool:
        """Record that the attempt is running or collecting, since `at_us`, or now.

        False: the lease is not held any more.
        """

    async def end(self, token: str, ending: Ending, *, beside: Beside = nothing_beside) -> bool:
        """Record how it ended, and give the lease back. False: it was not held any more, and nothing is recorded."""

    async def cancel(self, tenant_id: str, job_id: str, *, beside: Beside = nothing_beside) -> Job:
        """One that waits is cancelled at once; of one that is leased the holder is told. Raises NotFound."""

    async def expire(self, *, holder: str = "", beside: Beside = nothing_beside) -> tuple[Job, ...]:
        """Take back leases that were not renewed; their jobs are queued again, or at an end, as returned.

        `holder` says of itself that it has none any more, as after a restart: all of its leases are taken back, too.
        """

    async def retry_dead(self, job: Job, spec: JobSpec, *, queue_max: int, beside: Beside = nothing_beside) -> Job:
        """Queue a dead job again, its attempts counted anew: as that is to be run now what it was when looked up.

        Raises NotFound, Conflict, also where it is another job by now, and TooManyRequests.
        """

    async def pause(self, tenant_id: str | None) -> None:
        """Lease nothing of that tenant any more; None: of nobody."""

    async def resume(self, tenant_id: str | None) -> None:
        """The opposite of `pause`."""

    async def wait(self, timeout_s: float) -> None:
        """Until there may be something to claim, as far as this process knows, or the time is over."""

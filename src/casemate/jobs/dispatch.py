"""The dispatcher: takes jobs from the queue as far as there are free slots, and sees to it that its leases hold."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from typing import Any, Final, Self

from casemate import job_limits as limits
from casemate.cluster.messages import Sampled
from casemate.errors import BudgetExceeded, CasemateError
from casemate.jobs.attempt import Attempt, Ports, key_of
from casemate.model.job import Job
from casemate.queue.protocol import Lease
from casemate.recurring import Recurring

_LOG: Final = logging.getLogger(__name__)


class Background:
    """Tasks that nobody waits for until the end."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[object]] = set()

    def spawn(self, work: Coroutine[Any, Any, object]) -> None:
        """Begin it. What it raises is nobody's concern."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _LOG.warning("something beside a job went wrong", exc_info=task.exception())

    async def close(self) -> None:
        """End them."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class Dispatcher:
    """Carries out jobs while it is open. `holder` is this process, and each that comes after it in its place.

    So what an earlier one held when it died is taken back as soon as the next begins.
    """

    def __init__(
        self,
        ports: Ports,
        *,
        holder: str,
        slots: int,
        lease_s: float = limits.LEASE_S,
        on_lost: Callable[[Job], None] = lambda _: None,
    ) -> None:
        self._ports = ports
        self._holder = holder
        self._slots = slots
        self._lease_s = lease_s
        self._on_lost = on_lost
        self._attempts: dict[str, Attempt] = {}
        self._by_job: dict[str, Attempt] = {}
        self._changed = asyncio.Event()
        self._dispatching = Recurring(self._dispatch, name="dispatching jobs", pause_s=limits.CLAIM_PAUSE_S)
        self._leasing = Recurring(self._keep_leases, name="keeping leases", pause_s=limits.CLAIM_PAUSE_S)
        self._has_begun = False

    async def __aenter__(self) -> Self:
        self._dispatching.begin()
        self._leasing.begin()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close(0)

    async def close(self, drain_s: float) -> None:
        """Take no more; what has not ended in time is queued again. Idempotent."""
        await self._dispatching.end()
        tasks = [each.task for each in self._attempts.values() if each.task is not None]
        if tasks and drain_s:
            await asyncio.wait(tasks, timeout=drain_s)
        for each in tuple(self._attempts.values()):
            each.give_back()
        if tasks:
            await asyncio.wait(tasks, timeout=limits.ENDS_RECORDED_MAX_S)
        await self._leasing.end()

    # For those who ask ----------------------------------------------------------------------------

    @property
    def in_progress(self) -> int:
        """How many slots are taken."""
        return len(self._attempts)

    def attempt_at(self, job: Job) -> Attempt | None:
        """The one that is under way here."""
        return self._by_job.get(key_of(job))

    def usages(self) -> Iterator[tuple[str, Sampled]]:
        """What each attempt that is under way here uses just now, with its tenant."""
        for each in self._attempts.values():
            if each.usage is not None:
                yield each.job.tenant_id, each.usage

    def end_all_of(self, tenant_id: str, why: str) -> None:
        """End whatever a tenant has running: it may not go on."""
        for each in tuple(self._attempts.values()):
            if each.job.tenant_id == tenant_id:
                each.cancel(why)

    # Taking jobs ----------------------------------------------------------------------------------

    async def _dispatch(self) -> None:
        if not self._has_begun:
            await self._take_back(self._holder)
            self._has_begun = True
        free = self._slots - len(self._attempts)
        if free <= 0:
            self._changed.clear()
            await self._changed.wait()
        elif not self._ports.bus.is_connected:
            await self._ports.bus.connected.wait()
        elif not await self._claimed(free):
            await self._ports.queue.wait(self._lease_s)

    async def _claimed(self, count: int) -> bool:
        """Whether there may be more at once. A claim that was made is carried out, also where nobody waits for it."""
        claiming = asyncio.ensure_future(self._ports.queue.claim(self._holder, count=count, lease_s=self._lease_s))
        try:
            leases = await asyncio.shield(claiming)
        except asyncio.CancelledError:
            with suppress(CasemateError):
                for lease in await claiming:
                    self._begin(lease)
            raise
        for lease in leases:
            self._begin(lease)
        return bool(leases)

    def _begin(self, lease: Lease) -> None:
        attempt = Attempt(lease, self._ports)
        self._attempts[lease.token] = attempt
        self._by_job[key_of(lease.job)] = attempt
        attempt.task = asyncio.create_task(attempt.run(), name=f"job-{lease.job.id}")
        attempt.task.add_done_callback(lambda task: self._ended(attempt, task))
        self._ports.changes.tell(key_of(lease.job))

    def _ended(self, attempt: Attempt, task: asyncio.Task[None]) -> None:
        del self._attempts[attempt.token]
        if self._by_job.get(key_of(attempt.job)) is attempt:
            del self._by_job[key_of(attempt.job)]
        self._changed.set()
        if not task.cancelled() and task.exception() is not None:
            _LOG.error("an attempt went wrong", exc_info=task.exception(), extra={"job": attempt.job.id})

    # Keeping leases -------------------------------------------------------------------------------

    async def _keep_leases(self) -> None:
        await asyncio.sleep(self._lease_s / 3)
        await self._renew()
        await self._take_back("")

    async def _renew(self) -> None:
        asked = dict(self._attempts)
        if not asked:
            return
        held = await self._ports.queue.renew(tuple(asked), lease_s=self._lease_s)
        for token, attempt in asked.items():
            if token not in held.held and token in self._attempts:
                attempt.abandon()
            elif token in held.cancelled:
                attempt.cancel()
        for tenant_id in {each.job.tenant_id for each in asked.values()}:
            try:
                await self._ports.meter.check(tenant_id)
            except BudgetExceeded as error:
                self.end_all_of(tenant_id, error.message)

    async def _take_back(self, holder: str) -> None:
        while found := await self._ports.queue.expire(holder=holder, beside=self._ports.beside):
            for job in found:
                _LOG.warning("an attempt was lost", extra={"job": job.id, "state": job.state})
                self._on_lost(job)
                self._ports.changes.tell(key_of(job))

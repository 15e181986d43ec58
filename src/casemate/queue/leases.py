"""The queue of jobs as rows of the records: what `Queue` promises, each method in one transaction.

What becomes of a job is decided here, as a change of a value; `store.leases` writes the change down, with the counts
and the transition that belong to it. A lease is a token in the row: whoever does not have it any more changes nothing.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Final

import msgspec
from msgspec.structs import replace

from casemate.clock import now_us
from casemate.errors import Conflict, NotFound, TooManyRequests
from casemate.job_limits import CLAIMS_MAX, EXPIRED_MAX, QUEUE_LOOK_S, QUEUE_RETRY_S
from casemate.model.ids import new_id
from casemate.model.job import ACTIVE, ENDED, Job, JobSpec, JobState
from casemate.model.result import Reason, Status
from casemate.model.units import SECOND_US
from casemate.queue.fairness import share_out
from casemate.queue.protocol import Beside, Ending, Held, Lease, nothing_beside
from casemate.queue.retries import after_attempt
from casemate.store import jobs, leases
from casemate.store.database import Database, Records
from casemate.store.leases import DELAYED, LEASED, OUT, READY, Change, Row

NOT_KEPT: Final = "; its result is not kept, as its tenant has as much in the records as it may"
LOST: Final = Ending(
    state=JobState.QUEUED, status=Status.FAILED, reason=Reason.LOST, detail="nothing came back from the attempt"
)


class RecordsQueue:
    """A Queue in the records. `wait` is for one event loop; everything else may be called from any."""

    def __init__(self, database: Database, *, clock: Callable[[], int] = now_us) -> None:
        self._database = database
        self._clock = clock
        self._woken = asyncio.Event()
        self._next_due_us: int | None = None
        self._is_listening = False

    async def submit(self, job: Job, *, queue_max: int, beside: Beside = nothing_beside) -> Job:
        """Accept it. The same id with the same spec: the job that is there. Raises Conflict, TooManyRequests."""
        if not self._database.stored.takes(job.tenant_id, len(msgspec.json.encode(job.spec))):
            raise TooManyRequests("the tenant has as much in the records as it may", retry_after_s=QUEUE_RETRY_S)
        operation = partial(self.accept, job=job, queue_max=queue_max, beside=beside)
        try:
            accepted = await self._database.write(operation)
        except Conflict:  # perhaps with what another process has written meanwhile, which is there now
            accepted = await self._database.write(operation)
        self._wake(accepted)
        return accepted

    def accept(self, records: Records, job: Job, *, queue_max: int, beside: Beside = nothing_beside) -> Job:
        """`submit` as a part of a transaction of the caller's, who calls `wake` after it."""
        row = leases.accept(records, job, queue_max=queue_max, at_us=self._clock())
        if row is None:
            return jobs.get(records, job.tenant_id, job.id)
        beside(records, job)
        return job

    async def claim(self, holder: str, *, count: int, lease_s: float) -> tuple[Lease, ...]:
        """Lease up to `count` jobs that are due. Each of them is `preparing` from here on, its attempt counted."""
        operation = partial(self._claim, holder=holder, count=min(count, CLAIMS_MAX), lease_s=lease_s)
        claimed, self._next_due_us = await self._database.write(operation)
        return claimed

    def _claim(
        self, records: Records, *, holder: str, count: int, lease_s: float
    ) -> tuple[tuple[Lease, ...], int | None]:
        at_us = self._clock()
        self._promote(records, at_us)
        claimed: list[Lease] = []
        if not leases.is_paused(records):
            turns = Counter(share_out(leases.standings(records, count=count), count))
            changes = [
                _leased(row, holder, until_us=at_us + _us(lease_s))
                for tenant_id, share in turns.items()
                for row in leases.ready(records, tenant_id, count=share)
            ]
            leases.record(records, changes, at_us=at_us, served_us=leases.after_all_us(records, at_us=at_us))
            claimed = [_lease(change.now) for change in changes]
        return tuple(claimed), leases.next_due_us(records)

    def _promote(self, records: Records, at_us: int) -> None:
        found = leases.due(records, at_us=at_us)
        leases.record(records, [Change(was=row, now=replace(row, place=READY)) for row in found], at_us=at_us)

    async def renew(self, tokens: Sequence[str], *, lease_s: float) -> Held:
        """Hold them longer. Those that are not held any more may have been leased to somebody else."""
        until_us = self._clock() + _us(lease_s)
        found = await self._database.write(partial(leases.renew, tokens=tuple(tokens), until_us=until_us))
        return Held(held=frozenset(found), cancelled=frozenset(token for token, asked in found.items() if asked))

    async def holds(self, token: str) -> bool:
        """Whether a lease is held: nobody else has its job."""
        return await self._database.read(partial(leases.is_held, token=token))

    async def note(
        self,
        token: str,
        state: JobState,
        detail: str = "",
        *,
        at_us: int | None = None,
        beside: Beside = nothing_beside,
    ) -> bool:
        """Record that the attempt is now running or collecting. False: the lease is not held any more."""
        assert state in ACTIVE  # noqa: S101  (how an attempt ends is told to `end`)
        return await self._database.write(
            partial(self._note, token=token, state=state, detail=detail, since_us=at_us, beside=beside)
        )

    def _note(
        self, records: Records, *, token: str, state: JobState, detail: str, since_us: int | None, beside: Beside
    ) -> bool:
        row = leases.held(records, token)
        if row is None:
            return False
        at_us = self._clock() if since_us is None else since_us
        started_us = at_us if state is JobState.RUNNING and row.job.started_us is None else row.job.started_us
        now = replace(row, job=replace(row.job, state=state, started_us=started_us))
        _record(records, [Change(was=row, now=now, detail=detail)], at_us, beside)
        return True

    async def end(self, token: str, ending: Ending, *, beside: Beside = nothing_beside) -> bool:
        """Record how it ended, and give the lease back. False: it was not held any more, and nothing is recorded."""
        ended = await self._database.write(partial(self._end, token=token, ending=ending, beside=beside))
        if ended is None:
            return False
        self._wake(ended)
        return True

    def _end(self, records: Records, *, token: str, ending: Ending, beside: Beside) -> Job | None:
        row = leases.held(records, token)
        if row is None:
            return None
        if not self._database.stored.takes(row.job.tenant_id, len(ending.result or b"")):
            ending = replace(ending, result=None, detail=f"{ending.detail}{NOT_KEPT}")
        at_us = self._clock()
        change = _ended(row, ending, at_us)
        jobs.insert_steps(records, row.job, ending.steps)
        _record(records, [change], at_us, beside)
        return change.now.job

    async def cancel(self, tenant_id: str, job_id: str, *, beside: Beside = nothing_beside) -> Job:
        """One that waits is cancelled at once; of one that is leased the holder is told. Raises NotFound."""
        operation = partial(self._cancel, tenant_id=tenant_id, job_id=job_id, beside=beside)
        return await self._database.write(operation)

    def _cancel(self, records: Records, *, tenant_id: str, job_id: str, beside: Beside) -> Job:
        row = _found(records, tenant_id, job_id)
        if row.job.state in ENDED:
            return jobs.get(records, tenant_id, job_id)
        at_us = self._clock()
        job = replace(row.job, cancel_asked=True)
        if row.place == LEASED:
            change = Change(was=row, now=replace(row, job=job))
        else:
            cancelled = replace(
                job, state=JobState.CANCELLED, status=Status.FAILED, reason=Reason.CANCELLED, ended_us=at_us
            )
            change = Change(was=row, now=replace(row, job=cancelled, place=OUT), detail="before it was begun")
        _record(records, [change], at_us, beside)
        return jobs.get(records, tenant_id, job_id)

    async def expire(self, *, holder: str = "", beside: Beside = nothing_beside) -> tuple[Job, ...]:
        """Take back leases that were not renewed; their jobs are queued again, or at an end, as returned."""
        found: list[Job] = []
        while True:
            some = await self._database.write(partial(self._expire, holder=holder, beside=beside))
            for job in some:
                self._wake(job)
            found += some
            if len(some) < EXPIRED_MAX:
                return tuple(found)

    def _expire(self, records: Records, *, holder: str, beside: Beside) -> tuple[Job, ...]:
        at_us = self._clock()
        changes = [_lost(row, at_us) for row in leases.abandoned(records, at_us=at_us, holder=holder)]
        _record(records, changes, at_us, beside)
        return tuple(change.now.job for change in changes)

    async def retry_dead(self, job: Job, spec: JobSpec, *, queue_max: int, beside: Beside = nothing_beside) -> Job:
        """Queue a dead job again, to be run as that. Raises NotFound, Conflict and TooManyRequests."""
        operation = partial(self._retry_dead, was=job, spec=spec, queue_max=queue_max, beside=beside)
        again = await self._database.write(operation)
        self._wake(again)
        return again

    def _retry_dead(self, records: Records, *, was: Job, spec: JobSpec, queue_max: int, beside: Beside) -> Job:
        row = _found(records, was.tenant_id, was.id)
        if row.job.state is not JobState.DEAD:
            raise Conflict(f"the job {was.id!r} is {row.job.state}, not dead")
        if row.job.spec != was.spec:
            raise Conflict(f"the job {was.id!r} is another one by now", hint="look it up again")
        leases.check_free(records, was.tenant_id, queue_max=queue_max)
        change = _again(row, spec, self._clock())
        if spec != was.spec:
            jobs.put_spec(records, change.now.job)
        _record(records, [change], change.now.job.due_us, beside)
        return change.now.job

    async def pause(self, tenant_id: str | None) -> None:
        """Lease nothing of that tenant any more; None: of nobody."""
        await self._database.write(partial(leases.set_paused, tenant_id=tenant_id, paused=True))

    async def resume(self, tenant_id: str | None) -> None:
        """The opposite of `pause`."""
        await self._database.write(partial(leases.set_paused, tenant_id=tenant_id, paused=False))
        self.wake()

    async def wait(self, timeout_s: float) -> None:
        """Until there may be something to claim, as far as this process knows, or the time is over."""
        if not self._is_listening:
            self._is_listening = True
            self._database.listen(partial(_call_soon, asyncio.get_running_loop(), self.wake))
        until_due_s = QUEUE_LOOK_S
        if self._next_due_us is not None:
            until_due_s = max(0.0, (self._next_due_us - self._clock()) / SECOND_US)
        with suppress(TimeoutError):
            async with asyncio.timeout(min(timeout_s, until_due_s, QUEUE_LOOK_S)):
                await self._woken.wait()
        self._woken.clear()

    def wake(self) -> None:
        """Let `wait` come back: there may be something to claim."""
        self._woken.set()

    def _wake(self, job: Job) -> None:
        if job.state is JobState.QUEUED and job.due_us > self._clock():
            self._next_due_us = min(job.due_us, self._next_due_us or job.due_us)
        self.wake()


def _record(records: Records, changes: Sequence[Change], at_us: int, beside: Beside) -> None:
    leases.record(records, changes, at_us=at_us)
    for change in changes:
        if change.now.job.state is not change.was.job.state:
            beside(records, change.now.job)


# What becomes of a row: pure ----------------------------------------------------------------------


def _leased(row: Row, holder: str, *, until_us: int) -> Change:
    job = replace(row.job, state=JobState.PREPARING, attempt=row.job.attempt + 1, started_us=None)
    now = Row(job=job, place=LEASED, token=new_id("lea"), holder=holder, lease_until_us=until_us)
    return Change(was=row, now=now)


def _lease(row: Row) -> Lease:
    assert row.token is not None  # noqa: S101  (as leased above)
    assert row.lease_until_us is not None  # noqa: S101
    return Lease(job=row.job, token=row.token, until_us=row.lease_until_us)


def _ended(row: Row, ending: Ending, at_us: int) -> Change:
    """An attempt that is to be made again is not, if the job was cancelled meanwhile."""
    state = JobState.CANCELLED if ending.state is JobState.QUEUED and row.job.cancel_asked else ending.state
    due_us = ending.due_us if state is JobState.QUEUED else row.job.due_us
    ran_us = next((step.at_us for step in ending.steps if step.state is JobState.RUNNING), None)
    job = replace(
        row.job,
        state=state,
        started_us=row.job.started_us or ran_us,
        lost=row.job.lost + (ending.reason == Reason.LOST),
        due_us=due_us,
        ended_us=at_us if state in ENDED else None,
        status=ending.status,
        reason=ending.reason,
        exit_code=ending.exit_code,
        result=ending.result,
    )
    waits = DELAYED if due_us > at_us else READY
    now = Row(job=job, place=waits if state is JobState.QUEUED else OUT)
    return Change(was=row, now=now, detail=ending.detail, ends=True)


def _again(row: Row, spec: JobSpec, at_us: int) -> Change:
    begun = {
        "state": JobState.QUEUED,
        "attempt": 0,
        "lost": 0,
        "due_us": at_us,
        "ended_us": None,
        "cancel_asked": False,
    }
    job = replace(row.job, spec=spec, **begun)
    return Change(was=row, now=replace(row, job=job, place=READY), detail="again, after it was dead")


def _lost(row: Row, at_us: int) -> Change:
    job = row.job
    state, delay_s = after_attempt(job.spec, job.attempt, job.lost, LOST.status, LOST.reason)
    return _ended(row, replace(LOST, state=state, due_us=at_us + _us(delay_s)), at_us)


def _found(records: Records, tenant_id: str, job_id: str) -> Row:
    row = leases.find(records, tenant_id, job_id)
    if row is None:
        raise NotFound(f"there is no job {job_id!r}")
    return row


def _call_soon(loop: asyncio.AbstractEventLoop, called: Callable[[], None]) -> None:
    with suppress(RuntimeError):  # the loop is closed: nobody waits there any more
        loop.call_soon_threadsafe(called)


def _us(seconds: float) -> int:
    return int(seconds * SECOND_US)

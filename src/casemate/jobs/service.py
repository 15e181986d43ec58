"""Jobs as tenants deal with them: submitted, looked up, cancelled, run again, deleted."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

import msgspec

from casemate import job_limits as limits
from casemate.clock import now_us
from casemate.errors import BudgetExceeded, CasemateError, Conflict, InvalidInput, NotAllowed, NotFound, TooManyRequests
from casemate.executions.book import IDEMPOTENCY_KEY, Caller, Changes
from casemate.jobs.attempt import key_of
from casemate.jobs.config import JobSettings
from casemate.jobs.dispatch import Dispatcher
from casemate.jobs.ports import JobLogs, JobObjects, Meter, SecretValues
from casemate.jobs.request import Asked, check_id, check_secrets, secrets_of, spec_of, still_allowed
from casemate.model.ids import ID_BYTES, new_id
from casemate.model.job import ENDED, Job, JobFile, JobSpec, JobState, Transition
from casemate.queue.protocol import Beside, Queue
from casemate.store import jobs as rows
from casemate.store import leases
from casemate.store.database import Database, Records
from casemate.store.jobs import Filters
from casemate.store.pages import Page

PREFIX: Final = "job"


class Jobs:
    """The jobs of all tenants."""

    def __init__(
        self,
        database: Database,
        queue: Queue,
        dispatcher: Dispatcher,
        *,
        objects: JobObjects,
        logs: JobLogs,
        meter: Meter,
        secrets: SecretValues,
        settings: JobSettings,
        changes: Changes,
        beside: Beside,
        maximum: Mapping[str, Any],
        on_refusal: Callable[[], None] = lambda: None,
        clock: Callable[[], int] = now_us,
    ) -> None:
        self.database = database
        self.queue = queue
        self.dispatcher = dispatcher
        self.settings = settings
        self.changes = changes
        self._objects = objects
        self._logs = logs
        self._meter = meter
        self._secrets = secrets
        self._beside = beside
        self._maximum = maximum
        self._on_refusal = on_refusal
        self._clock = clock

    # Coming in ------------------------------------------------------------------------------------

    def spec_of(self, asked: Asked) -> JobSpec:
        """What is to be run. Raises InvalidInput, and NotAllowed for what the operator's policy forbids."""
        try:
            return spec_of(asked, self.settings, self._maximum)
        except NotAllowed:
            self._on_refusal()
            raise

    async def _still_allowed(self, spec: JobSpec) -> JobSpec:
        """What was accepted before, as the rules of today have it. Raises InvalidInput and NotAllowed."""
        checking = partial(still_allowed, spec, self.settings, self._maximum)
        is_long = sum(map(len, (spec.code, *spec.argv))) >= limits.SPEC_IN_THREAD_MIN_CHARS
        try:
            return await asyncio.to_thread(checking) if is_long else checking()
        except NotAllowed:
            self._on_refusal()
            raise

    async def template(self, tenant_id: str, name: str) -> dict[str, Any]:
        """What a template of the tenant's says. Raises InvalidInput."""
        try:
            found = msgspec.json.decode(await self._objects.template(tenant_id, name))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidInput("template", f"{name[:80]!r} is no JSON: {error}") from error
        if not isinstance(found, dict):
            raise InvalidInput("template", f"{name[:80]!r} is no object of JSON")
        return found

    async def submit(self, caller: Caller, spec: JobSpec, *, job_id: str = "", request_id: str = "") -> Job:
        """Accept a job. The same id with the same job: the one that is there.

        Raises InvalidInput, Conflict, TooManyRequests, BudgetExceeded.
        """
        job = Job(
            id=check_id(job_id) if job_id else _new_id(caller.tenant_id),
            tenant_id=caller.tenant_id,
            key_id=caller.key_id,
            spec=spec,
            created_us=self._clock(),
            due_us=self._clock(),
            request_id=request_id,
        )
        try:
            accepted = await self._accepted(caller, job)
        except (BudgetExceeded, InvalidInput, TooManyRequests):
            is_ours = not job_id and not IDEMPOTENCY_KEY.get()  # nobody else has that id, and it does not come again
            if is_ours and job.spec.files:
                with suppress(CasemateError):
                    await self._objects.delete(job.tenant_id, job.id)
            raise
        self.changes.tell(key_of(accepted))
        return accepted

    async def _accepted(self, caller: Caller, job: Job) -> Job:
        if job.spec.files:
            await self._meter.check(caller.tenant_id)
            job = await self._objects.keep(await self._with_kept(job))
        if len(msgspec.json.encode(job.spec)) > limits.JOB_SPEC_MAX_BYTES:
            raise InvalidInput("files", "the job is too large", hint="bring what is large as objects")

        return await self.queue.submit(job, queue_max=caller.queue_max, beside=self._accepting)

    def _accepting(self, records: Records, accepted: Job) -> None:
        self._meter.check_in(records, accepted.tenant_id)
        self._check_secrets(records, accepted)
        self._beside(records, accepted)

    def _check_secrets(self, records: Records, job: Job) -> None:
        if wanted := secrets_of(job.spec):
            check_secrets(job.spec, self._secrets.missing(records, job.tenant_id, wanted))

    async def _with_kept(self, job: Job) -> Job:
        """With what is kept of it, if it is there already: its files are not written over, an attempt may read them.

        Raises Conflict if that has other ones.
        """
        try:
            there = await self.get(job.tenant_id, job.id)
        except NotFound:
            return job
        asked, kept = job.spec.files, there.spec.files
        if len(asked) != len(kept) or not all(map(_is_same, asked, kept)):
            raise Conflict(f"there is another job {job.id!r} already", hint="give it another id, or none")
        return msgspec.structs.replace(job, spec=msgspec.structs.replace(job.spec, files=kept))

    # Looking --------------------------------------------------------------------------------------

    async def get(self, tenant_id: str, job_id: str) -> Job:
        """One, with its result. Raises NotFound."""
        return await self.database.read(lambda records: rows.get(records, tenant_id, job_id))

    async def transitions(self, tenant_id: str, job_id: str) -> tuple[Transition, ...]:
        """What became of it, in order; of very many the last."""
        return await self.database.read(lambda records: rows.transitions(records, tenant_id, job_id))

    async def transitions_after(self, tenant_id: str, job_id: str, count: int) -> AsyncIterator[Transition]:
        """All that became of it after its first `count` transitions, however many those are."""
        is_more = True
        while is_more:
            look = partial(rows.transitions_after, tenant_id=tenant_id, job_id=job_id, count=count)
            found = await self.database.read(look)
            count += len(found)
            is_more = len(found) == limits.TRANSITIONS_READ_MAX
            for each in found:
                yield each

    async def list_jobs(self, tenant_id: str, filters: Filters, *, limit: int, cursor: str | None = None) -> Page[Job]:
        """Newest first, without results."""
        return await self.database.read(
            lambda records: rows.list_jobs(records, tenant_id, filters, limit=limit, cursor=cursor)
        )

    async def holding(self, tenant_id: str, text: str, *, limit: int) -> Sequence[Job]:
        """Those whose logs hold a text."""
        found = []
        for job_id in await self._logs.holding(tenant_id, text, limit=limit):
            try:
                found.append(await self.get(tenant_id, job_id))
            except NotFound:
                continue
        return found

    async def standing(self, tenant_id: str) -> tuple[Mapping[JobState, int], bool, bool]:
        """How many jobs there are of each state that are not done with, and whether the tenant, or all, are paused."""

        def looked(records: Records) -> tuple[Mapping[JobState, int], bool, bool]:
            counts = rows.counts(records).get(tenant_id, {})
            return counts, leases.is_paused(records, tenant_id), leases.is_paused(records)

        return await self.database.read(looked)

    async def ended(self, tenant_id: str, job_id: str) -> Job:
        """Until it has ended: then that. Raises NotFound."""
        with self.changes.watching(f"{tenant_id}/{job_id}") as changed:
            while True:
                changed.clear()
                job = await self.get(tenant_id, job_id)
                if job.state in ENDED:
                    return job
                await changed.wait()

    # Changing -------------------------------------------------------------------------------------

    async def cancel(self, tenant_id: str, job_id: str) -> Job:
        """One that waits is cancelled at once; one that runs soon. One that has ended stays as it is."""
        job = await self.queue.cancel(tenant_id, job_id, beside=self._beside)
        attempt = self.dispatcher.attempt_at(job)
        if attempt is not None and job.state not in ENDED:
            attempt.cancel()
        self.changes.tell(key_of(job))
        return job

    async def rerun(self, caller: Caller, job_id: str, *, new_id_wanted: str = "", request_id: str = "") -> Job:
        """A new job that is the same, if it still may be, and its inputs are still there.

        Raises NotFound, NotAllowed, and what `submit` does.
        """
        old = await self.get(caller.tenant_id, job_id)
        spec = await self._still_allowed(old.spec)
        await self._objects.check_kept(old)
        return await self.submit(caller, spec, job_id=new_id_wanted, request_id=request_id)

    async def delete(self, tenant_id: str, job_id: str) -> Job:
        """Forget one that has ended, with its files and its log. Raises NotFound, Conflict."""
        job = await self.get(tenant_id, job_id)
        if job.state not in ENDED:
            raise Conflict(f"the job {job_id!r} has not ended", hint="cancel it first")
        await self._objects.delete(tenant_id, job_id)
        await self._logs.delete(tenant_id, job_id)
        return await self.database.write(lambda records: rows.delete_job(records, tenant_id, job_id))

    async def retry_dead(self, caller: Caller, job_id: str) -> Job:
        """Queue a dead job again, if it still may be run, what it needs is there, and there is room for it.

        Raises NotFound, Conflict, NotAllowed, InvalidInput, TooManyRequests, BudgetExceeded.
        """
        dead = await self.get(caller.tenant_id, job_id)
        spec = await self._still_allowed(dead.spec)
        await self._objects.check_kept(dead)
        job = await self.queue.retry_dead(dead, spec, queue_max=caller.queue_max, beside=self._accepting)
        self.changes.tell(key_of(job))
        return job

    def end_all_of(self, tenant_id: str, why: str = "the tenant may run nothing now") -> None:
        """End whatever a tenant has running, that may not go on."""
        self.dispatcher.end_all_of(tenant_id, why)


def _new_id(tenant_id: str) -> str:
    """The same again for a request that is sent again because nobody knows what became of it."""
    key = IDEMPOTENCY_KEY.get()
    if not key:
        return new_id(PREFIX)
    digest = hashlib.sha256(f"{tenant_id}\0{key}".encode()).digest()[:ID_BYTES]
    return f"{PREFIX}_{base64.b32encode(digest).decode().rstrip('=').lower()}"


def _is_same(asked: JobFile, kept: JobFile) -> bool:
    """Whether a file that is asked for is what was kept of one. An address is for whatever object it was for."""
    if asked == kept:
        return True
    if asked.content is not None:
        asked = msgspec.structs.replace(asked, object=kept.object, digest=hashlib.sha256(asked.content).hexdigest())
    else:
        name = kept.object if asked.url else asked.object
        asked = msgspec.structs.replace(asked, object=name, digest=asked.digest or kept.digest)
    return msgspec.structs.replace(asked, content=None, url="") == kept

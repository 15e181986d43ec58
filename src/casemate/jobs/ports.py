"""What jobs need of the other parts of the service: each is a protocol here, and implemented where it belongs.

Where a method is given `Records`, it is called within the transaction that changes the job, in the thread that writes:
it may write rows and nothing else, and what it wrote is there exactly if the change is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Protocol

import msgspec

from casemate.model.flow import Flow
from casemate.model.job import Job
from casemate.model.result import Chunk, JsonValue, Result
from casemate.store.database import Records

# Logs ---------------------------------------------------------------------------------------------


class JobLog(Protocol):
    """What one attempt prints, on its way into the log of its job."""

    async def feed(self, chunk: Chunk, at_us: int) -> None:
        """Take a piece, which came at that time. Waits while there is more to be written than is to be held."""

    async def close(self) -> None:
        """The attempt prints no more. When this returns, its log is complete for those who look it up. Idempotent."""


class JobLogs(Protocol):
    """The logs of all jobs."""

    def open(self, job: Job, attempt: int) -> JobLog:
        """The log of an attempt that begins. Nothing is written until something is printed."""

    async def holding(self, tenant_id: str, text: str, *, limit: int) -> Sequence[str]:
        """The jobs of a tenant, youngest first, in whose logs a text is to be found."""

    async def delete(self, tenant_id: str, job_id: str) -> None:
        """Forget what a job has printed. Idempotent."""


# Objects ------------------------------------------------------------------------------------------


class Input(msgspec.Struct, frozen=True, kw_only=True):
    """A file for the node: `area` is `input` or `shared`, `path` is relative to it. `data` is read once."""

    area: str
    path: str
    data: AsyncIterator[bytes]
    mode: int = 0o644


class Collecting(Protocol):
    """The files that come back from one attempt, one after the other.

    Those below `output/` go to the job's area `output`, without that word; all others to `artifacts`.
    """

    async def piece(self, path: str, offset: int, data: bytes) -> None:
        """The next piece of a file. Waits for the store. Raises what the store does; the file is not there then."""

    async def ended(self, path: str, size_bytes: int, digest: str) -> None:
        """All of the file has come: it is there now, if it is what the node says. Raises InternalError if not."""

    async def close(self) -> None:
        """Forget a file that is not whole. Idempotent."""


class JobObjects(Protocol):
    """The files of jobs in the object store."""

    async def keep(self, job: Job) -> Job:
        """Put what the job brings with it into its area `input`: each `content` becomes an `object` with a digest.

        Raises InvalidInput naming `files[N]` for an object or an address that is not there, or not this tenant's.
        """

    async def check_kept(self, job: Job) -> None:
        """Raise InvalidInput naming `files[N]` for an input of a job that was kept, and is gone or not what it was."""

    def inputs(self, job: Job) -> AsyncIterator[Input]:
        """What the node is to stage: the job's files, and the shared objects that it names.

        Raises InvalidInput, in words for the job's owner, for one that is gone or is not what it was.
        """

    def collecting(self, job: Job, attempt: int) -> Collecting:
        """Where the files of an attempt go. Nothing is opened until something comes."""

    async def template(self, tenant_id: str, name: str) -> bytes:
        """What lies below `templates/` under that name. Raises InvalidInput naming `template` where nothing does."""

    async def delete(self, tenant_id: str, job_id: str) -> None:
        """Forget all files of a job. Idempotent."""


# Accounts -----------------------------------------------------------------------------------------


class Meter(Protocol):
    """What tenants use, and how much they may."""

    async def check(self, tenant_id: str) -> None:
        """Raise BudgetExceeded where a hard budget is used up: before a job is accepted, and now and then in one."""

    def check_in(self, records: Records, tenant_id: str) -> None:
        """The same, within a transaction."""

    def note(self, records: Records, job: Job, result: Result) -> None:
        """Add what an attempt has used, as it ends. `job` is as it was while the attempt ran."""


class Notices(Protocol):
    """Events for those who have subscribed to them."""

    def post(self, records: Records, tenant_id: str, kind: str, payload: Mapping[str, JsonValue]) -> None:
        """Put an event, such as `job.succeeded`, where it is sent from. Quick where nobody has subscribed."""


class FlowLog(Protocol):
    """What sandboxes have tried to reach."""

    def note(self, tenant_id: str, job_id: str, attempt: int, flow: Flow) -> None:
        """Keep it; written later, with others. Never waits."""


# Tenants ------------------------------------------------------------------------------------------


class SecretValues(Protocol):
    """The secrets of tenants."""

    async def values(self, tenant_id: str, names: Sequence[str]) -> Mapping[str, str]:
        """By their names. Raises InvalidInput naming one that is not there."""

    def missing(self, records: Records, tenant_id: str, names: Sequence[str]) -> Collection[str]:
        """Those that are not there, within a transaction."""


class Audit(Protocol):
    """The record of who has done what."""

    async def note(
        self, tenant_id: str, key_id: str, action: str, target: str, *, request_id: str = "", detail: str = ""
    ) -> None:
        """An action that was carried out, `jobs.submit` for example, on something of a tenant's."""

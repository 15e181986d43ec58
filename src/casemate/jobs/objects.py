"""The files of jobs: what they bring with them, what they find, and what comes back."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Final
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

import msgspec

from casemate.blobs import signed
from casemate.blobs.keys import ARTIFACTS, INPUT, OUTPUT, SHARED, TEMPLATES, harmless, job_key, job_name, job_prefix
from casemate.blobs.objects import Objects
from casemate.blobs.pieces import pieces_of
from casemate.blobs.protocol import Blob
from casemate.errors import AddressRefused, CasemateError, Conflict, InternalError, InvalidInput, NotFound
from casemate.jobs.ports import Collecting, Input
from casemate.model.globs import matches
from casemate.model.job import Job, JobFile
from casemate.object_limits import OBJECTS_A_PAGE_MAX, SHARED_FILES_A_JOB_MAX, TEMPLATE_MAX_BYTES
from casemate.tenancy.addresses import Addresses

SIGNED: Final = "/v1/signed/"
_OUTPUT_DIRECTORY: Final = "output/"
_PIECES_WAITING_MAX: Final = 2
_GONE: Final = "submit a new job, with the file"


class ObjectsOfJobs:
    """Implements JobObjects."""

    def __init__(self, objects: Objects, addresses: Addresses) -> None:
        self._objects = objects
        self._addresses = addresses
        self._collecting: WeakValueDictionary[tuple[str, str], _Collecting] = WeakValueDictionary()

    # What a job brings ----------------------------------------------------------------------------

    async def keep(self, job: Job) -> Job:
        """As the protocol says."""
        files = [await self._kept(job, file, f"files[{number}]") for number, file in enumerate(job.spec.files)]
        return msgspec.structs.replace(job, spec=msgspec.structs.replace(job.spec, files=tuple(files)))

    async def _kept(self, job: Job, file: JobFile, field: str) -> JobFile:
        try:
            if file.digest and file.object == job_name(job.id, INPUT, file.path):
                return file  # it is there: the job is submitted again
            if file.content is not None:
                blob = await self._put(job, file.path, file.content)
                name = job_name(job.id, INPUT, file.path)
            else:
                name = file.object or await self._granted(job, file.url)
                blob = await self._objects.head(job.tenant_id, name)
        except (InvalidInput, NotFound, AddressRefused) as error:
            raise InvalidInput(field, error.message, hint=error.hint) from error
        return msgspec.structs.replace(file, content=None, url="", object=name, digest=blob.digest)

    async def _put(self, job: Job, path: str, content: bytes) -> Blob:
        key = job_key(job.tenant_id, job.id, INPUT, path)
        return await self._objects.put_key(key, pieces_of(content))

    async def _granted(self, job: Job, url: str) -> str:
        """The name of the object that an address of ours is for."""
        path = urlsplit(url).path
        if SIGNED not in path:
            raise AddressRefused("this is no address of ours", hint="upload the file, or give its content")
        grant = await self._addresses.checked(path.rpartition(SIGNED)[2], method=signed.GET)
        if grant.tenant != job.tenant_id:
            raise AddressRefused("the address is for an object of another tenant")
        return grant.name

    async def check_kept(self, job: Job) -> None:
        """As the protocol says."""
        for number, file in enumerate(job.spec.files):
            if file.content is None:
                await self._found(job, file, f"files[{number}]")

    # What a job finds -----------------------------------------------------------------------------

    async def inputs(self, job: Job) -> AsyncIterator[Input]:
        """As the protocol says."""
        for number, file in enumerate(job.spec.files):
            data = await self._opened(job, file, f"files[{number}]")
            yield Input(area=INPUT, path=file.path, data=data, mode=file.mode)
        count = 0
        async for blob in self._shared(job):
            count += 1
            if count > SHARED_FILES_A_JOB_MAX:
                raise InvalidInput("shared", f"these patterns match more than {SHARED_FILES_A_JOB_MAX} files")
            yield Input(area=SHARED, path=_below(blob.key, SHARED), data=self._objects.get(blob))

    async def _opened(self, job: Job, file: JobFile, field: str) -> AsyncIterator[bytes]:
        if file.content is not None:
            return pieces_of(file.content)
        return self._objects.get(await self._found(job, file, field))

    async def _found(self, job: Job, file: JobFile, field: str) -> Blob:
        """What a file was when it was kept. Raises InvalidInput."""
        try:
            blob = await self._objects.head(job.tenant_id, file.object)
        except NotFound as error:
            raise InvalidInput(field, f"the object {file.object[:200]!r} is gone", hint=_GONE) from error
        if file.digest and blob.digest and blob.digest != file.digest:
            raise InvalidInput(field, f"the object {file.object[:200]!r} is not what it was", hint=_GONE)
        return blob

    async def _shared(self, job: Job) -> AsyncIterator[Blob]:
        patterns = [pattern.removeprefix(f"{SHARED}/").split("/") for pattern in job.spec.shared]
        if not patterns:
            return
        behind: str | None = ""
        while behind is not None:
            page = await self._objects.list(job.tenant_id, f"{SHARED}/", limit=OBJECTS_A_PAGE_MAX, behind=behind)
            behind = page.next_name
            for blob in page.items:
                names = _below(blob.key, SHARED).split("/")
                if any(matches(names, pattern) for pattern in patterns):
                    yield blob

    async def template(self, tenant_id: str, name: str) -> bytes:
        """As the protocol says."""
        try:
            blob = await self._objects.head(tenant_id, f"{TEMPLATES}/{name.removeprefix(f'{TEMPLATES}/')}")
        except (InvalidInput, NotFound) as error:
            hint = "it is the name below templates/, with its ending, if it has one"
            raise InvalidInput("template", f"there is no template {name[:80]!r}", hint=hint) from error
        if blob.size_bytes > TEMPLATE_MAX_BYTES:
            raise InvalidInput("template", f"has more than {TEMPLATE_MAX_BYTES} bytes")
        async with aclosing(self._objects.get(blob)) as pieces:  # type: ignore[type-var]
            return b"".join([piece async for piece in pieces])

    # What comes back ------------------------------------------------------------------------------

    def collecting(self, job: Job, attempt: int) -> Collecting:
        """As the protocol says. What an earlier attempt has left goes when the first file comes.

        From then on that attempt leaves nothing, should it still be at it: its lease is not its own any more.
        """
        key = (job.tenant_id, job.id)
        is_first = attempt <= 1 and job.status is None  # the attempts at a dead job are counted anew
        made = _Collecting(self._objects, job, is_first=is_first, former=self._collecting.get(key))
        self._collecting[key] = made
        return made

    async def delete(self, tenant_id: str, job_id: str) -> None:
        """As the protocol says."""
        await self._objects.delete_job(tenant_id, job_id)


class _Collecting:
    """One file at a time: its pieces go through a short line to whoever writes it."""

    def __init__(self, objects: Objects, job: Job, *, is_first: bool, former: _Collecting | None) -> None:
        self._objects = objects
        self._job = job
        self._is_clean = is_first
        self._former = former
        self._is_over = False
        self._coming: _Coming | None = None

    async def piece(self, path: str, offset: int, data: bytes) -> None:
        self._check()
        if offset == 0:
            await self._begin(path)
        if self._coming is None or self._coming.path != path or self._coming.size_bytes != offset:
            raise InternalError("pieces of a collected file are out of order")
        await self._coming.feed(data)

    async def ended(self, path: str, size_bytes: int, digest: str) -> None:
        self._check()
        if self._coming is None or self._coming.path != path:
            await self._begin(path)  # it is empty
        assert self._coming is not None  # noqa: S101
        try:
            await self._coming.end(size_bytes, digest)
        finally:
            self._coming = None

    async def close(self) -> None:
        if self._coming is not None:
            coming, self._coming = self._coming, None
            await coming.give_up()

    async def _begin(self, path: str) -> None:
        await self.close()
        former, self._former = self._former, None
        if former is not None:
            await former.retire()
        if not self._is_clean:
            await self._clean()
        self._coming = _Coming(self._objects, key_of_collected(self._job, path), path)

    async def retire(self) -> None:
        """A later attempt has files: from now on this one leaves none, and none of it is on its way."""
        self._is_over = True
        await self.close()

    def _check(self) -> None:
        if self._is_over:
            raise Conflict("a later attempt at this job has begun to leave files")

    async def _clean(self) -> None:
        for area in (OUTPUT, ARTIFACTS):
            await self._objects.delete_all(job_prefix(self._job.tenant_id, self._job.id, area))
        self._is_clean = True


def key_of_collected(job: Job, path: str) -> str:
    """Where a file goes that a job has left at a path below its work directory. Raises InvalidInput."""
    area = OUTPUT if path.startswith(_OUTPUT_DIRECTORY) else ARTIFACTS
    return job_key(job.tenant_id, job.id, area, harmless(path.removeprefix(_OUTPUT_DIRECTORY)))


class _Coming:
    """A file whose pieces come."""

    def __init__(self, objects: Objects, key: str, path: str) -> None:
        self.path = path
        self.size_bytes = 0
        self._digest = hashlib.sha256()
        self._line: asyncio.Queue[bytes | None] = asyncio.Queue(_PIECES_WAITING_MAX)
        self._writing = asyncio.create_task(objects.put_key(key, self._pieces()), name="collecting")
        self._is_whole: Callable[[], None] = self._nothing_said

    def _nothing_said(self) -> None:
        raise InternalError("a collected file has no end")

    async def _pieces(self) -> AsyncIterator[bytes]:
        while (data := await self._line.get()) is not None:
            yield data
        self._is_whole()

    async def feed(self, data: bytes) -> None:
        self.size_bytes += len(data)
        self._digest.update(data)
        await self._pass_on(data)

    async def _pass_on(self, data: bytes | None) -> None:
        """Into the line, or the error of the one who writes."""
        passing = asyncio.ensure_future(self._line.put(data))
        try:
            await asyncio.wait((passing, self._writing), return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not passing.done():
                passing.cancel()
        if self._writing.done() and data is not None:
            self._writing.result()

    async def end(self, size_bytes: int, digest: str) -> None:
        def is_whole() -> None:
            if (self.size_bytes, self._digest.hexdigest()) != (size_bytes, digest):
                raise InternalError("a collected file is not what the node has sent")

        self._is_whole = is_whole
        try:
            await self._pass_on(None)
            await self._writing
        except BaseException:
            await self.give_up()
            raise

    async def give_up(self) -> None:
        """Idempotent. What it failed of is told already, unless that is a mistake of ours."""
        self._writing.cancel()
        await asyncio.wait((self._writing,))  # nothing of it is raised here, nor a cancellation of ours swallowed
        error = None if self._writing.cancelled() else self._writing.exception()
        if error is not None and not isinstance(error, CasemateError):
            raise error


def _below(key: str, area: str) -> str:
    """The path of an object in an area that belongs to no job."""
    _, _, path = key.partition(f"/{area}/")
    return path

"""Objects below the service: retention, room, the files of jobs, signed addresses, and presigned ones."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import httpx2
import msgspec
import pytest
from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotoCredentials
from tests.object_store import CREDENTIALS, ObjectStore, presigned_problem

from casemate.blobs import opening, retention
from casemate.blobs.envelope import MasterKeys
from casemate.blobs.local import LocalBlobs
from casemate.blobs.objects import Objects, Room
from casemate.blobs.pieces import pieces_of
from casemate.blobs.presign import put_of_size
from casemate.blobs.protocol import Blob, Blobs
from casemate.blobs.s3 import S3Blobs
from casemate.errors import (
    AddressRefused,
    ConfigError,
    Conflict,
    InternalError,
    InvalidInput,
    NotFound,
    RecordsUnavailable,
    TooManyRequests,
)
from casemate.jobs.objects import ObjectsOfJobs
from casemate.model.job import Job, JobFile, JobSpec
from casemate.object_config import ACCESS_VARIABLE, SECRET_VARIABLE, read_credentials, read_objects
from casemate.object_limits import DIRECT_COUNTED_AFTER_S, OBJECT_OVERHEAD_BYTES
from casemate.store.database import Database
from casemate.tenancy.addresses import Addresses
from casemate.tenancy.scopes import Scopes
from casemate.tenancy.secrets import Signing
from casemate.tenancy.tenants import Tenancy
from casemate.tenancy.terms import KeyTerms, TenantTerms

DAY_S: Final = 24 * 3600.0
KEYS: Final = MasterKeys((b"k" * 32,))
DATA: Final = random.Random(5).randbytes(2_500_000)
SIGNING: Final = Signing((b"s" * 32,))


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now_s

    @property
    def now_us(self) -> int:
        return int(self.now_s * 1e6)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def objects(tmp_path: Path, clock: Clock) -> Objects:
    return objects_over(LocalBlobs(tmp_path / "objects", KEYS, clock))


def objects_over(blobs: Blobs, **written: Any) -> Objects:
    return Objects(blobs, read_objects(written))


async def put(objects: Objects, tenant: str, name: str, data: bytes = b"x") -> None:
    await objects.put(tenant, name, pieces_of(data))


async def names(objects: Objects, tenant: str = "ten_a", prefix: str = "") -> list[str]:
    page = await objects.list(tenant, prefix, limit=1000)
    return [blob.key.removeprefix(f"{tenant}/") for blob in page.items]


async def content(data: AsyncIterator[bytes]) -> bytes:
    async with aclosing(data) as pieces:  # type: ignore[type-var]
        return b"".join([piece async for piece in pieces])


# Retention ----------------------------------------------------------------------------------------


def test_s2_25_s2_74_each_area_is_kept_for_its_own_days(tmp_path: Path, clock: Clock) -> None:
    places = ["jobs/j/input/x", "jobs/j/output/x", "jobs/j/logs/x", "jobs/j/artifacts/x", "shared/x", "templates/x"]

    async def main() -> None:
        objects = objects_over(LocalBlobs(tmp_path, KEYS, clock), retention={"input": 1, "artifacts": 5, "shared": 40})
        for name in places:
            await put(objects, "ten_a", name)
        gone: dict[int, list[str]] = {}
        before = set(places)
        for day in range(1, 60):
            clock.now_s += DAY_S
            await retention.sweep(objects, {"ten_a"}, at_us=clock.now_us + 1)
            left = set(await names(objects))
            if before - left:
                gone[day] = sorted(before - left)
            before = left
        assert gone == {1: ["jobs/j/input/x"], 5: ["jobs/j/artifacts/x"], 30: ["jobs/j/output/x"], 40: ["shared/x"]}
        assert before == {"jobs/j/logs/x", "templates/x"}

    asyncio.run(main())


def test_s2_74_what_a_tenant_has_left_behind_goes_a_day_later(objects: Objects, clock: Clock) -> None:
    async def main() -> None:
        await put(objects, "ten_a", "shared/x", b"xx")
        await put(objects, "ten_gone", "shared/x")
        clock.now_s += DAY_S / 2
        swept = await retention.sweep(objects, {"ten_a"}, at_us=clock.now_us)
        assert (swept.removed, swept.kept_bytes) == (0, {"ten_a": 2, "ten_gone": 1})
        clock.now_s += DAY_S
        swept = await retention.sweep(objects, {"ten_a"}, at_us=clock.now_us)
        assert (swept.removed, swept.kept_bytes) == (1, {"ten_a": 2})

    asyncio.run(main())


def test_a_tenants_room_is_what_it_keeps(tmp_path: Path) -> None:
    async def main() -> None:
        blobs = LocalBlobs(tmp_path, KEYS)
        await put(objects_over(blobs), "ten_a", "shared/old", b"x" * 60)
        room = 100 + 2 * OBJECT_OVERHEAD_BYTES  # each object takes some, however small it is
        objects = objects_over(blobs, tenant_max=room)
        with pytest.raises(TooManyRequests):
            await put(objects, "ten_a", "shared/new", b"x" * 41)
        await put(objects, "ten_b", "shared/new", b"x" * 41)
        await put(objects, "ten_a", "shared/new", b"x" * 40)
        assert objects.room.held_by("ten_a") == room
        assert await objects.delete("ten_a", "shared/old")
        await put(objects, "ten_a", "shared/new2", b"x" * 60)
        await objects.delete_tenant("ten_a")
        assert await names(objects) == []
        await put(objects, "ten_a", "shared/new", b"x" * 100)

    asyncio.run(main())


# Files of jobs ------------------------------------------------------------------------------------

JOB: Final = Job(id="job_1", tenant_id="ten_a", key_id="key_a", spec=JobSpec(argv=("true",)))


def job_with(*files: JobFile, **spec: Any) -> Job:
    return msgspec.structs.replace(JOB, spec=JobSpec(argv=("true",), files=files, **spec))


class Nobody(Addresses):
    """Gives no addresses."""

    def __init__(self) -> None:
        pass

    async def checked(self, token: str, *, method: str) -> Any:
        raise AddressRefused(f"there is none for {method}: {token}")


def of_jobs(objects: Objects) -> ObjectsOfJobs:
    return ObjectsOfJobs(objects, Nobody())


def test_s2_18_s2_40_what_a_job_brings_is_kept_and_found_again(objects: Objects) -> None:
    async def main() -> None:
        await put(objects, "ten_a", "shared/in.csv", DATA)
        files = of_jobs(objects)
        job = await files.keep(
            job_with(JobFile(path="a/b.txt", content=b"content", mode=0o600), JobFile(path="c", object="shared/in.csv"))
        )
        assert [file.content for file in job.spec.files] == [None, None]
        assert job.spec.files[0].object == "jobs/job_1/input/a/b.txt"
        assert job.spec.files[1].digest == hashlib.sha256(DATA).hexdigest()
        assert await names(objects, prefix="jobs/") == ["jobs/job_1/input/a/b.txt"]
        found = [(each.area, each.path, each.mode, await content(each.data)) async for each in files.inputs(job)]
        assert found == [("input", "a/b.txt", 0o600, b"content"), ("input", "c", 0o644, DATA)]

    asyncio.run(main())


def test_s2_40_an_input_that_is_not_there_or_not_what_it_was_is_named(objects: Objects) -> None:
    async def main() -> None:
        files = of_jobs(objects)
        for file in (
            JobFile(path="x", object="shared/none"),
            JobFile(path="x", object="../ten_b/shared/x"),
            JobFile(path="../x", content=b""),
            JobFile(path="x", url="http://elsewhere/x"),
            JobFile(path="x", url="http://here/v1/signed/abc"),
        ):
            with pytest.raises(InvalidInput) as caught:
                await files.keep(job_with(JobFile(path="first", content=b""), file))
            assert caught.value.field == "files[1]"
        await put(objects, "ten_a", "shared/x", b"before")
        job = await files.keep(job_with(JobFile(path="x", object="shared/x")))
        await put(objects, "ten_a", "shared/x", b"after")
        with pytest.raises(InvalidInput, match=r"files\[0\].*not what it was"):
            await anext(files.inputs(job))
        await objects.delete("ten_a", "shared/x")
        with pytest.raises(InvalidInput, match=r"files\[0\].*is gone"):
            await anext(files.inputs(job))

    asyncio.run(main())


def test_s2_23_shared_objects_are_found_by_their_patterns(objects: Objects) -> None:
    async def main() -> None:
        for name in ("shared/a.csv", "shared/deep/b.csv", "shared/c.txt", "templates/d.csv"):
            await put(objects, "ten_a", name, name.encode())
        await put(objects, "ten_b", "shared/e.csv")
        for patterns, wanted in (
            (("*.csv",), ["a.csv"]),
            (("**/*.csv",), ["a.csv", "deep/b.csv"]),
            (("shared/c.txt", "deep/*"), ["c.txt", "deep/b.csv"]),
            (("none",), []),
            ((), []),
        ):
            found = [each async for each in of_jobs(objects).inputs(job_with(shared=patterns))]
            assert [each.path for each in found] == wanted
            assert {each.area for each in found} <= {"shared"}
            assert [await content(each.data) for each in found] == [f"shared/{path}".encode() for path in wanted]

    asyncio.run(main())


def test_s2_22_a_template_is_read_by_its_name(objects: Objects) -> None:
    async def main() -> None:
        await put(objects, "ten_a", "templates/daily.json", b"{}")
        assert await of_jobs(objects).template("ten_a", "daily.json") == b"{}"
        for tenant, name in (("ten_a", "none"), ("ten_b", "daily.json"), ("ten_a", "../shared/x")):
            with pytest.raises(InvalidInput, match="template"):
                await of_jobs(objects).template(tenant, name)

    asyncio.run(main())


def collected(path: str, data: bytes, size: int = 60_000) -> list[tuple[str, int, bytes]]:
    return [(path, offset, data[offset : offset + size]) for offset in range(0, len(data), size)]


def test_s2_19_s2_21_what_a_job_leaves_is_kept_in_its_areas(objects: Objects) -> None:
    left = {
        "output/result.bin": DATA,
        "output/deep/empty": b"",
        "report.html": b"<p>",
        "output/a\nb\x1b[0m": b"hostile",
    }

    async def main() -> None:
        files = of_jobs(objects).collecting(JOB, 1)
        for path, data in left.items():
            for piece in collected(path, data):
                await files.piece(*piece)
            await files.ended(path, len(data), hashlib.sha256(data).hexdigest())
        await files.close()
        assert await names(objects) == [
            "jobs/job_1/artifacts/report.html",
            r"jobs/job_1/output/a\x0ab\x1b[0m",
            "jobs/job_1/output/deep/empty",
            "jobs/job_1/output/result.bin",
        ]
        blob = await objects.head("ten_a", "jobs/job_1/output/result.bin")
        assert await content(objects.get(blob)) == DATA
        await of_jobs(objects).delete("ten_a", "job_1")
        assert await names(objects) == []

    asyncio.run(main())


def test_to_give_up_a_file_swallows_no_cancellation(objects: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        ending, may_end = asyncio.Event(), asyncio.Event()

        async def slow_to_end(*_: object) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ending.set()
                await may_end.wait()

        monkeypatch.setattr(objects, "put_key", slow_to_end)
        files = of_jobs(objects).collecting(JOB, 1)
        await files.piece("output/x", 0, b"abc")
        closing = asyncio.create_task(files.close())
        await ending.wait()
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        may_end.set()

    asyncio.run(main())


def test_what_is_not_what_the_node_says_is_no_file(objects: Objects) -> None:
    async def main() -> None:
        files = of_jobs(objects).collecting(JOB, 1)
        digest = hashlib.sha256(b"abc").hexdigest()
        for size, said in ((3, hashlib.sha256(b"abd").hexdigest()), (4, digest)):
            await files.piece("output/x", 0, b"abc")
            with pytest.raises(InternalError):
                await files.ended("output/x", size, said)
        await files.piece("output/x", 0, b"abc")
        with pytest.raises(InternalError):
            await files.piece("output/x", 5, b"abc")
        await files.piece("output/y", 0, b"abc")
        await files.close()
        await files.close()
        assert await names(objects) == []
        await files.piece("output/z", 0, b"abc")
        await files.ended("output/z", 3, digest)
        assert await names(objects) == ["jobs/job_1/output/z"]

    asyncio.run(main())


def test_a_store_that_fails_is_told_to_who_collects(tmp_path: Path) -> None:
    async def main() -> None:
        objects = objects_over(LocalBlobs(tmp_path, KEYS), object_max=100_000)
        files = of_jobs(objects).collecting(JOB, 1)

        async def all_of_it() -> None:
            for piece in collected("output/x", DATA):
                await files.piece(*piece)

        with pytest.raises(InvalidInput):
            await all_of_it()
        await files.close()
        assert await names(objects) == []

    asyncio.run(main())


def test_s2_37_a_second_attempt_begins_with_nothing(objects: Objects) -> None:
    async def main() -> None:
        digest = hashlib.sha256(b"x").hexdigest()
        for attempt, path in ((1, "output/first"), (2, "output/second"), (2, "third")):
            files = of_jobs(objects).collecting(JOB, attempt)
            await files.piece(path, 0, b"x")
            await files.ended(path, 1, digest)
            await files.close()
        assert await names(objects) == ["jobs/job_1/artifacts/third"]
        await of_jobs(objects).collecting(JOB, 3).close()
        assert await names(objects) == ["jobs/job_1/artifacts/third"]

    asyncio.run(main())


@pytest.mark.parametrize("done", ["nothing", "a piece", "a file"])
def test_what_is_left_of_an_earlier_attempt_does_not_mix_with_the_next(objects: Objects, done: str) -> None:
    async def main() -> None:
        digest = hashlib.sha256(b"x").hexdigest()
        jobs = of_jobs(objects)
        zombie = jobs.collecting(JOB, 1)
        if done != "nothing":
            await zombie.piece("output/both", 0, b"x")
        if done == "a file":
            await zombie.ended("output/both", 1, digest)
            await zombie.piece("output/late", 0, b"x")
        next_one = jobs.collecting(JOB, 2)
        await next_one.piece("output/next", 0, b"x")
        for late in (zombie.piece("output/late", 0, b"x"), zombie.ended("output/late", 1, digest)):
            with pytest.raises(Conflict):
                await late
        await next_one.ended("output/next", 1, digest)
        await next_one.close()
        await zombie.close()
        assert await names(objects) == ["jobs/job_1/output/next"]

    asyncio.run(main())


def test_a_file_that_is_kept_while_the_next_attempt_begins_is_gone_with_its_own(
    objects: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        digest = hashlib.sha256(b"x").hexdigest()
        keeping, may_keep = asyncio.Event(), asyncio.Event()
        put = objects.put_key

        async def slow(key: str, data: AsyncIterator[bytes], **more: Any) -> Blob:
            blob = await put(key, data, **more)
            if key.endswith("/late"):
                keeping.set()
                with suppress(asyncio.CancelledError):  # what is at work in a thread comes to its end all the same
                    await may_keep.wait()
            return blob

        monkeypatch.setattr(objects, "put_key", slow)
        jobs = of_jobs(objects)
        zombie = jobs.collecting(JOB, 1)
        await zombie.piece("output/late", 0, b"x")
        ending = asyncio.create_task(zombie.ended("output/late", 1, digest))
        await keeping.wait()
        next_one = jobs.collecting(JOB, 2)
        await next_one.piece("output/next", 0, b"x")
        await next_one.ended("output/next", 1, digest)
        await asyncio.wait([ending])
        assert await names(objects) == ["jobs/job_1/output/next"]

    asyncio.run(main())


def test_a_dead_job_that_is_tried_again_begins_with_nothing(objects: Objects) -> None:
    async def main() -> None:
        digest = hashlib.sha256(b"x").hexdigest()
        for job, path in ((JOB, "output/dead"), (msgspec.structs.replace(JOB, status="failed"), "output/again")):
            files = of_jobs(objects).collecting(job, 1)
            await files.piece(path, 0, b"x")
            await files.ended(path, 1, digest)
        assert await names(objects) == ["jobs/job_1/output/again"]

    asyncio.run(main())


# Signed addresses ---------------------------------------------------------------------------------


def with_keys(tmp_path: Path, clock: Clock, work: Callable[[Tenancy, Addresses], Awaitable[None]]) -> None:
    async def main() -> None:
        database = Database.open(tmp_path / "records")
        try:
            tenancy = Tenancy(database, clock)
            await work(tenancy, Addresses(SIGNING, tenancy, life_max_s=DAY_S, clock=clock))
        finally:
            await database.close()

    asyncio.run(main())


def test_s2_24_an_address_is_good_until_it_expires_or_its_key_does(tmp_path: Path, clock: Clock) -> None:
    async def work(tenancy: Tenancy, addresses: Addresses) -> None:
        tenant = await tenancy.create_tenant(TenantTerms(name="a"))
        made = await tenancy.create_key(tenant.id, KeyTerms(name="k", scopes=Scopes(allow=("objects:*",))))
        who = await tenancy.authenticate(made.text)
        grant, token = addresses.give(who, name="shared/x", method="GET", life_s=60, size_max_bytes=5)
        assert await addresses.checked(token, method="GET") == grant
        with pytest.raises(AddressRefused, match="GET alone"):
            await addresses.checked(token, method="PUT")
        with pytest.raises(AddressRefused, match="none of ours"):
            await Addresses(Signing((b"x" * 32,)), tenancy, life_max_s=1, clock=clock).checked(token, method="GET")
        later = Addresses(Signing((b"n" * 32, b"s" * 32)), tenancy, life_max_s=1, clock=clock)
        with pytest.raises(AddressRefused, match="none of ours"):
            await later.checked(token, method="GET")
        clock.now_s += 59.9
        await addresses.checked(token, method="GET")
        clock.now_s += 0.2
        with pytest.raises(AddressRefused, match="expired"):
            await addresses.checked(token, method="GET")
        _, token = addresses.give(who, name="shared/x", method="GET", life_s=60, size_max_bytes=5)
        await tenancy.revoke_key(tenant.id, made.key.id)
        with pytest.raises(AddressRefused, match="no more"):
            await addresses.checked(token, method="GET")

    with_keys(tmp_path, clock, work)


def test_s2_24_a_jobs_file_may_come_from_an_address_of_its_own_tenant(
    tmp_path: Path, clock: Clock, objects: Objects
) -> None:
    async def work(tenancy: Tenancy, addresses: Addresses) -> None:
        tenants = [await tenancy.create_tenant(TenantTerms(name=name)) for name in ("a", "b")]
        tokens = []
        for tenant in tenants:
            made = await tenancy.create_key(tenant.id, KeyTerms(name="k", scopes=Scopes(allow=("objects:*",))))
            who = await tenancy.authenticate(made.text)
            tokens.append(addresses.give(who, name="shared/x", method="GET", life_s=60, size_max_bytes=0)[1])
            await put(objects, tenant.id, "shared/x", tenant.name.encode())
        files = ObjectsOfJobs(objects, addresses)
        for token, is_own in zip(tokens, (True, False), strict=True):
            url = f"https://casemate.example/v1/signed/{token}"
            job = msgspec.structs.replace(job_with(JobFile(path="x", url=url)), tenant_id=tenants[0].id)
            if is_own:
                (kept,) = (await files.keep(job)).spec.files
                assert (kept.object, kept.url) == ("shared/x", "")
            else:
                with pytest.raises(InvalidInput, match="another tenant"):
                    await files.keep(job)

    with_keys(tmp_path, clock, work)


# S3 -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def object_store() -> Iterator[ObjectStore]:
    store = ObjectStore()
    yield store
    store.close()


def test_s2_73_a_presigned_address_is_for_one_method_and_object_until_it_expires(object_store: ObjectStore) -> None:
    async def main() -> None:
        blobs = S3Blobs.open(object_store.place(), CREDENTIALS)
        await blobs.put("ten_a/shared/a b", pieces_of(b"content"), size_max_bytes=100)
        url = await blobs.presigned("ten_a/shared/a b", life_s=60)
        now = datetime.now(UTC)
        assert presigned_problem("GET", url, now) == ""
        assert presigned_problem("PUT", url, now) == "wrong signature"
        assert presigned_problem("GET", url.replace("a%20b", "other"), now) == "wrong signature"
        assert presigned_problem("GET", url.replace("ten_a", "ten_b"), now) == "wrong signature"
        assert presigned_problem("GET", url.replace("Expires=60", "Expires=600"), now) == "wrong signature"
        assert presigned_problem("GET", url, now + timedelta(seconds=62)) == "expired"
        assert (
            presigned_problem("GET", url, now, msgspec.structs.replace(CREDENTIALS, secret_key="x"))
            == "wrong signature"
        )
        put_url = await blobs.presigned("ten_a/shared/a new", life_s=60, size_bytes=16)
        assert presigned_problem("PUT", put_url, now, content_length="16") == ""
        for length in ("15", "17", ""):
            assert presigned_problem("PUT", put_url, now, content_length=length) == "wrong signature"
        assert presigned_problem("GET", put_url, now, content_length="16") == "wrong signature"
        assert presigned_problem("PUT", put_url, now + timedelta(seconds=62), content_length="16") == "expired"
        with httpx2.Client(timeout=30) as http:
            assert http.get(url).content == b"content"
            assert http.put(put_url, content=b"by somebody else").status_code == 200
        blob = await blobs.head("ten_a/shared/a new")
        assert (blob.size_bytes, blob.digest) == (16, "")

    asyncio.run(main())


@pytest.mark.parametrize("token", ["", "session/token+with=signs"])
def test_s2_73_a_presigned_put_is_what_others_make_of_the_same(token: str) -> None:
    ours = msgspec.structs.replace(CREDENTIALS, session_token=token)
    theirs = S3SigV4QueryAuth(
        BotoCredentials(ours.access_key, ours.secret_key, token or None), "s3", "eu-west-3", expires=77
    )
    url = "https://bucket.s3.eu-west-3.amazonaws.com/some/where/objects/ten_a/shared/a%20b%C3%A4"
    request = AWSRequest("PUT", url, headers={"Content-Length": "123"})
    theirs.add_auth(request)
    expected = {name: value for name, (value,) in parse_qs(urlsplit(request.url).query).items()}
    at = datetime.strptime(expected["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    found = put_of_size(f"{url}?other=query", 123, ours, "eu-west-3", at=at, life_s=77)
    assert {name: value for name, (value,) in parse_qs(urlsplit(found).query).items()} == expected
    assert found.startswith(f"{url}?X-Amz-")


def test_s2_75_what_may_be_put_at_the_store_itself_takes_room_until_it_has_been_counted(
    object_store: ObjectStore,
) -> None:
    clock = Clock()

    async def main() -> None:
        blobs = S3Blobs.open(object_store.place(), CREDENTIALS)
        objects = objects_over(blobs, tenant_max=100_000 + 3 * OBJECT_OVERHEAD_BYTES, object_max=90_000)
        objects.room = Room(blobs, objects.terms.tenant_max_bytes, clock=lambda: clock.now_s)
        direct = partial(objects.direct, "ten_a", method="PUT", life_s=60.0)
        for size in (None, 90_001):
            with pytest.raises(InvalidInput) as wrong:
                await direct("shared/new", size_bytes=size)
            assert wrong.value.field == "size_max_bytes"
        url = await direct("shared/new", size_bytes=60_000)
        assert objects.room.held_by("ten_a") == 60_000 + OBJECT_OVERHEAD_BYTES
        with pytest.raises(TooManyRequests):
            await put(objects, "ten_a", "shared/other", bytes(40_001 + OBJECT_OVERHEAD_BYTES))
        with pytest.raises(TooManyRequests):
            await direct("shared/other", size_bytes=40_001 + OBJECT_OVERHEAD_BYTES)
        await direct("shared/new", size_bytes=50_000)  # in the same place
        assert objects.room.held_by("ten_a") == 60_000 + OBJECT_OVERHEAD_BYTES
        await put(objects, "ten_b", "shared/other", bytes(60_000))
        await objects.direct("ten_a", "shared/new", method="GET", life_s=60.0, size_bytes=None)
        with httpx2.Client(timeout=30) as http:
            assert http.put(url, content=bytes(60_000)).status_code == 200
        clock.now_s += 60.0 + DIRECT_COUNTED_AFTER_S - 1
        await retention.sweep(objects, {"ten_a", "ten_b"}, at_us=clock.now_us)
        assert objects.room.held_by("ten_a") == 2 * (60_000 + OBJECT_OVERHEAD_BYTES)  # until it is sure
        clock.now_s += 2
        assert objects.room.held_by("ten_a") == 60_000 + OBJECT_OVERHEAD_BYTES

    asyncio.run(main())


def test_s2_75_addresses_to_put_at_the_store_itself_are_bounded(
    object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("casemate.blobs.objects.DIRECT_ADDRESSES_A_TENANT_MAX", 2)

    async def main() -> None:
        objects = objects_over(S3Blobs.open(object_store.place(), CREDENTIALS))
        for name in ("shared/a", "shared/b", "shared/a"):
            await objects.direct("ten_a", name, method="PUT", life_s=60.0, size_bytes=1)
        with pytest.raises(TooManyRequests):
            await objects.direct("ten_a", "shared/c", method="PUT", life_s=60.0, size_bytes=1)
        await objects.direct("ten_b", "shared/c", method="PUT", life_s=60.0, size_bytes=1)

    asyncio.run(main())


def test_s2_27_what_lies_in_s3_is_encrypted_there_if_that_is_asked_for(object_store: ObjectStore) -> None:
    async def main() -> None:
        place = object_store.place(encryption="AES256")
        blobs = S3Blobs.open(place, CREDENTIALS)
        for size in (10, 9 * 1024 * 1024):
            await blobs.put("ten_a/shared/x", pieces_of(b"x" * size), size_max_bytes=size)
            head = object_store.client.head_object(Bucket=place.bucket, Key="some/where/objects/ten_a/shared/x")
            assert head["ServerSideEncryption"] == "AES256"
            assert (await blobs.head("ten_a/shared/x")).digest == hashlib.sha256(b"x" * size).hexdigest()

    asyncio.run(main())


def test_s2_81_an_object_store_that_is_not_there_is_unavailable_and_no_key_is_told(
    object_store: ObjectStore, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        place = msgspec.structs.replace(object_store.place(), bucket="none-such")
        blobs = S3Blobs.open(place, CREDENTIALS)
        with pytest.raises((RecordsUnavailable, NotFound)) as caught:
            await blobs.put("ten_a/shared/x", pieces_of(b"x"), size_max_bytes=10)
        assert CREDENTIALS.secret_key not in f"{caught.value}{caplog.text}"
        assert object_store.url not in str(caught.value)

    asyncio.run(main())


def test_s2_81_without_keys_s3_is_not_opened(object_store: ObjectStore, tmp_path: Path) -> None:
    terms = read_objects({"store": "s3://bucket/prefix", "endpoint": object_store.url})
    with pytest.raises(ConfigError, match="credentials"):
        opening.open_blobs(terms, tmp_path, KEYS, {})


def test_without_its_package_s3_is_refused_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.delitem(sys.modules, "casemate.blobs.s3")
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(ConfigError, match=r"casemate\[s3\]"):
        opening.open_blobs(read_objects({"store": "s3://bucket"}), tmp_path, KEYS, {})


# Configuration ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "field"),
    [
        ({"stor": "local"}, "objects"),
        ({"store": "s3:/x"}, "objects.store"),
        ({"store": "s3://UPPER"}, "objects.store"),
        ({"store": "s3://bucket/../x/%"}, "objects.store"),
        ({"store": "s3://bucket", "endpoint": "ftp://x"}, "objects.endpoint"),
        ({"encryption": "rot13"}, "objects.encryption"),
        ({"object_max": "much"}, "objects.object_max"),
        ({"object_max": 0}, "objects.object_max"),
        ({"address_life_max": "8d"}, "objects.address_life_max"),
        ({"retention": {"attic": 1}}, "objects.retention.attic"),
        ({"retention": {"shared": -1}}, "objects.retention.shared"),
        ({"audit_days": 100_000}, "objects.audit_days"),
    ],
)
def test_s2_74_a_wrong_setting_is_named(written: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_objects(written)
    assert caught.value.field == field


def test_s2_81_keys_come_from_variables_or_from_a_file_for_its_owner_alone(tmp_path: Path) -> None:
    given = {ACCESS_VARIABLE: "access", SECRET_VARIABLE: "secret"}
    found = read_credentials("", given)
    assert found is not None
    assert (found.access_key, found.secret_key) == ("access", "secret")
    assert "secret" not in repr(found)
    assert read_credentials("", {}) is None
    with pytest.raises(ConfigError, match=SECRET_VARIABLE):
        read_credentials("", {ACCESS_VARIABLE: "access"})
    path = tmp_path / "s3.toml"
    path.write_text('access_key = "a"\nsecret_key = "the secret"\n')
    path.chmod(0o600)
    assert read_credentials(str(path), {}) == msgspec.structs.replace(found, access_key="a", secret_key="the secret")
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="open to others"):
        read_credentials(str(path), {})
    path.write_text('secret = "the secret"')
    path.chmod(0o600)
    with pytest.raises(ConfigError) as caught:
        read_credentials(str(path), {})
    assert "the secret" not in str(caught.value)

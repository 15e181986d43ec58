"""What every place of objects does, whatever stands behind it."""

from __future__ import annotations

import asyncio
import hashlib
import random
import shutil
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing
from pathlib import Path
from typing import Any, Final

import pytest
from tests.object_store import CREDENTIALS

from casemate.blobs.envelope import MasterKeys
from casemate.blobs.local import LocalBlobs
from casemate.blobs.pieces import pieces_of
from casemate.blobs.protocol import Blob, Blobs
from casemate.blobs.s3 import S3Blobs
from casemate.errors import Conflict, InvalidInput, NotFound, RecordsUnavailable
from casemate.object_limits import OBJECT_BATCH_BYTES, OBJECT_CHUNK_BYTES

MAX: Final = 64 * 1024 * 1024
KEY: Final = "ten_a/shared/data.bin"
Check = Callable[[Blobs], Coroutine[Any, Any, None]]
Store = Callable[[Check], None]


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """Runs a check on a place of objects with nothing in it."""

    def local() -> Blobs:
        return LocalBlobs(tmp_path / "objects", MasterKeys((b"k" * 32,)))

    def in_s3() -> Blobs:
        return S3Blobs.open(request.getfixturevalue("object_store").place(), CREDENTIALS)

    opened = local if request.param == "local" else in_s3

    def run(check: Check) -> None:
        blobs = opened()
        asyncio.run(check(blobs))

    return run


async def written(blobs: Blobs, key: str, data: bytes) -> Blob:
    return await blobs.put(key, pieces_of(data), size_max_bytes=MAX)


async def read(blobs: Blobs, key: str, offset: int = 0) -> bytes:
    async with aclosing(blobs.get(key, offset=offset)) as pieces:  # type: ignore[type-var]
        return b"".join([piece async for piece in pieces])


async def keys(blobs: Blobs, prefix: str) -> list[str]:
    return [blob.key async for blob in blobs.list(prefix)]


SIZES: Final = (
    0,
    1,
    OBJECT_CHUNK_BYTES - 1,
    OBJECT_CHUNK_BYTES,
    OBJECT_CHUNK_BYTES + 1,
    OBJECT_BATCH_BYTES,
    3 * OBJECT_BATCH_BYTES + 17,
    12 * OBJECT_BATCH_BYTES + 5,
)


def test_s2_72_what_is_written_is_read_byte_for_byte(store: Store) -> None:
    async def check(blobs: Blobs) -> None:
        for size in SIZES:
            data = random.Random(size).randbytes(size)
            blob = await written(blobs, KEY, data)
            assert (blob.key, blob.size_bytes, blob.digest) == (KEY, size, hashlib.sha256(data).hexdigest())
            assert await blobs.head(KEY) == blob
            assert await read(blobs, KEY) == data

    store(check)


def test_it_is_read_from_any_offset_on_and_not_from_behind_its_end(store: Store) -> None:
    data = random.Random(1).randbytes(2 * OBJECT_BATCH_BYTES + 100)

    async def check(blobs: Blobs) -> None:
        await written(blobs, KEY, data)
        for offset in (0, 1, OBJECT_CHUNK_BYTES, OBJECT_CHUNK_BYTES + 1, OBJECT_BATCH_BYTES + 3, len(data) - 1):
            assert await read(blobs, KEY, offset) == data[offset:]
        assert await read(blobs, KEY, len(data)) == b""
        with pytest.raises(InvalidInput):
            await read(blobs, KEY, len(data) + 1)

    store(check)


def test_what_is_not_there_is_not_found_and_deleting_says_so(store: Store) -> None:
    async def check(blobs: Blobs) -> None:
        with pytest.raises(NotFound):
            await read(blobs, KEY)
        with pytest.raises(NotFound):
            await blobs.head(KEY)
        assert not await blobs.delete(KEY)
        await written(blobs, KEY, b"x")
        assert await blobs.delete(KEY)
        assert not await blobs.delete(KEY)
        with pytest.raises(NotFound):
            await read(blobs, KEY)
        assert await keys(blobs, "") == []

    store(check)


def test_a_later_object_takes_the_place_of_an_earlier_one(store: Store) -> None:
    async def check(blobs: Blobs) -> None:
        for data in (b"a" * 3 * OBJECT_CHUNK_BYTES, b"short", b""):
            await written(blobs, KEY, data)
            assert await read(blobs, KEY) == data
        assert await keys(blobs, "") == [KEY]

    store(check)


def test_keys_are_listed_in_their_order_by_what_they_begin_with(store: Store) -> None:
    named = [
        "ten_a/jobs/a-b/output/x",
        "ten_a/jobs/a/input/data.csv",
        "ten_a/jobs/a/output/deep/er/file",
        "ten_a/jobs/a/output/x",
        "ten_a/shared/x",
        "ten_a/shared/x-y",
        "ten_a/shared/x/y",
        "ten_a/templates/t",
        "ten_b/shared/x",
    ]

    async def check(blobs: Blobs) -> None:
        for key in random.Random(2).sample(named, len(named)):
            await written(blobs, key, key.encode())
        for prefix in (
            "",
            "t",
            "ten_a/",
            "ten_a/jobs/a/",
            "ten_a/jobs/a",
            "ten_a/jobs/a/output/",
            "ten_a/sh",
            "ten_c/",
        ):
            assert await keys(blobs, prefix) == [key for key in named if key.startswith(prefix)], prefix
        assert await keys(blobs, "ten_a/shared/x") == ["ten_a/shared/x", "ten_a/shared/x-y", "ten_a/shared/x/y"]

    store(check)


def test_names_of_any_letters_come_back_as_they_were(store: Store) -> None:
    named = [
        "a b",
        "ü/日本語",
        "100%",
        "%2e%2e",
        "a+b&c=d?e#f",
        "~*'()!$,;:@[]",
        '"quoted"',
        "back\\slash",
        "...",
        "😀",
    ]

    async def check(blobs: Blobs) -> None:
        for name in named:
            await written(blobs, f"ten_a/shared/{name}", name.encode())
        assert await keys(blobs, "ten_a/shared/") == sorted(f"ten_a/shared/{name}" for name in named)
        for name in named:
            assert await read(blobs, f"ten_a/shared/{name}") == name.encode()
            assert await blobs.delete(f"ten_a/shared/{name}")

    store(check)


@pytest.mark.parametrize(
    "key",
    [
        "",
        "x",
        "ten_a",
        "ten_a/",
        "ten_a/other/x",
        "ten_a/shared/",
        "ten_a/shared/../x",
        "/ten_a/shared/x",
        "ten_a/jobs/j/x",
    ],
)
def test_f24_a_key_that_names_no_place_is_refused(store: Store, key: str) -> None:
    async def check(blobs: Blobs) -> None:
        with pytest.raises(InvalidInput):
            await written(blobs, key, b"x")
        assert await keys(blobs, "") == []

    store(check)


def test_more_than_is_allowed_leaves_what_was_there(store: Store) -> None:
    async def check(blobs: Blobs) -> None:
        await written(blobs, KEY, b"before")
        for size in (11, 20 * OBJECT_BATCH_BYTES):
            with pytest.raises(InvalidInput):
                await blobs.put(KEY, pieces_of(b"x" * size), size_max_bytes=size - 1)
        assert await read(blobs, KEY) == b"before"

    store(check)


class Broken(Exception):
    """What a sender that goes away looks like."""


@pytest.mark.parametrize("size", [0, 10, 12 * OBJECT_BATCH_BYTES])
def test_a_sender_that_breaks_off_leaves_what_was_there(store: Store, size: int) -> None:
    async def breaks_off() -> AsyncIterator[bytes]:
        async for piece in pieces_of(b"x" * size):
            yield piece
        raise Broken

    async def check(blobs: Blobs) -> None:
        with pytest.raises(Broken):
            await blobs.put("ten_a/shared/never", breaks_off(), size_max_bytes=MAX)
        await written(blobs, KEY, b"before")
        with pytest.raises(Broken):
            await blobs.put(KEY, breaks_off(), size_max_bytes=MAX)
        assert await read(blobs, KEY) == b"before"
        assert await keys(blobs, "") == [KEY]

    store(check)


def test_a_writer_that_is_cancelled_leaves_what_was_there(store: Store) -> None:
    async def check(blobs: Blobs) -> None:
        began, never = asyncio.Event(), asyncio.Event()

        async def stays() -> AsyncIterator[bytes]:
            yield b"x" * 2 * OBJECT_BATCH_BYTES
            began.set()
            await never.wait()

        await written(blobs, KEY, b"before")
        writing = asyncio.create_task(blobs.put(KEY, stays(), size_max_bytes=MAX))
        await began.wait()
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        assert await read(blobs, KEY) == b"before"

    store(check)


def test_of_many_who_write_at_once_one_is_there_whole(store: Store) -> None:
    async def check(blobs: Blobs) -> None:
        given = [bytes([number]) * (OBJECT_CHUNK_BYTES + number) for number in range(12)]
        await asyncio.gather(*(written(blobs, KEY, data) for data in given))
        assert await read(blobs, KEY) in given
        assert await keys(blobs, "") == [KEY]

    store(check)


def test_who_reads_what_was_looked_at_is_told_when_it_has_been_replaced(store: Store) -> None:
    async def check(blobs: Blobs) -> None:
        before = await written(blobs, KEY, b"before")
        async with aclosing(blobs.get(KEY, as_of=before)) as pieces:  # type: ignore[type-var]
            assert [piece async for piece in pieces] == [b"before"]
        await written(blobs, KEY, b"quite another one")
        with pytest.raises(Conflict):
            await anext(blobs.get(KEY, as_of=before))

    store(check)


def test_who_deletes_and_who_writes_in_one_directory_meet_in_peace(store: Store) -> None:
    async def check(blobs: Blobs) -> None:
        async def come_and_go(number: int) -> None:
            for _ in range(20):
                await written(blobs, f"ten_a/jobs/j/output/{number}", b"x")
                assert await blobs.delete(f"ten_a/jobs/j/output/{number}")

        await asyncio.gather(*(come_and_go(number) for number in range(8)))
        assert await keys(blobs, "") == []

    store(check)


def test_a_place_that_is_not_there_is_told(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    async def looked() -> None:
        local = LocalBlobs(tmp_path / "objects", MasterKeys((b"k" * 32,)))
        server = request.getfixturevalue("object_store")
        place = server.place()
        remote = S3Blobs.open(place, CREDENTIALS)
        for blobs in (local, remote):
            await blobs.look()
        shutil.rmtree(tmp_path / "objects")
        server.client.delete_bucket(Bucket=place.bucket)
        for blobs in (local, remote):
            with pytest.raises(RecordsUnavailable):
                await blobs.look()

    asyncio.run(looked())

"""A file that no object can be is left out, and everything else of a job is kept."""

from __future__ import annotations

import asyncio

import pytest

from casemate.errors import CapacityError, InvalidInput, TooManyRequests
from casemate.jobs.keeping import Keeping
from casemate.model.result import Isolation, Reason, Result, Status

RESULT = Result(status=Status.SUCCEEDED, reason=Reason.EXIT, isolation=Isolation(backend="test", layers=()))


class Store:
    """Takes no file called `bad`, and none of more than ten bytes; notes the others."""

    def __init__(self) -> None:
        self.open = ""
        self.size_bytes = 0
        self.whole: list[str] = []

    async def piece(self, path: str, offset: int, data: bytes) -> None:
        if path == "full":
            raise CapacityError("no room")
        if path == "beyond":
            raise TooManyRequests("the tenant's objects are all they may be", retry_after_s=60)
        if path == "bad":
            raise InvalidInput("path", "is too long")
        self.open, self.size_bytes = path, offset + len(data)
        if self.size_bytes > 10:
            raise InvalidInput("content", "is too large")

    async def ended(self, path: str, size_bytes: int, digest: str) -> None:
        if path == "bad":
            raise InvalidInput("path", "is too long")
        assert (size_bytes, digest) == (self.size_bytes if self.open == path else 0, "d")
        self.open = ""
        self.whole.append(path)

    async def close(self) -> None:
        self.open = ""


async def send(files: Keeping, path: str, *pieces: bytes) -> None:
    offset = 0
    for piece in pieces:
        await files.piece(path, offset, piece)
        offset += len(piece)
    await files.ended(path, offset, "d")


def test_f8_f24_a_name_or_a_size_that_no_object_has_costs_that_file_alone() -> None:
    async def main() -> None:
        store = Store()
        files = Keeping(store)
        await send(files, "a", b"12345", b"12345")
        await send(files, "bad", b"1", b"2")
        await send(files, "bad")
        await send(files, "large", b"12345678", b"12345678", b"1")
        assert store.open == ""
        await send(files, "b", b"1")
        assert store.whole == ["a", "b"]
        (event,) = files.told(RESULT).events
        assert event.detail == "3 left out: no object can have that name, or that size"

    asyncio.run(main())


def test_files_beyond_the_room_of_their_tenant_cost_the_job_nothing_else() -> None:
    async def main() -> None:
        store = Store()
        files = Keeping(store)
        await send(files, "bad", b"1")
        await send(files, "beyond", b"1", b"2")
        await send(files, "b", b"1")
        assert store.whole == ["b"]
        assert [event.detail for event in files.told(RESULT).events] == [
            "1 left out: no object can have that name, or that size",
            "1 left out: the tenant has as many bytes of objects as it may",
        ]

    asyncio.run(main())


def test_a_result_of_which_all_is_kept_stays_as_it_is() -> None:
    assert Keeping(Store()).told(RESULT) is RESULT


def test_what_may_be_otherwise_later_is_an_error() -> None:
    with pytest.raises(CapacityError):
        asyncio.run(send(Keeping(Store()), "full", b"1"))

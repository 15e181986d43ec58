"""Objects on their way to the service and from it: in parts that are sent again, and on from where it broke off.

Pure, but for the files at the one end, which belong to whoever calls.
"""

from __future__ import annotations

import base64
import binascii
import errno
import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self, TypeAlias, TypeVar

import msgspec

from casemate.errors import Conflict, FileTransferError, ServiceError
from casemate.model.objects import StoredObject
from casemate.sdk.calls import sent
from casemate.sdk.exchange import READ, Context, Emit, Open, Plain, Steps, carry_out, failed, rest
from casemate.sdk.object_calls import object_path
from casemate.sdk.requests import Answer, Call, Failure, Head, Request, path, read_nothing, reader
from casemate.service_limits import SDK_UPLOAD_PART_BYTES, SDK_WAIT_MAX_S

T = TypeVar("T")
Source: TypeAlias = bytes | str | os.PathLike[str] | BinaryIO
BINARY: Final = "application/octet-stream"
_DIGEST: Final = re.compile(r"sha-256=:([A-Za-z0-9+/=]{44}):")
_BROKEN_OFF: Final = Failure(message="the object broke off before its end")


class _Upload(msgspec.Struct):
    id: str


# To the service -----------------------------------------------------------------------------------


def upload(context: Context, key: str, parts: Iterator[bytes]) -> Steps[int, StoredObject]:
    """Send an object; tells how many bytes have arrived. A part that is lost on the way is sent again."""
    first, second = next(parts, b""), next(parts, None)
    if second is None:
        stored = yield from carry_out(context, Call(_put(object_path(key), first), reader(StoredObject)))
        yield Emit(len(first))
        return stored
    begun = yield from carry_out(context, Call(sent("POST", path("uploads"), {"key": key}), reader(_Upload)))
    arrived = 0
    for number, part in enumerate(_all(first, second, parts), start=1):
        where = path("uploads", begun.id, "parts", str(number))
        yield from carry_out(context, Call(_put(where, part), read_nothing))
        arrived += len(part)
        yield Emit(arrived)
    complete = sent("POST", path("uploads", begun.id, "complete"), {}, waits=True)
    return (yield from carry_out(context, Call(complete, reader(StoredObject))))


def _all(first: bytes, second: bytes, rest_of_them: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield second
    yield from rest_of_them


def _put(where: str, data: bytes) -> Request:
    digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
    headers = (("Content-Type", BINARY), ("Repr-Digest", f"sha-256=:{digest}:"))
    return Request(
        method="PUT", path=where, body=data, own_headers=headers, is_idempotent=True, silence_max_s=SDK_WAIT_MAX_S
    )


@contextmanager
def parts_of(source: Source) -> Iterator[tuple[Iterator[bytes], int | None]]:
    """A source in parts, and how large it is, where that is known. Raises FileTransferError."""
    if isinstance(source, bytes | bytearray):
        yield _read(BytesIO(source)), len(source)
    elif isinstance(source, str | os.PathLike):
        try:
            with Path(source).open("rb") as file:
                yield _read(file), os.fstat(file.fileno()).st_size
        except OSError as error:
            raise FileTransferError(f"{source}: {error.strerror}", errno=error.errno or 0) from error
    else:
        yield _read(source), None


def _read(file: BinaryIO) -> Iterator[bytes]:
    """Whole parts, whatever a pipe gives at once."""
    while True:
        part = bytearray()
        while len(part) < SDK_UPLOAD_PART_BYTES and (piece := file.read(SDK_UPLOAD_PART_BYTES - len(part))):
            part += piece
        if not part:
            return
        yield bytes(part)


# From the service ---------------------------------------------------------------------------------


class _Coming:
    """How far an object has come."""

    def __init__(self) -> None:
        self.count = 0
        self.size_bytes = -1
        self.tag = ""
        self._wanted = b""
        self._seen = hashlib.sha256()

    def request(self, where: str) -> Request:
        """For what is missing of it."""
        headers: tuple[tuple[str, str], ...] = ()
        if self.count:
            headers = (("Range", f"bytes={self.count}-"), *((("If-Range", self.tag),) if self.tag else ()))
        return Request(method="GET", path=where, accept=BINARY, own_headers=headers, silence_max_s=SDK_WAIT_MAX_S)

    def begin(self, head: Head) -> None:
        """Raises Conflict where it is another object by now."""
        tag = head.headers.get("etag", "")
        if not self.count:
            self.tag = tag
            self.size_bytes = int(head.headers.get("content-length", "0"))
            found = _DIGEST.search(head.headers.get("repr-digest", ""))
            self._wanted = binascii.a2b_base64(found[1]) if found else b""
        elif tag != self.tag or not head.headers.get("content-range", "").startswith(f"bytes {self.count}-"):
            raise Conflict("the object was replaced while it came", hint="begin again")

    def take(self, piece: bytes) -> None:
        self._seen.update(piece)
        self.count += len(piece)

    def check(self) -> None:
        """Raise ServiceError for what is not what it says that it is."""
        if self._wanted and self._seen.digest() != self._wanted:
            raise ServiceError("what has come is not what the service has", hint="begin again")


def download(context: Context, where: str) -> Steps[bytes, int]:
    """The bytes of an object, as they come; when the way breaks off, it goes on from there. Ends with how many."""
    coming = _Coming()
    attempts = 0
    while True:
        attempts += 1
        request = coming.request(where)
        head = yield Open(request)
        before = coming.count
        outcome: Answer | Failure
        if isinstance(head, Head) and head.is_good:
            coming.begin(head)
            found = yield from _body(coming)
            if found is None:
                coming.check()
                return coming.count
            outcome = found
        else:
            outcome = yield from _refusal(head)
        attempts = 1 if coming.count > before else attempts
        yield context.pause(request, outcome, attempts)


def _body(coming: _Coming) -> Steps[bytes, Failure | None]:
    """None: that was all."""
    while coming.count <= coming.size_bytes:
        reply = yield READ
        if not isinstance(reply, bytes):
            return failed(reply)
        if not reply:
            return None if coming.count == coming.size_bytes else _BROKEN_OFF
        coming.take(reply)
        yield Emit(reply)
    raise ServiceError("more has come than the service has said")


def _refusal(reply: object) -> Plain[Answer | Failure]:
    if isinstance(reply, Head):
        return (yield from rest(reply))
    assert isinstance(reply, Failure)  # noqa: S101  (the drivers' side of it)
    return reply


class Target:
    """A file that is there whole or not at all. Used by `with`; raises FileTransferError."""

    def __init__(self, target: str | os.PathLike[str]) -> None:
        self._target = Path(target)
        self._path = self._target.parent / f".{self._target.name}.part"
        self._is_kept = False

    def __enter__(self) -> Self:
        if self._target.is_dir():
            raise FileTransferError(f"{self._target}: {os.strerror(errno.EISDIR)}", errno=errno.EISDIR)
        self._file = self._told(lambda: self._path.open("wb"))
        return self

    def write(self, piece: bytes) -> None:
        """Add what has come."""
        self._told(lambda: self._file.write(piece))

    def keep(self) -> None:
        """All of it has come."""
        self._told(self._file.close)
        self._told(lambda: self._path.replace(self._target))
        self._is_kept = True

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._is_kept:
            return
        with suppress(OSError):  # of what was not written before, too: there is an error already
            self._file.close()
        with suppress(OSError):
            self._path.unlink()

    def _told(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except OSError as error:
            raise FileTransferError(f"{self._target}: {error.strerror}", errno=error.errno or 0) from error

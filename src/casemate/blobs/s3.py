"""Objects in S3, or in what speaks like it. The service there encrypts them; see ADR 34.

Small objects carry their digest. A large one is sent while it comes, so that its digest is known too late for that: it
is kept beside, together with the tag of the very object that it is of.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import msgspec
import obstore
from obstore.exceptions import BaseError, PreconditionError
from obstore.store import S3Store

from casemate.blobs.keys import place_of
from casemate.blobs.pieces import batches
from casemate.blobs.presign import put_of_size
from casemate.blobs.protocol import Blob, is_as_of
from casemate.clock import now_us
from casemate.errors import ConfigError, Conflict, InvalidInput, NotFound, RecordsUnavailable
from casemate.limits import MIB
from casemate.model.units import SECOND_US
from casemate.object_config import Credentials, S3Place

if TYPE_CHECKING:
    from obstore import ObjectMeta

_LOG: Final = logging.getLogger(__name__)
_OBJECTS: Final = "objects/"
_DIGESTS: Final = "digests/"
_NOTHING: Final = "none/"
_DIGEST: Final = "casemate-sha256"
_SMALL_MAX_BYTES: Final = 8 * MIB
"""Sent at once; larger ones in parts of this size."""

_PARTS_AT_ONCE: Final = 2
_READ_BYTES: Final = 1 * MIB
_EPOCH: Final = datetime.fromtimestamp(0, UTC)
_PATIENCE: Final = {"timeout": "600s", "connect_timeout": "5s"}
_RETRIES: Final = {"max_retries": 4, "retry_timeout": timedelta(seconds=30)}


class _Companion(msgspec.Struct, frozen=True):
    """What is kept beside a large object."""

    e_tag: str
    digest: str


class S3Blobs:
    """Implements Blobs in a bucket that is there already."""

    def __init__(self, store: S3Store, credentials: Credentials, region: str) -> None:
        self._store = store
        self._credentials = credentials
        self._region = region

    @classmethod
    def open(cls, place: S3Place, credentials: Credentials | None) -> S3Blobs:
        """Nothing is asked of the service yet. Raises ConfigError without keys for it."""
        if credentials is None:
            raise ConfigError("objects.credentials", "names no file, and no variable has the keys of the object store")
        options: dict[str, Any] = {"server_side_encryption": place.encryption} if place.encryption else {}
        if place.encryption_key:
            options["sse_kms_key_id"] = place.encryption_key
        if credentials.session_token:
            options["session_token"] = credentials.session_token
        store = S3Store(
            place.bucket,
            prefix=place.prefix or None,
            endpoint=place.endpoint or None,
            region=place.region,
            access_key_id=credentials.access_key,
            secret_access_key=credentials.secret_key,
            virtual_hosted_style_request=not place.endpoint,
            client_options={**_PATIENCE, "allow_http": place.endpoint.startswith("http:")},  # type: ignore[arg-type]
            retry_config=_RETRIES,  # type: ignore[arg-type]
            **options,
        )
        return cls(store, credentials, place.region)

    async def put(self, key: str, data: AsyncIterator[bytes], *, size_max_bytes: int) -> Blob:
        """As the protocol says."""
        place_of(key)
        pieces = aiter(batches(data, size_max_bytes))
        first = bytearray()
        async for piece in pieces:
            first += piece
            if len(first) > _SMALL_MAX_BYTES:
                return await self._put_large(key, bytes(first), pieces)
        digest = hashlib.sha256(first).hexdigest()
        with _told():
            await obstore.put_async(
                self._store, _OBJECTS + key, bytes(first), attributes={_DIGEST: digest}, use_multipart=False
            )
        return await self._with_digest(key, digest)

    async def _put_large(self, key: str, first: bytes, rest: AsyncIterator[bytes]) -> Blob:
        seen = hashlib.sha256()

        async def all_of_it() -> AsyncIterator[bytes]:
            seen.update(first)
            yield first
            async for piece in rest:
                seen.update(piece)
                yield piece

        with _told():
            put = await obstore.put_async(
                self._store,
                _OBJECTS + key,
                all_of_it(),
                chunk_size=_SMALL_MAX_BYTES,
                max_concurrency=_PARTS_AT_ONCE,
            )
            companion = _Companion(e_tag=put["e_tag"] or "", digest=seen.hexdigest())
            await obstore.put_async(self._store, _DIGESTS + key, msgspec.json.encode(companion))
        return await self._with_digest(key, seen.hexdigest())

    async def _with_digest(self, key: str, digest: str) -> Blob:
        """What has been written just now; another may have taken its place already."""
        return msgspec.structs.replace(await self.head(key), digest=digest)

    async def head(self, key: str) -> Blob:
        """As the protocol says."""
        meta, digest = await self._look(key)
        return _blob(meta, key, digest or await self._digest_beside(key, meta))

    async def _look(self, key: str) -> tuple[ObjectMeta, str]:
        place_of(key)
        with _told():
            found = await obstore.get_async(self._store, _OBJECTS + key, options={"head": True})
        return found.meta, str(found.attributes.get(_DIGEST, ""))

    async def _digest_beside(self, key: str, meta: ObjectMeta) -> str:
        if meta["size"] <= _SMALL_MAX_BYTES:
            return ""
        try:
            with _told():
                found = await obstore.get_async(self._store, _DIGESTS + key)
                companion = msgspec.json.decode(bytes(await found.bytes_async()), type=_Companion)
        except (NotFound, msgspec.DecodeError):
            return ""
        return companion.digest if companion.e_tag == meta["e_tag"] else ""

    async def get(self, key: str, *, offset: int = 0, as_of: Blob | None = None) -> AsyncIterator[bytes]:
        """As the protocol says."""
        meta, digest = await self._look(key)
        is_as_of(_blob(meta, key, digest), as_of)
        if not 0 <= offset <= meta["size"]:
            raise InvalidInput("offset", f"must be from 0 to {meta['size']}")
        if offset == meta["size"]:
            return
        with _told():
            options: Any = {"range": {"offset": offset}, "if_match": meta["e_tag"]}
            found = await obstore.get_async(self._store, _OBJECTS + key, options=options)
            async for piece in found.stream(min_chunk_size=_READ_BYTES):
                yield bytes(piece)

    async def list(self, prefix: str) -> AsyncIterator[Blob]:
        """As the protocol says; the service there lists whole directories."""
        directory, slash, _ = prefix.rpartition("/")
        with _told():
            async for metas in obstore.list(self._store, prefix=_OBJECTS + directory + slash):
                for meta in metas:
                    key = meta["path"].removeprefix(_OBJECTS)
                    if key.startswith(prefix):
                        yield _blob(meta, key, "")

    async def look(self) -> None:
        """As the protocol says: asks for a list of nothing."""
        try:
            with _told():
                async for _ in obstore.list(self._store, prefix=_NOTHING, chunk_size=1):
                    break
        except NotFound as error:
            raise RecordsUnavailable("io", "the bucket of the objects is not there") from error

    async def delete(self, key: str) -> bool:
        """As the protocol says."""
        try:
            meta, _ = await self._look(key)
        except NotFound:
            return False
        with _told():
            await obstore.delete_async(self._store, _OBJECTS + key)
            if meta["size"] > _SMALL_MAX_BYTES:
                with suppress(FileNotFoundError):
                    await obstore.delete_async(self._store, _DIGESTS + key)
        return True

    async def presigned(self, key: str, *, life_s: float, size_bytes: int | None = None) -> str:
        """An address at the object store itself for getting that object, or for putting one of exactly that size."""
        place_of(key)
        with _told():
            found: str = await obstore.sign_async(
                self._store, "GET" if size_bytes is None else "PUT", _OBJECTS + key, timedelta(seconds=life_s)
            )
        if size_bytes is None:
            return found
        at, whole_s = _EPOCH + timedelta(microseconds=now_us()), max(1, int(life_s))
        return put_of_size(found, size_bytes, self._credentials, self._region, at=at, life_s=whole_s)


def _blob(meta: ObjectMeta, key: str, digest: str) -> Blob:
    modified_us = (meta["last_modified"] - _EPOCH) // timedelta(microseconds=1)
    assert modified_us >= -SECOND_US  # noqa: S101
    return Blob(key=key, size_bytes=meta["size"], digest=digest, modified_us=modified_us)


@contextmanager
def _told() -> Iterator[None]:
    """What the object store says, in errors of ours: its own words name hosts and requests, and are for the log."""
    try:
        yield
    except FileNotFoundError as error:
        raise NotFound("there is no such object") from error
    except PreconditionError as error:
        raise Conflict("the object has been replaced meanwhile", hint="ask again") from error
    except BaseError as error:
        _LOG.warning("the object store does not do what it is asked", exc_info=error)
        raise RecordsUnavailable("io", "the object store does not do what it is asked") from error

"""How an object is sealed. Pure: bytes in, bytes out.

    magic (4) · wrapped key (48) · length of the facts (2) · facts, sealed · chunks, each sealed

The facts are size, time, digest and key of the object. Facts and chunks are sealed with the object's own key by
AES-256-GCM; the nonce of the facts is 0 and those of the chunks are counted from 1, so that none is used twice. A chunk
is bound to its place by its nonce and to its object by the key; what is left out or added differs from the size that
the facts tell.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from casemate.blobs.envelope import NONCE_BYTES, TAG_BYTES, WRAPPED_BYTES, DataKey, MasterKeys
from casemate.blobs.protocol import Blob
from casemate.errors import RecordsDamaged
from casemate.object_limits import OBJECT_CHUNK_BYTES, OBJECT_PATH_MAX_BYTES

MAGIC: Final = b"CMO1"
SEALED_CHUNK_BYTES: Final = OBJECT_CHUNK_BYTES + TAG_BYTES
_LENGTH: Final = struct.Struct(">H")
_FACTS: Final = struct.Struct(">QQ32s")
_FIXED_BYTES: Final = len(MAGIC) + WRAPPED_BYTES + _LENGTH.size
_KEY_MAX_BYTES: Final = OBJECT_PATH_MAX_BYTES + 256
HEAD_MAX_BYTES: Final = _FIXED_BYTES + _FACTS.size + _KEY_MAX_BYTES + TAG_BYTES


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """What stands before the chunks."""

    blob: Blob
    key: DataKey
    size_bytes: int

    def sealed_size_bytes(self) -> int:
        """Of the whole object as it is kept."""
        return self.size_bytes + self.blob.size_bytes + chunk_count(self.blob.size_bytes) * TAG_BYTES

    def chunk_offset(self, number: int) -> int:
        """Where a chunk begins."""
        return self.size_bytes + number * SEALED_CHUNK_BYTES


def chunk_count(size_bytes: int) -> int:
    """Of an object of that size."""
    return -(-size_bytes // OBJECT_CHUNK_BYTES)


def head_size_bytes(key: str) -> int:
    """Of the head of the object with that key, whatever its facts are."""
    return _FIXED_BYTES + _FACTS.size + len(key.encode()) + TAG_BYTES


def sealed_head(blob: Blob, key: DataKey) -> bytes:
    """The head of an object, which is made once for a key."""
    facts = _FACTS.pack(blob.size_bytes, blob.modified_us, bytes.fromhex(blob.digest)) + blob.key.encode()
    fixed = MAGIC + key.wrapped + _LENGTH.pack(len(facts) + TAG_BYTES)
    return fixed + AESGCM(key.secret).encrypt(_nonce(0), facts, fixed)


def opened_head(data: bytes, keys: MasterKeys) -> Head:
    """What a head tells; more than that may stand behind it. Raises RecordsDamaged."""
    if len(data) < _FIXED_BYTES or not data.startswith(MAGIC):
        raise _damaged()
    fixed = data[:_FIXED_BYTES]
    (length,) = _LENGTH.unpack(fixed[-_LENGTH.size :])
    key = keys.unwrapped(fixed[len(MAGIC) : -_LENGTH.size])
    try:
        facts = AESGCM(key.secret).decrypt(_nonce(0), data[_FIXED_BYTES : _FIXED_BYTES + length], fixed)
    except (InvalidTag, ValueError) as error:
        raise _damaged() from error
    size_bytes, modified_us, digest = _FACTS.unpack_from(facts)
    blob = Blob(key=facts[_FACTS.size :].decode(), size_bytes=size_bytes, modified_us=modified_us, digest=digest.hex())
    return Head(blob=blob, key=key, size_bytes=_FIXED_BYTES + length)


class ChunkSealer:
    """Seals what comes in pieces of any size, as chunks in their order."""

    def __init__(self, key: DataKey) -> None:
        self._cipher = AESGCM(key.secret)
        self._number = 0
        self._rest = b""

    def seal(self, data: bytes) -> bytes:
        """The chunks that are full by now."""
        data = self._rest + data
        whole_bytes = len(data) - len(data) % OBJECT_CHUNK_BYTES
        self._rest = data[whole_bytes:]
        return b"".join(self._sealed(chunk) for chunk in _chunks(data[:whole_bytes], OBJECT_CHUNK_BYTES))

    def end(self) -> bytes:
        """The last chunk, or nothing."""
        rest, self._rest = self._rest, b""
        return self._sealed(rest) if rest else b""

    def _sealed(self, chunk: bytes) -> bytes:
        self._number += 1
        return self._cipher.encrypt(_nonce(self._number), chunk, None)


class ChunkOpener:
    """Opens chunks, from one of them on."""

    def __init__(self, key: DataKey, number: int) -> None:
        self._cipher = AESGCM(key.secret)
        self._number = number

    def open(self, data: bytes) -> bytes:
        """What whole chunks hold. Raises RecordsDamaged."""
        return b"".join(self._opened(chunk) for chunk in _chunks(data, SEALED_CHUNK_BYTES))

    def _opened(self, chunk: bytes) -> bytes:
        self._number += 1
        try:
            return self._cipher.decrypt(_nonce(self._number), chunk, None)
        except (InvalidTag, ValueError) as error:
            raise _damaged() from error


def _chunks(data: bytes, size_bytes: int) -> Iterator[bytes]:
    return (data[start : start + size_bytes] for start in range(0, len(data), size_bytes))


def _nonce(number: int) -> bytes:
    return number.to_bytes(NONCE_BYTES)


def _damaged() -> RecordsDamaged:
    return RecordsDamaged("damaged", "an object is not what was written", hint="put a backup in its place")

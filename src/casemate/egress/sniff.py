"""What the first bytes of a connection say about where it goes: the name in a TLS ClientHello, or a request. Pure.

The bytes are hostile. Whatever begins like TLS and is not read to its end is malformed, and never taken for another
protocol: two readers must not see two things in it.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final

import msgspec

from casemate import network_limits as bound
from casemate.egress.policy import address_of
from casemate.egress.rules import normal_host

_HANDSHAKE: Final = 0x16
_TLS_MAJOR: Final = 3
_CLIENT_HELLO: Final = 1
_RECORD_HEAD_BYTES: Final = 5
_RECORD_MAX_BYTES: Final = 16 * 1024
_HANDSHAKE_HEAD_BYTES: Final = 4
_RANDOM_BYTES: Final = 34  # with the version in front of it
_SERVER_NAME: Final = 0
_HOST_NAME: Final = 0
_ENCRYPTED_HELLO: Final = frozenset({0xFE0D, 0xFFCE, 0xFE08, 0xFE09, 0xFE0A})
"""ECH, and ESNI with the drafts between them: the true name is hidden."""

_METHOD_MAX: Final = 32
_REQUEST: Final = re.compile(rb"[\r\n]*[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}[ \t]")
_REQUEST_LINE: Final = re.compile(_REQUEST.pattern + rb"[^\r\n]*[ \t]HTTP/")
_REQUEST_BEGUN: Final = re.compile(rb"[\r\n]*[!#$%&'*+.^_`|~0-9A-Za-z-]{0,32}")


class Kind(StrEnum):
    """What a connection carries."""

    MORE = "more"
    TLS = "tls"
    HTTP = "http"
    RAW = "raw"
    MALFORMED = "malformed"


class Seen(msgspec.Struct, frozen=True):
    """What was found. `name`: of TLS, empty where it says none. `hidden`: it may mean another one.

    `needs`: of `MORE`, before so many bytes are there nothing else can be said.
    """

    kind: Kind
    name: str = ""
    hidden: bool = False
    needs: int = 0


class _Malformed(Exception):
    """The bytes are not what they begin like."""


class _Short(Exception):
    """There is more to come: at least so many bytes in all."""

    def __init__(self, needs: int) -> None:
        super().__init__()
        self.needs = needs


def sniff(data: bytes, *, raw: bool = False) -> Seen:
    """What these bytes, the first of a connection, say; `MORE` while they may still become something.

    `raw`: any protocol is allowed here, and a line of another one may begin like a request.
    """
    if not data:
        return Seen(Kind.MORE)
    if data[0] == _HANDSHAKE:
        return _sniff_tls(data)
    if _REQUEST.match(data):
        return Seen(_judge_line(data) if raw else Kind.HTTP)
    begun = _REQUEST_BEGUN.fullmatch(data)
    return Seen(Kind.MORE if begun and len(data) <= 2 * _METHOD_MAX else Kind.RAW)


def settle(data: bytes) -> Seen:
    """What bytes are that could still have become something, once it is known that nothing more comes."""
    return Seen(Kind.MALFORMED if data[:1] == bytes([_HANDSHAKE]) else Kind.RAW)


def _judge_line(data: bytes) -> Kind:
    if _REQUEST_LINE.match(data):
        return Kind.HTTP
    return Kind.RAW if b"\n" in data.lstrip(b"\r\n") or len(data) > bound.HEAD_MAX_BYTES else Kind.MORE


def _sniff_tls(data: bytes) -> Seen:
    if len(data) > 1 and data[1] != _TLS_MAJOR:
        return Seen(Kind.MALFORMED)
    try:
        return _read_hello(_handshake(data))
    except _Short as short:
        return Seen(Kind.MORE, needs=short.needs) if short.needs <= bound.HELLO_MAX_BYTES else Seen(Kind.MALFORMED)
    except _Malformed:
        return Seen(Kind.MALFORMED)


def _handshake(data: bytes) -> bytes:
    """The body of the ClientHello, put together from the records that it may be cut into."""
    body, offset = b"", 0
    for _ in range(bound.HELLO_RECORDS_MAX):
        head = data[offset : offset + _RECORD_HEAD_BYTES]
        if len(head) < _RECORD_HEAD_BYTES:
            raise _Short(offset + _RECORD_HEAD_BYTES)
        length = int.from_bytes(head[3:], "big")
        if head[0] != _HANDSHAKE or head[1] != _TLS_MAJOR or not 0 < length <= _RECORD_MAX_BYTES:
            raise _Malformed
        offset += _RECORD_HEAD_BYTES
        body += data[offset : offset + length]
        whole = _whole(body)
        if whole is not None:
            return whole
        if len(data) < offset + length:
            raise _Short(offset + length)
        offset += length
    raise _Malformed


def _whole(body: bytes) -> bytes | None:
    """The message without its head, once all of it is there."""
    if body and body[0] != _CLIENT_HELLO:
        raise _Malformed
    if len(body) < _HANDSHAKE_HEAD_BYTES:
        return None
    length = int.from_bytes(body[1:_HANDSHAKE_HEAD_BYTES], "big")
    if length > bound.HELLO_MAX_BYTES:
        raise _Malformed
    if len(body) > _HANDSHAKE_HEAD_BYTES + length:
        raise _Malformed  # a client says nothing more before it has an answer
    return body[_HANDSHAKE_HEAD_BYTES:] if len(body) == _HANDSHAKE_HEAD_BYTES + length else None


class _Reader:
    """Reads values off the front of bytes. Raises _Malformed where they are too few."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def is_done(self) -> bool:
        return self._at == len(self._data)

    def take(self, count: int) -> bytes:
        found = self._data[self._at : self._at + count]
        if len(found) < count:
            raise _Malformed
        self._at += count
        return found

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def vector(self, size: int) -> bytes:
        """Bytes with their length, of `size` bytes, in front."""
        return self.take(self.number(size))


def _read_hello(body: bytes) -> Seen:
    reader = _Reader(body)
    reader.take(_RANDOM_BYTES)
    reader.vector(1)  # the session
    reader.vector(2)  # ciphers
    reader.vector(1)  # compressions
    extensions = _Reader(b"" if reader.is_done else reader.vector(2))
    if not reader.is_done:
        raise _Malformed
    found: dict[int, bytes] = {}
    while not extensions.is_done:
        kind = extensions.number(2)
        if kind in found:
            raise _Malformed
        found[kind] = extensions.vector(2)
    name = _read_name(found[_SERVER_NAME]) if _SERVER_NAME in found else ""
    return Seen(Kind.TLS, name=name, hidden=not _ENCRYPTED_HELLO.isdisjoint(found))


def _read_name(data: bytes) -> str:
    """The one host name of the extension. An address in its place, or any second name, is malformed."""
    outer = _Reader(data)
    reader = _Reader(outer.vector(2))
    kind, text = reader.number(1), reader.vector(2)
    if kind != _HOST_NAME or not reader.is_done or not outer.is_done or not text.isascii():
        raise _Malformed
    name = normal_host(text.decode("ascii"))
    if not name or address_of(name) is not None:
        raise _Malformed
    return name

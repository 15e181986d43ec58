"""ClientHellos: those of a real client, and the same with an extension more."""

from __future__ import annotations

import ssl

ECH = 0xFE0D
_LENGTHS = ((3, 2), (6, 3))  # where the lengths of the record and of the message stand, and of how many bytes they are


def hello(name: str | None) -> bytes:
    """What a client says first to a server of this name; None for one that has none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    said = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), said, server_hostname=name)
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        return said.read()
    raise AssertionError("there is no handshake without an answer")


def with_extension(data: bytes, kind: int, body: bytes = b"\0" * 8) -> bytes:
    """The same ClientHello with one extension more."""
    added = kind.to_bytes(2, "big") + len(body).to_bytes(2, "big") + body
    changed = bytearray(data)
    for at, size in (*_LENGTHS, (extensions_at(data), 2)):
        changed[at : at + size] = (int.from_bytes(changed[at : at + size], "big") + len(added)).to_bytes(size, "big")
    return bytes(changed) + added


def extensions_at(data: bytes) -> int:
    """Where the length of the extensions stands."""
    at = 5 + 4 + 34
    at += 1 + data[at]
    at += 2 + int.from_bytes(data[at : at + 2], "big")
    return at + 1 + data[at]


def in_records(data: bytes, size: int) -> bytes:
    """The same message, cut into records of so many bytes."""
    body = data[5:]
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(data[:3] + len(piece).to_bytes(2, "big") + piece for piece in pieces)

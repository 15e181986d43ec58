"""Addresses that stand for a key: one object, one method, until a time. Pure.

What an address grants stands in it, and a code over that: nothing else has to be looked up. The code is made with a
secret of the key that has signed it, so that it ends with that key.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Sequence
from typing import Final

import msgspec

from casemate.errors import AddressRefused
from casemate.object_limits import ADDRESS_MAX_CHARS

GET: Final = "GET"
PUT: Final = "PUT"
METHODS: Final = (GET, PUT)
CODE_BYTES: Final = 32
_PURPOSE: Final = b"casemate address 1\0"
_HINT: Final = "ask whoever has given it to you for another"


class Grant(msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True):
    """What an address lets anybody do who has it. `name`: what the tenant calls the object.

    `size_max_bytes`: of what is put there.
    """

    tenant: str
    key_id: str
    method: str
    name: str
    expires_us: int
    size_max_bytes: int


def token_of(grant: Grant, secret: bytes) -> str:
    """A grant as the last part of an address."""
    payload = msgspec.msgpack.encode(grant)
    return base64.urlsafe_b64encode(_code(secret, payload) + payload).decode().rstrip("=")


def claimed(token: str) -> Grant:
    """What a token says of itself, which nobody should believe yet. Raises AddressRefused."""
    try:
        return msgspec.msgpack.decode(_parts(token)[1], type=Grant)
    except (msgspec.DecodeError, ValueError) as error:
        raise AddressRefused("this is no address of ours", hint=_HINT) from error


def check(token: str, secrets: Sequence[bytes], *, method: str, at_us: int) -> Grant:
    """The grant, if a key with one of these secrets has given it for that method, and not too long ago.

    Raises AddressRefused.
    """
    grant = claimed(token)
    code, payload = _parts(token)
    if not any([hmac.compare_digest(_code(secret, payload), code) for secret in secrets]):  # noqa: C419 - all of them
        raise AddressRefused("the signature of this address is none of ours", hint=_HINT)
    if at_us >= grant.expires_us:
        raise AddressRefused("this address has expired", hint=_HINT)
    if method != grant.method:
        raise AddressRefused(f"this address is for {grant.method} alone")
    return grant


def _parts(token: str) -> tuple[bytes, bytes]:
    """Code and payload. One payload has one token: no other text stands for the same bytes."""
    if len(token) > ADDRESS_MAX_CHARS:
        raise AddressRefused("this is no address of ours", hint=_HINT)
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), b"-_", validate=True)
    except (ValueError, binascii.Error) as error:
        raise AddressRefused("this is no address of ours", hint=_HINT) from error
    if base64.urlsafe_b64encode(raw).decode().rstrip("=") != token:
        raise AddressRefused("this is no address of ours", hint=_HINT)
    return raw[:CODE_BYTES], raw[CODE_BYTES:]


def _code(secret: bytes, payload: bytes) -> bytes:
    return hmac.digest(secret, _PURPOSE + payload, "sha256")

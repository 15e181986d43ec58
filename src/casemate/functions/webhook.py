"""Signed requests: a message authentication code over the time and the body, and nothing that tells a forger more.

The code is HMAC-SHA256 (RFC 2104) over `<timestamp>:<body>`, in hexadecimal. The body is taken as it was sent, or in
canonical form: keys sorted, no white space, as senders that build it anew from its values do.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from casemate import service_limits as limits
from casemate.errors import Unauthenticated
from casemate.model.result import JsonValue
from casemate.model.signature import sign

KEY_ID_HEADERS: Final = ("x-casemate-key-id", "x-api-key-id")
TIMESTAMP_HEADERS: Final = ("x-casemate-timestamp", "x-databricks-timestamp")
SIGNATURE_HEADERS: Final = ("x-casemate-signature", "x-databricks-signature")
UNAUTHORIZED: Final = "Unauthorized"
_SIGNATURE: Final = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)
_TIMESTAMP: Final = re.compile(r"[0-9]{1,15}", re.ASCII)
_EXACT_MAX: Final = 2**53
_NO_SECRET: Final = b"of nobody: so that an unknown key takes as long as a known one"


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """A request that was signed with that key. `nonce` must be new within `until_s` for the request to count."""

    key_id: str
    nonce: str
    until_s: float


def canonical(value: JsonValue) -> bytes:
    """JSON with its keys sorted and no white space; a whole number is written as one, whatever its type."""
    return msgspec.json.encode(_whole_numbers(value), order="sorted")


def _whole_numbers(value: JsonValue) -> JsonValue:
    if isinstance(value, float) and value.is_integer() and abs(value) <= _EXACT_MAX:
        return int(value)
    if isinstance(value, list | tuple):
        return [_whole_numbers(each) for each in value]
    if isinstance(value, dict):
        return {key: _whole_numbers(each) for key, each in value.items()}
    return value


def signed_headers(key_id: str, secret: bytes, body: JsonValue, now_s: float) -> tuple[dict[str, str], bytes]:
    """What a client sends: its headers, and the body that they are for."""
    timestamp, text = str(int(now_s)), canonical(body)
    names = (KEY_ID_HEADERS[0], TIMESTAMP_HEADERS[0], SIGNATURE_HEADERS[0])
    return dict(zip(names, (key_id, timestamp, sign(secret, timestamp, text)), strict=True)), text


def verify(
    headers: Mapping[str, str],
    body: bytes,
    *,
    secret_of: Callable[[str], bytes | None],
    now_s: float,
) -> Verified:
    """Who signed the request; header names are in small letters. Whatever is wrong, the error is the same."""
    key_id = _header(headers, KEY_ID_HEADERS)
    timestamp = _header(headers, TIMESTAMP_HEADERS)
    signature = _header(headers, SIGNATURE_HEADERS)
    secret = secret_of(key_id) if key_id else None
    named = bool(_TIMESTAMP.fullmatch(timestamp)) and bool(_SIGNATURE.fullmatch(signature))
    is_theirs = _is_signed(secret or _NO_SECRET, timestamp if named else "0", signature if named else "0" * 64, body)
    if not secret or not named or not is_theirs or abs(now_s - int(timestamp)) > limits.WEBHOOK_CLOCK_MAX_S:
        raise Unauthenticated(UNAUTHORIZED)
    return Verified(key_id=key_id, nonce=signature.lower(), until_s=int(timestamp) + limits.WEBHOOK_CLOCK_MAX_S)


def _header(headers: Mapping[str, str], names: tuple[str, ...]) -> str:
    return next((headers[name] for name in names if name in headers), "")


def _is_signed(secret: bytes, timestamp: str, signature: str, body: bytes) -> bool:
    """Both forms are always tried, so that time tells neither which fits nor whether one does."""
    try:
        rewritten = canonical(msgspec.json.decode(body))
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        rewritten = body
    found = [hmac.compare_digest(sign(secret, timestamp, form), signature.lower()) for form in (body, rewritten)]
    return any(found)

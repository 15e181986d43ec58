"""What a key looks like: `cm_`, 256 random bits, `_`, a checksum. Pure but for the random bits.

The checksum is no secret: it tells a key that was mistyped, or is none, without a look into the records, and it lets
scanners of source code know one when they see it. What is stored is the SHA-256 of the whole text: nobody can search
through 256 random bits, so nothing slower is needed.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import zlib
from typing import Final

KEY_PREFIX: Final = "cm_"
KEY_BYTES: Final = 32
KEY_CHARS: Final = 43
CHECKSUM_CHARS: Final = 6
SHOWN_CHARS: Final = 10
"""Of a key, for people to tell keys apart."""

_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_KEY: Final = re.compile(rf"({KEY_PREFIX}[0-9A-Za-z]{{{KEY_CHARS}}})_([0-9A-Za-z]{{{CHECKSUM_CHARS}}})", re.ASCII)


def new_key() -> str:
    """A key that was never there before."""
    body = KEY_PREFIX + base62(int.from_bytes(secrets.token_bytes(KEY_BYTES)), KEY_CHARS)
    return f"{body}_{checksum(body)}"


def is_key(text: str) -> bool:
    """Whether a text is written like a key, its checksum included. Whether it is one, the records know."""
    found = _KEY.fullmatch(text)
    return found is not None and checksum(found[1]) == found[2]


def digest(text: str) -> bytes:
    """What is stored of a key."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def shown(text: str) -> str:
    """The beginning of a key, which may be shown."""
    return text[:SHOWN_CHARS]


def checksum(body: str) -> str:
    """What comes behind a key, so that mistyped ones are known."""
    return base62(zlib.crc32(body.encode()), CHECKSUM_CHARS)


def base62(number: int, width: int) -> str:
    """A number as that many characters. Raises ValueError where they are not enough for it."""
    digits = []
    for _ in range(width):
        number, digit = divmod(number, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    if number:
        raise ValueError("the number has more digits")
    return "".join(reversed(digits))

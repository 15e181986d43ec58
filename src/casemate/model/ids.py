"""Names of things that nobody can guess: what it is, and 128 random bits."""

from __future__ import annotations

import base64
import re
import secrets
from typing import Final

ID_BYTES: Final = 16
_ID: Final = re.compile(r"[a-z]{3}_[a-z2-7]{26}")


def new_id(prefix: str) -> str:
    """A new id: `exe`, `key`, `ten` and the like, an underscore, and 26 characters of base32."""
    return f"{prefix}_{base64.b32encode(secrets.token_bytes(ID_BYTES)).decode().rstrip('=').lower()}"


def is_id(text: str, prefix: str) -> bool:
    """Whether a text looks like an id of that kind; others need not be looked for."""
    return text.startswith(f"{prefix}_") and _ID.fullmatch(text) is not None

"""The code that shows who has sent something, and when: HMAC-SHA256 (RFC 2104) over `<timestamp>:<body>`, in hex.

The same for requests that are signed by others, and for notices that are signed by us.
"""

from __future__ import annotations

import hashlib
import hmac


def sign(secret: bytes, timestamp: str, body: bytes) -> str:
    """The code for a body as it is sent."""
    return hmac.new(secret, timestamp.encode("ascii") + b":" + body, hashlib.sha256).hexdigest()

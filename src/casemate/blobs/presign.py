"""Addresses at S3 for putting exactly so many bytes (AWS Signature Version 4). Pure.

The store's own client signs no header; without one, whoever has an address puts there as much as S3 takes.
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import datetime
from typing import Final
from urllib.parse import quote, urlsplit

from casemate.object_config import Credentials

_ALGORITHM: Final = "AWS4-HMAC-SHA256"
_HEADERS: Final = "content-length;host"
_UNRESERVED: Final = "-_.~"


def put_of_size(url: str, size_bytes: int, credentials: Credentials, region: str, *, at: datetime, life_s: int) -> str:
    """The address, which may have a query of another kind, for a PUT with that `Content-Length` and no other."""
    parts, stamp = urlsplit(url), at.strftime("%Y%m%dT%H%M%SZ")
    scope = f"{stamp[:8]}/{region}/s3/aws4_request"
    query = _query(f"{credentials.access_key}/{scope}", stamp, life_s, credentials.session_token)
    headers = f"content-length:{size_bytes}\nhost:{parts.netloc}\n"
    request = f"PUT\n{parts.path}\n{query}\n{headers}\n{_HEADERS}\nUNSIGNED-PAYLOAD"
    text = f"{_ALGORITHM}\n{stamp}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    key = f"AWS4{credentials.secret_key}".encode()
    for word in scope.split("/"):
        key = hmac.digest(key, word.encode(), "sha256")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    return f"{parts.scheme}://{parts.netloc}{parts.path}?{query}&X-Amz-Signature={signature}"


def _query(credential: str, stamp: str, life_s: int, session_token: str) -> str:
    """In the order of the names, as it is signed."""
    said = {
        "X-Amz-Algorithm": _ALGORITHM,
        "X-Amz-Credential": credential,
        "X-Amz-Date": stamp,
        "X-Amz-Expires": str(life_s),
        "X-Amz-SignedHeaders": _HEADERS,
        **({"X-Amz-Security-Token": session_token} if session_token else {}),
    }
    return "&".join(f"{name}={quote(said[name], safe=_UNRESERVED)}" for name in sorted(said))

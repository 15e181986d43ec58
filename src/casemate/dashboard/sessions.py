"""Who is logged in: sessions in memory, found by a cookie that names them and nothing else. Pure but for random bits.

The cookie is signed, so that a guess is refused without a look into the table. The key itself is neither in the cookie
nor here: a session knows only which key it was, and asks at every request whether it still is one.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections import OrderedDict

import msgspec

from casemate.service_limits import (
    LOGIN_BURST,
    LOGIN_RATE_PER_S,
    RATE_BUCKETS_MAX,
    SESSION_IDLE_S,
    SESSION_LIFE_S,
    SESSIONS_A_KEY_MAX,
    SESSIONS_MAX,
)
from casemate.tenancy.rate import Bucket, take

_ID_BYTES = 24
_SEPARATOR = "."


class Session(msgspec.Struct, kw_only=True):
    """Somebody who has logged in. `csrf_token` is on every form of its pages."""

    id: str
    key_id: str
    csrf_token: str
    began_s: float
    seen_s: float
    streams: int = 0

    def is_live(self, now_s: float) -> bool:
        return now_s - self.began_s < SESSION_LIFE_S and now_s - self.seen_s < SESSION_IDLE_S


class Sessions:
    """All sessions of this process. The time is passed in; it is that of a monotonic clock."""

    def __init__(self, sessions_max: int = SESSIONS_MAX, a_key_max: int = SESSIONS_A_KEY_MAX) -> None:
        self._secret = secrets.token_bytes(32)
        self._found: OrderedDict[str, Session] = OrderedDict()
        self._sessions_max = sessions_max
        self._a_key_max = a_key_max

    def __len__(self) -> int:
        return len(self._found)

    def begin(self, key_id: str, now_s: float) -> Session:
        """A new one. The one that was used longest ago goes where there are too many, of this key or of all."""
        self._make_room(key_id, now_s)
        session = Session(
            id=secrets.token_urlsafe(_ID_BYTES),
            key_id=key_id,
            csrf_token=secrets.token_urlsafe(_ID_BYTES),
            began_s=now_s,
            seen_s=now_s,
        )
        self._found[session.id] = session
        return session

    def _make_room(self, key_id: str, now_s: float) -> None:
        for each in [each for each in self._found.values() if not each.is_live(now_s)]:
            self.end(each)
        of_this_key = [each for each in self._found.values() if each.key_id == key_id]
        for each in of_this_key[: max(0, len(of_this_key) - self._a_key_max + 1)]:
            self.end(each)
        while len(self._found) >= self._sessions_max:
            self._found.popitem(last=False)

    def cookie(self, session: Session) -> str:
        """What the browser keeps."""
        return f"{session.id}{_SEPARATOR}{self._signature(session.id)}"

    def find(self, cookie: str, now_s: float) -> Session | None:
        """The session of a cookie, which is used thereby; None for one that is forged, over or forgotten."""
        identity, _, signature = cookie.partition(_SEPARATOR)
        if not hmac.compare_digest(signature.encode(), self._signature(identity).encode()):
            return None
        session = self._found.get(identity)
        if session is None:
            return None
        if not session.is_live(now_s):
            self.end(session)
            return None
        session.seen_s = now_s
        self._found.move_to_end(identity)
        return session

    def is_known(self, session: Session) -> bool:
        """Whether it has not been ended."""
        return self._found.get(session.id) is session

    def end(self, session: Session) -> None:
        """Log out. Idempotent."""
        self._found.pop(session.id, None)

    def _signature(self, identity: str) -> str:
        return hmac.new(self._secret, identity.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()


class Attempts:
    """Keys that were none, by address: who has sent too many waits, also with a right one. Logging in costs nothing."""

    def __init__(self, addresses_max: int = RATE_BUCKETS_MAX) -> None:
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()
        self._addresses_max = addresses_max

    def wait_s(self, address: str, now_s: float) -> float:
        """How long an address has to wait before it may try: 0 if it need not."""
        return self._taken(address, now_s)[1]

    def failed(self, address: str, now_s: float) -> None:
        """Count an attempt."""
        self._buckets[address] = self._taken(address, now_s)[0]
        self._buckets.move_to_end(address)
        if len(self._buckets) > self._addresses_max:
            self._buckets.popitem(last=False)

    def _taken(self, address: str, now_s: float) -> tuple[Bucket, float]:
        return take(self._buckets.get(address), rate_per_s=LOGIN_RATE_PER_S, burst=LOGIN_BURST, now_s=now_s)


def is_token(session: Session, given: str) -> bool:
    """Whether a form is one of this session's."""
    return hmac.compare_digest(session.csrf_token.encode(), given.encode("utf-8", "surrogatepass"))


def is_own_origin(origin: str | None, fetch_site: str | None, host: str) -> bool:
    """Whether a request that changes something comes from a page of ours. Fails closed.

    Browsers send `Origin` with every POST. Its scheme is not compared: a proxy in front of the service may speak
    another one than the service itself.
    """
    if fetch_site is not None and fetch_site != "same-origin":
        return False
    if origin is None:
        return fetch_site == "same-origin"
    scheme, separator, place = origin.partition("://")
    return bool(separator) and scheme in {"http", "https"} and bool(host) and place.lower() == host.lower()

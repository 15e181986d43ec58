"""The service's one secret, from which all others are derived: nothing that can sign stands in the records.

It is a file for its owner alone. A secret that anybody else may have read is none, and is refused.
"""

from __future__ import annotations

import hmac
from pathlib import Path
from typing import Final

from casemate.store.secret_file import SecretFile

NAME: Final = "signing.key"
GENERATIONS_MAX: Final = 2
"""Those in use: the one that signs, and the one before, which still is believed."""


class Signing:
    """Secrets for each purpose: HMAC-SHA256 of the purpose's name, so that one tells nothing about another."""

    def __init__(self, generations: tuple[bytes, ...]) -> None:
        self._generations = generations

    def __repr__(self) -> str:
        return f"Signing({len(self._generations)} generations)"

    def webhook_secret(self, key_id: str) -> bytes:
        """What a key signs its requests with."""
        return self.webhook_secrets(key_id)[0]

    def webhook_secrets(self, key_id: str) -> tuple[bytes, ...]:
        """What signed requests of a key are believed with, the present secret first."""
        return self._derived(f"webhook:{key_id}".encode())

    def address_secrets(self, key_id: str) -> tuple[bytes, ...]:
        """What a key signs addresses with, the present secret first."""
        return self._derived(f"address:{key_id}".encode())

    def notice_secrets(self, webhook_id: str) -> tuple[bytes, ...]:
        """What notices to a webhook are signed with: by the present secret first, then by the one before."""
        return self._derived(f"notice:{webhook_id}".encode())

    def sign_session(self, payload: bytes) -> bytes:
        """The code that shows that a session is one of ours."""
        return _code(self._derived(b"session")[0], payload)

    def is_session(self, payload: bytes, code: bytes) -> bool:
        """Whether we have signed that, lately enough. All generations are tried, so that time tells nothing."""
        return any([hmac.compare_digest(_code(secret, payload), code) for secret in self._derived(b"session")])  # noqa: C419 - all of them

    def _derived(self, purpose: bytes) -> tuple[bytes, ...]:
        return tuple(_code(secret, purpose) for secret in self._generations)


def webhook_text(secret: bytes) -> bytes:
    """The secret of a webhook as its sender is given it, and signs with it: in hexadecimal."""
    return secret.hex().encode("ascii")


def open_signing(data: Path) -> Signing:
    """The secret in the data directory; made when it is not there. Raises ConfigError for one that is not a secret."""
    return Signing(_file(data).opened())


def rotate_signing(data: Path) -> Signing:
    """Sign with a new secret from now on. What the last one has signed is believed until the next time."""
    return Signing(_file(data).rotated())


def _file(data: Path) -> SecretFile:
    return SecretFile(data=data, name=NAME, generations_max=GENERATIONS_MAX, loss="no signature is ours")


def _code(secret: bytes, message: bytes) -> bytes:
    return hmac.digest(secret, message, "sha256")

"""The service's one secret, from which all others are derived: nothing that can sign stands in the records.

It is a file for its owner alone. A secret that anybody else may have read is none, and is refused.
"""

from __future__ import annotations

import hmac
from pathlib import Path
from threading import Lock
from typing import Final

from casemate.errors import Conflict
from casemate.store.secret_file import SecretFile

NAME: Final = "signing.key"
GENERATIONS_MAX: Final = 2
"""Those in use: the one that signs, and the one before, which still is believed."""

GENERATION_BYTES: Final = 8


class Signing:
    """Secrets for each purpose: HMAC-SHA256 of the purpose's name, so that one tells nothing about another."""

    def __init__(self, generations: tuple[bytes, ...], file: SecretFile | None = None) -> None:
        self._generations = generations
        self._file = file
        self._rotating = Lock()

    def __repr__(self) -> str:
        return f"Signing({len(self._generations)} generations)"

    @property
    def generation(self) -> str:
        """A name for the present secret, from which nobody learns it."""
        return _code(self._generations[0], b"generation")[:GENERATION_BYTES].hex()

    def rotate(self, generation: str) -> None:
        """Sign with a new secret from now on, in place of the one of that name. Waits for the disk.

        What the last one has signed is believed until the next time; but addresses are not. Raises Conflict where that
        is not the present one any more, so that nobody replaces it twice without knowing; and ConfigError.
        """
        with self._rotating:
            if generation != self.generation:
                raise Conflict("another secret signs by now", hint="look which one it is, and whether that is enough")
            assert self._file is not None  # noqa: S101  (a service's is opened from one)
            self._generations = self._file.rotated()

    def webhook_secret(self, key_id: str) -> bytes:
        """What a key signs its requests with."""
        return self.webhook_secrets(key_id)[0]

    def webhook_secrets(self, key_id: str) -> tuple[bytes, ...]:
        """What signed requests of a key are believed with, the present secret first."""
        return self._derived(f"webhook:{key_id}".encode())

    def address_secrets(self, key_id: str) -> tuple[bytes, ...]:
        """What a key signs addresses with. There is one: whoever replaces it means the end of all addresses."""
        return self._derived(f"address:{key_id}".encode())[:1]

    def notice_secrets(self, webhook_id: str) -> tuple[bytes, ...]:
        """What notices to a webhook are signed with: by the present secret first, then by the one before."""
        return self._derived(f"notice:{webhook_id}".encode())

    def _derived(self, purpose: bytes) -> tuple[bytes, ...]:
        return tuple(_code(secret, purpose) for secret in self._generations)


def webhook_text(secret: bytes) -> bytes:
    """The secret of a webhook as its sender is given it, and signs with it: in hexadecimal."""
    return secret.hex().encode("ascii")


def open_signing(data: Path) -> Signing:
    """The secret in the data directory; made when it is not there. Raises ConfigError for one that is not a secret."""
    file = _file(data)
    return Signing(file.opened(), file)


def rotate_signing(data: Path) -> Signing:
    """As `rotate`, where no service runs."""
    file = _file(data)
    return Signing(file.rotated(), file)


def _file(data: Path) -> SecretFile:
    return SecretFile(data=data, name=NAME, generations_max=GENERATIONS_MAX, loss="no signature is ours")


def _code(secret: bytes, message: bytes) -> bytes:
    return hmac.digest(secret, message, "sha256")

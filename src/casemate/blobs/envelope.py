"""Keys of which one is below the other: every object and every secret has its own, wrapped by a master key.

A key that seals one thing alone needs no random nonce, of which two might be the same: they are counted (ADR 34). What
is sealed says which master key it needs, so that a new one can be put before those that are still needed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap

from casemate.errors import ConfigError, RecordsDamaged
from casemate.object_config import KEY_VARIABLE as VARIABLE
from casemate.object_limits import MASTER_KEYS_MAX
from casemate.store.secret_file import SECRET_BYTES, SecretFile

NAME: Final = "objects.key"
KEY_ID_BYTES: Final = 8
WRAPPED_BYTES: Final = KEY_ID_BYTES + SECRET_BYTES + 8
NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16
_VALUE: Final = b"CMV1"
_ONLY_NONCE: Final = bytes(NONCE_BYTES)
"""Of a key that seals one thing once."""


class DataKey(msgspec.Struct, frozen=True, kw_only=True):
    """The key of one thing, and how it is kept with that."""

    secret: bytes
    wrapped: bytes

    def __repr__(self) -> str:
        return "DataKey(…)"


class MasterKeys:
    """The newest wraps; all of them unwrap."""

    def __init__(self, generations: tuple[bytes, ...]) -> None:
        assert generations  # noqa: S101
        self._newest = generations[0]
        self._by_id = {_key_id(each): each for each in generations}

    def __repr__(self) -> str:
        return f"MasterKeys({len(self._by_id)} generations)"

    def new_key(self) -> DataKey:
        """A key that was never there before."""
        secret = os.urandom(SECRET_BYTES)
        return DataKey(secret=secret, wrapped=_key_id(self._newest) + aes_key_wrap(self._newest, secret))

    def unwrapped(self, wrapped: bytes) -> DataKey:
        """The key that was kept so. Raises RecordsDamaged where it was wrapped by no master key of ours."""
        master = self._by_id.get(wrapped[:KEY_ID_BYTES])
        if master is None:
            raise RecordsDamaged(
                "damaged", "it is sealed by a key that is not here", hint=f"put the old {NAME} in its place"
            )
        try:
            return DataKey(secret=aes_key_unwrap(master, wrapped[KEY_ID_BYTES:]), wrapped=wrapped)
        except (InvalidUnwrap, ValueError) as error:
            raise RecordsDamaged("damaged", "it is not what was sealed") from error

    # Values that are small enough to be in memory ---------------------------------------------------

    def seal(self, value: bytes, *, context: str) -> bytes:
        """A value that only this can read again, and only where it belongs."""
        key = self.new_key()
        return _VALUE + key.wrapped + AESGCM(key.secret).encrypt(_ONLY_NONCE, value, context.encode())

    def unseal(self, sealed: bytes, *, context: str) -> bytes:
        """The value. Raises RecordsDamaged for anything else than what was sealed there."""
        start = len(_VALUE) + WRAPPED_BYTES
        if not sealed.startswith(_VALUE) or len(sealed) < start + TAG_BYTES:
            raise RecordsDamaged("damaged", "it is nothing that was sealed")
        key = self.unwrapped(sealed[len(_VALUE) : start])
        try:
            return AESGCM(key.secret).decrypt(_ONLY_NONCE, sealed[start:], context.encode())
        except InvalidTag as error:
            raise RecordsDamaged("damaged", "it is not what was sealed") from error


def _key_id(master: bytes) -> bytes:
    """Which key that is. It tells nothing about it."""
    return hashlib.sha256(b"casemate master key\0" + master).digest()[:KEY_ID_BYTES]


def open_keys(data: Path, environment: Mapping[str, str], *, is_needed: bool) -> MasterKeys:
    """The keys of the variable, or of the file in the data directory, which is made when it is not there.

    `is_needed`: something is there that was sealed; then no key is made. Raises ConfigError.
    """
    if VARIABLE in environment:
        return MasterKeys(keys_in(environment[VARIABLE]))
    file = _file(data)
    if is_needed and not file.is_there():
        raise ConfigError(
            "objects", f"there are objects, but no {NAME}", hint=f"put a backup of it in its place, or set {VARIABLE}"
        )
    return MasterKeys(file.opened())


def rotate_keys(data: Path) -> MasterKeys:
    """Seal with a new key from now on; what was sealed before can still be read.

    Raises ConfigError, also where there are so many keys that the oldest would have to go.
    """
    file = _file(data)
    if file.is_there() and len(file.opened()) >= MASTER_KEYS_MAX:
        raise ConfigError("objects", f"{NAME} has {MASTER_KEYS_MAX} keys, and any may be needed")
    return MasterKeys(file.rotated())


def _file(data: Path) -> SecretFile:
    return SecretFile(data=data, name=NAME, generations_max=MASTER_KEYS_MAX, loss="no object can be read")


def keys_in(text: str) -> tuple[bytes, ...]:
    """Keys as the variable has them: 64 hexadecimal digits each, the newest first. Raises ConfigError."""
    words = [word.strip() for word in text.split(",")]
    try:
        found = tuple(bytes.fromhex(word) for word in words)
    except ValueError:
        found = ()
    if not 1 <= len(found) <= MASTER_KEYS_MAX or any(len(each) != SECRET_BYTES for each in found):
        raise ConfigError(
            VARIABLE, f"must be 1 to {MASTER_KEYS_MAX} keys of 64 hexadecimal digits, with commas between"
        )
    return found

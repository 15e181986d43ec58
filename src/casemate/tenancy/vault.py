"""Secrets of tenants: set, used by their jobs, and never shown again."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Final

from casemate.blobs.envelope import MasterKeys
from casemate.errors import InvalidInput
from casemate.model.units import SECOND_US
from casemate.object_limits import SECRET_MAX_BYTES, SECRET_NAME_MAX_CHARS, SECRETS_A_TENANT_MAX
from casemate.store import secrets as rows
from casemate.store.database import Database, Records
from casemate.store.secrets import Secret

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


class Vault:
    """Implements SecretValues. What is kept is sealed for its tenant and its name, and can be read as nothing else."""

    def __init__(self, database: Database, keys: MasterKeys, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._keys = keys
        self._clock = clock

    async def set(self, tenant_id: str, name: str, value: str, *, key_id: str) -> Secret:
        """Set a secret. Raises InvalidInput, which does not quote the value, and Conflict where there are too many."""
        check_secret(name, value)
        now_us = int(self._clock() * SECOND_US)
        secret = Secret(tenant_id=tenant_id, name=name, created_us=now_us, updated_us=now_us, updated_by=key_id)
        sealed = self._keys.seal(value.encode(), context=_context(tenant_id, name))
        return await self._database.write(partial(rows.put, secret=secret, sealed=sealed))

    async def list(self, tenant_id: str) -> list[Secret]:
        """Their names, and when they were set."""
        return await self._database.read(partial(rows.list_secrets, tenant_id=tenant_id))

    async def delete(self, tenant_id: str, name: str) -> None:
        """Forget one. Raises NotFound."""
        await self._database.write(partial(rows.remove, tenant_id=tenant_id, name=name))

    async def values(self, tenant_id: str, names: Sequence[str]) -> Mapping[str, str]:
        """By their names. Raises InvalidInput naming one that is not there, and RecordsDamaged."""
        if not names:
            return {}
        if len(names) > SECRETS_A_TENANT_MAX:
            raise InvalidInput("secrets", f"are more than {SECRETS_A_TENANT_MAX}")
        found = await self._database.read(partial(rows.sealed_values, tenant_id=tenant_id, names=tuple(names)))
        for name in names:
            if name not in found:
                raise InvalidInput("secrets", f"there is no secret {name[:80]!r}")
        return {
            name: self._keys.unseal(sealed, context=_context(tenant_id, name)).decode()
            for name, sealed in found.items()
        }

    def missing(self, records: Records, tenant_id: str, names: Sequence[str]) -> Collection[str]:
        """Those that are not there, within a transaction."""
        return rows.missing(records, tenant_id, frozenset(names))


def check_secret(name: str, value: str) -> None:
    """Raises InvalidInput for what no variable of a job can be."""
    if not _NAME.fullmatch(name) or len(name) > SECRET_NAME_MAX_CHARS:
        raise InvalidInput("name", f"{name[:80]!r} is no name of a variable", hint="letters, digits and _")
    try:
        size_bytes = len(value.encode())
    except UnicodeEncodeError as error:
        raise InvalidInput("value", "is no text in UTF-8") from error
    if "\0" in value or size_bytes > SECRET_MAX_BYTES:
        raise InvalidInput("value", f"holds a NUL character, or has more than {SECRET_MAX_BYTES} bytes")


def _context(tenant_id: str, name: str) -> str:
    return f"secret/{tenant_id}/{name}"

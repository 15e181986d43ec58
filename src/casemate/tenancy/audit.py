"""Who has done what, when, and to what: a log that nobody can change unseen, not even with the records in hand.

Its codes are made with a secret that is not in the records. `verify` names the first record that is not as it was.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from casemate.model.units import SECOND_US
from casemate.object_limits import AUDIT_TEXT_MAX_CHARS, AUDIT_VERIFIED_AT_ONCE
from casemate.service_limits import PAGE_DEFAULT_COUNT
from casemate.store import audit as rows
from casemate.store.audit import BEFORE, LAST, AuditRecord, End, Note
from casemate.store.database import Database
from casemate.store.pages import Page
from casemate.store.secret_file import SecretFile

NAME: Final = "audit.key"
_RECORD: Final = b"record\0"
_END: Final = b"end\0"


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a look at the whole log. `broken_seq`: the first record that is not as it was, or is missing."""

    count: int
    last_seq: int
    last_digest: str
    broken_seq: int | None = None
    problem: str = ""


class AuditLog:
    """Implements Audit."""

    def __init__(self, database: Database, secret: bytes, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._secret = secret
        self._clock = clock

    async def begin(self) -> None:
        """Make a log where there is none. Before anything else."""
        await self._database.write(partial(rows.begin, seal_end=self.seal_end))

    async def note(
        self, tenant_id: str, key_id: str, action: str, target: str, *, request_id: str = "", detail: str = ""
    ) -> None:
        """Record an action; it is in the log when this returns."""
        note = Note(
            tenant_id=tenant_id,
            key_id=key_id,
            action=action,
            target=_bounded(target),
            detail=_bounded(detail),
            request_id=request_id,
            created_us=int(self._clock() * SECOND_US),
        )
        await self._database.write(partial(rows.append, note=note, seal=self.seal, seal_end=self.seal_end))

    async def list(
        self, tenant_id: str | None, *, action: str = "", limit: int = PAGE_DEFAULT_COUNT, cursor: str | None = None
    ) -> Page[AuditRecord]:
        """Records of a tenant, or of all, newest first."""
        return await self._database.read(
            partial(rows.list_records, tenant_id=tenant_id, action=action, limit=limit, cursor=cursor)
        )

    async def verify(self) -> Verdict:
        """Look at every record. What is added meanwhile is not looked at."""
        ends = await self._database.read(rows.ends_of)
        problem = _problem_of(ends, self.seal_end)
        if problem:
            return Verdict(count=0, last_seq=0, last_digest="", broken_seq=0, problem=problem)
        before, last = ends[BEFORE], ends[LAST]
        seq, digest = before.seq, before.digest
        while seq < last.seq:
            found = await self._database.read(partial(rows.records_behind, seq=seq, limit=AUDIT_VERIFIED_AT_ONCE))
            broken = first_broken((each for each in found if each.seq <= last.seq), seq, digest, self.seal)
            if broken or not found:
                return self._broken(before, last, broken or (seq + 1, "is missing"))
            seq, digest = found[-1].seq, found[-1].digest
            if seq >= last.seq:
                digest = next(each.digest for each in found if each.seq == last.seq)
        if digest != last.digest:
            return self._broken(before, last, (last.seq, "is not the one that was last"))
        return Verdict(count=last.seq - before.seq, last_seq=last.seq, last_digest=last.digest.hex())

    async def sweep(self, before_us: int) -> int:
        """Forget some of the oldest that are older than that, and say how many; 0: there are no more."""
        return await self._database.write(partial(rows.sweep, seal_end=self.seal_end, before_us=before_us))

    def _broken(self, before: End, last: End, broken: tuple[int, str]) -> Verdict:
        return Verdict(
            count=last.seq - before.seq,
            last_seq=last.seq,
            last_digest=last.digest.hex(),
            broken_seq=broken[0],
            problem=broken[1],
        )

    def seal(self, previous: bytes, record: AuditRecord) -> bytes:
        """The code of a record behind another."""
        facts = msgspec.json.encode(msgspec.structs.astuple(msgspec.structs.replace(record, digest=b"")))
        return hmac.digest(self._secret, _RECORD + previous + facts, "sha256")

    def seal_end(self, name: str, seq: int, digest: bytes) -> bytes:
        """The code of an end of the log."""
        return hmac.digest(self._secret, _END + msgspec.json.encode([name, seq]) + digest, "sha256")


def first_broken(records: Iterable[AuditRecord], seq: int, digest: bytes, seal: rows.Seal) -> tuple[int, str] | None:
    """The first of records in their order that is not as it was, or is missing, behind the one with that code."""
    for record in records:
        seq += 1
        if record.seq != seq:
            return seq, "is missing"
        digest = seal(digest, record)
        if not hmac.compare_digest(digest, record.digest):
            return seq, "is not what was written, or what stood before it is gone"
    return None


def _problem_of(ends: dict[str, End], seal_end: rows.SealEnd) -> str:
    for name in (BEFORE, LAST):
        end = ends.get(name)
        if end is None or not hmac.compare_digest(seal_end(name, end.seq, end.digest), end.code):
            return f"where the log {'begins' if name == BEFORE else 'ends'} is not what was written"
    return ""


def _bounded(text: str) -> str:
    """No longer than is kept, and without what no database takes."""
    return text.replace("\0", "").encode("utf-8", "backslashreplace").decode()[:AUDIT_TEXT_MAX_CHARS]


def open_audit(database: Database, data: Path) -> AuditLog:
    """The log in the records, with the secret in the data directory, which is made when it is not there."""
    file = SecretFile(data=data, name=NAME, generations_max=1, loss="no record can be verified")
    return AuditLog(database, file.opened()[0])

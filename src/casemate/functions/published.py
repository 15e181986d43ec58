"""Functions as they are published: versions that never change, and aliases that move from one to another."""

from __future__ import annotations

import difflib
import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from casemate import service_limits as limits
from casemate.clock import now_us
from casemate.errors import Conflict, InvalidInput
from casemate.executions.book import Caller
from casemate.functions.names import function_name
from casemate.functions.schema import Schema
from casemate.model.function import Source
from casemate.store import functions as rows
from casemate.store.database import Database
from casemate.store.functions import Alias, Function, Move, NewVersion, Version
from casemate.store.pages import Page

LIVE: Final = "live"
"""The alias that counts where none is named."""


class Callee(msgspec.Struct, frozen=True, kw_only=True):
    """A source, and what is done to data on its way in and out."""

    source: Source
    normalise: bool = False
    input_schema: Schema | None = None
    output_schema: Schema | None = None


class Published(Callee, frozen=True, kw_only=True):
    """One version, ready to be called."""

    version: Version


class Functions:
    """The functions of all tenants. What an alias stands for is remembered: this process alone moves them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: OrderedDict[tuple[str, str, str], Published] = OrderedDict()

    async def publish(
        self,
        caller: Caller,
        name: str,
        source: Source,
        *,
        alias: str | None = LIVE,
        normalise: bool = False,
        description: str = "",
        labels: Mapping[str, str] | None = None,
        input_schema: dict[str, Any] | None = None,
        output_schema: dict[str, Any] | None = None,
    ) -> tuple[Version, bool]:
        """A new version, and whether it is new: what is there already is not published twice. Raises InvalidInput."""
        schemas = {"input_schema": input_schema, "output_schema": output_schema}
        for field, schema in schemas.items():
            if schema is not None:
                Schema(schema, field=field)
        new = NewVersion(
            name=function_name(name),
            runtime=source.runtime,
            source=msgspec.json.encode(source),
            description=description,
            labels=dict(labels or {}),
            options={"normalise": normalise},
            digest="",
            **schemas,
        )
        if not self._database.stored.takes(caller.tenant_id, len(new.source)):
            raise Conflict("the tenant has as much in the records as it may", hint="delete functions, or wait")
        new = msgspec.structs.replace(new, digest=hashlib.sha256(msgspec.json.encode(new, order="sorted")).hexdigest())
        try:
            return await self._database.write(
                lambda records: rows.publish(
                    records, caller.tenant_id, new, alias=alias, at_us=now_us(), by=caller.key_id
                )
            )
        finally:
            self._forget(caller.tenant_id, new.name)

    async def find(self, tenant_id: str, name: str, which: int | str = LIVE) -> Published:
        """A version by its number, or that which an alias stands for. Raises NotFound."""
        key = (tenant_id, name, str(which))
        found = self._known.get(key)
        if found is None:
            found = _published(await self._database.read(lambda records: _row(records, tenant_id, name, which)))
            self._known[key] = found
            if len(self._known) > limits.FUNCTIONS_REMEMBERED_MAX:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        return found

    async def get(self, tenant_id: str, name: str) -> Function:
        """Raises NotFound."""
        return await self._database.read(lambda records: rows.get_function(records, tenant_id, name))

    async def list(
        self, tenant_id: str, *, limit: int, cursor: str | None, labels: Mapping[str, str]
    ) -> Page[Function]:
        return await self._database.read(
            lambda records: rows.list_functions(records, tenant_id, limit=limit, cursor=cursor, labels=dict(labels))
        )

    async def versions(self, tenant_id: str, name: str, *, limit: int, cursor: str | None) -> Page[Version]:
        """Youngest first. Raises NotFound."""
        return await self._database.read(
            lambda records: rows.versions(records, tenant_id, name, limit=limit, cursor=cursor)
        )

    async def delete(self, tenant_id: str, name: str) -> None:
        """All versions and aliases. Calls that run end on what they began with. Raises NotFound."""
        try:
            await self._database.write(lambda records: rows.delete_function(records, tenant_id, name))
        finally:
            self._forget(tenant_id, name)

    async def move(self, caller: Caller, name: str, alias: str, number: int) -> Alias:
        """Have an alias stand for a version; from then on calls get that. Raises NotFound."""
        try:
            return await self._database.write(
                lambda records: rows.move_alias(
                    records, caller.tenant_id, name, alias, number, at_us=now_us(), by=caller.key_id
                )
            )
        finally:
            self._forget(caller.tenant_id, name)

    async def delete_alias(self, tenant_id: str, name: str, alias: str) -> None:
        """Delete an alias and its history; the version stays. Raises NotFound."""
        try:
            await self._database.write(lambda records: rows.delete_alias(records, tenant_id, name, alias))
        finally:
            self._forget(tenant_id, name)

    async def roll_back(self, caller: Caller, name: str, alias: str) -> Alias:
        """Have it stand for what it stood for before. Raises NotFound, and Conflict where there is nothing before."""
        try:
            return await self._database.write(
                lambda records: rows.rollback(records, caller.tenant_id, name, alias, at_us=now_us(), by=caller.key_id)
            )
        finally:
            self._forget(caller.tenant_id, name)

    async def moves(self, tenant_id: str, name: str, alias: str) -> tuple[Move, ...]:
        """Youngest first. Raises NotFound."""
        return await self._database.read(lambda records: rows.moves(records, tenant_id, name, alias))

    def _forget(self, tenant_id: str, name: str) -> None:
        for key in [key for key in self._known if key[:2] == (tenant_id, name)]:
            del self._known[key]


def _row(records: Any, tenant_id: str, name: str, which: int | str) -> Version:  # noqa: ANN401
    if isinstance(which, int):
        return rows.version(records, tenant_id, name, which)
    return rows.resolve(records, tenant_id, name, which)


def _published(version: Version) -> Published:
    return Published(
        version=version,
        source=source_of(version),
        normalise=bool(version.options.get("normalise")),
        input_schema=None if version.input_schema is None else Schema(version.input_schema),
        output_schema=None if version.output_schema is None else Schema(version.output_schema),
    )


def source_of(version: Version) -> Source:
    """What the version runs."""
    return msgspec.json.decode(version.source, type=Source)


def check_reference(version: int | None, alias: str | None) -> int | str:
    """Which version is meant. Raises InvalidInput for both at once."""
    if version is not None and alias is not None:
        raise InvalidInput("alias", "a version is named as well", hint="name one of them")
    return version if version is not None else alias or LIVE


def difference(before: Version, after: Version) -> tuple[str, dict[str, Any]]:
    """What differs: the code as a unified diff, and other fields with both values."""
    old, new = source_of(before), source_of(after)
    names = f"{before.name}@{before.number}", f"{after.name}@{after.number}"
    lines = _diff(old.code.splitlines(keepends=True), new.code.splitlines(keepends=True), *names)
    text = "".join(line if line.endswith("\n") else f"{line}\n\\ no newline at the end\n" for line in lines)
    return text, _changed(_facts(before, old), _facts(after, new))


def _diff(old: list[str], new: list[str], old_name: str, new_name: str) -> Iterator[str]:
    """Line by line, unless that could take long: what stands between the same beginning and end is then one change.

    Comparing takes time that grows with the square of the lines, and worse: with those that somebody wrote for that.
    """
    begin = _common(old, new)
    end = _common(old[begin:][::-1], new[begin:][::-1])
    changed = (len(old) - begin - end) * (len(new) - begin - end)
    if changed <= limits.DIFF_LINE_PAIRS_MAX:
        return difflib.unified_diff(old, new, old_name, new_name)
    return _replaced(old, new, begin, end, f"--- {old_name}\n+++ {new_name}\n")


def _common(old: Sequence[str], new: Sequence[str]) -> int:
    """How many lines at the beginning are the same."""
    pairs = zip(old, new, strict=False)
    return next((at for at, (one, other) in enumerate(pairs) if one != other), min(len(old), len(new)))


def _replaced(old: list[str], new: list[str], begin: int, end: int, head: str) -> Iterator[str]:
    removed, added = old[begin : len(old) - end], new[begin : len(new) - end]
    yield head
    yield f"@@ -{begin + 1},{len(removed)} +{begin + 1},{len(added)} @@\n"
    yield from (f"-{line}" for line in removed)
    yield from (f"+{line}" for line in added)


def _facts(version: Version, source: Source) -> dict[str, Any]:
    found = {field: getattr(version, field) for field in ("description", "labels", "input_schema", "output_schema")}
    plain = {field: getattr(source, field) for field in source.__struct_fields__ if field != "code"}
    return {**plain, **found, **version.options}


def _changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    return {name: {"from": before[name], "to": value} for name, value in after.items() if before.get(name) != value}

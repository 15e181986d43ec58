"""Functions: versions that never change, and aliases that say which of them counts.

Every operation that writes is one transaction of the only thread that writes: nobody can publish or move an alias
between what it reads and what it writes, so numbers have no gaps and the last of two moves knows of the first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import ColumnElement, Connection, RowMapping, Select, Table, delete, func, insert, select, update

from casemate.errors import Conflict, InvalidInput, NotFound
from casemate.model.ids import new_id
from casemate.service_limits import (
    ALIAS_MOVES_KEPT_MAX,
    ALIASES_A_FUNCTION_MAX,
    FUNCTION_VERSIONS_MAX,
    FUNCTIONS_A_TENANT_MAX,
    FUNCTIONS_DELETED_KEPT_MAX,
    PAGE_DEFAULT_COUNT,
    SOURCES_A_PAGE_MAX_BYTES,
)
from casemate.store.pages import Page, check_limit, cursor_of, has_labels, newest_first, page_of, place_of
from casemate.store.schema import alias_moves, aliases, functions, tenants
from casemate.store.schema import function_versions as table


class NewVersion(msgspec.Struct, frozen=True, kw_only=True):
    """What is published. `digest` is of all that makes the version what it is; `source` only the caller reads."""

    name: str
    digest: str
    source: bytes
    runtime: str
    description: str = ""
    labels: dict[str, str] = {}
    input_schema: dict[str, Any] | None = None
    output_schema: dict[str, Any] | None = None
    options: dict[str, Any] = {}


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """One version, which never changes. Numbers of a name begin with 1 and are never given again."""

    id: str
    tenant_id: str
    function_id: str
    name: str
    number: int
    digest: str
    source: bytes
    runtime: str
    description: str
    labels: dict[str, str]
    input_schema: dict[str, Any] | None
    output_schema: dict[str, Any] | None
    options: dict[str, Any]
    created_us: int
    created_by: str


class Function(msgspec.Struct, frozen=True, kw_only=True):
    """A function. What describes it is its latest version's."""

    id: str
    tenant_id: str
    name: str
    latest: int
    aliases: dict[str, int]
    created_us: int
    updated_us: int
    description: str
    labels: dict[str, str]
    runtime: str


class Alias(msgspec.Struct, frozen=True, kw_only=True):
    """Where an alias is, and since when."""

    name: str
    alias: str
    number: int
    moved_us: int
    moved_by: str


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """How an alias got somewhere; the first move of one came from nowhere."""

    from_number: int | None
    to_number: int
    is_rollback: bool
    at_us: int
    moved_by: str


_VERSION: Final = [table.c[name] for name in Version.__struct_fields__]
_MOVE: Final = [alias_moves.c[name] for name in Move.__struct_fields__]
_LATEST: Final = functions.c.next_number - 1
"""A function that is there has a version, and none of its versions was ever taken away."""


# Publishing ---------------------------------------------------------------------------------------


def publish(
    connection: Connection, tenant_id: str, new: NewVersion, *, alias: str | None, at_us: int, by: str
) -> tuple[Version, bool]:
    """Add a version and move the alias to it, both or neither. False: one with this digest was there, and is used.

    Raises Conflict beyond what a tenant or a function may have, and NotFound without the tenant.
    """
    function_id = _opened(connection, tenant_id, new.name, at_us=at_us)
    found = (
        connection.execute(select(*_VERSION).where(table.c.function_id == function_id, table.c.digest == new.digest))
        .mappings()
        .one_or_none()
    )
    version = _add(connection, tenant_id, function_id, new, at_us=at_us, by=by) if found is None else _version(found)
    if alias is not None:
        _move(connection, version, alias, at_us=at_us, by=by)
    return version, found is None


def _opened(connection: Connection, tenant_id: str, name: str, *, at_us: int) -> str:
    """The id of the function of that name, which is made if it is not there.

    One that takes the name of a deleted one is another, with an id of its own; only the numbers go on.
    """
    row = connection.execute(select(functions).where(*_named(tenant_id, name))).one_or_none()
    if row is not None and row.deleted_us is None:
        return str(row.id)
    _check_tenant(connection, tenant_id)
    function_id = new_id("fun")
    values = {"id": function_id, "created_us": at_us, "updated_us": at_us, "deleted_us": None}
    if row is None:
        connection.execute(insert(functions), {"tenant_id": tenant_id, "name": name, "next_number": 1, **values})
    else:
        connection.execute(update(functions).where(functions.c.id == row.id).values(**values))
    return function_id


def _check_tenant(connection: Connection, tenant_id: str) -> None:
    """That the tenant is there, and may have another function."""
    if connection.execute(select(tenants.c.id).where(tenants.c.id == tenant_id)).one_or_none() is None:
        raise NotFound(f"there is no tenant {tenant_id!r}")
    there = (functions.c.tenant_id == tenant_id, functions.c.deleted_us.is_(None))
    if _count(connection, functions, *there) >= FUNCTIONS_A_TENANT_MAX:
        raise Conflict(
            f"the tenant has {FUNCTIONS_A_TENANT_MAX} functions already", hint="delete those that nobody calls"
        )


def _add(connection: Connection, tenant_id: str, function_id: str, new: NewVersion, *, at_us: int, by: str) -> Version:
    if _count(connection, table, table.c.function_id == function_id) >= FUNCTION_VERSIONS_MAX:
        raise Conflict(
            f"the function {new.name!r} has {FUNCTION_VERSIONS_MAX} versions already",
            hint="publish under another name, or delete the function and publish it anew",
        )
    function = functions.c.id == function_id
    number = connection.execute(select(functions.c.next_number).where(function)).scalar_one()
    connection.execute(update(functions).where(function).values(next_number=number + 1, updated_us=at_us))
    made = {"id": new_id("fnv"), "tenant_id": tenant_id, "function_id": function_id, "number": number}
    version = Version(**msgspec.structs.asdict(new), **made, created_us=at_us, created_by=by)
    connection.execute(insert(table), msgspec.structs.asdict(version))
    return version


# Finding ------------------------------------------------------------------------------------------


def get_function(connection: Connection, tenant_id: str, name: str) -> Function:
    """Raises NotFound, also for another tenant's."""
    row = connection.execute(_described(tenant_id).where(functions.c.name == name)).mappings().one_or_none()
    if row is None:
        raise _no_function(name)
    return _functions(connection, [row])[0]


def list_functions(
    connection: Connection,
    tenant_id: str,
    *,
    limit: int = PAGE_DEFAULT_COUNT,
    cursor: str | None = None,
    labels: Mapping[str, str] | None = None,
) -> Page[Function]:
    """Those whose latest version has all of these labels; newest first."""
    wanted = _described(tenant_id).where(*has_labels(table, labels or {}))
    rows = connection.execute(newest_first(wanted, functions, limit=limit, cursor=cursor)).mappings().all()
    return page_of(_functions(connection, rows), limit, [(row["created_us"], row["id"]) for row in rows])


def version(connection: Connection, tenant_id: str, name: str, number: int) -> Version:
    """Raises NotFound."""
    query = _published(tenant_id, name).where(table.c.number == number)
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        _function_id(connection, tenant_id, name)
        raise NotFound(f"the function {name!r} has no version {number}")
    return _version(row)


def versions(
    connection: Connection, tenant_id: str, name: str, *, limit: int = PAGE_DEFAULT_COUNT, cursor: str | None = None
) -> Page[Version]:
    """Newest first. A page may have fewer than `limit`: it ends where the sources become large. Raises NotFound."""
    function_id = _function_id(connection, tenant_id, name)
    query = select(*_VERSION).where(table.c.function_id == function_id).order_by(table.c.number.desc())
    if cursor is not None:
        query = query.where(table.c.number < _number_of(cursor, function_id))
    items: list[Version] = []
    room_bytes = SOURCES_A_PAGE_MAX_BYTES
    for row in connection.execute(query.limit(check_limit(limit) + 1)).mappings():
        room_bytes -= len(row["source"])
        if items and (len(items) == limit or room_bytes < 0):
            return Page(items=tuple(items), next_cursor=cursor_of(items[-1].number, function_id))
        items.append(_version(row))
    return Page(items=tuple(items))


def resolve(connection: Connection, tenant_id: str, name: str, alias: str) -> Version:
    """The version that an alias stands for. Raises NotFound."""
    at = (aliases.c.function_id == table.c.function_id, aliases.c.number == table.c.number)
    query = _published(tenant_id, name).where(*at, aliases.c.alias == alias)
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        _function_id(connection, tenant_id, name)
        raise _no_alias(name, alias)
    return _version(row)


# Aliases ------------------------------------------------------------------------------------------


def move_alias(
    connection: Connection, tenant_id: str, name: str, alias: str, number: int, *, at_us: int, by: str
) -> Alias:
    """Have an alias stand for that version; one that does so already is not moved. Raises NotFound and Conflict."""
    return _move(connection, version(connection, tenant_id, name, number), alias, at_us=at_us, by=by)


def rollback(connection: Connection, tenant_id: str, name: str, alias: str, *, at_us: int, by: str) -> Alias:
    """Undo the last move that was not undone; again: the one before. Raises NotFound, and Conflict at the first."""
    function_id = _function_id(connection, tenant_id, name)
    _alias(connection, function_id, name, alias)
    done = (alias_moves.c.is_rollback.is_(False), alias_moves.c.is_undone.is_(False))
    query = select(alias_moves).where(*_moves_of(function_id, alias), *done)
    last = connection.execute(query.order_by(alias_moves.c.id.desc()).limit(1)).one_or_none()
    if last is None or last.from_number is None:
        raise Conflict(
            f"the alias {alias!r} of the function {name!r} has no version before this one to go back to",
            hint="move it to a version by its number",
        )
    connection.execute(update(alias_moves).where(alias_moves.c.id == last.id).values(is_undone=True))
    target = version(connection, tenant_id, name, last.from_number)
    return _move(connection, target, alias, at_us=at_us, by=by, is_rollback=True)


def moves(connection: Connection, tenant_id: str, name: str, alias: str) -> tuple[Move, ...]:
    """The last of an alias, ALIAS_MOVES_KEPT_MAX at most, newest first. Raises NotFound."""
    function_id = _function_id(connection, tenant_id, name)
    _alias(connection, function_id, name, alias)
    query = select(*_MOVE).where(*_moves_of(function_id, alias)).order_by(alias_moves.c.id.desc())
    rows = connection.execute(query.limit(ALIAS_MOVES_KEPT_MAX)).mappings()
    return tuple(Move(**row) for row in rows)


def _move(
    connection: Connection, target: Version, alias: str, *, at_us: int, by: str, is_rollback: bool = False
) -> Alias:
    one = (aliases.c.function_id == target.function_id, aliases.c.alias == alias)
    row = connection.execute(select(aliases).where(*one)).one_or_none()
    if row is not None and row.number == target.number:
        return Alias(name=target.name, alias=alias, number=row.number, moved_us=row.moved_us, moved_by=row.moved_by)
    moved = Alias(name=target.name, alias=alias, number=target.number, moved_us=at_us, moved_by=by)
    now = {"number": target.number, "moved_us": at_us, "moved_by": by}
    whose = {"tenant_id": target.tenant_id, "function_id": target.function_id, "alias": alias}
    if row is None:
        _check_aliases(connection, target)
        connection.execute(insert(aliases), whose | now)
    else:
        connection.execute(update(aliases).where(*one).values(**now))
    what = {"from_number": None if row is None else row.number, "to_number": target.number}
    how = {"is_rollback": is_rollback, "is_undone": False, "at_us": at_us, "moved_by": by}
    connection.execute(insert(alias_moves), whose | what | how)
    _forget_moves(connection, target.function_id, alias)
    connection.execute(update(functions).where(functions.c.id == target.function_id).values(updated_us=at_us))
    return moved


def _check_aliases(connection: Connection, target: Version) -> None:
    if _count(connection, aliases, aliases.c.function_id == target.function_id) >= ALIASES_A_FUNCTION_MAX:
        raise Conflict(
            f"the function {target.name!r} has {ALIASES_A_FUNCTION_MAX} aliases already",
            hint="delete those that nobody uses",
        )


def _forget_moves(connection: Connection, function_id: str, alias: str) -> None:
    """Delete the oldest moves. What is left is undone as before, only not as far back."""
    ids = select(alias_moves.c.id).where(*_moves_of(function_id, alias)).order_by(alias_moves.c.id.desc())
    for old in connection.execute(ids.limit(1).offset(ALIAS_MOVES_KEPT_MAX)).scalars().all():
        connection.execute(delete(alias_moves).where(*_moves_of(function_id, alias), alias_moves.c.id <= old))


# Deleting -----------------------------------------------------------------------------------------


def delete_alias(connection: Connection, tenant_id: str, name: str, alias: str) -> None:
    """Delete an alias and its history. Raises NotFound."""
    function_id = _function_id(connection, tenant_id, name)
    _alias(connection, function_id, name, alias)
    connection.execute(delete(aliases).where(aliases.c.function_id == function_id, aliases.c.alias == alias))
    connection.execute(delete(alias_moves).where(*_moves_of(function_id, alias)))


def delete_function(connection: Connection, tenant_id: str, name: str) -> None:
    """Delete a function with its versions and aliases; only its numbers stay taken. Raises NotFound.

    What is kept says as the time of its end when it last changed.
    """
    function_id = _function_id(connection, tenant_id, name)
    for owned in (alias_moves, aliases, table):
        connection.execute(delete(owned).where(owned.c.function_id == function_id))
    connection.execute(update(functions).where(functions.c.id == function_id).values(deleted_us=functions.c.updated_us))
    _forget_deleted(connection, tenant_id)


def _forget_deleted(connection: Connection, tenant_id: str) -> None:
    """Of names that were deleted long ago not even the numbers are kept."""
    deleted = (functions.c.tenant_id == tenant_id, functions.c.deleted_us.is_not(None))
    ids = select(functions.c.id).where(*deleted).order_by(functions.c.deleted_us.desc(), functions.c.id)
    for old in connection.execute(ids.limit(1).offset(FUNCTIONS_DELETED_KEPT_MAX)).scalars().all():
        connection.execute(delete(functions).where(functions.c.id == old))


# Rows and conditions ------------------------------------------------------------------------------


def _named(tenant_id: str, name: str) -> tuple[ColumnElement[bool], ...]:
    return functions.c.tenant_id == tenant_id, functions.c.name == name


def _moves_of(function_id: str, alias: str) -> tuple[ColumnElement[bool], ...]:
    return alias_moves.c.function_id == function_id, alias_moves.c.alias == alias


def _published(tenant_id: str, name: str) -> Select[Any]:
    return select(*_VERSION).join(functions, functions.c.id == table.c.function_id).where(*_named(tenant_id, name))


def _described(tenant_id: str) -> Select[Any]:
    """Functions that are there, each with its latest version."""
    own = [functions.c[name] for name in ("id", "tenant_id", "name", "created_us", "updated_us")]
    latest = (table.c.function_id == functions.c.id) & (table.c.number == _LATEST)
    query = select(*own, table.c.number.label("latest"), table.c.description, table.c.labels, table.c.runtime)
    return query.join(table, latest).where(functions.c.tenant_id == tenant_id, functions.c.deleted_us.is_(None))


def _functions(connection: Connection, rows: Sequence[RowMapping]) -> list[Function]:
    found: dict[str, dict[str, int]] = {row["id"]: {} for row in rows}
    query = select(aliases).where(aliases.c.function_id.in_(found)).order_by(aliases.c.alias)
    for row in connection.execute(query):
        found[row.function_id][row.alias] = row.number
    return [Function(**row, aliases=found[row["id"]]) for row in rows]


def _version(row: RowMapping) -> Version:
    return Version(**row)


def _function_id(connection: Connection, tenant_id: str, name: str) -> str:
    query = select(functions.c.id).where(*_named(tenant_id, name), functions.c.deleted_us.is_(None))
    found = connection.execute(query).scalar()
    if found is None:
        raise _no_function(name)
    return str(found)


def _alias(connection: Connection, function_id: str, name: str, alias: str) -> None:
    one = (aliases.c.function_id == function_id, aliases.c.alias == alias)
    if connection.execute(select(aliases.c.alias).where(*one)).one_or_none() is None:
        raise _no_alias(name, alias)


def _count(connection: Connection, of: Table, *where: ColumnElement[bool]) -> int:
    return connection.execute(select(func.count()).select_from(of).where(*where)).scalar_one()


def _number_of(cursor: str, function_id: str) -> int:
    number, owner = place_of(cursor)
    if owner != function_id:
        raise InvalidInput("cursor", "is none that this list has given")
    return number


def _no_function(name: str) -> NotFound:
    return NotFound(f"there is no function {name!r}")


def _no_alias(name: str, alias: str) -> NotFound:
    return NotFound(f"the function {name!r} has no alias {alias!r}")

"""Statements that every run needs, put together once for each kind of database.

Through SQLAlchemy a small one takes several times as long as in the database; so it is the driver that gets these.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy.sql.compiler import SQLCompiler

from casemate.store.dialect import Found, dialect_of

if TYPE_CHECKING:
    from sqlalchemy import Connection, Executable


class _Compiled(msgspec.Struct, frozen=True):
    """A statement as a driver takes it. `order`: of its parameters, where they have places and no names."""

    text: str
    given: dict[str, Any]
    order: tuple[str, ...] | None


class Prepared:
    """A statement whose parameters and columns are numbers and texts alone: nothing is converted on the way."""

    def __init__(self, statement: Executable) -> None:
        self._statement = statement
        self._compiled: dict[str, _Compiled] = {}

    def run(self, connection: Connection, values: Mapping[str, Any]) -> Found:
        """Carry it out with these values of its named parameters."""
        compiled = self._compiled.get(connection.dialect.name) or self._put_together(connection)
        given = {**compiled.given, **values}
        parameters = given if compiled.order is None else tuple([given[each] for each in compiled.order])
        return dialect_of(connection).run(connection, compiled.text, parameters)

    def _put_together(self, connection: Connection) -> _Compiled:
        found = self._statement.compile(dialect=connection.dialect)  # type: ignore[attr-defined]
        assert isinstance(found, SQLCompiler)  # noqa: S101  (as statements are)
        order = None if found.positiontup is None else tuple(found.positiontup)
        compiled = self._compiled[connection.dialect.name] = _Compiled(found.string, dict(found.params), order)
        return compiled

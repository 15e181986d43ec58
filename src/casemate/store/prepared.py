"""Statements that every run needs, put together once for each kind of database.

Through SQLAlchemy a small one takes several times as long as in the database; so it is the driver that gets these.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sqlalchemy.sql.compiler import SQLCompiler

if TYPE_CHECKING:
    from sqlalchemy import Connection, CursorResult, Executable


class Prepared:
    """A statement whose parameters and columns are numbers and texts alone: nothing is converted on the way."""

    def __init__(self, statement: Executable) -> None:
        self._statement = statement
        self._compiled: dict[str, SQLCompiler] = {}

    def run(self, connection: Connection, values: Mapping[str, Any]) -> CursorResult[Any]:
        """Carry it out with these values of its named parameters."""
        name = connection.dialect.name
        compiled = self._compiled.get(name)
        if compiled is None:
            compiled = self._compiled[name] = self._put_together(connection)
        given = {**compiled.params, **values}
        if compiled.positiontup is None:
            return connection.exec_driver_sql(compiled.string, given)
        return connection.exec_driver_sql(compiled.string, tuple(given[each] for each in compiled.positiontup))

    def _put_together(self, connection: Connection) -> SQLCompiler:
        found = self._statement.compile(dialect=connection.dialect)  # type: ignore[attr-defined]
        assert isinstance(found, SQLCompiler)  # noqa: S101  (as statements are)
        return found

"""What databases do differently, as one protocol: how they are opened, what ends a transaction, what errors mean.

Statements are written in what SQLite and PostgreSQL have in common. Where they are not enough, they ask the dialect of
their connection, or are compiled for each (`has_member`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, cast

import msgspec
from sqlalchemy import Boolean, ColumnElement, Connection, Engine, FunctionElement, literal
from sqlalchemy.ext.compiler import compiles

from casemate.errors import CasemateError
from casemate.store.job_log_words import WordIndex

if TYPE_CHECKING:
    from sqlalchemy.exc import DBAPIError
    from sqlalchemy.sql.compiler import SQLCompiler

OPTION: Final = "casemate_dialect"
"""The option of engines that holds their dialect."""


Parameters: TypeAlias = Mapping[str, Any] | tuple[Any, ...]
"""Of a statement, by their names or by their places."""


class Found(msgspec.Struct, frozen=True):
    """What a statement has come to: how many rows it has changed, and those that it has found."""

    rowcount: int
    rows: list[dict[str, Any]]

    @property
    def first(self) -> dict[str, Any] | None:
        """The first row, if there is one."""
        return self.rows[0] if self.rows else None

    @property
    def value(self) -> Any:  # noqa: ANN401 - whatever the column holds
        """The first column of the first row; None without one."""
        return next(iter(self.rows[0].values())) if self.rows else None


class Dialect(Protocol):
    """One database: where it is, and its ways."""

    @property
    def place(self) -> str:
        """Where it is, for messages: without passwords."""

    @property
    def words(self) -> WordIndex:
        """Its index of the words in the logs of jobs."""

    def make(self) -> None:
        """Make what has to be there before it is opened. Raises OSError."""

    def open_engine(self, *, writes: bool) -> Engine:
        """An engine for the writing thread, or for the reading ones, whose option OPTION this is. Opens nothing yet."""

    def changing_tables(self, engine: Engine) -> AbstractContextManager[Connection]:
        """A transaction in which a table can be put in the place of another; no other process has one meanwhile."""

    def check_references(self, connection: Connection) -> None:
        """Raise RecordsDamaged for rows that refer to what is not there."""

    def take_time(self, connection: Connection) -> None:
        """Let what is read now take as long as it takes: nobody has asked for it."""

    def run(self, connection: Connection, statement: str, parameters: Parameters) -> Found:
        """Carry out a statement that is written as the driver takes it. Raises DBAPIError, as SQLAlchemy does."""

    def set_savepoint(self, connection: Connection) -> None:
        """From here on what is done can be undone alone."""

    def release_savepoint(self, connection: Connection) -> None:
        """Keep what was done since."""

    def roll_back_to_savepoint(self, connection: Connection) -> None:
        """Undo what was done since."""

    def goes_on(self, connection: Connection, error: Exception) -> bool:
        """Whether the transaction can go on without what failed: some errors end it, and with it all it has done."""

    def is_undone(self, error: Exception) -> bool:
        """Whether of a transaction whose commit failed nothing is there for certain, so that it may be done again."""

    def is_passing(self, error: Exception) -> bool:
        """Whether the very same may succeed if it is tried again at once."""

    def translated(self, error: DBAPIError) -> CasemateError:
        """The error of our tree that an error of the database is."""

    def notify(self, connection: Connection) -> None:
        """Tell those who listen, in all processes, once the transaction is committed."""

    def listen(self, called: Callable[[], None]) -> Callable[[], None]:
        """Have something called, in any thread, when somebody notifies; what is returned ends that.

        A database that has no such thing calls nothing: who waits looks now and then.
        """


def dialect_of(connection: Connection) -> Dialect:
    """That of the engine from which a connection is."""
    return cast("Dialect", connection.get_execution_options()[OPTION])


class _HasMember(FunctionElement[bool]):
    """A column of JSON, the name of a member, its value."""

    inherit_cache = True
    type = Boolean()
    name = "has_member"


@compiles(_HasMember, "sqlite")
def _has_member_sqlite(element: _HasMember, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401
    column, name, value = (compiler.process(each, **options) for each in element.clauses)
    same = f"member.key = {name} AND member.value = {value}"
    return f"EXISTS (SELECT 1 FROM json_each({column}) AS member WHERE {same})"  # noqa: S608 - as compiled


@compiles(_HasMember, "postgresql")
def _has_member_postgresql(element: _HasMember, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401
    column, name, value = (compiler.process(each, **options) for each in element.clauses)
    return f"(json_extract_path_text({column}, {name}) IS NOT DISTINCT FROM {value})"


def has_member(column: ColumnElement[Any], name: str, value: str) -> ColumnElement[bool]:
    """That an object of JSON has a member of that name, whatever it is written with, and that value."""
    return _HasMember(column, literal(name), literal(value))

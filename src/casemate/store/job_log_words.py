"""The index of the words in the logs of jobs: SQLite's FTS5, PostgreSQL's tsvector, and nothing else knows of either.

An index says in which pieces words may be; whether a line has them is for `model.job_log` to say. A word of each piece
is its tenant's id, so that nobody's search is slow for what others print.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

from sqlalchemy import Connection, FromClause, Select, column, literal_column, table, text

from casemate.store.schema import job_log_pieces as pieces


class WordIndex(Protocol):
    """What each database does differently."""

    def add(self, connection: Connection, words: Mapping[int, str]) -> None:
        """The words of new pieces, by their ids, separated by spaces."""

    def forget(self, connection: Connection, ids: Iterable[int]) -> None:
        """Of pieces that are deleted, or are to have other words."""

    def forget_log(self, connection: Connection, tenant_id: str, job_id: str) -> None:
        """Of all pieces of a log that is about to be deleted, however many they are."""

    def forget_tenant(self, connection: Connection, tenant_id: str) -> None:
        """Of all pieces of a tenant that is about to be deleted."""

    def narrowed(self, query: Select[Any], tenant_id: str, wanted: Sequence[str]) -> Select[Any]:
        """A query of pieces, narrowed to those in which words begin so, the youngest first."""


class SqliteWords:
    """In a table of FTS5, whose rows have the ids of pieces."""

    _words: Final[FromClause] = table("job_log_words", column("rowid"))

    def add(self, connection: Connection, words: Mapping[int, str]) -> None:
        rows = [{"id": key, "words": value} for key, value in words.items()]
        if rows:
            connection.execute(text("INSERT INTO job_log_words (rowid, words) VALUES (:id, :words)"), rows)

    def forget(self, connection: Connection, ids: Iterable[int]) -> None:
        rows = [{"id": key} for key in ids]
        if rows:
            connection.execute(text("DELETE FROM job_log_words WHERE rowid = :id"), rows)

    def forget_log(self, connection: Connection, tenant_id: str, job_id: str) -> None:
        of_log = "SELECT id FROM job_log_pieces WHERE tenant_id = :tenant AND job_id = :job"
        delete = text(f"DELETE FROM job_log_words WHERE rowid IN ({of_log})")  # noqa: S608
        connection.execute(delete, {"tenant": tenant_id, "job": job_id})

    def forget_tenant(self, connection: Connection, tenant_id: str) -> None:
        connection.execute(
            text("DELETE FROM job_log_words WHERE rowid IN (SELECT id FROM job_log_pieces WHERE tenant_id = :tenant)"),
            {"tenant": tenant_id},
        )

    def narrowed(self, query: Select[Any], tenant_id: str, wanted: Sequence[str]) -> Select[Any]:
        asked = " AND ".join([f'"{tenant_id.lower()}"', *(f'"{word}" *' for word in wanted)])
        rowid = self._words.c.rowid
        matches = literal_column("job_log_words").op("MATCH")(asked)
        return query.join(self._words, rowid == pieces.c.id).where(matches).order_by(rowid.desc())


class PostgresWords:
    """In a table with a tsvector of each piece, deleted with it."""

    _words: Final[FromClause] = table("job_log_words", column("id"), column("words"))

    def add(self, connection: Connection, words: Mapping[int, str]) -> None:
        rows = [{"id": key, "words": value} for key, value in words.items()]
        vector = "array_to_tsvector(array_remove(string_to_array(:words, ' '), ''))"
        if rows:
            connection.execute(text(f"INSERT INTO job_log_words (id, words) VALUES (:id, {vector})"), rows)  # noqa: S608

    def forget(self, connection: Connection, ids: Iterable[int]) -> None:
        rows = [{"id": key} for key in ids]
        if rows:
            connection.execute(text("DELETE FROM job_log_words WHERE id = :id"), rows)

    def forget_log(self, connection: Connection, tenant_id: str, job_id: str) -> None:
        """They go with the pieces."""

    def forget_tenant(self, connection: Connection, tenant_id: str) -> None:
        """They go with the pieces."""

    def narrowed(self, query: Select[Any], tenant_id: str, wanted: Sequence[str]) -> Select[Any]:
        asked = " & ".join([f"'{tenant_id.lower()}'", *(f"'{word}':*" for word in wanted)])
        matches = self._words.c.words.op("@@")(text("CAST(:asked AS tsquery)").bindparams(asked=asked))
        return query.join(self._words, self._words.c.id == pieces.c.id).where(matches).order_by(pieces.c.id.desc())


def as_words(tenant_id: str, words: Iterable[str]) -> str:
    """What is written into the index for a piece."""
    return " ".join([tenant_id.lower(), *sorted(words)])

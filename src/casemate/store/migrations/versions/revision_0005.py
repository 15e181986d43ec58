"""Adds what jobs print: pieces and their index."""

from __future__ import annotations

from typing import Final

from alembic import op
from sqlalchemy import (
    DDL,
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    event,
)

revision: Final = "0005"
down_revision: Final = "0004"

_NAMES: Final = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}
_WORDS_TABLE: Final = {
    "sqlite": (
        """CREATE VIRTUAL TABLE job_log_words USING fts5
        (words, tokenize = "ascii tokenchars '_'", detail = none, columnsize = 0)""",
    ),
    "postgresql": (
        """CREATE TABLE job_log_words
        (id BIGINT PRIMARY KEY REFERENCES job_log_pieces (id) ON DELETE CASCADE, words TSVECTOR NOT NULL)""",
        "CREATE INDEX ix_job_log_words_words ON job_log_words USING gin (words)",
    ),
}

_metadata = MetaData(naming_convention=_NAMES)
_tenants = Table("tenants", _metadata, Column("id", String(40), primary_key=True))


def _tenant(*, primary_key: bool = False) -> Column[str]:
    return Column("tenant_id", ForeignKey("tenants.id", ondelete="CASCADE"), nullable=False, primary_key=primary_key)


def _time(name: str, *, nullable: bool = False) -> Column[int]:
    return Column(name, BigInteger, nullable=nullable)


def _serial() -> Column[int]:
    """A number that the database gives; SQLite does that for INTEGER alone."""
    return Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True)


_job_logs = Table(
    "job_logs",
    _metadata,
    _tenant(primary_key=True),
    Column("job_id", String(64), primary_key=True),
    Column("runtime", String(64), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("next_seq", BigInteger, nullable=False),
    Column("place", BigInteger, nullable=False),
    Column("total_bytes", BigInteger, nullable=False),
    Column("is_moved", Boolean(create_constraint=False), nullable=False),
    _time("last_at_us"),
    Index(None, "is_moved", "last_at_us"),
    Index(None, "runtime", "kind", "last_at_us"),
)

_job_log_pieces = Table(
    "job_log_pieces",
    _metadata,
    _serial(),
    _tenant(),
    Column("job_id", String(64), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("first_seq", BigInteger, nullable=False),
    Column("last_seq", BigInteger, nullable=False),
    Column("lines", Integer, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("begin_place", BigInteger, nullable=False),
    Column("end_place", BigInteger, nullable=False),
    _time("first_at_us"),
    _time("last_at_us"),
    Column("data", LargeBinary, nullable=True),
    Column("object_key", String(512), nullable=True),
    Column("object_offset", BigInteger, nullable=False),
    Column("data_bytes", Integer, nullable=False),
    UniqueConstraint("tenant_id", "job_id", "first_seq"),
    Index(None, "tenant_id", "id"),
)

for _dialect, _statements in _WORDS_TABLE.items():
    for _statement in _statements:
        event.listen(_job_log_pieces, "after_create", DDL(_statement).execute_if(dialect=_dialect))  # type: ignore[no-untyped-call]


def upgrade() -> None:
    """Make its tables."""
    _metadata.create_all(op.get_bind(), tables=[_job_logs, _job_log_pieces])

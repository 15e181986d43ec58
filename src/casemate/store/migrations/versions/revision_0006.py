"""Adds accounting: usage, budgets and notices."""

from __future__ import annotations

from typing import Final

from alembic import op
from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

revision: Final = "0006"
down_revision: Final = "0005"

_NAMES: Final = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}

_metadata = MetaData(naming_convention=_NAMES)
# What is there, and the others refer to:
Table("tenants", _metadata, Column("id", String(40), primary_key=True))
Table("jobs", _metadata, Column("tenant_id", String(40), primary_key=True), Column("id", String(64), primary_key=True))
_THERE: Final = frozenset({"tenants", "jobs"})


def _id() -> Column[str]:
    return Column("id", String(40), primary_key=True)


def _tenant(*, primary_key: bool = False) -> Column[str]:
    return Column("tenant_id", ForeignKey("tenants.id", ondelete="CASCADE"), nullable=False, primary_key=primary_key)


def _time(name: str, *, nullable: bool = False) -> Column[int]:
    return Column(name, BigInteger, nullable=nullable)


def _serial() -> Column[int]:
    return Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True)


Table(
    "usage",
    _metadata,
    _tenant(primary_key=True),
    Column("day", Integer, primary_key=True, autoincrement=False),
    Column("kind", String(16), primary_key=True),
    Column("key_id", String(40), primary_key=True),
    Column("labels_digest", String(32), primary_key=True),
    Column("labels", JSON, nullable=False),
    Column("runs", BigInteger, nullable=False),
    Column("failed", BigInteger, nullable=False),
    Column("cpu_us", BigInteger, nullable=False),
    Column("wall_us", BigInteger, nullable=False),
    Column("memory_kib_ms", BigInteger, nullable=False),
    Column("disk_bytes", BigInteger, nullable=False),
    Column("sent_bytes", BigInteger, nullable=False),
    Column("received_bytes", BigInteger, nullable=False),
    Column("cost_nano", BigInteger, nullable=False),
    Index(None, "day"),
)

Table(
    "job_usage",
    _metadata,
    Column("tenant_id", String(40), primary_key=True),
    Column("job_id", String(64), primary_key=True),
    Column("runs", BigInteger, nullable=False),
    Column("failed", BigInteger, nullable=False),
    Column("cpu_us", BigInteger, nullable=False),
    Column("wall_us", BigInteger, nullable=False),
    Column("memory_kib_ms", BigInteger, nullable=False),
    Column("disk_bytes", BigInteger, nullable=False),
    Column("sent_bytes", BigInteger, nullable=False),
    Column("received_bytes", BigInteger, nullable=False),
    Column("cost_nano", BigInteger, nullable=False),
    ForeignKeyConstraint(["tenant_id", "job_id"], ["jobs.tenant_id", "jobs.id"], ondelete="CASCADE"),
)

Table(
    "budgets",
    _metadata,
    _id(),
    _tenant(),
    Column("name", String(64), nullable=False),
    Column("unit", String(16), nullable=False),
    Column("period", String(16), nullable=False),
    Column("soft", BigInteger, nullable=True),
    Column("hard", BigInteger, nullable=True),
    Column("is_imposed", Boolean(create_constraint=False), nullable=False),
    Column("first_day", Integer, nullable=False),
    Column("spent", BigInteger, nullable=False),
    Column("soft_told", Integer, nullable=False),
    Column("hard_told", Integer, nullable=False),
    _time("created_us"),
    UniqueConstraint("tenant_id", "name"),
)

Table(
    "webhooks",
    _metadata,
    _id(),
    _tenant(),
    Column("url", Text, nullable=False),
    Column("events", JSON, nullable=False),
    _time("created_us"),
    Index(None, "tenant_id", "created_us", "id"),
)

Table(
    "notices",
    _metadata,
    _serial(),
    _tenant(),
    Column("webhook_id", ForeignKey("webhooks.id", ondelete="CASCADE"), nullable=False),
    Column("event_id", String(40), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("body", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("problem", Text, nullable=False),
    _time("created_us"),
    _time("due_us"),
    _time("ended_us", nullable=True),
    Index(None, "state", "due_us"),
    Index(None, "tenant_id", "id"),
    Index(None, "webhook_id"),
    Index(None, "ended_us"),
)


def upgrade() -> None:
    """Make its tables."""
    _metadata.create_all(op.get_bind(), tables=[each for each in _metadata.sorted_tables if each.name not in _THERE])

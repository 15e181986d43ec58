"""Adds flows: what sandboxes have tried to reach."""

from __future__ import annotations

from typing import Final

from alembic import op
from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Index, Integer, MetaData, String, Table, Text

revision: Final = "0004"
down_revision: Final = "0003"

_NAMES: Final = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}

_metadata = MetaData(naming_convention=_NAMES)
Table("tenants", _metadata, Column("id", String(40), primary_key=True))  # is there; the other refers to it

_flows = Table(
    "flows",
    _metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("tenant_id", ForeignKey("tenants.id", ondelete="CASCADE"), nullable=False),
    Column("job_id", String(64), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Column("host", String(253), nullable=False),
    Column("port", Integer, nullable=False),
    Column("address", String(64), nullable=False),
    Column("protocol", String(64), nullable=False),
    Column("allowed", Boolean(create_constraint=False), nullable=False),
    Column("reason", String(64), nullable=False),
    Column("problem", Text, nullable=False),
    Column("sent_bytes", BigInteger, nullable=False),
    Column("received_bytes", BigInteger, nullable=False),
    Column("wall_us", BigInteger, nullable=False),
    Index(None, "tenant_id", "id"),
    Index(None, "tenant_id", "job_id", "id"),
    Index(None, "at_us"),
)


def upgrade() -> None:
    """Make its table."""
    _metadata.create_all(op.get_bind(), tables=[_flows])

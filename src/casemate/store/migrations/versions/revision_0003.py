"""Adds objects: the audit log, and what tenants keep secret."""

from __future__ import annotations

from typing import Final

from alembic import op
from sqlalchemy import BigInteger, Column, ForeignKey, Index, LargeBinary, MetaData, String, Table, Text

revision: Final = "0003"
down_revision: Final = "0002"

_NAMES: Final = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}

_metadata = MetaData(naming_convention=_NAMES)
_tenants = Table("tenants", _metadata, Column("id", String(40), primary_key=True))

_audit = Table(
    "audit",
    _metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("id", String(40), nullable=False, unique=True),
    Column("tenant_id", String(40), nullable=False),
    Column("key_id", String(40), nullable=False),
    Column("action", String(64), nullable=False),
    Column("target", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("request_id", String(128), nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("digest", LargeBinary(32), nullable=False),
    Index(None, "tenant_id", "created_us", "id"),
    Index(None, "created_us", "id"),
)

_ends = Table(
    "audit_ends",
    _metadata,
    Column("name", String(8), primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("digest", LargeBinary(32), nullable=False),
    Column("code", LargeBinary(32), nullable=False),
)

_secrets = Table(
    "secrets",
    _metadata,
    Column("tenant_id", ForeignKey("tenants.id", ondelete="CASCADE"), nullable=False, primary_key=True),
    Column("name", String(128), primary_key=True),
    Column("sealed", LargeBinary, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("updated_us", BigInteger, nullable=False),
    Column("updated_by", String(40), nullable=False),
)


def upgrade() -> None:
    """Make its tables."""
    _metadata.create_all(op.get_bind(), tables=[_audit, _ends, _secrets])

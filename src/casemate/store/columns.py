"""What tables are made of, and the one place that knows them all."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import BigInteger, Column, ColumnElement, ForeignKey, Integer, MetaData, String

NAMES: Final = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}
"""Constraints have names, or no migration could speak of them."""

metadata = MetaData(naming_convention=NAMES)


def identity() -> Column[str]:
    """What a thing is called, by us."""
    return Column("id", String(40), primary_key=True)


def tenant(*, primary_key: bool = False) -> Column[str]:
    """Whose it is; it goes with its tenant."""
    return Column("tenant_id", ForeignKey("tenants.id", ondelete="CASCADE"), nullable=False, primary_key=primary_key)


def moment(name: str, *, nullable: bool = False) -> Column[int]:
    """In microseconds since 1970."""
    return Column(name, BigInteger, nullable=nullable)


def where(condition: ColumnElement[bool]) -> dict[str, Any]:
    """For an index of some rows alone; statements say the same of the rows they want, or it is not used."""
    return {"sqlite_where": condition, "postgresql_where": condition}


def serial() -> Column[int]:
    """A number that the database gives; SQLite does that for INTEGER alone."""
    return Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True)

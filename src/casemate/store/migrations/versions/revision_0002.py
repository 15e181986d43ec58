"""Adds jobs: their rows, leases, transitions and schedules."""

from __future__ import annotations

from typing import Any, Final

from alembic import op
from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    literal_column,
)

revision: Final = "0002"
down_revision: Final = "0001"

_NAMES: Final = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}

_metadata = MetaData(naming_convention=_NAMES)
_tenants = Table("tenants", _metadata, Column("id", String(40), primary_key=True))


def _id() -> Column[str]:
    return Column("id", String(40), primary_key=True)


def _tenant(*, primary_key: bool = False) -> Column[str]:
    return Column("tenant_id", ForeignKey("tenants.id", ondelete="CASCADE"), nullable=False, primary_key=primary_key)


def _time(name: str, *, nullable: bool = False) -> Column[int]:
    return Column(name, BigInteger, nullable=nullable)


def _where(condition: ColumnElement[bool]) -> dict[str, Any]:
    """For an index of some rows alone; statements say the same of the rows they want, or it is not used."""
    return {"sqlite_where": condition, "postgresql_where": condition}


def _serial() -> Column[int]:
    """A number that the database gives; SQLite does that for INTEGER alone."""
    return Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True)


_jobs = Table(
    "jobs",
    _metadata,
    _tenant(primary_key=True),
    Column("id", String(64), primary_key=True),
    Column("key_id", String(40), nullable=False),
    Column("schedule_id", String(40), nullable=False),
    Column("request_id", String(128), nullable=False),
    Column("spec", LargeBinary, nullable=False),
    Column("labels", JSON, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("lost", Integer, nullable=False),
    Column("cancel_asked", Boolean(create_constraint=False), nullable=False),
    Column("place", String(16), nullable=False),
    _time("created_us"),
    _time("due_us"),
    _time("started_us", nullable=True),
    _time("ended_us", nullable=True),
    Column("status", String(16), nullable=True),
    Column("reason", String(32), nullable=True),
    Column("exit_code", Integer, nullable=True),
    Column("result", LargeBinary, nullable=True),
    Column("token", String(40), nullable=True),
    Column("holder", String(128), nullable=True),
    _time("lease_until_us", nullable=True),
    Index(None, "tenant_id", "created_us", "id"),
    Index(None, "created_us", "id"),
    Index(None, "ended_us"),
)

_READY: Final = _jobs.c.place == literal_column("'ready'")
_DELAYED: Final = _jobs.c.place == literal_column("'delayed'")
_LEASED: Final = _jobs.c.place == literal_column("'leased'")
_DEAD: Final = _jobs.c.state == literal_column("'dead'")
Index("ix_jobs_ready", _jobs.c.tenant_id, _jobs.c.priority.desc(), _jobs.c.due_us, _jobs.c.id, **_where(_READY))
Index("ix_jobs_delayed", _jobs.c.due_us, **_where(_DELAYED))
Index("ix_jobs_token", _jobs.c.token, unique=True, **_where(_LEASED))
Index("ix_jobs_dead", _jobs.c.tenant_id, _jobs.c.created_us, _jobs.c.id, **_where(_DEAD))

_job_transitions = Table(
    "job_transitions",
    _metadata,
    _serial(),
    Column("tenant_id", String(40), nullable=False),
    Column("job_id", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    _time("at_us"),
    Column("attempt", Integer, nullable=False),
    Column("detail", Text, nullable=False),
    ForeignKeyConstraint(["tenant_id", "job_id"], ["jobs.tenant_id", "jobs.id"], ondelete="CASCADE"),
    Index(None, "tenant_id", "job_id", "id"),
)

_job_queues = Table(
    "job_queues",
    _metadata,
    _tenant(primary_key=True),
    Column("ready", Integer, nullable=False),
    Column("delayed", Integer, nullable=False),
    Column("leased", Integer, nullable=False),
    _time("since_us"),
    Column("is_paused", Boolean(create_constraint=False), nullable=False),
    Index(None, "since_us"),
)

_WAITS: Final = _job_queues.c.ready > literal_column("0")
Index("ix_job_queues_ready", _job_queues.c.leased, _job_queues.c.since_us, **_where(_WAITS))

_schedules = Table(
    "schedules",
    _metadata,
    _id(),
    _tenant(),
    Column("key_id", String(40), nullable=False),
    Column("name", String(100), nullable=False),
    Column("cron", String(200), nullable=False),
    Column("zone", String(64), nullable=False),
    Column("missed", String(16), nullable=False),
    Column("is_paused", Boolean(create_constraint=False), nullable=False),
    Column("spec", LargeBinary, nullable=False),
    _time("created_us"),
    _time("next_us", nullable=True),
    _time("last_us", nullable=True),
    Column("last_job_id", String(64), nullable=False),
    _time("refused_us", nullable=True),
    Column("refused_why", Text, nullable=False),
    Column("refused_count", BigInteger, nullable=False),
    Index(None, "tenant_id", "created_us", "id"),
    Index(None, "next_us"),
)


def upgrade() -> None:
    """Make its tables."""
    _metadata.create_all(op.get_bind(), tables=[_jobs, _job_transitions, _job_queues, _schedules])

"""The tables of usage, budgets and webhooks, as `schema` has the others."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from casemate.store.columns import identity, metadata, moment, serial, tenant

usage = Table(
    "usage",
    metadata,
    tenant(primary_key=True),
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

job_usage = Table(
    "job_usage",
    metadata,
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

budgets = Table(
    "budgets",
    metadata,
    identity(),
    tenant(),
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
    moment("created_us"),
    UniqueConstraint("tenant_id", "name"),
)

webhooks = Table(
    "webhooks",
    metadata,
    identity(),
    tenant(),
    Column("url", Text, nullable=False),
    Column("events", JSON, nullable=False),
    moment("created_us"),
    Index(None, "tenant_id", "created_us", "id"),
)

notices = Table(
    "notices",
    metadata,
    serial(),
    tenant(),
    Column("webhook_id", ForeignKey("webhooks.id", ondelete="CASCADE"), nullable=False),
    Column("event_id", String(40), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("body", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("problem", Text, nullable=False),
    moment("created_us"),
    moment("due_us"),
    moment("ended_us", nullable=True),
    Index(None, "state", "due_us"),
    Index(None, "tenant_id", "id"),
    Index(None, "webhook_id"),
    Index(None, "ended_us"),
)

# What jobs print: see job_logs; its index of words, which is made differently in each database, is in job_log_words.

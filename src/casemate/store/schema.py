"""The tables, in what SQLite and PostgreSQL have in common: times are whole microseconds, structures are JSON or blobs.

Whoever changes a table adds a migration (`migrations/versions`) and its name to REVISIONS.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    DDL,
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    UniqueConstraint,
    event,
    literal_column,
)

from casemate.store import account_schema
from casemate.store.columns import identity as _id
from casemate.store.columns import metadata
from casemate.store.columns import moment as _time
from casemate.store.columns import serial as _serial
from casemate.store.columns import tenant as _tenant
from casemate.store.columns import where as _where

PARTS: Final = (account_schema,)
"""Modules with more tables."""

REVISIONS: Final = ("0001", "0002", "0003", "0004", "0005", "0006")
"""Of the schema, oldest first. The last is that of the tables below."""

WORDS_TABLE: Final = {
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
"""The words of each piece of a job's log, of which neither database's table can be described here."""

tenants = Table(
    "tenants",
    metadata,
    _id(),
    Column("name", String(64), nullable=False, unique=True),
    Column("state", String(16), nullable=False),
    Column("concurrency_max", Integer, nullable=False),
    Column("queue_max", Integer, nullable=False),
    Column("labels", JSON, nullable=False),
    _time("created_us"),
)

keys = Table(
    "keys",
    metadata,
    _id(),
    _tenant(),
    Column("name", String(100), nullable=False),
    Column("prefix", String(16), nullable=False),
    Column("digest", LargeBinary(32), nullable=False, unique=True),
    Column("scopes", JSON, nullable=False),
    Column("rate_per_s", Float, nullable=False),
    Column("burst", Integer, nullable=False),
    _time("created_us"),
    _time("expires_us", nullable=True),
    _time("revoked_us", nullable=True),
    _time("last_used_us", nullable=True),
    Index(None, "tenant_id", "created_us", "id"),
)

executions = Table(
    "executions",
    metadata,
    _id(),
    _tenant(),
    Column("key_id", String(40), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("runtime", String(64), nullable=False),
    Column("function", String(255), nullable=False),
    Column("version", Integer, nullable=True),
    Column("priority", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("status", String(16), nullable=True),
    Column("reason", String(32), nullable=True),
    Column("labels", JSON, nullable=False),
    Column("request_id", String(128), nullable=False),
    _time("created_us"),
    _time("started_us", nullable=True),
    _time("ended_us", nullable=True),
    Column("wall_us", BigInteger, nullable=True),
    Column("cpu_us", BigInteger, nullable=True),
    Column("memory_peak_bytes", BigInteger, nullable=True),
    Column("error_category", String(64), nullable=True),
    Column("spec", LargeBinary, nullable=True),
    Column("result", LargeBinary, nullable=True),
    Column("epoch", BigInteger, nullable=False),
    Index(None, "tenant_id", "created_us", "id"),
    Index(None, "created_us", "id"),
    Index(None, "ended_us"),
    Index(None, "state", "epoch"),
)

functions = Table(
    "functions",
    metadata,
    _id(),
    _tenant(),
    Column("name", String(255), nullable=False),
    Column("next_number", Integer, nullable=False),
    _time("created_us"),
    _time("updated_us"),
    _time("deleted_us", nullable=True),
    UniqueConstraint("tenant_id", "name"),
)

function_versions = Table(
    "function_versions",
    metadata,
    _id(),
    _tenant(),
    Column("function_id", ForeignKey("functions.id", ondelete="CASCADE"), nullable=False),
    Column("name", String(255), nullable=False),
    Column("number", Integer, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("source", LargeBinary, nullable=False),
    Column("runtime", String(64), nullable=False),
    Column("description", Text, nullable=False),
    Column("labels", JSON, nullable=False),
    Column("input_schema", JSON(none_as_null=True), nullable=True),
    Column("output_schema", JSON(none_as_null=True), nullable=True),
    Column("options", JSON, nullable=False),
    _time("created_us"),
    Column("created_by", String(40), nullable=False),
    UniqueConstraint("function_id", "number"),
    UniqueConstraint("function_id", "digest"),
)

aliases = Table(
    "aliases",
    metadata,
    _tenant(),
    Column("function_id", ForeignKey("functions.id", ondelete="CASCADE"), primary_key=True),
    Column("alias", String(64), primary_key=True),
    Column("number", Integer, nullable=False),
    _time("moved_us"),
    Column("moved_by", String(40), nullable=False),
)

alias_moves = Table(
    "alias_moves",
    metadata,
    _serial(),
    _tenant(),
    Column("function_id", ForeignKey("functions.id", ondelete="CASCADE"), nullable=False),
    Column("alias", String(64), nullable=False),
    Column("from_number", Integer, nullable=True),
    Column("to_number", Integer, nullable=False),
    Column("is_rollback", Boolean(create_constraint=False), nullable=False),
    Column("is_undone", Boolean(create_constraint=False), nullable=False),
    _time("at_us"),
    Column("moved_by", String(40), nullable=False),
    Index(None, "function_id", "alias", "id"),
)

idempotency = Table(
    "idempotency",
    metadata,
    _tenant(primary_key=True),
    Column("key", String(255), primary_key=True),
    Column("route", String(255), nullable=False),
    Column("body_digest", LargeBinary(32), nullable=False),
    Column("state", String(16), nullable=False),
    Column("status_code", Integer, nullable=True),
    Column("headers", JSON, nullable=True),
    Column("body", LargeBinary, nullable=True),
    Column("epoch", BigInteger, nullable=False),
    _time("created_us"),
    Index(None, "created_us"),
)

nonces = Table(
    "nonces",
    metadata,
    _tenant(primary_key=True),
    Column("nonce", String(128), primary_key=True),
    _time("expires_us"),
    Index(None, "expires_us"),
)

samples = Table(
    "samples",
    metadata,
    _serial(),
    Column("node", String(64), nullable=False),
    Column("worker_id", String(64), nullable=False),
    Column("runtime", String(64), nullable=False),
    Column("tenant_id", String(40), nullable=False),
    Column("execution_id", String(40), nullable=False),
    _time("at_us"),
    Column("heap_used_bytes", BigInteger, nullable=True),
    Column("heap_total_bytes", BigInteger, nullable=True),
    Column("external_bytes", BigInteger, nullable=True),
    Column("malloced_bytes", BigInteger, nullable=True),
    Column("memory_bytes", BigInteger, nullable=True),
    Index(None, "worker_id", "at_us"),
    Index(None, "at_us"),
)

function_logs = Table(
    "function_logs",
    metadata,
    _serial(),
    _tenant(),
    Column("runtime", String(64), nullable=False),
    Column("function", String(255), nullable=False),
    Column("version", Integer, nullable=True),
    Column("execution_id", String(40), nullable=False),
    Column("item_id", Text, nullable=False),
    Column("stream", String(16), nullable=False),
    Column("text", Text, nullable=False),
    _time("at_us"),
    Index(None, "tenant_id", "function", "id"),
    Index(None, "tenant_id", "runtime", "id"),
    Index(None, "execution_id"),
    Index(None, "at_us"),
)

audit = Table(
    "audit",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("id", String(40), nullable=False, unique=True),
    Column("tenant_id", String(40), nullable=False),
    Column("key_id", String(40), nullable=False),
    Column("action", String(64), nullable=False),
    Column("target", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("request_id", String(128), nullable=False),
    _time("created_us"),
    Column("digest", LargeBinary(32), nullable=False),
    Index(None, "tenant_id", "created_us", "id"),
    Index(None, "created_us", "id"),
)
"""No tenant is referred to: what one has done is known when it is gone. `seq` has no gaps."""

audit_ends = Table(
    "audit_ends",
    metadata,
    Column("name", String(8), primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("digest", LargeBinary(32), nullable=False),
    Column("code", LargeBinary(32), nullable=False),
)
"""`last`: the youngest record; `before`: the one before the oldest that is kept."""

secrets = Table(
    "secrets",
    metadata,
    _tenant(primary_key=True),
    Column("name", String(128), primary_key=True),
    Column("sealed", LargeBinary, nullable=False),
    _time("created_us"),
    _time("updated_us"),
    Column("updated_by", String(40), nullable=False),
)

settings = Table(
    "settings",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", JSON, nullable=False),
)

jobs = Table(
    "jobs",
    metadata,
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
"""Jobs. `place` is where one stands in the queue: ready, delayed until it is due, leased, or out of it."""

JOB_IS_READY: Final = jobs.c.place == literal_column("'ready'")
JOB_IS_DELAYED: Final = jobs.c.place == literal_column("'delayed'")
JOB_IS_LEASED: Final = jobs.c.place == literal_column("'leased'")
JOB_IS_DEAD: Final = jobs.c.state == literal_column("'dead'")
Index("ix_jobs_ready", jobs.c.tenant_id, jobs.c.priority.desc(), jobs.c.due_us, jobs.c.id, **_where(JOB_IS_READY))
Index("ix_jobs_delayed", jobs.c.due_us, **_where(JOB_IS_DELAYED))
Index("ix_jobs_token", jobs.c.token, unique=True, **_where(JOB_IS_LEASED))
Index("ix_jobs_dead", jobs.c.tenant_id, jobs.c.created_us, jobs.c.id, **_where(JOB_IS_DEAD))

job_transitions = Table(
    "job_transitions",
    metadata,
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

job_queues = Table(
    "job_queues",
    metadata,
    _tenant(primary_key=True),
    Column("ready", Integer, nullable=False),
    Column("delayed", Integer, nullable=False),
    Column("leased", Integer, nullable=False),
    _time("since_us"),
    Column("is_paused", Boolean(create_constraint=False), nullable=False),
    Index(None, "since_us"),
)
"""How many of a tenant's jobs are ready, delayed and leased: counted as they change, for there may be very many."""

QUEUE_IS_READY: Final = job_queues.c.ready > literal_column("0")
Index("ix_job_queues_ready", job_queues.c.leased, job_queues.c.since_us, **_where(QUEUE_IS_READY))

schedules = Table(
    "schedules",
    metadata,
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

flows = Table(
    "flows",
    metadata,
    _serial(),
    _tenant(),
    Column("job_id", String(64), nullable=False),
    Column("attempt", Integer, nullable=False),
    _time("at_us"),
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

job_logs = Table(
    "job_logs",
    metadata,
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

job_log_pieces = Table(
    "job_log_pieces",
    metadata,
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

for _dialect, _statements in WORDS_TABLE.items():
    for _statement in _statements:
        event.listen(job_log_pieces, "after_create", DDL(_statement).execute_if(dialect=_dialect))  # type: ignore[no-untyped-call]

"""Run by Alembic for every migration: over the connection, and in the transaction, that it is given."""

from __future__ import annotations

from alembic import context

from casemate.store.columns import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    transactional_ddl=False,
)
context.run_migrations()

"""Brings a database to the schema of this version: a new one at once, an older one by migrations, a newer one never."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from sqlalchemy import Column, Connection, MetaData, String, Table, insert, inspect, select

from casemate.errors import ConfigError
from casemate.store.columns import metadata
from casemate.store.dialect import dialect_of
from casemate.store.schema import REVISIONS

SCRIPTS: Final = Path(__file__).with_name("migrations")
_stamps = Table("alembic_version", MetaData(), Column("version_num", String(32), primary_key=True))


def prepare(connection: Connection, place: str) -> None:
    """Make the tables, or bring them up to date. Everything in the caller's transaction.

    Raises ConfigError for a database that a newer version has written.
    """
    revision = current_revision(connection)
    if revision == REVISIONS[-1]:
        return
    if revision is None:
        _create(connection)
    elif revision in REVISIONS:
        upgrade(connection)
    else:
        raise ConfigError(
            "data",
            f"{place} has the schema {revision} of another version; this one knows {REVISIONS[0]} to {REVISIONS[-1]}",
            hint="start the version that wrote it, or a newer one",
        )


def current_revision(connection: Connection) -> str | None:
    """What schema a database has; None if it is empty."""
    tables = set(inspect(connection).get_table_names())
    found = connection.execute(select(_stamps.c.version_num)).scalar() if _stamps.name in tables else None
    return "of something else" if found is None and tables - {_stamps.name} else found


def _create(connection: Connection) -> None:
    metadata.create_all(connection)
    _stamps.create(connection, checkfirst=True)
    connection.execute(insert(_stamps).values(version_num=REVISIONS[-1]))


def upgrade(connection: Connection) -> None:
    """Carry out the migrations that are missing. Alembic is imported for nothing else."""
    from alembic import command
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    command.upgrade(config, "head")
    dialect_of(connection).check_references(connection)

"""Schemas: a new database, one of an earlier version, one of a later."""

from __future__ import annotations

import shutil
import sqlite3
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import text
from tests.integration.records import opened, with_execution, with_tenant

from casemate.errors import ConfigError, RecordsDamaged
from casemate.store import migrate, schema, settings
from casemate.store.database import Database
from casemate.store.migrate import prepare, upgrade
from casemate.store.sqlite import Sqlite

LATER = f'''
"""A later schema: one column more, one table made anew."""

from alembic import op
from sqlalchemy import Column, Integer, String

revision = "0999"
down_revision = "{schema.REVISIONS[-1]}"


def upgrade() -> None:
    op.add_column("executions", Column("more", Integer, nullable=True))
    with op.batch_alter_table("tenants", recreate="always") as table:
        table.add_column(Column("place", String(16), nullable=False, server_default="here"))
'''
FAILING = LATER + "    raise RuntimeError('no further')\n"
ORPHANED = LATER + "    op.execute('delete from tenants')\n"


def described(path: Path) -> list[tuple[str, str, str]]:
    """Tables, indexes and what they are made of, whatever they are laid out like."""
    connection = sqlite3.connect(path)
    query = "select type, name, sql from sqlite_master where name not like 'sqlite_%' and name <> 'alembic_version'"
    rows = [(kind, name, " ".join(sql.split())) for kind, name, sql in connection.execute(query + " order by 1, 2")]
    connection.close()
    return rows


def made_by_migrations(path: Path) -> None:
    file = Sqlite(path)
    engine = file.open_engine(writes=True)
    with file.changing_tables(engine) as connection:
        upgrade(connection)
    engine.dispose()


def test_migrations_make_the_same_tables_as_a_new_database_has(tmp_path: Path) -> None:
    with opened(tmp_path / "new.db"):
        pass
    made_by_migrations(tmp_path / "old.db")
    assert described(tmp_path / "old.db") == described(tmp_path / "new.db") != []
    with opened(tmp_path / "old.db") as database:
        with_execution(database, with_tenant(database))


def test_every_revision_has_its_migration() -> None:
    scripts = sorted(path.stem for path in (migrate.SCRIPTS / "versions").glob("*.py"))
    assert scripts == [f"revision_{revision}" for revision in schema.REVISIONS]


def test_a_database_that_was_stamped_with_nothing_is_made_as_a_new_one(tmp_path: Path) -> None:
    before = sqlite3.connect(tmp_path / "records.db")
    before.execute("create table alembic_version (version_num varchar(32) not null primary key)")
    before.close()
    with opened(tmp_path / "records.db") as database:
        with_tenant(database)


def test_tables_without_a_revision_are_refused(tmp_path: Path) -> None:
    with opened(tmp_path / "records.db") as database:
        database.write_now(lambda connection: connection.execute(text("delete from alembic_version")))
    with pytest.raises(ConfigError, match="of something else"):
        Database.open(tmp_path / "records.db")


def later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> Path:
    """A database of today, with something in it, for a version that has one revision more."""
    path = tmp_path / "records.db"
    with opened(path) as database:
        with_execution(database, with_tenant(database))
        database.write_now(partial(settings.put_setting, name="kept", value=[1]))
    scripts = tmp_path / "scripts 100%"
    shutil.copytree(migrate.SCRIPTS, scripts, ignore=shutil.ignore_patterns("__pycache__"))
    (scripts / "versions/revision_0999.py").write_text(script)
    monkeypatch.setattr(migrate, "SCRIPTS", scripts)
    monkeypatch.setattr(migrate, "REVISIONS", (*schema.REVISIONS, "0999"))
    return path


def rows(path: Path, query: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(path)
    found = connection.execute(query).fetchall()
    connection.close()
    return found


def test_an_older_database_is_brought_up_to_date_and_keeps_what_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = later(tmp_path, monkeypatch, LATER)
    with opened(path) as database:
        assert database.read_now(partial(settings.get_setting, name="kept")) == [1]
        with pytest.raises(Exception, match="FOREIGN KEY"):
            with_execution(database, "ten_none")
    assert rows(path, "select version_num from alembic_version") == [("0999",)]
    assert rows(path, "select more, place from executions join tenants on tenants.id = tenant_id") == [(None, "here")]
    with opened(path):
        pass


@pytest.mark.parametrize(("script", "error"), [(FAILING, RuntimeError), (ORPHANED, RecordsDamaged)])
def test_of_a_migration_that_fails_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, error: type[Exception]
) -> None:
    path = later(tmp_path, monkeypatch, script)
    before = described(path)
    with pytest.raises(error):
        Database.open(path)
    assert described(path) == before
    assert rows(path, "select version_num from alembic_version") == [(schema.REVISIONS[-1],)]
    assert rows(path, "select count(*) from executions join tenants on tenants.id = tenant_id") == [(1,)]


def test_nothing_is_done_to_what_is_up_to_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(tmp_path / "records.db") as database:
        monkeypatch.setattr(migrate, "_create", None)
        monkeypatch.setattr(migrate, "upgrade", None)
        database.write_now(lambda connection: prepare(connection, "here"))

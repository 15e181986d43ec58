"""Copies of records in a file, made while others write, by SQLite's own means."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from casemate.errors import RecordsDamaged, RecordsUnavailable
from casemate.service_limits import RECORDS_BUSY_TIMEOUT_S
from casemate.store.schema import REVISIONS
from casemate.store.sqlite import translated


def copy_records(source: Path, target: Path) -> str:
    """Copy them as they are at one moment into a file that is there, empty; its schema is what is returned.

    Everything that was acknowledged before is in the copy. Whoever writes meanwhile does not wait. Raises
    RecordsUnavailable.
    """
    if not source.is_file():
        hint = "name the service's directory: --data DIR"
        raise RecordsUnavailable("io", f"there are no records at {source}", hint=hint)
    with _told(), closing(_opened(source)) as records, closing(_opened(target)) as copy:
        records.backup(copy, pages=-1)  # all in one step: one step is one transaction
        copy.execute("PRAGMA journal_mode = DELETE")  # so that the copy is one file
        return _schema(copy)


def check_records(path: Path) -> str:
    """Look through all of a copy; its schema is what is returned. Raises RecordsDamaged."""
    with _told(), closing(_opened(path)) as records:
        found = records.execute("PRAGMA quick_check(1)").fetchone()
        if found != ("ok",):
            raise RecordsDamaged("damaged", "the records in the backup are damaged", hint="take another one")
        return _schema(records)


def is_known(schema: str) -> bool:
    """Whether this version can read records of that schema."""
    return schema in REVISIONS


def _opened(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=RECORDS_BUSY_TIMEOUT_S, isolation_level=None)


def _schema(records: sqlite3.Connection) -> str:
    return str(records.execute("SELECT version_num FROM alembic_version").fetchone()[0])


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise translated(error) from error

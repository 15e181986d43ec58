"""A PostgreSQL for tests, from Debian's package: a server of their own, which ends with them."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import psycopg

from casemate.store.columns import metadata
from casemate.store.database import Database
from casemate.store.schema import REVISIONS

PROGRAMS: Final = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
USER: Final = "casemate"
START_TIMEOUT_S: Final = 60.0
LOOK_S: Final = 0.02
QUICK: Final = {
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "16MB",
    "jit": "off",
    "listen_addresses": "",
    "autovacuum": "off",
    "log_min_messages": "fatal",
}
"""What is lost when the computer ends is lost with the tests, too."""


class Server:
    """A server in a directory of its own, reached by a socket there."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._numbers = itertools.count(1)
        self._shared: str | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def address(self, name: str) -> str:
        return f"postgresql://{USER}@/{name}?host={self.directory}"

    def new(self) -> str:
        """The address of a new database without tables."""
        name = f"test{next(self._numbers)}"
        with psycopg.connect(self.address("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return self.address(name)

    def cleaned(self) -> str:
        """The address of the one that tests have one after the other: to make one for each takes ten times as long."""
        if self._shared is None:
            self._shared = self.new()
            Database.open(self._shared).close_now()
        with psycopg.connect(self._shared) as connection:
            for table in reversed(metadata.sorted_tables):
                connection.execute(f"DELETE FROM {table.name}".encode())
            connection.execute("UPDATE alembic_version SET version_num = %s", [REVISIONS[-1]])
        return self._shared

    def start(self) -> None:
        settings = [each for name, value in QUICK.items() for each in ("-c", f"{name}={value}")]
        command = [str(PROGRAMS[-1]), "-D", str(self.directory / "data"), "-k", str(self.directory), *settings]
        self._process = subprocess.Popen([*_as_user(), "--pdeathsig", "QUIT", *command], stderr=subprocess.DEVNULL)
        until_s = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            assert self._process.poll() is None, "PostgreSQL has ended"
            assert time.monotonic() < until_s, "PostgreSQL does not answer"
            time.sleep(LOOK_S)

    def stop(self, number: int = signal.SIGQUIT) -> None:
        """At once, as by a power cut, unless another signal is named."""
        assert self._process is not None
        self._process.send_signal(number)
        self._process.wait(START_TIMEOUT_S)

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.address("postgres"), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True


@contextmanager
def served() -> Iterator[Server]:
    """A server that runs."""
    directory = Path(tempfile.mkdtemp(prefix="casemate-postgres-"))
    server = Server(directory)
    try:
        if os.geteuid() == 0:
            owner = pwd.getpwnam("postgres")
            os.chown(directory, owner.pw_uid, owner.pw_gid)
        assert PROGRAMS, "PostgreSQL is missing: `make packages-dev` installs it"
        making = [PROGRAMS[-1].with_name("initdb"), "--no-sync", "--auth=trust", "-E", "UTF8", "--locale=C", "-U", USER]
        subprocess.run(
            [*_as_user(), *map(str, making), "-D", str(directory / "data")], check=True, stdout=subprocess.DEVNULL
        )
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _as_user() -> list[str]:
    """PostgreSQL does not run as root."""
    if os.geteuid() != 0:
        return ["setpriv"]
    owner = pwd.getpwnam("postgres")
    return ["setpriv", f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups"]

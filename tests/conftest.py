"""What every test may rely on: which tests run for whom, how slow this machine is, and an engine."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import HealthCheck, settings
from tests.databases import DATABASES

import casemate
from casemate.engine import engine as engine_module

if TYPE_CHECKING:
    from tests.postgres import Server

    from casemate.store.database import Database

# The same commit gets the same answer; new examples are looked for where there is time for what they find.
EXPLORE: Final = "CASEMATE_TEST_EXPLORE" in os.environ
settings.register_profile(
    "casemate",
    deadline=None,
    database=None,
    print_blob=True,
    derandomize=not EXPLORE,
    suppress_health_check=[HealthCheck.too_slow],  # on a busy machine every example is
)
settings.load_profile("casemate")

ENDING: Final = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)
LOG_COLUMNS: Final = 240
"""Reasons of failures stand beside the names, and are cut where a line ends."""


@pytest.hookimpl(trylast=True)  # when there is something that reports
def pytest_configure(config: pytest.Config) -> None:
    _meet_signals()
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and not reporter.isatty:
        config.get_terminal_writer().fullwidth = LOG_COLUMNS


def _meet_signals() -> None:
    """Programs under test meet signals as users do, also where a shell began all this in the background or by `nohup`.

    What is ignored stays so in every process that is started from here.
    """
    for number in ENDING:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out, and count as deselected, what only root can do; an ordinary user has nothing to install for it."""
    if os.geteuid() == 0:
        return
    needs_root = [item for item in items if item.get_closest_marker("root")]
    config.hook.pytest_deselected(items=needs_root)
    items[:] = [item for item in items if not item.get_closest_marker("root")]


@pytest.fixture(scope="session")
def slowness() -> float:
    """Return by how much bounds of time are to be stretched: an emulated machine sets CASEMATE_TEST_SLOWNESS."""
    return float(os.environ.get("CASEMATE_TEST_SLOWNESS", "1"))


@pytest.fixture(scope="module")
def engine() -> Iterator[casemate.Engine]:
    """Open an engine whose launcher runs and that makes nothing ahead, for one module."""
    with casemate.Engine(warm=False) as opened:
        assert casemate.execute(["true"], engine=opened).ok
        yield opened


@pytest.fixture(scope="module", autouse=True)
def default_engine_rests() -> Iterator[None]:
    """What the process's own engine made ahead for one file's tests is gone when the next counts descriptors."""
    yield
    for engine in engine_module._default.engines.values():
        engine.rest()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """Start a PostgreSQL for the tests of this process."""
    if "postgresql" not in DATABASES:
        pytest.skip("no PostgreSQL: this user has no name, or this machine is slow")
    from tests.postgres import served

    with served() as server:
        yield server


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[Server]:
    """Start one that the tests of a module may end and start again."""
    if "postgresql" not in DATABASES:
        pytest.skip("no PostgreSQL: this user has no name, or this machine is slow")
    from tests.postgres import served

    with served() as server:
        yield server


@pytest.fixture(params=DATABASES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str | Path:
    """Return where records are for this test: in a file, then on a server."""
    if request.param == "sqlite":
        return tmp_path / "records.db"
    address: str = request.getfixturevalue("postgres").cleaned()
    return address


@pytest.fixture
def database(place: str | Path) -> Iterator[Database]:
    """Open the records that are there."""
    from tests.integration.records import opened

    with opened(place) as found:
        yield found

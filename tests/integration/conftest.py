"""One engine for all tests of the public interface, and what shows that a run has left nothing behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest
from tests.machine import left_running
from tests.warm import open_engine

import casemate

TIMEOUT_S = 30.0

Run = Callable[..., casemate.Result]
MakeSandbox = Callable[..., casemate.Sandbox]


@pytest.fixture(scope="session")
def engine() -> Iterator[casemate.Engine]:
    with open_engine() as opened:
        yield opened


@pytest.fixture(scope="session")
def generous(slowness: float) -> dict[str, Any]:
    """Return limits that no test meets which does not mean to."""
    return {"timeout": TIMEOUT_S * slowness}


def with_defaults(generous: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    return {**options, "limits": {**generous, **options.get("limits", {})}}


@pytest.fixture(scope="session")
def run(engine: casemate.Engine, generous: dict[str, Any]) -> Run:
    """Run code in a sandbox of its own."""

    def start(code: str, runtime: str = "python", **options: Any) -> casemate.Result:
        return casemate.run(code, runtime, engine=engine, **with_defaults(generous, options))

    return start


@pytest.fixture(scope="session")
def execute(engine: casemate.Engine, generous: dict[str, Any]) -> Run:
    """Run a program of the base in a sandbox of its own."""

    def start(*argv: str, **options: Any) -> casemate.Result:
        return casemate.execute(argv, engine=engine, **with_defaults(generous, options))

    return start


@pytest.fixture
def make_sandbox(engine: casemate.Engine, generous: dict[str, Any]) -> Iterator[MakeSandbox]:
    """Make sandboxes that stay until the test ends."""
    with ExitStack() as opened:

        def make(runtime: str = "python", **options: Any) -> casemate.Sandbox:
            made = casemate.Sandbox(runtime, engine=engine, **with_defaults(generous, options))
            return opened.enter_context(made)

        yield make


@pytest.fixture
def sandbox(make_sandbox: MakeSandbox) -> casemate.Sandbox:
    return make_sandbox()


@pytest.fixture(scope="session")
def settled(engine: casemate.Engine, slowness: float) -> Callable[[], list[int]]:
    """Return what waits for the launcher to be alone again and returns the processes that it still has."""
    return partial(left_running, engine, slowness)


@pytest.fixture(autouse=True)
def nothing_runs_on(request: pytest.FixtureRequest) -> Iterator[None]:
    """After every test that used the engine nothing that it started is alive."""
    settled = request.getfixturevalue("settled") if "engine" in request.fixturenames else None
    yield
    if settled is not None:
        assert settled() == []

"""Some hundred programs per language give the same output and end the same way natively and in the sandbox."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, cast

import msgspec
import pytest
from tests.differential.catalogue import Program, languages, programs
from tests.differential.sides import Ending, in_sandbox, natively
from tests.warm import AheadEngine

import casemate

THREADS: Final = 4
AHEAD: Final = 2 * THREADS
COMPARISON: Final = "test_is_as_natively"
PROGRAMS_MIN: Final = 100
FORKED: Final = "python"
"""The language whose ready interpreters are forks of a zygote."""
LAST_WORDS: Final = "end_with_destructor_in_many_places"
"""In few zygotes' forks the last that it prints, when the collector takes its cycles, comes to nothing: a known gap."""

EVERYWHERE: Final = frozenset({"prints_a_line", "exits_with_a_status", "fails_uncaught"})
"""Quick ones of every language for the machines where the whole list would take too long."""

Both = tuple[Ending, Ending]


def _parameters() -> Iterator[object]:
    for language in languages():
        for program in programs(language):
            marks = () if program.name in EVERYWHERE else (pytest.mark.slow,)
            yield pytest.param(program, id=str(program), marks=marks)


@pytest.fixture(scope="module")
def engine() -> Iterator[casemate.Engine]:
    with casemate.Engine(warm=False) as opened:
        yield opened


@pytest.fixture(scope="module")
def warm_engine() -> Iterator[casemate.Engine]:
    with AheadEngine() as opened:
        yield opened


@pytest.fixture(scope="module")
def no_core_files() -> Iterator[None]:
    """A sandbox leaves none; neither shall the native programs that crash on purpose."""
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    yield
    resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))


class Ahead:
    """Runs programs on both sides, a few of them before they are asked for."""

    def __init__(self, programs: Sequence[Program], run: Callable[[Program], Both]) -> None:
        self._programs = programs
        self._run = run
        self._pool = ThreadPoolExecutor(THREADS)
        self._started: dict[str, Future[Both]] = {}

    def __call__(self, program: Program) -> Both:
        place = self._programs.index(program)
        for each in self._programs[place : place + AHEAD]:
            if str(each) not in self._started:
                self._started[str(each)] = self._pool.submit(self._run, each)
        return self._started[str(program)].result()

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)


@pytest.fixture(scope="module")
def both(
    request: pytest.FixtureRequest, engine: casemate.Engine, slowness: float, no_core_files: None
) -> Iterator[Ahead]:
    """Return what a program comes to natively and in the sandbox."""
    tests = (item for item in request.session.items if isinstance(item, pytest.Function))
    chosen = [cast("Program", test.callspec.params["program"]) for test in tests if test.originalname == COMPARISON]
    ahead = Ahead(chosen, lambda each: (natively(engine, each, slowness), in_sandbox(engine, each, slowness)))
    yield ahead
    ahead.close()


@pytest.mark.parametrize("program", list(_parameters()))
def test_is_as_natively(program: Program, both: Ahead) -> None:
    native, inside = both(program)
    assert inside == native


@pytest.mark.slow
@pytest.mark.parametrize("program", programs(FORKED), ids=str)
def test_is_the_same_in_a_fork_of_a_zygote(
    program: Program, engine: casemate.Engine, warm_engine: casemate.Engine, slowness: float
) -> None:
    forked, new = in_sandbox(warm_engine, program, slowness), in_sandbox(engine, program, slowness)
    if program.name == LAST_WORDS and new.stdout.startswith(forked.stdout):
        new = msgspec.structs.replace(new, stdout=forked.stdout)
    assert forked == new
    assert not any(pool.problem for pool in warm_engine.pools())


@pytest.mark.parametrize("language", languages())
def test_there_are_enough_programs(language: str) -> None:
    assert len(programs(language)) >= PROGRAMS_MIN

"""Workers of isolates that are killed at random under a thousand executions: each ends in exactly one Result."""

from __future__ import annotations

import asyncio
import os
import random
import resource
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Self

import pytest
from tests.faults.leftovers import assert_settles, take_census

import casemate
from casemate import Reason
from casemate.kernel.processes import process_tree

EXECUTIONS = 1000
KILL_EVERY_S = 0.15
KINDS = {
    "quick": ("output = input", {Reason.EXIT}),
    "printing": ("for (let i = 0; i < 20; i++) console.log(i); output = input", {Reason.EXIT, Reason.LOST}),
    "failing": ("throw new Error('own')", {Reason.EXCEPTION, Reason.LOST}),
    "working": ("const end = Date.now() + 5; while (Date.now() < end); output = input", {Reason.EXIT}),
}
"""What a program may end in. One that printed nothing may be tried again; killed twice, it is lost all the same."""


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """Whoever waits for a worker holds one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def isolating(many_descriptors: None) -> Iterator[casemate.Engine]:
    with casemate.Engine() as opened:
        assert casemate.run("1", "javascript", engine=opened, limits={"timeout": "60s"}).ok
        yield opened


class Killer:
    """Kills processes below the launcher at random until it is stopped."""

    def __init__(self, launcher: int) -> None:
        self.kills = 0
        self._launcher = launcher
        self._stopped = threading.Event()
        self._chance = random.Random(7)
        self._thread = threading.Thread(target=self._work)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._stopped.wait(KILL_EVERY_S):
            below = [pid for pid in process_tree(self._launcher) if pid != self._launcher]
            if below:
                with suppress(ProcessLookupError):
                    os.kill(self._chance.choice(below), signal.SIGKILL)
                    self.kills += 1


async def _all(engine: casemate.Engine, slowness: float) -> list[tuple[str, int, casemate.Result | BaseException]]:
    names = list(KINDS)
    jobs = [(names[number % len(names)], number) for number in range(EXECUTIONS)]
    limits = {"timeout": 30 * slowness}
    runs = [casemate.arun(KINDS[name][0], "js", input=number, limits=limits, engine=engine) for name, number in jobs]
    results = await asyncio.gather(*runs, return_exceptions=True)
    return [(*job, result) for job, result in zip(jobs, results, strict=True)]


@pytest.mark.slow
def test_every_execution_ends_in_one_result_while_workers_are_killed(
    isolating: casemate.Engine, slowness: float
) -> None:
    isolating.rest()
    before = take_census(isolating)
    with Killer(isolating.backend.launcher.pid) as killer:
        found = asyncio.run(_all(isolating, slowness))
    assert len(found) == EXECUTIONS
    assert killer.kills > 3
    # The one thing that may raise is the start of a sandbox that is killed while it is built.
    results = [(name, number, each) for name, number, each in found if isinstance(each, casemate.Result)]
    errors = [each for _, _, each in found if not isinstance(each, casemate.Result)]
    assert all(isinstance(each, casemate.CasemateError) for each in errors), errors
    assert len(errors) <= killer.kills
    for name, number, result in results:
        assert result.reason in KINDS[name][1] | {Reason.LOST}, (name, result)
        assert result.output == (number if result.reason is Reason.EXIT else None)
    counted = Counter(result.reason for _, _, result in results)
    assert counted[Reason.LOST] <= killer.kills
    assert casemate.run("return 'well'", "js", engine=isolating, limits={"timeout": 30 * slowness}).output == "well"
    isolating.rest()
    assert_settles(isolating, before)

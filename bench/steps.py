"""Where the time of a cold start goes: one run, watched from between its waits."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, ParamSpec, TypeVar

import casemate
from casemate.engine import drive
from casemate.engine.run import prepare_command, run_alone
from casemate.isolation import native
from casemate.isolation.waiting import Ready, Wait
from casemate.kernel.cgroup_tree import ControlGroup, EngineRoot

P = ParamSpec("P")
T = TypeVar("T")
WAITS: Final = ("keeper: group, clone, maps", "init: build of the root", "init: start of the program")
PROGRAM: Final = "the program until its end"
PARTS: Final = (
    "python: control group made",
    WAITS[0],
    WAITS[1],
    WAITS[2],
    PROGRAM,
    "python: kill, and the sandbox's end",
    "python: control group removed",
    "python: everything else",
)


class Stopwatch:
    """Sums of seconds by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def watch(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - started

    def around(self, function: Callable[P, T], name: str) -> Callable[P, T]:
        def watched(*arguments: P.args, **options: P.kwargs) -> T:
            with self.watch(name):
                return function(*arguments, **options)

        return watched


@contextmanager
def watched_methods(watch: Stopwatch) -> Iterator[None]:
    """The few blocking calls of ours, timed by their names while this is open."""
    places: list[tuple[Any, str, str]] = [
        (EngineRoot, "create", PARTS[0]),
        (native, "kill_and_wait", PARTS[5]),
        (native.NativeSandbox, "wait_dead", PARTS[5]),
        (ControlGroup, "remove", PARTS[6]),
    ]
    originals = [getattr(where, name) for where, name, _ in places]
    for (where, name, part), original in zip(places, originals, strict=True):
        setattr(where, name, watch.around(original, part))
    try:
        yield
    finally:
        for (where, name, _), original in zip(places, originals, strict=True):
            setattr(where, name, original)


def watch_one(engine: casemate.Engine) -> dict[str, float]:
    """Seconds by part, of one run of /bin/true."""
    watch = Stopwatch()
    started = time.perf_counter()
    with watched_methods(watch):
        steps = run_alone(engine, prepare_command(engine, ["/bin/true"]))
        ready: Ready | None = None
        waits = 0
        while not isinstance(item := drive._advance(steps, ready), drive._End):
            ready = frozenset()
            if isinstance(item, Wait):
                with watch.watch(WAITS[waits] if waits < len(WAITS) else PROGRAM):
                    ready = drive._poll(item)
                waits += 1
    total = time.perf_counter() - started
    watch.seconds[PARTS[-1]] = total - sum(watch.seconds.values())
    return dict(watch.seconds)


def step_table(engine: casemate.Engine, rounds: int) -> dict[str, float]:
    """The median of each part in milliseconds."""
    found = [watch_one(engine) for _ in range(rounds)]
    return {part: statistics.median(one.get(part, 0.0) for one in found) * 1e3 for part in PARTS}

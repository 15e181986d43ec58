"""A row about package sets: a program that uses pandas, in a fork of a zygote that has imported it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Final

import casemate
from bench import peers
from bench.measure import Action, interleaved
from bench.rows import Row
from casemate.engine.run import find_runtime
from casemate.model.packages import PackageSet

WANTED: Final = frozenset({"numpy", "pandas"})
RATIO_MAX: Final = 1 / 50
PAUSE_S: Final = 0.3
READY: Final = 4
CODE: Final = "import numpy as np, pandas as pd\noutput = float(pd.DataFrame({'a': np.arange(10)}).a.sum())"
ANSWER: Final = 45.0


def preload(rounds: int) -> Iterator[Row]:
    """The row, if a set of this user preloads both; `make demo` makes one."""
    with casemate.Engine() as engine:
        found = [each for each in casemate.Sets(engine).list() if set(each.recipe.preload) >= WANTED]
        if found:
            yield from _row(engine, found[0], rounds)
        else:
            print("bench: no package set preloads pandas; `make demo` makes one", file=sys.stderr)


def _row(engine: casemate.Engine, science: PackageSet, rounds: int) -> Iterator[Row]:
    group = f"A program with pandas, which a zygote has imported, after pauses of {PAUSE_S * 1000:.0f} ms"
    own = find_runtime(engine, "python")[1].host_path
    importing = f"import sys; sys.path.insert(0, {science.source_path!r}); import pandas"
    engine.keep_ready(science.name, READY)
    candidates = {"casemate, ready": _program(engine, science.name), "bare": peers.process(own, "-c", importing)}
    times = interleaved(candidates, rounds, pause_s=PAUSE_S)
    for name, measured in times.items():
        yield Row(group=group, name=name, value=measured.median_ms, unit="ms")
    ratio = times["casemate, ready"].ratio(times["bare"])
    yield Row(group=group, name="ready / bare import", value=ratio, unit="times", bound=RATIO_MAX)


def _program(engine: casemate.Engine, runtime: str) -> Action:
    def run() -> None:
        result = casemate.run(CODE, runtime, engine=engine)
        if result.output != ANSWER:
            raise RuntimeError(str(result))

    return run

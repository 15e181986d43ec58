"""Rows about functions: a single call, many items in one call, and many callers at once."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterator
from typing import Final

import casemate
from bench.rows import Row
from casemate import Item, Source

ITEMS: Final = 1000
CALLERS: Final = 8
CALL_MAX_MS: Final = 5.0
ITEMS_MAX_S: Final = 3.0
CALLS_LEAST_PER_S: Final = 400.0
GROUP: Final = "Functions, an item each in a fork of its own"
SOURCES: Final = {
    "python": Source(runtime="python", code="def main(n): return n + 1"),
    "r": Source(runtime="r", code="main <- function(n) n + 1"),
}


def items(rounds: int) -> Iterator[Row]:
    """All rows, with an engine of their own."""
    with casemate.Engine() as engine:
        for language, source in SOURCES.items():
            bound = CALL_MAX_MS if language == "python" else None
            yield _single(engine, language, source, rounds, bound)
        yield _batch(engine, SOURCES["python"])
        yield _callers(engine, SOURCES["python"], rounds)


def _call(engine: casemate.Engine, source: Source, count: int) -> None:
    wanted = [Item(data=number) for number in range(count)]
    found = dict(casemate.run_items(engine, source, wanted))
    if [found[place].output for place in range(count)] != list(range(1, count + 1)):
        raise RuntimeError("an item does not answer")


def _single(engine: casemate.Engine, language: str, source: Source, rounds: int, bound: float | None) -> Row:
    times_ms = []
    for number in range(rounds + 1):
        started = time.perf_counter()
        _call(engine, source, 1)
        if number:  # the first one starts the runner
            times_ms.append((time.perf_counter() - started) * 1000)
    median = statistics.median(times_ms)
    return Row(group=GROUP, name=f"a single warm call, {language}", value=median, unit="ms", bound=bound)


def _batch(engine: casemate.Engine, source: Source) -> Row:
    started = time.perf_counter()
    _call(engine, source, ITEMS)
    seconds = time.perf_counter() - started
    return Row(group=GROUP, name=f"{ITEMS} items in one call, python", value=seconds, unit="s", bound=ITEMS_MAX_S)


def _callers(engine: casemate.Engine, source: Source, rounds: int) -> Row:
    async def one() -> None:
        async for _, result in casemate.arun_items(engine, source, [Item(data=1)]):
            if result.output != 2:
                raise RuntimeError("an item does not answer")

    async def caller() -> None:
        for _ in range(rounds):
            await one()

    async def everybody() -> float:
        await asyncio.gather(*(caller() for _ in range(CALLERS)))
        started = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(CALLERS)))
        return CALLERS * rounds / (time.perf_counter() - started)

    rate = asyncio.run(everybody())
    name = f"one of the single calls of {CALLERS} tasks at once, python"
    bound = 1000 / CALLS_LEAST_PER_S
    return Row(group=GROUP, name=name, value=1000 / rate, unit="ms", bound=bound, more={"calls per s": rate})

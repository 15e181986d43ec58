"""`casemate pools`: what the engines of this user, in all their processes, keep ready."""

from __future__ import annotations

import sys

from casemate.cli.arguments import Parsed
from casemate.cli.messages import printable, say, show, show_json
from casemate.cli.style import GAP, Style, style_for, table
from casemate.model.units import format_bytes
from casemate.pool.published import EngineStatistics, Found, find_engines
from casemate.pool.ready import PoolStatistics

HEAD = ("KIND", "READY", "STARTING", "BUSY", "HITS", "MISSES", "MEMORY", "PROBLEM")


def command(parsed: Parsed) -> int:
    """Ask and show; 0 unless somebody could not be asked."""
    found = find_engines()
    if parsed.flag("json"):
        show_json(found)
    else:
        show(_lines(found.engines, style_for(sys.stdout)))
        _say_what_is_missing(found)
    return 1 if found.problems or any(engine.problem for engine in found.engines) else 0


def _say_what_is_missing(found: Found) -> None:
    for problem in found.problems:
        say(printable(problem))
    for engine in found.engines:
        if engine.problem:
            say(f"process {engine.pid}: {printable(engine.problem)}")
    if not found.engines and not found.problems:
        say("no engine of this user has made anything ahead; `casemate run` itself makes nothing ahead")


def _lines(engines: tuple[EngineStatistics, ...], style: Style) -> list[str]:
    parts = [_page(engine, style) for engine in engines if not engine.problem]
    return [line for number, part in enumerate(parts) for line in ([""] * bool(number) + part)]


def _page(engine: EngineStatistics, style: Style) -> list[str]:
    title = f"process {engine.pid}"
    program = printable(engine.program, style.width - len(title) - len(GAP))
    return [
        f"{style.paint(title, 'bold')}{GAP}{program}",
        *table(style, HEAD, [_cells(pool, style) for pool in engine.pools]),
    ]


def _cells(pool: PoolStatistics, style: Style) -> list[str]:
    counts = (pool.ready, pool.starting, pool.busy, pool.hits, pool.misses)
    problem = style.paint(printable(pool.problem), "yellow")
    return [style.paint(printable(pool.label), "cyan"), *map(str, counts), format_bytes(pool.memory_bytes), problem]

"""The numbers of SPECIFICATION.md beside their peers, measured in one go: `python -m bench.run [--json] [--full]`.

Always ends with status 0: a number is a fact of a machine, not a test. What was asked for is marked `met` or `NOT MET`.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import casemate
from bench import (
    egress,
    isolates,
    items,
    jobs,
    loads,
    peers,
    preload,
    queueing,
    served,
    service,
    sessions,
    starts,
    warm,
)
from bench.measure import Action
from bench.rows import Row, as_json, text
from casemate.kernel.cgroup_types import CgroupUnavailable

QUICK_SHARE: Final = 0.1


def measure(engine: casemate.Engine, floor: Action, *, share: float, full: bool) -> Iterator[Row]:
    """All rows; `share` of the usual number of rounds."""

    def rounds(usual: int) -> int:
        return max(3, round(usual * share))

    yield from starts.cold_true(engine, floor, rounds(40))
    yield from starts.where_the_time_goes(engine, rounds(200))
    yield from starts.cold_true(engine, floor, rounds(30), starts.PAUSE_S)
    yield from starts.python(engine, rounds(60))
    yield from starts.command_line(rounds(30))
    yield from starts.languages(engine, rounds(15))
    yield from isolates.isolates(rounds(40))
    yield from sessions.sessions(rounds(100))
    yield from items.items(rounds(100))
    yield from loads.kill_in_time(engine, rounds(10))
    yield from loads.much_output(full=full)
    yield from loads.throughput(engine, floor)
    yield from warm.warm(rounds(100))
    yield from served.served(rounds(100))
    yield from preload.preload(rounds(20))
    yield from service.service(share)
    yield from jobs.jobs(share)
    yield from egress.egress(share)
    yield from queueing.queueing(rounds(100), round(queueing.WAITING_COUNT * share))


def machine(engine: casemate.Engine) -> str:
    """What the numbers hold for."""
    root = engine.backend.cgroups
    groups = "no control groups" if isinstance(root, CgroupUnavailable) else f"control groups {root.version}"
    load = os.getloadavg()[0]
    return f"{platform.release()}, {os.cpu_count()} processors, load {load:.1f}, {groups}, user {os.geteuid()}"


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures Casemate beside its peers.")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    parser.add_argument("--full", action="store_true", help="10 GiB of output instead of 1")
    parser.add_argument("--quick", action="store_true", help="a tenth of the rounds: shows that everything works")
    options = parser.parse_args()
    rows: list[Row] = []
    with casemate.Engine(warm=False) as engine, tempfile.TemporaryDirectory() as directory:
        floor = peers.build_floor(Path(directory))
        if not options.json:
            print(machine(engine))
        for row in measure(engine, floor, share=QUICK_SHARE if options.quick else 1.0, full=options.full):
            rows.append(row)
            print(text(row), file=sys.stderr if options.json else sys.stdout, flush=True)
    if options.json:
        sys.stdout.buffer.write(as_json(rows) + b"\n")


if __name__ == "__main__":
    main()

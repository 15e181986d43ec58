"""Rows about sessions: a call in a live interpreter, and copies of one that holds much."""

from __future__ import annotations

import resource
import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import casemate
from bench import peers
from bench.measure import interleaved
from bench.rows import Row
from casemate.engine.run import find_runtime
from casemate.kernel.processes import process_tree
from casemate.limits import KIB

CALL_RATIO_MAX: Final = 0.05
COPIES: Final = 100
HELD_MIB: Final = 500
FORK_MAX_S: Final = 2.0
BARE_RATIO_MAX: Final = 1.5
EXTRA_MAX_MB: Final = 150.0
MB: Final = 1_000_000
DESCRIPTORS: Final = 4096
ROUNDS: Final = 3
SMALL: Final = f"data = bytearray({HELD_MIB} << 20)\nfor at in range(0, len(data), 4096): data[at] = 1"
LARGE: Final = f"""
import mmap
data = mmap.mmap(-1, {HELD_MIB} << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
data.madvise(mmap.MADV_HUGEPAGE)
for at in range(0, len(data), 4096): data[at] = 1
"""
"""As numpy has its large arrays."""

NATIVE: Final = f"""
import os, time
{{held}}
read_fd, _ = os.pipe()
started = time.perf_counter()
pids = []
for _ in range({COPIES}):
    pid = os.fork()
    if not pid:
        os.read(read_fd, 1)
    pids.append(pid)
print(time.perf_counter() - started)
for pid in pids:
    os.kill(pid, 9)
"""


def sessions(rounds: int) -> Iterator[Row]:
    """All rows, with an engine of their own."""
    with casemate.Engine(warm=False) as engine:
        yield from _calls(engine, rounds)
        with _many_descriptors():
            for pages, code in {"small pages": SMALL, "large pages": LARGE}.items():
                yield from _copies(engine, pages, code)


def _calls(engine: casemate.Engine, rounds: int) -> Iterator[Row]:
    group = "A call in a live Python session"
    interpreter = find_runtime(engine, "python")[1].host_path
    with casemate.Sandbox("python", stateful=True, engine=engine) as session:

        def call() -> None:
            if session.run("output = 1").output != 1:
                raise RuntimeError("the call does not answer")

        times = interleaved({"casemate": call, "bare python3 -c": peers.process(interpreter, "-c", "1")}, rounds)
    for name, measured in times.items():
        note = f"p95 {measured.percentile_ms(0.95):.2f}, p99 {measured.percentile_ms(0.99):.2f}"
        yield Row(group=group, name=name, value=measured.median_ms, unit="ms", note=note)
    share = times["casemate"].ratio(times["bare python3 -c"])
    yield Row(group=group, name="casemate / bare python3 -c", value=share, unit="times", bound=CALL_RATIO_MAX)


def _copies(engine: casemate.Engine, pages: str, code: str) -> Iterator[Row]:
    group = f"{COPIES} copies of a session that holds {HELD_MIB} MiB in {pages}"
    limits = {"memory": "2Gi", "processes": 2 * COPIES, "timeout": "60s", "cpu": 4}
    seconds: list[float] = []
    native: list[float] = []
    sizes: list[dict[str, float]] = []
    for _ in range(ROUNDS):
        native.append(_native(engine, code))
        with casemate.Sandbox("python", stateful=True, engine=engine, limits=limits) as session:
            if not session.run(code).ok:
                raise RuntimeError("there is not enough memory for this row")
            before = _memory(engine)
            started = time.perf_counter()
            copies = session.fork(COPIES)
            seconds.append(time.perf_counter() - started)
            forked = _memory(engine)
            if not all(copy.run("len(data)").ok for copy in copies):
                raise RuntimeError("a copy does not answer")
            used = _memory(engine)
        sizes.append(
            {"": forked[0] - before[0], ", after a call in each": used[0] - before[0], "tables": forked[1] - before[1]}
        )
    yield Row(group=group, name="all of them", value=statistics.median(seconds), unit="s", bound=FORK_MAX_S)
    yield Row(group=group, name="as many forks without a sandbox", value=statistics.median(native), unit="s")
    ratio = statistics.median(ours / bare for ours, bare in zip(seconds, native, strict=True))
    yield Row(
        group=group,
        name="copies / bare forks",
        value=ratio,
        unit="times",
        bound=BARE_RATIO_MAX if code is SMALL else None,
    )
    for when in ("", ", after a call in each"):
        extra = statistics.median(each[when] for each in sizes) / MB
        name = f"memory more, proportional set size{when}"
        yield Row(group=group, name=name, value=extra, unit="MB", bound=None if when else EXTRA_MAX_MB)
    tables = statistics.median(each["tables"] for each in sizes) / MB
    yield Row(group=group, name="tables of pages more", value=tables, unit="MB")


def _native(engine: casemate.Engine, code: str) -> float:
    interpreter = find_runtime(engine, "python")[1].host_path
    command = [interpreter, "-c", NATIVE.format(held=code)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def _memory(engine: casemate.Engine) -> tuple[int, int]:
    """Of all processes in sandboxes: proportional set size and tables of pages, in bytes."""
    pids = process_tree(engine.backend.launcher.pid)[1:]
    return (
        sum(_field(f"/proc/{pid}/smaps_rollup", "Pss:") for pid in pids),
        sum(_field(f"/proc/{pid}/status", "VmPTE:") for pid in pids),
    )


def _field(path: str, name: str) -> int:
    lines = Path(path).read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith(name)), 0) * KIB


@contextmanager
def _many_descriptors() -> Iterator[None]:
    """Each copy needs five of ours."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(DESCRIPTORS, before[1]), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)

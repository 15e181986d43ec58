"""Rows about running: how soon a limit strikes, what much output costs, and how many runs fit into a second."""

from __future__ import annotations

import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Final

import casemate
from bench.measure import Action
from bench.rows import Row
from casemate.limits import GIB, MIB
from casemate.model.result import Reason

LIMIT_S: Final = 0.5
LATE_MAX_MS: Final = 50.0
GROWTH_MAX_MIB: Final = 32.0
OUTPUT_BYTES: Final = 1 * GIB
OUTPUT_FULL_BYTES: Final = 10 * GIB
WINDOW_S: Final = 2.0
FLOOR_MAX: Final = 2.0
CONCURRENCY: Final = (1, 2, 4)
STUBBORN: Final = """
trap '' TERM INT HUP
setsid sleep 1000 &
for i in 1 2 3 4 5 6 7 8; do (while :; do :; done) & done
wait
"""
FLOOD: Final = """
import sys, casemate
def high_water_kib():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
casemate.execute(["true"])
before = high_water_kib()
count = int(sys.argv[1])
command = ["head", "-c", str(count), "/dev/zero"]
result = casemate.execute(command, limits={"output": count + 1, "timeout": "10m"}, on_output=lambda chunk: None)
assert result.ok and result.stdout.total_bytes == count, result.reason
print(high_water_kib() - before, result.usage.wall_s)
"""


def kill_in_time(engine: casemate.Engine, rounds: int) -> Iterator[Row]:
    """How long after a limit of 500 ms the Result of a stubborn, busy tree of processes is there."""
    group = "A time limit of 500 ms"
    late: list[float] = []
    for _ in range(rounds):
        started = time.perf_counter()
        result = casemate.execute(["bash", "-c", STUBBORN], limits={"timeout": LIMIT_S}, engine=engine)
        late.append((time.perf_counter() - started - LIMIT_S) * 1e3)
        if result.reason is not Reason.TIMEOUT:
            raise RuntimeError(str(result))
    median = statistics.median(late)
    yield Row(group=group, name="result after the limit, median", value=median, unit="ms", bound=LATE_MAX_MS)
    yield Row(group=group, name="result after the limit, worst", value=max(late), unit="ms")


def much_output(*, full: bool) -> Iterator[Row]:
    """Growth of a process that runs a program with a lot of output, in a process of its own."""
    count = OUTPUT_FULL_BYTES if full else OUTPUT_BYTES
    group = f"A run with {count // GIB} GiB of output"
    done = subprocess.run([sys.executable, "-c", FLOOD, str(count)], capture_output=True, text=True, check=True)
    growth_kib, seconds = done.stdout.split()
    growth = int(growth_kib) * 1024 / MIB
    yield Row(group=group, name="memory that the engine gains", value=growth, unit="MiB", bound=GROWTH_MAX_MIB)
    yield Row(group=group, name="speed", value=count / MIB / float(seconds), unit="MiB/s")


def rate(action: Action, threads: int) -> float:
    """How often per second the action can be done by so many threads."""
    done = [0] * threads
    stop = time.monotonic() + WINDOW_S

    def repeat(number: int) -> None:
        while time.monotonic() < stop:
            action()
            done[number] += 1

    workers = [threading.Thread(target=repeat, args=(number,)) for number in range(threads)]
    started = time.monotonic()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(done) / (time.monotonic() - started)


def throughput(engine: casemate.Engine, floor: Action) -> Iterator[Row]:
    """Runs of /bin/true per second, beside the floor, in turns."""
    group = "Throughput of one-shot sandboxes"
    for threads in CONCURRENCY:
        ours, below = [], []
        for _ in range(3):
            ours.append(rate(lambda: casemate.execute(["/bin/true"], engine=engine), threads))
            below.append(rate(floor, threads))
        yield Row(group=group, name=f"casemate, {threads} at once", value=statistics.median(ours), unit="/s")
        yield Row(group=group, name=f"floor, {threads} at once", value=statistics.median(below), unit="/s")
        times = statistics.median(one / other for one, other in zip(below, ours, strict=True))
        yield Row(group=group, name=f"floor / casemate, {threads} at once", value=times, unit="times", bound=FLOOR_MAX)

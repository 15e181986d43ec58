"""When workers are made, kept and retired: pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum
from itertools import pairwise

from casemate import limits


class Retirement(StrEnum):
    """Why a worker serves no more."""

    AGE = "age"
    COUNT = "count"
    LEAK = "leak"
    IDLE = "idle"
    CRASHED = "crashed"
    STOPPED = "stopped"
    SILENT = "silent"
    DISTRUSTED = "distrusted"
    EVICTED = "evicted"
    CLOSED = "closed"


def is_leaking(samples: Sequence[int]) -> bool:
    """Whether memory only ever grows: more than 8 rises among the last 10 samples; with fewer samples, no."""
    last = samples[-limits.LEAK_SAMPLES :]
    rises = sum(later > earlier for earlier, later in pairwise(last))
    return len(last) == limits.LEAK_SAMPLES and rises > limits.LEAK_RISES_MAX


def retirement(*, age_s: float, runs: int, samples: Sequence[int]) -> Retirement | None:
    """Why a worker that has just served well should nevertheless serve no more, if it should not."""
    if age_s >= limits.WORKER_AGE_MAX_S:
        return Retirement.AGE
    if runs >= limits.WORKER_RUNS_MAX:
        return Retirement.COUNT
    return Retirement.LEAK if is_leaking(samples) else None


def most_workers(processors: int, memory_bytes: int) -> int:
    """How many workers there may be at once, for all tenants together."""
    fitting = int(memory_bytes * limits.WORKERS_MEMORY_SHARE) // limits.WORKER_USUAL_BYTES
    return max(1, min(processors * limits.WORKERS_PER_PROCESSOR, fitting, limits.WORKERS_MAX))


def missing_workers(*, present: int, demand: int, waiting: int, total: int, most: int) -> int:
    """How many to start beforehand for one kind: as many as were lately busy at once, if there is room.

    `present` counts those of this kind, `total` those of all. Whoever waits already will start its own.
    """
    return max(0, min(demand - present, most - total)) if not waiting else 0


def idle_order(idle_s: Sequence[float], prepares_s: float = limits.WORKER_PREPARES_S) -> list[int]:
    """In which order to try idle workers: the last used one that is ready again, so that others may end."""
    ready = sorted((at for at, idle in enumerate(idle_s) if idle >= prepares_s), key=lambda at: idle_s[at])
    others = sorted(set(range(len(idle_s))).difference(ready), key=lambda at: -idle_s[at])
    return ready + others


def heap_class(heap_bytes: int) -> int:
    """Workers are shared by executions whose heap limits have the same next power of two."""
    return max(limits.ISOLATE_HEAP_DEFAULT_BYTES, 1 << math.ceil(math.log2(heap_bytes)))


def worker_memory(heap_class_bytes: int) -> int:
    """The memory limit of a worker's sandbox: a wall around the heap limit, not the limit itself."""
    return limits.WORKER_BASE_BYTES + limits.WORKER_HEAP_FACTOR * heap_class_bytes


def silence_max_s(cpus: float) -> float:
    """How long a busy worker may say nothing; with little of a processor everything takes longer."""
    return limits.WORKER_SILENCE_MAX_S / min(1.0, cpus)


def next_waiter(same_kind: Sequence[bool], waited_s: Sequence[float], turns: Sequence[int]) -> int | None:
    """Which of those that wait, oldest first, gets a free worker: tenants by turns, unless that would cost a start.

    `turns` says of each when its tenant was last let in: whoever floods the line waits behind itself, not others behind
    it. An execution of the worker's own kind may overtake those that have not waited for long.
    """
    if not waited_s:
        return None
    first = min(range(len(turns)), key=turns.__getitem__)
    if same_kind[first] or waited_s[first] >= limits.WAITED_ENOUGH_S:
        return first
    return next((place for place, same in enumerate(same_kind) if same), first)

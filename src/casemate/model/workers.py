"""Whatever an engine keeps running between executions, as its operator sees it: frozen values, no process ids."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class WorkerKind(StrEnum):
    """What it is for.

    `isolate` runs programs in isolates, `runner` calls a function item by item, `ready` waits for one program, and
    `zygote` makes what waits.
    """

    ISOLATE = "isolate"
    RUNNER = "runner"
    READY = "ready"
    ZYGOTE = "zygote"


class WorkerState(StrEnum):
    """Where it is in its life. `retiring`: it serves on only until another has taken its place."""

    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"
    RETIRING = "retiring"
    ENDED = "ended"


class WorkerMoment(msgspec.Struct, frozen=True, kw_only=True):
    """What it held, and the processor time that it had used, at one moment (microseconds since 1970, UTC)."""

    at_us: int
    memory_bytes: int
    cpu_s: float


class WorkerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One of them as it is now. What is not known, or not measured for its kind, is None.

    `heartbeat_age_s` is how long ago a busy one gave a sign of life; one that has nothing to do gives none. `ended` is
    the reason why it serves no more, or will soon.
    """

    id: str
    kind: WorkerKind
    label: str
    state: WorkerState
    tenant: str = ""
    age_s: float = 0.0
    runs: int = 0
    memory_bytes: int | None = None
    cpu_s: float | None = None
    heartbeat_age_s: float | None = None
    memory_limit_bytes: int | None = None
    cpus: float | None = None
    ended: str = ""
    trend: tuple[WorkerMoment, ...] = ()


class WorkerGroup(msgspec.Struct, frozen=True, kw_only=True):
    """All of one kind and label together: how many there are, may be and were, and who waits for one.

    `restarted` counts those that were started in the place of one that had ended, `retired` why others ended.
    """

    kind: WorkerKind
    label: str
    least: int = 0
    most: int
    starting: int = 0
    idle: int = 0
    busy: int = 0
    waiting: int = 0
    hits: int = 0
    misses: int = 0
    started: int = 0
    restarted: int = 0
    retired: dict[str, int] = {}
    problem: str = ""


class WorkersReport(msgspec.Struct, frozen=True, kw_only=True):
    """All of an engine's at one moment (microseconds since 1970, UTC); those that ended lately are among them."""

    at_us: int
    workers: tuple[WorkerInfo, ...] = ()
    groups: tuple[WorkerGroup, ...] = ()

"""What the engine sees of control groups, the same for version 1 and version 2."""

from __future__ import annotations

import math
from typing import Protocol

import msgspec

from casemate import limits as bound


class CgroupLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What one run may use; the init of its sandbox is not counted in `processes`."""

    memory_bytes: int
    processes: int
    cpus: float

    @property
    def pids(self) -> int:
        """The limit on tasks as the kernel counts them: the sandbox's init is one of them."""
        return self.processes + bound.SANDBOX_INIT_PROCESSES

    @property
    def quota(self) -> tuple[int, int]:
        """Processor time per period, both in microseconds; tiny shares lengthen the period."""
        period_us = bound.CPU_PERIOD_US
        if self.cpus * period_us < bound.CPU_QUOTA_MIN_US:
            period_us = min(bound.CPU_PERIOD_MAX_US, math.ceil(bound.CPU_QUOTA_MIN_US / self.cpus))
        return max(bound.CPU_QUOTA_MIN_US, round(self.cpus * period_us)), period_us


class CgroupCounters(msgspec.Struct, frozen=True, kw_only=True):
    """What one run has used, as the kernel counted it. None: this kernel does not count it.

    `processes_peak` leaves out the sandbox's init, as the limit does.
    """

    cpu_user_s: float
    cpu_system_s: float
    memory_peak_bytes: int | None
    memory_now_bytes: int | None
    oom_kills: int
    processes_peak: int | None
    process_limit_hits: int


class CgroupUnavailable(msgspec.Struct, frozen=True, kw_only=True):
    """Why no control group can be used here, and the command that would mend it."""

    reason: str
    hint: str


class RunCgroup(Protocol):
    """The control group of one run, made with its limits in force."""

    @property
    def join_fds(self) -> tuple[int, ...]:
        """What a process needs to get in.

        Version 1: one descriptor per hierarchy, into each of which it writes `0`. Version 2: one
        directory for clone3 with CLONE_INTO_CGROUP. They stay ours and stay valid until `joined`
        or `remove`.
        """
        ...

    def open_procs(self) -> tuple[int, ...]:
        """Descriptors into each of which a process that is to get in writes `0`; the caller's to close.

        The kernel asks for the rights of whoever opened them, so that the process needs none.
        """
        ...

    def joined(self) -> None:
        """Gives `join_fds` back before the end, once everybody is in. Idempotent and optional."""
        ...

    def counters(self) -> CgroupCounters:
        """What was used until now; after `remove` the last values. Cheap enough for every few milliseconds."""
        ...

    @property
    def gone(self) -> bool:
        """Whether `counters` found that somebody else has removed the group: it holds no limit any more."""
        ...

    def set_limits(self, limits: CgroupLimits) -> None: ...

    def kill(self) -> None:
        """Sends SIGKILL to everything inside so that nothing can fork out of it. Does not wait for deaths."""
        ...

    def remove(self) -> None:
        """Kills what is left, waits for it within a bound, removes the group. Idempotent.

        Raises CapacityError if something inside will not die; the next `create` tries again.
        """
        ...


class CgroupRoot(Protocol):
    """The place below which one engine keeps the groups of its runs. Safe from many threads."""

    @property
    def version(self) -> str:
        """`v1` or `v2`."""
        ...

    @property
    def path(self) -> str:
        """The engine's own directory, for people (version 1: that of the memory hierarchy)."""
        ...

    @property
    def search_paths(self) -> tuple[str, ...]:
        """Where directories of dead engines may lie: the most likely places first, then whole hierarchies."""
        ...

    def create(self, name: str, limits: CgroupLimits) -> RunCgroup: ...

    def close(self) -> None:
        """Removes the engine's directory and whatever still lives in it. Idempotent."""
        ...

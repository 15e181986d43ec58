"""Watching a running execution: processor time, out-of-memory kills, and memory where no cgroup holds it."""

from __future__ import annotations

import time
from typing import Final

import msgspec

from casemate import limits
from casemate.engine.collect import used_bytes
from casemate.errors import InternalError
from casemate.isolation.native import NativeSandbox
from casemate.kernel.cgroup_types import CgroupCounters
from casemate.kernel.watchdog import TreeSample, sample
from casemate.model.resources import Limits
from casemate.model.result import Reason

NOTHING: Final = TreeSample(memory_bytes=0, processes=0, cpu_user_s=0.0, cpu_system_s=0.0)


class Counted(msgspec.Struct, frozen=True, kw_only=True):
    """What the kernel counted for one execution.

    Without a control group nobody counts refusals: `process_limit_reached` says that no more were allowed.
    """

    cpu_user_s: float = 0.0
    cpu_system_s: float = 0.0
    memory_peak_bytes: int | None = None
    processes_peak: int | None = None
    oom_kills: int = 0
    process_limit_hits: int = 0
    process_limit_reached: bool = False


class Supervisor:
    """Looks at the counters now and then: seldom, unless a limit could be reached soon."""

    def __init__(self, sandbox: NativeSandbox, wanted: Limits) -> None:
        self._sandbox = sandbox
        self._limits = wanted
        self._base = sandbox.cgroup.counters() if sandbox.cgroup else None
        self._sampled_base = NOTHING
        self._memory_peak = 0
        self._quick_bytes = 0
        self._closer_look_s = 0.0
        self._processes_peak = 0
        self._now = Counted()
        if self._base is None:
            self._sampled_base = sample(sandbox.pid) or NOTHING
            sandbox.throttle.enter(_cpu_s(self._sampled_base), time.monotonic())
        self.next_look_s = time.monotonic() + self._period_s(0.0)

    def look(self) -> Reason | None:
        """Read the counters; the reason to stop the execution, if there is one.

        Raises InternalError if nothing holds the limits any more.
        """
        counted = self.read()
        self._check_group()
        cpu_s = _cpu_s(counted)
        self.next_look_s = time.monotonic() + self._period_s(cpu_s)
        if counted.oom_kills:
            return Reason.MEMORY
        if self._base is None:
            self._sandbox.throttle.look(_cpu_s(self._sampled_base) + cpu_s, time.monotonic())
        if self._base is None and self._is_over_memory():
            return Reason.MEMORY
        if self._limits.cpu_time_s is not None and cpu_s >= self._limits.cpu_time_s:
            return Reason.CPU
        return None

    def _check_group(self) -> None:
        """A group goes with its sandbox, or when its engine is closed; from a sandbox that lives it was taken away.

        Processes leave their group a moment before they have ended.
        """
        group = self._sandbox.cgroup
        if group is not None and group.gone and not self._sandbox.has_ended(limits.DYING_S):
            raise InternalError("the control group of the running program was taken away")

    def _is_over_memory(self) -> bool:
        """The quick sum counts shared pages more than once, so it only leads to a closer look.

        A guest can make that one slow, with many mappings; whoever else the engine serves waits meanwhile.
        """
        started_s = time.monotonic()
        if self._quick_bytes <= self._limits.memory_bytes or started_s < self._closer_look_s:
            return False
        exact_bytes = self._exact_bytes()
        if exact_bytes > self._limits.memory_bytes:
            # While it is being added up a process may end, whose share of common pages the others have then: once more.
            exact_bytes = min(exact_bytes, self._exact_bytes())
        now_s = time.monotonic()
        self._closer_look_s = now_s + (now_s - started_s) * limits.CLOSER_LOOK_PAUSE_RATIO
        self._memory_peak = max(self._memory_peak, exact_bytes)
        return exact_bytes > self._limits.memory_bytes

    def _exact_bytes(self) -> int:
        found = sample(self._sandbox.pid, files_bytes=used_bytes(self._sandbox.work_fd), exact_memory=True)
        return found.memory_bytes if found else 0

    def close(self) -> None:
        """Leave nothing stopped behind in a sandbox that goes on."""
        if self._base is None:
            self._sandbox.throttle.leave()

    def note_end(self) -> None:
        """The process has ended: without a cgroup, count what it leaves behind, and itself, before that is gone."""
        if self._base is None:
            self._now = self._sampled(gone=1)

    @property
    def latest(self) -> Counted:
        """What the last look saw."""
        return self._now

    def read(self) -> Counted:
        """The counters of this execution so far."""
        if self._sandbox.cgroup is None or self._base is None:
            self._now = self._sampled()
        else:
            self._now = _since(self._base, self._sandbox.cgroup.counters())
        return self._now

    def _sampled(self, gone: int = 0) -> Counted:
        now = sample(self._sandbox.pid, files_bytes=used_bytes(self._sandbox.work_fd))
        if now is None:
            return self._now
        self._quick_bytes = now.memory_bytes
        if now.memory_bytes <= self._limits.memory_bytes:
            self._memory_peak = max(self._memory_peak, now.memory_bytes)
        self._processes_peak = max(self._processes_peak, now.processes + gone)
        return Counted(
            cpu_user_s=max(now.cpu_user_s - self._sampled_base.cpu_user_s, self._now.cpu_user_s),
            cpu_system_s=max(now.cpu_system_s - self._sampled_base.cpu_system_s, self._now.cpu_system_s),
            memory_peak_bytes=self._memory_peak,
            processes_peak=self._processes_peak,
            process_limit_reached=self._processes_peak >= self._limits.processes,
        )

    def _period_s(self, cpu_s: float) -> float:
        """Until the processor limit can be reached at the earliest, within bounds."""
        period_s = limits.SUPERVISE_PERIOD_S if self._base is not None else limits.WITHOUT_CGROUP_PERIOD_S
        if self._limits.cpu_time_s is not None:
            period_s = min(period_s, (self._limits.cpu_time_s - cpu_s) / max(1.0, self._limits.cpus))
        return max(period_s, limits.SUPERVISE_PERIOD_MIN_S)


def _cpu_s(used: Counted | TreeSample) -> float:
    return used.cpu_user_s + used.cpu_system_s


def _since(base: CgroupCounters, now: CgroupCounters) -> Counted:
    return Counted(
        cpu_user_s=max(0.0, now.cpu_user_s - base.cpu_user_s),
        cpu_system_s=max(0.0, now.cpu_system_s - base.cpu_system_s),
        memory_peak_bytes=now.memory_peak_bytes,
        processes_peak=now.processes_peak,
        oom_kills=now.oom_kills - base.oom_kills,
        process_limit_hits=now.process_limit_hits - base.process_limit_hits,
    )

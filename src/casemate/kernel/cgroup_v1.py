"""Control groups version 1: one tree per controller, joined by writing, killed process by process."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from casemate import limits as bound
from casemate.kernel.cgroup_files import KeptFiles, open_all, raise_if_exhausted, write_if_present, write_value
from casemate.kernel.cgroup_mounts import V1_CONTROLLERS, CgroupMount
from casemate.kernel.cgroup_tree import EngineDirectories, EngineRoot
from casemate.kernel.cgroup_types import CgroupCounters, CgroupLimits, CgroupUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_NANOSECONDS: Final = 1e-9
_NEEDED_FILES: Final = {
    "memory": "memory.limit_in_bytes",
    "pids": "pids.max",
    "cpu": "cpu.cfs_quota_us",
    "cpuacct": "cpuacct.usage",
}
_COUNTERS: Final = {
    "usage": ("cpuacct", "cpuacct.usage"),
    "user": ("cpuacct", "cpuacct.usage_user"),
    "system": ("cpuacct", "cpuacct.usage_sys"),
    "stat": ("cpuacct", "cpuacct.stat"),
    "memory": ("memory", "memory.usage_in_bytes"),
    "memory_peak": ("memory", "memory.max_usage_in_bytes"),
    "oom": ("memory", "memory.oom_control"),
    "pids_peak": ("pids", "pids.peak"),
    "pids_events": ("pids", "pids.events"),
}


class V1Run:
    """One run's directory in each hierarchy; controllers that are mounted together share one."""

    def __init__(self, places: Mapping[str, str]) -> None:
        self._places = places
        self.directories = tuple(dict.fromkeys(places.values()))

    def write_limits(self, limits: CgroupLimits, before: CgroupLimits | None) -> None:
        growing = before is not None and limits.memory_bytes > before.memory_bytes
        self._write_memory(limits.memory_bytes, growing=growing)
        write_value(self._places["pids"], "pids.max", str(limits.pids))
        if before is not None:
            write_value(self._places["cpu"], "cpu.cfs_quota_us", "-1")
        self._write_quota(*limits.quota)

    def _write_memory(self, memory_bytes: int, *, growing: bool) -> None:
        """Memory with swap may never be less than memory alone, so the order depends on the direction."""
        directory, value = self._places["memory"], str(memory_bytes)
        if growing:
            write_if_present(directory, "memory.memsw.limit_in_bytes", value)
        write_value(directory, "memory.limit_in_bytes", value)
        write_if_present(directory, "memory.memsw.limit_in_bytes", value)
        write_if_present(directory, "memory.swappiness", "0")
        # What TCP and UDP hold is counted apart from all else, and by default without a limit.
        sockets_bytes = max(bound.SOCKET_BUFFERS_MIN_BYTES, memory_bytes // bound.SOCKET_BUFFERS_PART)
        write_if_present(directory, "memory.kmem.tcp.limit_in_bytes", str(sockets_bytes))

    def _write_quota(self, quota_us: int, period_us: int) -> None:
        """Expects that no quota is set: the kernel judges quota and period together at each write.

        A share larger than an outer group's is refused; then the outer quota holds, by inheritance.
        """
        directory = self._places["cpu"]
        write_value(directory, "cpu.cfs_period_us", str(period_us))
        try:
            write_value(directory, "cpu.cfs_quota_us", str(quota_us))
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise

    def open_joins(self) -> tuple[int, ...]:
        return open_all([f"{directory}/cgroup.procs" for directory in self.directories], os.O_WRONLY)

    def open_counters(self) -> KeptFiles:
        return KeptFiles({key: f"{self._places[place]}/{name}" for key, (place, name) in _COUNTERS.items()})

    def read(self, files: KeptFiles) -> CgroupCounters:
        user_s, system_s = _split(files)
        peak = files.number("pids_peak")
        return CgroupCounters(
            cpu_user_s=user_s,
            cpu_system_s=system_s,
            memory_peak_bytes=files.number("memory_peak"),
            memory_now_bytes=files.number("memory"),
            oom_kills=files.field("oom", b"oom_kill"),
            processes_peak=None if peak is None else max(0, peak - bound.SANDBOX_INIT_PROCESSES),
            process_limit_hits=files.field("pids_events", b"max"),
        )


def _split(files: KeptFiles) -> tuple[float, float]:
    """User and system time: the exact total, divided as the sampled parts are.

    The parts are counted at clock ticks, and a program can sleep through every tick; the total cannot
    be cheated.
    """
    total_s = (files.number("usage") or 0) * _NANOSECONDS
    user, system = files.number("user"), files.number("system")
    if user is None or system is None:
        user, system = files.field("stat", b"user"), files.field("stat", b"system")
    share = user / (user + system) if user + system else 1.0
    return total_s * share, total_s * (1.0 - share)


def open_v1(
    mounts: Sequence[CgroupMount], groups: Mapping[str, str], chosen: str | None
) -> EngineRoot | CgroupUnavailable:
    """An engine's place below our own group in each hierarchy, so that outer limits hold for runs too."""
    places = find_places(mounts, groups, chosen)
    if isinstance(places, CgroupUnavailable):
        return places
    bases = tuple(dict.fromkeys(places.values()))
    try:
        directories = EngineDirectories(bases)
    except OSError as error:
        return _refused(error, mounts, bases[0])
    engine = dict(zip(bases, directories.paths, strict=True))
    inside = {controller: engine[base] for controller, base in places.items()}
    if lacking := [name for place, name in _NEEDED_FILES.items() if not Path(f"{inside[place]}/{name}").exists()]:
        directories.remove(0)
        return CgroupUnavailable(reason=f"this kernel lacks {', '.join(lacking)}", hint="boot a kernel that has it")
    points = [mount.point for mount in mounts if mount.controllers]
    return EngineRoot("v1", directories, lambda name: V1Run(_below(inside, name)), [*bases, *points])


def _below(places: Mapping[str, str], name: str) -> dict[str, str]:
    return {controller: f"{directory}/{name}" for controller, directory in places.items()}


def find_places(
    mounts: Sequence[CgroupMount], groups: Mapping[str, str], chosen: str | None
) -> dict[str, str] | CgroupUnavailable:
    """The directory of the chosen group, or else of our own, for each controller that we need."""
    mounted = frozenset[str]().union(*(mount.controllers for mount in mounts))
    if missing := [controller for controller in V1_CONTROLLERS if controller not in mounted]:
        return CgroupUnavailable(reason=f"control groups lack: {', '.join(missing)}", hint=_mount_hint(missing))
    places = {
        controller: _place(controller, mounts, chosen or groups.get(controller, "")) for controller in V1_CONTROLLERS
    }
    if unseen := [controller for controller, place in places.items() if place is None]:
        where = chosen or "our own"
        return CgroupUnavailable(
            reason=f"the control group {where} is not visible for: {', '.join(unseen)}",
            hint="start where /sys/fs/cgroup shows it, or set CASEMATE_CGROUP to a group that is visible",
        )
    return {controller: place for controller, place in places.items() if place is not None}


def _place(controller: str, mounts: Sequence[CgroupMount], group: str) -> str | None:
    for mount in reversed(mounts):
        directory = mount.directory(group) if controller in mount.controllers else None
        if directory and Path(f"{directory}/cgroup.procs").exists():
            return directory
    return None


def _mount_hint(missing: Sequence[str]) -> str:
    name = ",".join(missing)
    return f"sudo mkdir -p /sys/fs/cgroup/{name} && sudo mount -t cgroup -o {name} cgroup /sys/fs/cgroup/{name}"


def _refused(error: OSError, mounts: Sequence[CgroupMount], base: str) -> CgroupUnavailable:
    raise_if_exhausted(error, f"making the engine's control group in {base}")
    reason = f"no control group can be made in {base}: {error.strerror}"
    if error.errno not in {errno.EACCES, errno.EPERM}:
        return CgroupUnavailable(reason=reason, hint="start with a writable /sys/fs/cgroup")
    own = " ".join(f"{mount.point}/casemate" for mount in mounts if mount.controllers)
    hint = f"sudo mkdir -p {own} && sudo chown -R {os.geteuid()} {own} && export CASEMATE_CGROUP=/casemate"
    return CgroupUnavailable(reason=reason, hint=hint)

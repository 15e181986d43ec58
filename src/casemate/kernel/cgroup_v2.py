"""Control groups version 2: one tree, entered at birth, killed by one write, delegated to users.

A group of this version holds either processes or groups with controllers, never both (its root
excepted). So a place for runs has to be found or made: our own group if nobody else lives in it
(we move into a leaf of it), otherwise the nearest outer group that we may change.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

from casemate import limits as bound
from casemate.kernel.cgroup_files import (
    KeptFiles,
    open_all,
    raise_if_exhausted,
    read_words,
    write_if_present,
    write_value,
)
from casemate.kernel.cgroup_mounts import V2_CONTROLLERS, CgroupMount
from casemate.kernel.cgroup_tree import EngineDirectories, EngineRoot
from casemate.kernel.cgroup_types import CgroupCounters, CgroupLimits, CgroupUnavailable
from casemate.kernel.processes import process_tree

if TYPE_CHECKING:
    from collections.abc import Iterator

OWN_LEAF: Final = "casemate-self"
_ENABLE: Final = " ".join(f"+{controller}" for controller in V2_CONTROLLERS)
_MICROSECONDS: Final = 1e-6
_NEEDED_FILES: Final = ("memory.max", "pids.max", "cpu.max")
_COUNTERS: Final = {
    "cpu": "cpu.stat",
    "memory": "memory.current",
    "memory_peak": "memory.peak",
    "memory_events": "memory.events",
    "pids_peak": "pids.peak",
    "pids_events": "pids.events",
}
DELEGATE_HINT: Final = "systemd-run --user --scope -p Delegate=yes casemate …"
_DELEGATE_MORE_HINT: Final = (
    "printf '[Service]\\nDelegate=cpu io memory pids\\n' | sudo systemctl edit --stdin user@.service, then log in again"
)


class V2Run:
    """One run's one directory."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self.directories = (directory,)

    def write_limits(self, limits: CgroupLimits, before: CgroupLimits | None) -> None:
        quota_us, period_us = limits.quota
        write_value(self._directory, "memory.max", str(limits.memory_bytes))
        write_value(self._directory, "pids.max", str(limits.pids))
        write_value(self._directory, "cpu.max", f"{quota_us} {period_us}")
        if before is None:
            write_if_present(self._directory, "memory.swap.max", "0")

    def open_joins(self) -> tuple[int, ...]:
        return open_all([self._directory], os.O_PATH | os.O_DIRECTORY)

    def open_counters(self) -> KeptFiles:
        return KeptFiles({key: f"{self._directory}/{name}" for key, name in _COUNTERS.items()})

    def read(self, files: KeptFiles) -> CgroupCounters:
        peak = files.number("pids_peak")
        return CgroupCounters(
            cpu_user_s=files.field("cpu", b"user_usec") * _MICROSECONDS,
            cpu_system_s=files.field("cpu", b"system_usec") * _MICROSECONDS,
            memory_peak_bytes=files.number("memory_peak"),
            memory_now_bytes=files.number("memory"),
            oom_kills=files.field("memory_events", b"oom_kill"),
            processes_peak=None if peak is None else max(0, peak - bound.SANDBOX_INIT_PROCESSES),
            process_limit_hits=files.field("pids_events", b"max"),
        )


def open_v2(mount: CgroupMount, group: str, chosen: str | None) -> EngineRoot | CgroupUnavailable:
    """An engine's place in the nearest group, from our own outwards, that can hold one."""
    own = mount.directory(group)
    problems: list[CgroupUnavailable] = []
    for base in _candidates(mount, own, chosen):
        problem = _prepare(base, own)
        opened = problem or _open_in(base, mount.point)
        if isinstance(opened, EngineRoot):
            return opened
        problems.append(opened)
    return problems[0] if problems else _invisible(chosen or group)


def _candidates(mount: CgroupMount, own: str | None, chosen: str | None) -> Iterator[str]:
    if chosen is not None:
        place = mount.directory(chosen)
        if place is not None and Path(place).is_dir():
            yield place
        return
    path = PurePosixPath(own or mount.point)
    if path.name == OWN_LEAF:
        path = path.parent
    while path.is_relative_to(mount.point):
        yield str(path)
        path = path.parent


def _prepare(base: str, own: str | None) -> CgroupUnavailable | None:
    """Makes a group ready to hold an engine's directory; None on success, otherwise what is in the way."""
    if missing := [name for name in V2_CONTROLLERS if name not in read_words(base, "cgroup.controllers")]:
        return CgroupUnavailable(
            reason=f"the control group {base} lacks: {', '.join(missing)}", hint=_missing_hint(missing, base)
        )
    if not _may_change(base, own or base):
        return _forbidden(base)
    if set(V2_CONTROLLERS) <= set(read_words(base, "cgroup.subtree_control")):
        return None
    if base == own and Path(f"{base}/cgroup.type").exists():
        _move_into_leaf(base)
    return _enable(base)


def _may_change(base: str, own: str) -> bool:
    """Whether we may make groups here and move processes of ours into them.

    The kernel asks for the right to write `cgroup.procs` in the group that both places have in common.
    """
    shared = os.path.commonpath([base, own])
    wanted = (base, f"{base}/cgroup.subtree_control", f"{shared}/cgroup.procs")
    return all(os.access(path, os.W_OK, effective_ids=True) for path in wanted)


def _move_into_leaf(base: str) -> None:
    """Moves us and our descendants into a leaf of our own group, if nobody else lives there.

    The leaf stays: it is where this process lives, and another engine may use the group by now.
    """
    for _ in range(bound.CGROUP_MOVE_PASSES_MAX):
        ours = {str(pid) for pid in process_tree(os.getpid())}
        inside = read_words(base, "cgroup.procs")
        if not inside or not ours.issuperset(inside):
            return
        Path(leaf := f"{base}/{OWN_LEAF}").mkdir(exist_ok=True)
        for pid in inside:
            with suppress(ProcessLookupError):
                write_value(leaf, "cgroup.procs", pid)


def _enable(base: str) -> CgroupUnavailable | None:
    try:
        write_value(base, "cgroup.subtree_control", _ENABLE)
    except OSError as error:
        others = bool(read_words(base, "cgroup.procs"))
        reason = f"other processes live in the control group {base}" if others else f"{base}: {error.strerror}"
        return CgroupUnavailable(reason=reason, hint=_crowded_hint(base))
    return None


def _open_in(base: str, point: str) -> EngineRoot | CgroupUnavailable:
    try:
        directories = EngineDirectories([base])
    except OSError as error:
        raise_if_exhausted(error, f"making the engine's control group in {base}")
        return CgroupUnavailable(
            reason=f"no control group can be made in {base}: {error.strerror}", hint=_delegate_hint()
        )
    engine = directories.paths[0]
    if problem := _enable(engine) or _lacking_files(engine):
        directories.remove(0)
        return problem
    return EngineRoot("v2", directories, lambda name: V2Run(f"{engine}/{name}"), [base, point])


def _lacking_files(engine: str) -> CgroupUnavailable | None:
    lacking = [name for name in _NEEDED_FILES if not Path(f"{engine}/{name}").exists()]
    if not lacking:
        return None
    return CgroupUnavailable(reason=f"this kernel lacks {', '.join(lacking)}", hint="boot a kernel that has it")


def _forbidden(base: str) -> CgroupUnavailable:
    if os.statvfs(base).f_flag & os.ST_RDONLY:
        return CgroupUnavailable(
            reason=f"{base} is mounted read-only",
            hint="docker run --cgroupns=host -v /sys/fs/cgroup:/sys/fs/cgroup:rw …",
        )
    return CgroupUnavailable(reason=f"this user may not change the control group {base}", hint=_delegate_hint())


def _missing_hint(missing: list[str], base: str) -> str:
    if not Path(f"{base}/cgroup.type").exists():
        return " ".join(f"cgroup_enable={name}" for name in missing) + " on the kernel's command line"
    return _DELEGATE_MORE_HINT if f"/user@{os.geteuid()}.service/" in base else _delegate_hint()


def _delegate_hint() -> str:
    return DELEGATE_HINT if os.geteuid() else DELEGATE_HINT.replace(" --user", "")


def _crowded_hint(base: str) -> str:
    if os.geteuid():
        return DELEGATE_HINT
    return f"mkdir {base}/rest && for p in $(cat {base}/cgroup.procs); do echo $p > {base}/rest/cgroup.procs; done"


def _invisible(group: str) -> CgroupUnavailable:
    return CgroupUnavailable(
        reason=f"the control group {group} is not visible here",
        hint="start where /sys/fs/cgroup shows it, or set CASEMATE_CGROUP to a group that is visible",
    )

"""A sandbox in which others are made: its program, a zygote, has the launcher's code and is forked into each of them.

It is shut in as any other, except for what the making needs. It sees the machine's directories as plain binds, so that
those made in it can have overlays over them; it sees all of its own /proc, because the kernel lets nobody mount a /proc
who does not; its filter lets mounts and namespaces through, and it has no Landlock domain, which would forbid mounts.
What is made in it has all layers of its own on top.
"""

from __future__ import annotations

import errno
import os
import resource
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from casemate import limits as bound
from casemate.errors import LaunchError
from casemate.isolation import seccomp
from casemate.isolation.host import HostFacts
from casemate.isolation.plan import NAMESPACES, Surroundings, affinity_mask, uses_landlock
from casemate.isolation.rootfs import ETC, Builder, add_base, add_devices, add_etc, add_mounts, private_directories
from casemate.isolation.steps import LaunchPlan, Step, StepKind
from casemate.isolation.syscalls import WATCHED
from casemate.isolation.waiting import Steps, Wait
from casemate.kernel.cgroup_types import CgroupRoot, CgroupUnavailable
from casemate.kernel.descriptors import send_descriptors
from casemate.kernel.processes import depth, pids_of
from casemate.model.resources import Limits
from casemate.model.spec import BASE_DIRECTORY, GUEST_ID, Mount, SandboxSpec

LIBRARY_DIRECTORY: Final = "/opt/casemate/native"
ZYGOTE_LIBRARY: Final = f"{LIBRARY_DIRECTORY}/casemate-zygote.so"
LIBRARY_MOUNT: Final = Mount(str(Path(__file__).parent.parent / "_native"), LIBRARY_DIRECTORY)
ETC_SOURCE: Final = "/run/etc"
HOSTNAME: Final = "zygote"
_INOTIFY: Final = "/proc/sys/fs/inotify"
_SHARES: Final = bound.ZYGOTE_FORKS_MAX + bound.POOL_THREADS
"""Threads that make one at the same moment may each have been told that there is room."""

_WORD_MAX: Final = 2**32 - 1
NESTED_STEP: Final = "start in a nursery"
_NESTED_LEVELS: Final = 2
"""The nursery's namespace of processes, and the sandbox's own."""
DIRECTORIES: Final = ("dev/pts", "proc", "etc", "run", "tmp", "opt")
CAP_SETGID: Final = 6
CAP_SETUID: Final = 7
_IDENTITIES: Final = 1 << CAP_SETGID | 1 << CAP_SETUID
_FOR_MAKING: Final = """
    clone prlimit64 seccomp setrlimit sched_setaffinity unshare setns mount umount2 pivot_root open_tree move_mount
    fsopen fsconfig fsmount mount_setattr sethostname setdomainname
""".split()  # noqa: SIM905 - easier to read and to change as words
NURSERY_POLICY: Final = seccomp.DEFAULT.allowing(*_FOR_MAKING)
"""What the makers of sandboxes call on top of what every guest may."""

_WATCHED_INSIDE: Final = tuple(name for name in WATCHED if name in _FOR_MAKING)
"""What this filter refuses is refused before another is looked at."""


def make_nursery_plan(spec: SandboxSpec, host: HostFacts, around: Surroundings, ids: range) -> LaunchPlan:
    """The launch plan of a nursery. `ids`: as root, those that sandboxes made in it may get.

    The nursery's own is one of them, and stands for its user inside.
    """
    plain = msgspec.structs.replace(host, overlay_refused=private_directories(host, spec.mounts))
    builder = _build_root(plain, spec)
    steps = [Step(StepKind.SOURCE, (path,)) for path in builder.sources]
    steps += [Step(StepKind.IDS, _around(around.uid, ids))] if ids else []
    namespaces = bound.NURSERY_NAMESPACES // max(1, len(ids))
    steps += [Step(StepKind.COUNTS, (bound.NURSERY_INOTIFY_INSTANCES, 0, namespaces)), Step(StepKind.IDENTITY)]
    steps += [Step(StepKind.HOSTNAME, (HOSTNAME,)), *builder.steps]
    steps += [Step(StepKind.PIVOT), Step(StepKind.EXPOSE, ("/tmp",)), Step(StepKind.NETWORK)]  # noqa: S108
    steps += [Step(StepKind.AFFINITY, (affinity_mask(around.cpus),)), *_lockdown(host, has_ids=bool(ids))]
    return LaunchPlan(
        clone_flags=NAMESPACES,
        uid_inside=GUEST_ID,
        uid_outside=around.uid,
        gid_inside=GUEST_ID,
        gid_outside=around.gid,
        steps=tuple(steps),
    )


def _around(own: int, ids: range) -> tuple[int, int, int, int]:
    return ids.start, own - ids.start, own + 1, ids.stop - own - 1


def _build_root(host: HostFacts, spec: SandboxSpec) -> Builder:
    builder = Builder(host)
    own = f"mode=0755,uid={GUEST_ID},gid={GUEST_ID}"
    builder.add(StepKind.ROOT, host.staging, f"{own},size={bound.ROOT_SIZE_BYTES},nr_inodes={bound.ROOT_INODES}")
    add_devices(builder)
    for name in DIRECTORIES:
        builder.directory(name)
    add_base(builder)
    add_etc(builder)
    builder.base(ETC, ETC_SOURCE[1:])
    add_mounts(builder, spec.mounts)
    size = f"size={spec.limits.disk_bytes},nr_inodes={spec.limits.inodes}"
    builder.add(StepKind.TMPFS, "tmp", f"mode=0700,uid={GUEST_ID},gid={GUEST_ID},{size}")
    builder.add(StepKind.PROC, "proc", "")
    builder.add(StepKind.READ_ONLY, ".", 1)
    return builder


def _lockdown(host: HostFacts, *, has_ids: bool) -> list[Step]:
    """No limits that those made here would have to stay below, except on what nobody gets."""
    files = dict(host.hard_limits).get(resource.RLIMIT_NOFILE, bound.OPEN_FILES_MAX)
    steps = [Step(StepKind.RLIMIT, (resource.RLIMIT_CORE, 1, 1))]
    steps.append(Step(StepKind.RLIMIT, (resource.RLIMIT_NOFILE, files, files)))
    steps += [Step(StepKind.KEEP_CAPABILITIES, (_IDENTITIES,))] if has_ids else []
    steps += [Step(StepKind.DROP_CAPABILITIES), Step(StepKind.NO_NEW_PRIVILEGES)]
    return [*steps, Step(StepKind.SECCOMP, (seccomp.compile_filter(NURSERY_POLICY),))]


def nursery_spec(mounts: tuple[Mount, ...]) -> SandboxSpec:
    """What a nursery is made from, for sandboxes with these mounts."""
    limits = Limits(
        memory_bytes=bound.NURSERY_MEMORY_BYTES,
        processes=bound.NURSERY_PROCESSES,
        disk_bytes=bound.NURSERY_DISK_BYTES,
        cpus=1.0,
    )
    return SandboxSpec(limits=limits, mounts=(*mounts, LIBRARY_MOUNT))


def seen_inside(host: HostFacts, mounts: tuple[Mount, ...]) -> HostFacts:
    """The machine as those see it who make sandboxes in a nursery."""
    targets = {mount.source: mount.target for mount in mounts}
    return msgspec.structs.replace(
        host,
        uid=GUEST_ID if host.uid else 0,
        gid=GUEST_ID if host.uid else 0,
        etc_source=ETC_SOURCE,
        watches=_share_of_watches(),
        watched=_WATCHED_INSIDE if host.watched else (),
        staging="/tmp",  # noqa: S108 - the nursery's own
        overlay_refused=frozenset(targets.get(path, path) for path in host.overlay_refused),
    )


def _share_of_watches() -> tuple[int, int]:
    """Of inotify, which the kernel counts for the nursery's user too: so much that enough is left for all others."""
    most = [int(Path(_INOTIFY, name).read_text()) for name in ("max_user_instances", "max_user_watches")]
    instances, watches = (max(1, number // _SHARES) for number in most)
    return min(instances, bound.INOTIFY_INSTANCES_MAX), min(watches, _WORD_MAX)


def spec_inside(spec: SandboxSpec) -> SandboxSpec:
    """A spec for one that is made in a nursery, where everything lies where it will be."""
    mounts = tuple(Mount(mount.target, mount.target) for mount in spec.mounts)
    return msgspec.structs.replace(spec, mounts=mounts, base=BASE_DIRECTORY if spec.base else "")


def check_possible(host: HostFacts, cgroups: CgroupRoot | CgroupUnavailable, *, limited: bool) -> None:
    """Whether what a nursery needs of others is there; `limited`: a cgroup, too. Raises LaunchError."""
    if limited and isinstance(cgroups, CgroupUnavailable):
        raise LaunchError("nursery", errno.EOPNOTSUPP, "no cgroup would limit it", hint=cgroups.hint)
    if not uses_landlock(host):
        raise LaunchError("nursery", errno.EOPNOTSUPP, "no Landlock would keep its forks from its files")


def nested_pid(pidfd: int) -> int:
    """The id here of an init that was made in a nursery, which does not know it; -1 if it is gone already.

    Whoever makes it may hand over what stands for another process, us for one, whom the kernel names to everybody
    at the other end of our sockets; and what we get here we kill in the end. Raises LaunchError.
    """
    pids = pids_of(pidfd)
    is_nested = len(pids) == depth() + _NESTED_LEVELS and pids[-1] == 1
    if not is_nested and pids != (-1,):
        raise LaunchError(NESTED_STEP, errno.EPROTO, "what it hands over is not its init")
    return pids[0]


def check_nested_work(work_fd: int, *, uid: int, disk_bytes: int) -> None:
    """It could be any directory, which we would read with more rights than a zygote has. Raises LaunchError."""
    status, file_system = os.fstat(work_fd), os.statvfs(work_fd)
    size_bytes = file_system.f_blocks * file_system.f_frsize
    is_limited = disk_bytes <= size_bytes < disk_bytes + file_system.f_frsize
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != uid or not is_limited:
        raise LaunchError(NESTED_STEP, errno.EPROTO, "what it hands over is not its work directory")


class Nursery:
    """The way to a zygote that takes plans: `host` is what it sees of the machine.

    What is made in it dies with it. So it is retired when another one is to follow: it ends with the last sandbox that
    was made in it. Safe to use from many threads.
    """

    def __init__(self, channel: socket.socket, host: HostFacts, end: Callable[[], None]) -> None:
        """`end` ends its sandbox; `on_idle`, once set, is told when the last of those made in it is gone.

        `made` counts the attempts to make one, `has_worked` is for whoever makes them.
        """
        self.host = host
        self.on_idle: Callable[[], None] | None = None
        self.made = 0
        self.has_worked = False
        self._channel = channel
        self._end = end
        self._lock = threading.Lock()
        self._alive = 0
        self._retired = False
        self._ended = False

    def hand_over(self, plan: bytes, fds: Sequence[int]) -> Steps[None]:
        """Hand over a plan, waiting while the zygote is behind with earlier ones. Raises LaunchError."""
        deadline_s = time.monotonic() + bound.LAUNCH_TIMEOUT_S
        while True:
            try:
                return send_descriptors(self._channel, plan, fds)
            except BlockingIOError as error:
                if not (yield Wait(write=(self._channel.fileno(),), deadline_s=deadline_s)):
                    raise LaunchError("zygote", errno.ETIMEDOUT, "it takes no plan") from error
            except OSError as error:
                raise LaunchError("zygote", error.errno or 0, f"cannot reach it: {error.strerror}") from error

    @contextmanager
    def used(self) -> Iterator[None]:
        """As long as a sandbox of its is there. Raises LaunchError if it has ended already."""
        with self._lock:
            if self._ended:
                raise LaunchError("zygote", errno.EPIPE, "it has ended")
            self.made += 1
            self._alive += 1
        try:
            yield
        finally:
            with self._lock:
                self._alive -= 1
            self._end_if_done()
            if self.is_idle and self.on_idle is not None:
                self.on_idle()

    @property
    def is_full(self) -> bool:
        """Whether as many are there as a nursery may have at a time."""
        return self._alive >= bound.ZYGOTE_FORKS_MAX

    @property
    def is_idle(self) -> bool:
        """Whether nothing is there that was made in it."""
        return not self._alive

    def retire(self) -> None:
        """Let it end with the last of those made in it. Idempotent."""
        self._retired = True
        self._end_if_done()

    def _end_if_done(self) -> None:
        with self._lock:
            if self._ended or self._alive or not self._retired:
                return
            self._ended = True
        self._end()

    def close(self) -> None:
        """End it, and with it every sandbox that was made in it. Idempotent."""
        with self._lock:
            was_ended, self._ended = self._ended, True
        if not was_ended:
            self._end()

"""The steps that build the sandbox's root filesystem, as data.

Paths are relative to the new root, which is the working directory of the launcher's init while it
builds. Everything is `nosuid,nodev`; the root itself becomes read-only at the end. All writable
directories are parts of one tmpfs, so that its size and inode count are the disk limit.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Final

from casemate import limits as bound
from casemate.errors import LayerMissing
from casemate.isolation import procfs, way
from casemate.isolation.host import HostFacts
from casemate.isolation.steps import Step, StepKind
from casemate.model.layers import Layer
from casemate.model.resources import Limits
from casemate.model.spec import (
    GUEST_ID,
    GUEST_NAME,
    HOME_DIRECTORY,
    HOSTNAME,
    WORK_DIRECTORY,
    WRITABLE_DIRECTORIES,
    Mount,
    SandboxSpec,
)

READ_ONLY: Final = 0x1
NO_SUID: Final = 0x2
NO_DEVICES: Final = 0x4
NO_EXEC: Final = 0x8
BASE_ATTRIBUTES: Final = READ_ONLY | NO_SUID | NO_DEVICES
SCRATCH_OWN_INODES: Final = 1 + len(WRITABLE_DIRECTORIES)
"""Of the tmpfs itself, so that the guest gets as many as its limit says."""

SCRATCH: Final = "run/scratch"
EMPTY_DIRECTORY: Final = "mnt"
ETC: Final = "/etc"
ETC_OVERLAY: Final = "run/.etc"
MASK_FILE: Final = "run/.mask"
MASK_DIRECTORY: Final = "run/.masks"
SYNTHETIC_DIRECTORY: Final = "run/.proc"
_MEMORY: Final = 1 << 8
DEVICES: Final = {
    "null": _MEMORY | 3,
    "zero": _MEMORY | 5,
    "full": _MEMORY | 7,
    "random": _MEMORY | 8,
    "urandom": _MEMORY | 9,
    "tty": 5 << 8,
}
"""Their numbers: the major one in the upper byte."""

DEVICE_DIRECTORY: Final = "dev"
DIRECTORIES: Final = (
    "dev/pts",
    "dev/shm",
    "proc",
    "etc",
    "run",
    "tmp",
    "var",
    "home",
    "mnt",
    "opt",
    "code",
    "work",
)
MACHINE_HINT: Final = 'without it, jobs see all programs of the machine: base = "machine" below [jobs]'
TIME_ZONE: Final = "Etc/UTC"
"""Wherever the machine is. Without a name for it some runtimes search all zones, which takes seconds."""

LINKS: Final = (
    ("pts/ptmx", "dev/ptmx"),
    ("/proc/self/fd", "dev/fd"),
    ("/proc/self/fd/0", "dev/stdin"),
    ("/proc/self/fd/1", "dev/stdout"),
    ("/proc/self/fd/2", "dev/stderr"),
    ("/run", "var/run"),
    ("/tmp", "var/tmp"),  # noqa: S108
    ("/proc/self/mounts", "etc/mtab"),
    (f"/usr/share/zoneinfo/{TIME_ZONE}", "etc/localtime"),
)
ETC_FILES: Final = {
    "etc/passwd": f"{GUEST_NAME}:x:{GUEST_ID}:{GUEST_ID}:{GUEST_NAME}:{HOME_DIRECTORY}:/bin/sh\n"
    "nobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n",
    "etc/group": f"{GUEST_NAME}:x:{GUEST_ID}:\nnogroup:x:65534:\n",
    "etc/hosts": f"127.0.0.1 localhost {HOSTNAME}\n::1 localhost\n",
    "etc/hostname": f"{HOSTNAME}\n",
    "etc/timezone": f"{TIME_ZONE}\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n",
}


class Builder:
    """Collects steps; sources (host paths) are opened first, before the identity changes."""

    def __init__(self, host: HostFacts) -> None:
        self.host = host
        self.sources: list[str] = []
        self.steps: list[Step] = []
        self._made: set[str] = set()

    def add(self, kind: StepKind, *arguments: object) -> None:
        self.steps.append(Step(kind, arguments))

    def source(self, path: str) -> int:
        if path not in self.sources:
            self.sources.append(path)
        return self.sources.index(path)

    def directory(self, target: str) -> None:
        """A directory and its missing parents."""
        for parent in [*reversed(PurePosixPath(target).parents), PurePosixPath(target)]:
            if str(parent) not in {".", "/"} and str(parent) not in self._made:
                self._made.add(str(parent))
                self.add(StepKind.DIRECTORY, str(parent), 0o755)

    def file(self, target: str, content: str = "") -> None:
        self.add(StepKind.FILE, target, 0o444, content.encode())

    def has_overlay(self, path: str) -> bool:
        return path not in self.host.overlay_refused

    def base(self, path: str, target: str, kin: str = "") -> None:
        """A directory of the machine, read-only: through an overlay of its own if that works here.

        With an overlay each sandbox has inodes of its own, so locks and watches on base files do not
        reach other sandboxes, and no host path shows in mountinfo.
        """
        self.directory(target)
        if self.has_overlay(kin or path):
            other = f"{self.host.staging}/{EMPTY_DIRECTORY}"
            source = self.host.etc_source if path == ETC else path
            self.add(StepKind.OVERLAY, self.source(source), other, target, BASE_ATTRIBUTES)
        else:
            self.bind(path, target)

    def bind(self, path: str, target: str, attributes: int = BASE_ATTRIBUTES, device: int = 0) -> None:
        self.add(StepKind.BIND, self.source(path), target, attributes, device)


def private_directories(host: HostFacts, mounts: tuple[Mount, ...]) -> frozenset[str]:
    """The directories of the machine that are shown through an overlay where that works."""
    base = (f"/{entry.name}" for entry in host.base if not entry.link)
    return frozenset({*base, ETC, *(mount.source for mount in mounts)})


def build_root(host: HostFacts, spec: SandboxSpec, cpus: int) -> Builder:
    """All steps between the new identity and the pivot, in order."""
    builder, limits = Builder(host), spec.limits
    options = f"mode=0755,uid={GUEST_ID},gid={GUEST_ID},size={bound.ROOT_SIZE_BYTES},nr_inodes={bound.ROOT_INODES}"
    builder.add(StepKind.ROOT, host.staging, options)
    add_devices(builder)
    for name in DIRECTORIES:
        builder.directory(name)
    builder.add(StepKind.DEVPTS, "dev/pts", f"newinstance,ptmxmode=0666,mode=0620,max={bound.TERMINALS_MAX}")
    add_base(builder, spec.base)
    add_etc(builder, resolver=way.RESOLVER if spec.network else "")
    add_mounts(builder, spec.mounts)
    _add_scratch(builder, limits, own_inodes=len(spec.inputs) + len(spec.links))
    _add_inputs(builder, spec)
    for content, target in LINKS:
        builder.add(StepKind.SYMLINK, content, target)
    _add_proc(builder, limits, cpus)
    return builder


def add_base(builder: Builder, mask: str = "") -> None:
    """The machine's own top-level directories, without what a mask hides. Raises LayerMissing."""
    for entry in builder.host.base:
        if entry.link:
            builder.add(StepKind.SYMLINK, entry.link, entry.name)
        elif mask:
            _add_hiding(builder, f"{mask}/{entry.name}", entry.name)
        else:
            builder.base(f"/{entry.name}", entry.name)


def _add_hiding(builder: Builder, mask: str, name: str) -> None:
    """Nothing but an overlay hides."""
    if not builder.has_overlay(mask):
        raise LayerMissing([Layer.PRIVATE_BASE], hint=MACHINE_HINT)
    builder.directory(name)
    builder.add(StepKind.OVERLAY, builder.source(mask), f"/{name}", name, BASE_ATTRIBUTES)


def add_etc(builder: Builder, *, resolver: str = "") -> None:
    """A synthetic /etc, with what programs need of the machine's."""
    for target, content in {**ETC_FILES, "etc/resolv.conf": resolver}.items():
        builder.file(target, content)
    if builder.has_overlay(ETC):
        builder.base(ETC, ETC_OVERLAY)
    for path, real in zip(builder.host.etc, builder.host.etc_real, strict=True):
        _add_path(builder, path, real)


def _add_path(builder: Builder, path: str, real: str) -> None:
    """Out of the overlay if there is one: these files, too, must not be a place where sandboxes meet."""
    target = path[1:]
    if path in builder.host.etc_directories:
        builder.directory(target)
    else:
        builder.directory(str(PurePosixPath(target).parent))
        builder.file(target)
    if builder.has_overlay(ETC) and PurePosixPath(real).is_relative_to(ETC):
        builder.add(StepKind.BIND_OWN, ETC_OVERLAY + real.removeprefix(ETC), target, BASE_ATTRIBUTES)
    else:
        builder.bind(path, target)


def add_mounts(builder: Builder, mounts: tuple[Mount, ...]) -> None:
    """What this sandbox sees of the machine beside that."""
    for mount in mounts:
        builder.base(mount.source, mount.target.lstrip("/"))


def add_devices(builder: Builder) -> None:
    """Nodes of the sandbox's own where we may make any; otherwise the machine's, whose inodes all sandboxes share.

    Read-only keeps their times and modes; what is behind a device can be written all the same.
    """
    builder.directory(DEVICE_DIRECTORY)
    if builder.host.device_nodes:
        size, inodes = str(bound.DEVICES_SIZE_BYTES), str(bound.DEVICES_INODES)
        builder.add(StepKind.DEVICES, DEVICE_DIRECTORY, NO_SUID | NO_EXEC, size, inodes, tuple(DEVICES.items()))
        return
    for name, number in DEVICES.items():
        builder.add(StepKind.FILE, f"{DEVICE_DIRECTORY}/{name}", 0o666, b"")
        builder.bind(f"/dev/{name}", f"{DEVICE_DIRECTORY}/{name}", READ_ONLY | NO_SUID | NO_EXEC, number)


def _add_scratch(builder: Builder, limits: Limits, own_inodes: int) -> None:
    """One tmpfs behind every writable directory: its size and inodes are the disk limit."""
    inodes = limits.inodes + SCRATCH_OWN_INODES + own_inodes
    size = f"size={limits.disk_bytes},nr_inodes={inodes}"
    builder.directory(SCRATCH)
    builder.add(StepKind.TMPFS, SCRATCH, f"mode=0755,uid={GUEST_ID},gid={GUEST_ID},{size}")
    for number, directory in enumerate(WRITABLE_DIRECTORIES):
        part = f"{SCRATCH}/{number}"
        builder.directory(directory[1:])
        builder.add(StepKind.DIRECTORY, part, 0o1777 if directory in {"/tmp", "/dev/shm"} else 0o755)  # noqa: S108
        builder.add(StepKind.BIND_OWN, part, directory[1:], NO_SUID | NO_DEVICES)


def _add_inputs(builder: Builder, spec: SandboxSpec) -> None:
    """In the work directory, where they are mount points: the guest can neither write to them nor move them away."""
    for mount in spec.inputs:
        builder.base(mount.source, mount.target.lstrip("/"), mount.kin)
    for name, content in spec.links:
        builder.add(StepKind.SYMLINK, content, f"{WORK_DIRECTORY[1:]}/{name}")


def _add_proc(builder: Builder, limits: Limits, cpus: int) -> None:
    """The root is read-only from here on, and so is every cover: it has the root's attributes."""
    texts = procfs.synthetic(builder.host.cpuinfo, limits, cpus)
    replaced = [name for name in builder.host.proc_files if name in texts]
    builder.add(StepKind.PROC, "proc", "hidepid=2")
    builder.file(MASK_FILE)
    builder.directory(MASK_DIRECTORY)
    builder.directory(SYNTHETIC_DIRECTORY)
    for name in replaced:
        builder.file(f"{SYNTHETIC_DIRECTORY}/{name}", texts[name])
    builder.add(StepKind.READ_ONLY, ".", READ_ONLY)
    if builder.host.device_nodes:
        builder.add(StepKind.READ_ONLY, DEVICE_DIRECTORY, READ_ONLY)
    for name in replaced:
        builder.add(StepKind.COVER, f"{SYNTHETIC_DIRECTORY}/{name}", f"proc/{name}")
    for name in procfs.masked(builder.host.proc_files, procfs.OPEN_FILES):
        builder.add(StepKind.COVER, MASK_FILE, f"proc/{name}")
    for name in procfs.masked(builder.host.proc_directories, procfs.OPEN_DIRECTORIES):
        builder.add(StepKind.COVER, MASK_DIRECTORY, f"proc/{name}")
    if builder.has_overlay(ETC):
        builder.add(StepKind.COVER, MASK_DIRECTORY, ETC_OVERLAY)
    builder.add(StepKind.BIND_OWN, "proc/sys", "proc/sys", BASE_ATTRIBUTES | NO_EXEC)
    for path in builder.host.sysctls:
        builder.add(StepKind.COVER, MASK_FILE, f"proc/{path}")
    for path in builder.host.sysctl_directories:
        builder.add(StepKind.COVER, MASK_DIRECTORY, f"proc/{path}")

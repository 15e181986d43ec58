"""What this machine offers and how it is laid out: everything a plan needs to know, as one value."""

from __future__ import annotations

import os
import resource
from functools import cache
from pathlib import Path
from typing import Final

import msgspec

from casemate.isolation.syscalls import WATCHED
from casemate.kernel.landlock import abi_version

BASE_DIRECTORIES: Final = ("usr", "bin", "sbin", "lib", "lib64", "lib32", "libx32")
ETC_PATHS: Final = (
    "/etc/ld.so.cache",
    "/etc/alternatives",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/etc/pki/ca-trust/extracted",
    "/etc/pki/tls/certs",
    "/etc/crypto-policies",
    "/etc/fonts",
    "/etc/services",
    "/etc/protocols",
)
"""Parts of /etc that programs need and that hold no secret of the machine."""

MACHINE_SYSCTLS: Final = (
    "sys/kernel/random/boot_id",
    "sys/kernel/pty/nr",
    "sys/fs/aio-nr",
    "sys/fs/dentry-negative",
    "sys/fs/dentry-state",
    "sys/fs/file-nr",
    "sys/fs/inode-nr",
    "sys/fs/inode-state",
)
"""Names and counters of the whole machine: a sandbox would see others in them, and two could talk through them."""

MACHINE_SYSCTL_DIRECTORIES: Final = ("sys/fs/quota",)
"""The same, where all files of a directory are such."""

STAGING_CANDIDATES: Final = ("/tmp", "/run", "/mnt", "/var")  # noqa: S108 - only a mount point in a private namespace


LIMITED_RESOURCES: Final = (
    resource.RLIMIT_FSIZE,
    resource.RLIMIT_NOFILE,
    resource.RLIMIT_NPROC,
    resource.RLIMIT_STACK,
    resource.RLIMIT_SIGPENDING,
    resource.RLIMIT_DATA,
    resource.RLIMIT_CPU,
)
"""Those whose limit a plan may want higher than what this process itself is allowed."""


class BaseEntry(msgspec.Struct, frozen=True):
    """One top-level directory of the base: a real one, or (`link` not empty) a symbolic link."""

    name: str
    link: str = ""


class HostFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a plan needs to know of the machine.

    `proc_files` and `proc_directories` are what everybody can read at the top of /proc, `sysctls` and
    `sysctl_directories` what there is of machine-wide facts below /proc/sys. `overlay_refused` are directories over
    which no overlay can be mounted in a user namespace, `device_nodes` says whether we can make any: both only a try
    can tell. `etc_source` is where the machine's /etc lies. `hard_limits` are our own, by number of the resource;
    nobody can be given more. `watches` are how many instances and watches of inotify one sandbox may have, where that
    is not the usual. `ipv6`: whether a network namespace has it. `watched`: the forbidden
    system calls of which init is asked; whether it can be, only a try can tell.
    """

    uid: int
    gid: int
    base: tuple[BaseEntry, ...]
    etc: tuple[str, ...]
    etc_real: tuple[str, ...]
    etc_directories: frozenset[str]
    staging: str
    proc_files: tuple[str, ...]
    proc_directories: tuple[str, ...]
    sysctls: tuple[str, ...]
    sysctl_directories: tuple[str, ...]
    cpuinfo: str
    cpus: tuple[int, ...]
    landlock_abi: int
    hard_limits: tuple[tuple[int, int], ...] = ()
    overlay_refused: frozenset[str] = frozenset()
    device_nodes: bool = True
    etc_source: str = "/etc"
    watches: tuple[int, int] = (0, 0)
    ipv6: bool = True
    watched: tuple[str, ...] = WATCHED


def _base_entries() -> tuple[BaseEntry, ...]:
    found = []
    for name in BASE_DIRECTORIES:
        path = Path("/") / name
        if path.is_symlink():
            found.append(BaseEntry(name, str(path.readlink())))
        elif path.is_dir():
            found.append(BaseEntry(name))
    return tuple(found)


def _proc_entries() -> tuple[tuple[str, ...], tuple[str, ...]]:
    files: list[str] = []
    directories: list[str] = []
    with os.scandir("/proc") as entries:
        for entry in entries:
            if entry.name.isdigit() or entry.is_symlink():
                continue
            if not entry.stat(follow_symlinks=False).st_mode & 0o004:
                continue
            (directories if entry.is_dir(follow_symlinks=False) else files).append(entry.name)
    return tuple(sorted(files)), tuple(sorted(directories))


@cache
def _in_proc(paths: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(path for path in paths if Path("/proc", path).exists())


def _has_ipv6() -> bool:
    """Not where it is switched off: a machine that wants none gives none to its guests."""
    try:
        return Path("/proc/sys/net/ipv6/conf/all/disable_ipv6").read_text().strip() == "0"
    except OSError:
        return False


def read_host_facts() -> HostFacts:
    """Look at the machine once. Cheap: some stat calls and one read."""
    files, directories = _proc_entries()
    etc = tuple(path for path in ETC_PATHS if os.access(path, os.R_OK))
    return HostFacts(
        uid=os.geteuid(),
        gid=os.getegid(),
        base=_base_entries(),
        etc=etc,
        etc_real=tuple(os.path.realpath(path) for path in etc),
        etc_directories=frozenset(path for path in etc if Path(path).is_dir()),
        staging=next(path for path in STAGING_CANDIDATES if Path(path).is_dir()),
        proc_files=files,
        proc_directories=directories,
        sysctls=_in_proc(MACHINE_SYSCTLS),
        sysctl_directories=_in_proc(MACHINE_SYSCTL_DIRECTORIES),
        cpuinfo=Path("/proc/cpuinfo").read_text(errors="replace"),
        cpus=tuple(sorted(os.sched_getaffinity(0))),
        landlock_abi=abi_version(),
        hard_limits=tuple((number, resource.getrlimit(number)[1]) for number in LIMITED_RESOURCES),
        device_nodes=os.geteuid() == 0,
        ipv6=_has_ipv6(),
    )

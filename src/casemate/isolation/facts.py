"""What a check-up needs to know of the machine beyond what a plan does: settings, rights, surroundings."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from casemate import limits
from casemate.isolation.launcher import PROGRAM
from casemate.kernel.hostids import has_range
from casemate.kernel.landlock import abi_version

NAMESPACES: Final = ("user", "pid", "net", "mnt", "ipc", "uts", "cgroup")
CONTAINER_MARKS: Final = {"/.dockerenv": "docker", "/run/.containerenv": "podman"}
HARMLESS_COVERS: Final = ("/proc/sys/fs/binfmt_misc", "/proc/fs/nfsd")
"""Mount points in /proc that the kernel keeps empty for good; they hide nothing."""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """The machine as a check-up sees it. None: there is no such setting here.

    `capabilities` and `seccomp_mode` are those of this process, `proc_covers` what is mounted over parts of
    /proc, `proc_is_ours` whether /proc shows this process under its own id.
    """

    kernel: str
    machine: str
    uid: int
    ids_mapped: bool = True
    namespaces: frozenset[str] = frozenset(NAMESPACES)
    namespace_limits: dict[str, int] = {}
    unprivileged_userns_clone: int | None = None
    apparmor_restricts_userns: int | None = None
    apparmor_profile: str = ""
    capabilities: int = 0
    seccomp_mode: int = 0
    container: str = ""
    proc_covers: tuple[str, ...] = ()
    proc_is_ours: bool = True
    root_is_mount: bool = True
    landlock_abi: int = 0
    security_modules: str = ""
    overlay_known: bool = True
    launcher: str = ""
    launcher_exists: bool = True


def read_facts(environment: Mapping[str, str] = os.environ) -> Facts:
    """Look at the machine. Reads small files only, and needs no rights."""
    status = parse_status(_text("/proc/self/status"))
    mounts = mount_points(_text("/proc/self/mountinfo"))
    return Facts(
        kernel=platform.release(),
        machine=platform.machine(),
        uid=os.geteuid(),
        ids_mapped=has_range(),
        namespaces=frozenset(name for name in NAMESPACES if Path(f"/proc/self/ns/{name}").exists()),
        namespace_limits=_namespace_limits(),
        unprivileged_userns_clone=_number("/proc/sys/kernel/unprivileged_userns_clone"),
        apparmor_restricts_userns=_number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
        apparmor_profile=_text("/proc/self/attr/apparmor/current").strip("\0\n "),
        capabilities=int(status.get("CapEff", "0"), 16),
        seccomp_mode=int(status.get("Seccomp", "0")),
        container=_container(environment),
        proc_covers=tuple(sorted(point for point in mounts if _covers_proc(point))),
        proc_is_ours=_text("/proc/self/stat").partition(" ")[0] == str(os.getpid()),
        root_is_mount="/" in mounts,
        landlock_abi=abi_version(),
        security_modules=_text("/sys/kernel/security/lsm").strip(),
        overlay_known="\toverlay\n" in _text("/proc/filesystems"),
        launcher=str(PROGRAM),
        launcher_exists=PROGRAM.exists(),
    )


def parse_status(text: str) -> dict[str, str]:
    """`/proc/PID/status` by field."""
    pairs = (line.partition(":") for line in text.splitlines())
    return {name: value.strip() for name, _, value in pairs}


def mount_points(mountinfo: str) -> frozenset[str]:
    """Where something is mounted."""
    fields = (line.split() for line in mountinfo.splitlines())
    return frozenset(words[4] for words in fields if len(words) > 4)  # noqa: PLR2004 - the fifth field of proc(5)


def _covers_proc(point: str) -> bool:
    return point.startswith("/proc/") and not point.startswith(HARMLESS_COVERS)


def _namespace_limits() -> dict[str, int]:
    found = {name: _number(f"/proc/sys/user/max_{name}_namespaces") for name in NAMESPACES}
    return {name: value for name, value in found.items() if value is not None}


def _container(environment: Mapping[str, str]) -> str:
    marked = next((name for path, name in CONTAINER_MARKS.items() if Path(path).exists()), "")
    if not marked and environment.get("KUBERNETES_SERVICE_HOST"):
        return "kubernetes"
    return marked or environment.get("container", "")[:20]


def _number(path: str) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


def _text(path: str) -> str:
    """What a file says; nothing where it is not there or not for us, which is an answer, too."""
    try:
        with Path(path).open("rb") as file:
            return file.read(limits.SETTING_FILE_MAX_BYTES).decode(errors="replace")
    except OSError:
        return ""

"""Why a sandbox could not be started here: from the failing step and the facts to a cause with its remedy. Pure."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from typing import Final, TypeAlias

import msgspec

from casemate.isolation.facts import Facts
from casemate.isolation.protocol import FAILED_STAGES, Stage
from casemate.model.layers import Layer

CAPABILITY_SETGID: Final = 6
CAPABILITY_SETUID: Final = 7
CAPABILITY_ADMIN: Final = 21
SECCOMP_FILTER: Final = 2
LAUNCHER: Final = "launcher"
CGROUP: Final = FAILED_STAGES[Stage.CGROUP]
CLONE: Final = FAILED_STAGES[Stage.CLONE]
SETGROUPS: Final = FAILED_STAGES[Stage.SETGROUPS]
GROUP_MAP: Final = FAILED_STAGES[Stage.GID_MAP]
USER_MAP: Final = FAILED_STAGES[Stage.UID_MAP]
NETWORK: Final = FAILED_STAGES[Stage.NETWORK]
NAMESPACE_STAGES: Final = frozenset({CLONE, NETWORK, SETGROUPS, GROUP_MAP, USER_MAP})
MOUNT_STEPS: Final = frozenset({"root", "tmpfs", "bind", "overlay", "devpts", "proc", "pivot", "cover", "read"})
REFUSED: Final = frozenset({errno.EPERM, errno.EACCES})
LAYER_OF_NAMESPACE: Final = {
    "user": Layer.USER_NAMESPACE,
    "pid": Layer.PID_NAMESPACE,
    "net": Layer.NETWORK_NAMESPACE,
    "mnt": Layer.MOUNT_NAMESPACE,
    "ipc": Layer.IPC_NAMESPACE,
    "uts": Layer.UTS_NAMESPACE,
    "cgroup": Layer.CGROUP_NAMESPACE,
}
NAMESPACES_WANTED: Final = 15_000
KERNEL_MIN: Final = (5, 12)
CONTAINER_MENDS: Final = {
    "docker": "docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined "
    "--security-opt systempaths=unconfined …",
    "podman": "podman run --security-opt seccomp=unconfined --security-opt unmask=ALL …",
    "kubernetes": "securityContext: {procMount: Unmasked, seccompProfile: {type: Unconfined}} with hostUsers: false",
    "lxc": "lxc config set NAME security.nesting=true",
}
CONTAINER_MEND: Final = (
    "start the container with user namespaces allowed and /proc unmasked; for example " + CONTAINER_MENDS["docker"]
)


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """How a start failed: the step, the kernel's answer, and what the error said."""

    step: str
    errno: int
    message: str
    hint: str = ""

    @property
    def kind(self) -> str:
        """The first word of a step of the plan."""
        return self.step.partition(" ")[0]


class Cause(msgspec.Struct, frozen=True, kw_only=True):
    """What stands in the way: the layer that is missing because of it, why, and what to type."""

    layer: Layer
    why: str
    mend: str


_CONFIG: Final = {
    "user": "USER_NS",
    "pid": "PID_NS",
    "net": "NET_NS",
    "mnt": "NAMESPACES",
    "ipc": "IPC_NS",
    "uts": "UTS_NS",
    "cgroup": "CGROUPS",
}

Rule: TypeAlias = Callable[[Facts, Failure], Cause | None]


def find_cause(facts: Facts, failure: Failure) -> Cause:
    """The first rule that knows the failure names its cause; the last one knows every failure."""
    causes = (rule(facts, failure) for rule in RULES)
    return next((cause for cause in causes if cause is not None), _unknown(failure))


def is_privileged(facts: Facts, capability: int = CAPABILITY_ADMIN) -> bool:
    """Whether this process has the capability."""
    return bool(facts.capabilities >> capability & 1)


def _no_launcher(facts: Facts, failure: Failure) -> Cause | None:
    """Nothing can be said of any layer without the program that builds them."""
    if failure.step != LAUNCHER:
        return None
    if not facts.launcher_exists:
        why = f"the launcher is not there: {facts.launcher}"
        return Cause(layer=Layer.OWN_ROOT, why=why, mend="make setup, or install the package again from its wheel")
    if failure.errno == errno.ENOEXEC:
        why = f"the launcher is built for x86_64, this machine is {facts.machine}"
        return Cause(layer=Layer.OWN_ROOT, why=why, mend="use a machine with x86_64")
    if failure.errno == errno.EACCES:
        why = f"the launcher may not be executed: {facts.launcher}"
        mend = f"chmod 755 {facts.launcher}, and mount its file system without noexec"
        return Cause(layer=Layer.OWN_ROOT, why=why, mend=mend)
    return None


def _old_kernel(facts: Facts, failure: Failure) -> Cause | None:
    """Calls that the launcher cannot do without, the newest of which is mount_setattr."""
    version = kernel_version(facts.kernel)
    if version >= KERNEL_MIN or failure.errno not in {errno.ENOSYS, errno.EINVAL, errno.EPIPE}:
        return None
    oldest = ".".join(map(str, KERNEL_MIN))
    why = f"Linux {facts.kernel} is too old ({failure.step}: {failure.message})"
    return Cause(layer=Layer.OWN_ROOT, why=why, mend=f"use Linux {oldest} or newer")


def kernel_version(release: str) -> tuple[int, int]:
    """`6.1.0-13-amd64` → (6, 1)."""
    numbers = [int(digits) for digits in re.findall(r"\d+", release)[:2]]
    major, minor = (*numbers, 0, 0)[:2]
    return major, minor


def _no_namespace_in_kernel(facts: Facts, failure: Failure) -> Cause | None:
    missing = [name for name in LAYER_OF_NAMESPACE if name not in facts.namespaces]
    if failure.step not in NAMESPACE_STAGES or not missing:
        return None
    names = ", ".join(missing)
    mend = "use a kernel built with " + ", ".join(f"CONFIG_{_CONFIG[name]}" for name in missing)
    return Cause(layer=LAYER_OF_NAMESPACE[missing[0]], why=f"the kernel has no namespaces of kind: {names}", mend=mend)


def _namespace_limit(facts: Facts, failure: Failure) -> Cause | None:
    """The kernel answers ENOSPC when a limit on namespaces is reached, here or in a surrounding namespace."""
    if failure.step not in NAMESPACE_STAGES or failure.errno not in {errno.ENOSPC, errno.EUSERS}:
        return None
    zero = [name for name, value in facts.namespace_limits.items() if value == 0]
    if zero:
        why = f"user.max_{zero[0]}_namespaces is 0: no such namespace may be made"
    else:
        zero = ["net" if failure.step == NETWORK else "user"]
        why = f"the limit on {zero[0]} namespaces is used up, or set to 0 by a surrounding container"
    mend = f"sudo sysctl -w user.max_{zero[0]}_namespaces={NAMESPACES_WANTED}"
    return Cause(layer=LAYER_OF_NAMESPACE[zero[0]], why=why, mend=mend)


def _userns_sysctl(facts: Facts, failure: Failure) -> Cause | None:
    if failure.step != CLONE or failure.errno not in REFUSED or is_privileged(facts):
        return None
    if facts.unprivileged_userns_clone != 0:
        return None
    why = "kernel.unprivileged_userns_clone is 0: ordinary users may not make user namespaces"
    return Cause(layer=Layer.USER_NAMESPACE, why=why, mend="sudo sysctl -w kernel.unprivileged_userns_clone=1")


def _apparmor_restriction(facts: Facts, failure: Failure) -> Cause | None:
    """With it a user namespace is made, but without rights: the first step that needs one fails."""
    first_steps = NAMESPACE_STAGES | {"identity", "hostname", "root"}
    if facts.apparmor_restricts_userns != 1 or is_privileged(facts) or failure.errno not in REFUSED:
        return None
    if failure.step not in first_steps and failure.kind not in first_steps:
        return None
    profile = f"profile casemate {facts.launcher} flags=(unconfined) {{ userns, }}"
    mend = (
        f"printf 'abi <abi/4.0>,\\n{profile}\\n' | sudo tee /etc/apparmor.d/casemate && "
        "sudo apparmor_parser -r /etc/apparmor.d/casemate"
    )
    why = (
        "AppArmor takes the rights out of user namespaces: kernel.apparmor_restrict_unprivileged_userns is 1 "
        "and no profile allows them to the launcher"
    )
    return Cause(layer=Layer.USER_NAMESPACE, why=why, mend=mend)


def _foreign_proc(facts: Facts, failure: Failure) -> Cause | None:
    if facts.proc_is_ours or failure.step not in NAMESPACE_STAGES:
        return None
    why = "/proc is that of another process namespace: this container has none of its own"
    return Cause(layer=Layer.USER_NAMESPACE, why=why, mend="mount -t proc proc /proc")


def _chroot(facts: Facts, failure: Failure) -> Cause | None:
    if failure.step != CLONE or failure.errno not in REFUSED:
        return None
    if facts.root_is_mount and not (is_privileged(facts) and not _confinement(facts)):
        return None
    why = "this process seems to live in a chroot, where the kernel allows no user namespace"
    mend = "enter the directory by pivot_root instead (a container does), or bind it onto itself and unshare"
    return Cause(layer=Layer.USER_NAMESPACE, why=why, mend=mend)


def _id_maps(facts: Facts, failure: Failure) -> Cause | None:
    if failure.step not in {USER_MAP, GROUP_MAP, SETGROUPS} or facts.uid != 0:
        return None
    lacking = [
        name
        for name, number in (("SETUID", CAPABILITY_SETUID), ("SETGID", CAPABILITY_SETGID))
        if not is_privileged(facts, number)
    ]
    if not lacking:
        return None
    names = " and ".join(f"CAP_{name}" for name in lacking)
    mend = "start the container with " + " ".join(f"--cap-add {name}" for name in lacking)
    return Cause(layer=Layer.USER_NAMESPACE, why=f"root lacks {names} here and may not map user ids", mend=mend)


def _covered_proc(facts: Facts, failure: Failure) -> Cause | None:
    """The kernel lets nobody see more of /proc than already visible: a covered one forbids a new one."""
    if failure.kind != "proc" or failure.errno not in REFUSED:
        return None
    if facts.proc_covers:
        shown = ", ".join(facts.proc_covers[:3]) + (", …" if len(facts.proc_covers) > 3 else "")  # noqa: PLR2004
        why = f"parts of /proc are covered here ({shown}), so the kernel allows no /proc of a sandbox's own"
    else:
        why = "the kernel allows no /proc of a sandbox's own here: the one that is visible is not a whole one"
    return Cause(layer=Layer.PID_NAMESPACE, why=why, mend=_container_mend(facts))


def _container_filter(facts: Facts, failure: Failure) -> Cause | None:
    """A surrounding container's seccomp filter or AppArmor profile answers EPERM to unshare and mount."""
    if failure.errno not in {*REFUSED, errno.ENOSYS}:
        return None
    what = _confinement(facts)
    if not what:
        return None
    if failure.step in NAMESPACE_STAGES:
        why = f"{what} around this process forbids new namespaces ({failure.message})"
        return Cause(layer=Layer.USER_NAMESPACE, why=why, mend=_container_mend(facts))
    if failure.kind in MOUNT_STEPS:
        why = f"{what} around this process forbids mounts ({failure.message})"
        return Cause(layer=Layer.OWN_ROOT, why=why, mend=_container_mend(facts))
    return None


def _confinement(facts: Facts) -> str:
    """What a container has put around this process, in words."""
    found = ["a seccomp filter"] if facts.seccomp_mode == SECCOMP_FILTER else []
    if "(enforce)" in facts.apparmor_profile:
        found.append(f"the AppArmor profile {facts.apparmor_profile.removesuffix(' (enforce)')}")
    return " and ".join(found)


def _container_mend(facts: Facts) -> str:
    return CONTAINER_MENDS.get(facts.container.partition("-")[0], CONTAINER_MEND)


def _kernel_part(facts: Facts, failure: Failure) -> Cause | None:
    """Steps that fail only where the kernel lacks the very thing."""
    if failure.kind == "seccomp":
        mend = "use a kernel built with CONFIG_SECCOMP_FILTER"
        return Cause(layer=Layer.SECCOMP, why=f"the kernel refuses the filter: {failure.message}", mend=mend)
    if failure.kind == "landlock":
        why = f"Landlock (version {facts.landlock_abi}) refuses the rules: {failure.message}"
        return Cause(layer=Layer.LANDLOCK, why=why, mend="use a newer kernel, and please report this")
    if failure.step == CGROUP:
        mend = "export CASEMATE_CGROUP=none, or the path of a control group that you may write"
        return Cause(layer=Layer.LIMITS, why=f"the control group cannot be entered: {failure.message}", mend=mend)
    return None


def _refused_clone(facts: Facts, failure: Failure) -> Cause | None:
    if failure.step not in NAMESPACE_STAGES or failure.errno not in REFUSED:
        return None
    why = f"the kernel forbids a user namespace here ({failure.message}); a security module or a container does that"
    return Cause(layer=Layer.USER_NAMESPACE, why=why, mend=_container_mend(facts))


RULES: Final[tuple[Rule, ...]] = (
    _no_launcher,
    _old_kernel,
    _no_namespace_in_kernel,
    _namespace_limit,
    _userns_sysctl,
    _foreign_proc,
    _chroot,
    _apparmor_restriction,
    _id_maps,
    _covered_proc,
    _container_filter,
    _kernel_part,
    _refused_clone,
)
"""From the particular to the general."""


def _unknown(failure: Failure) -> Cause:
    step = failure.kind if failure.kind in MOUNT_STEPS else ""
    layer = Layer.OWN_ROOT if step else Layer.LIMITS
    return Cause(layer=layer, why=f"{failure.step}: {failure.message}", mend=failure.hint or "please report this")

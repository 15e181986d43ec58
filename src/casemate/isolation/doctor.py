"""The check-up: from the facts and a real trial to one finding for every layer, and the tier. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Final

import msgspec

from casemate.isolation.diagnosis import LAYER_OF_NAMESPACE, Cause, Failure, find_cause
from casemate.isolation.facts import Facts, parse_status
from casemate.isolation.landlock import ABI_SHARED_RENAME
from casemate.model.layers import ADDITIONAL, REQUIRED, Layer, Tier, tier_of

SEPARATOR: Final = "--- casemate ---"
_LOOK: Final = (
    f"cat /proc/self/status; echo '{SEPARATOR}'; cat /proc/self/mountinfo; echo '{SEPARATOR}'; "
    'for n in "$@"; do echo "$n $(readlink /proc/self/ns/$n)"; done'
)
LOOK_COMMAND: Final = ("sh", "-c", _LOOK, "sh", *LAYER_OF_NAMESPACE)
"""What the trial runs inside: the kernel's own words about the process that it is."""

GIVES: Final = {
    Layer.USER_NAMESPACE: "no rights of the machine's",
    Layer.PID_NAMESPACE: "no processes but its own",
    Layer.NETWORK_NAMESPACE: "no network",
    Layer.MOUNT_NAMESPACE: "mounts of its own",
    Layer.IPC_NAMESPACE: "no shared memory or queues of others",
    Layer.UTS_NAMESPACE: "a host name of its own",
    Layer.CGROUP_NAMESPACE: "no view of the machine's control groups",
    Layer.OWN_ROOT: "no files but the base and its own",
    Layer.NO_CAPABILITIES: "nothing that only root may do",
    Layer.NO_NEW_PRIVILEGES: "no rights by executing a program",
    Layer.SECCOMP: "a small part of the kernel",
    Layer.LIMITS: "an end to what it may use",
    Layer.CGROUP: "limits kept and counted by the kernel",
    Layer.LANDLOCK: "a second wall around files",
    Layer.HOST_UID: "a user id that nothing else has",
    Layer.PRIVATE_BASE: "no shared locks or watches on base files; a minimal base of jobs",
    Layer.PRIVATE_DEVICES: "no shared locks or watches on device nodes",
    Layer.EGRESS: "with a network: no way out but the gateway",
    Layer.WATCHED_CALLS: "no telling attempt at a forbidden call unseen",
}
"""What the guest is left with, or spared, by each layer."""


class State(StrEnum):
    """What is known of a layer after the trial."""

    WORKS = "works"
    MISSING = "missing"
    UNTESTED = "untested"


NOT_HERE: Final = {
    Layer.PRIVATE_DEVICES: ("this root may not make device nodes", "run outside of the container"),
    Layer.EGRESS: (
        "the kernel lacks nf_tables, or its expression tproxy; runs with a network are refused",
        "sudo modprobe nft_tproxy, or use a kernel with CONFIG_NF_TABLES_IPV4 and CONFIG_NFT_TPROXY",
    ),
    Layer.WATCHED_CALLS: (
        "the kernel lets nobody watch system calls, or somebody outside watches them already",
        "run outside of the container, or under a seccomp profile without a notifier",
    ),
}
"""Why a layer is missing where everything else works, and what would mend it."""

UNTESTED: Final = (State.UNTESTED, "not tested: no sandbox can be started", "")


class CgroupFacts(msgspec.Struct, frozen=True, kw_only=True):
    """How control groups can be used: `version` is empty where they cannot, `reason` then says why.

    `removed` are those that dead engines had left, `left` those of them that cannot be removed.
    """

    version: str = ""
    path: str = ""
    reason: str = ""
    hint: str = ""
    removed: tuple[str, ...] = ()
    left: tuple[str, ...] = ()


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """What came of starting a sandbox: either a failure, or the layers in force and a look from inside."""

    failure: Failure | None = None
    layers: frozenset[Layer] = frozenset()
    look: str = ""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One layer: whether it works here, why not, and the command that would mend it."""

    layer: Layer
    required: bool
    state: State
    gives: str
    why: str = ""
    mend: str = ""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The whole check-up."""

    tier: Tier
    layers: tuple[Finding, ...]
    kernel: str
    machine: str
    uid: int
    container: str
    cgroup: CgroupFacts


def examine(facts: Facts, cgroup: CgroupFacts, trial: Trial, ours: Mapping[str, str]) -> Report:
    """Every layer judged. `ours` are this process's namespaces, to be other than those inside."""
    judge = _Judge(
        facts=facts,
        cgroup=cgroup,
        trial=trial,
        cause=find_cause(facts, trial.failure) if trial.failure else None,
        broken=frozenset() if trial.failure else frozenset(_broken(trial, ours)),
    )
    findings = tuple(judge.finding(layer) for layer in (*REQUIRED, *ADDITIONAL))
    working = frozenset(finding.layer for finding in findings if finding.state is State.WORKS)
    return Report(
        tier=tier_of(working),
        layers=findings,
        kernel=facts.kernel,
        machine=facts.machine,
        uid=facts.uid,
        container=facts.container,
        cgroup=cgroup,
    )


class _Judge(msgspec.Struct, frozen=True, kw_only=True):
    """Judges one layer after the other. `broken` are those that a look from inside contradicts."""

    facts: Facts
    cgroup: CgroupFacts
    trial: Trial
    cause: Cause | None
    broken: frozenset[Layer]

    def finding(self, layer: Layer) -> Finding:
        state, why, mend = self._verdict(layer)
        return Finding(layer=layer, required=layer in REQUIRED, state=state, gives=GIVES[layer], why=why, mend=mend)

    def _verdict(self, layer: Layer) -> tuple[State, str, str]:
        if self.cause is not None and layer is self.cause.layer:
            return State.MISSING, self.cause.why, self.cause.mend
        if layer in ADDITIONAL and layer not in self.trial.layers:
            return self._additional(layer)
        if self.cause is not None:
            return UNTESTED
        if layer in self.broken:
            mend = "do not run untrusted code here, and please report this"
            return State.MISSING, "was asked for, but a look from inside says otherwise", mend
        return State.WORKS, "", ""

    def _additional(self, layer: Layer) -> tuple[State, str, str]:
        facts = self.facts
        if layer is Layer.CGROUP and not self.cgroup.version:
            return State.MISSING, f"{self.cgroup.reason}; limits are approximate", self.cgroup.hint
        if layer is Layer.LANDLOCK and facts.landlock_abi < ABI_SHARED_RENAME:
            return State.MISSING, *_landlock(facts)
        if layer is Layer.HOST_UID and facts.uid != 0:
            return (
                State.MISSING,
                "only root can give every run a user id of its own",
                "run casemate as root (sudo), if every run is to have one",
            )
        if layer is Layer.HOST_UID and not facts.ids_mapped:
            why = "this root has too few user ids: it is that of a container or of a user namespace"
            return State.MISSING, why, "run outside of it, or map ids 0 to 4294967294 into it"
        if layer is Layer.PRIVATE_BASE and self.trial.failure is None:
            return State.MISSING, *_overlay(facts)
        if layer is Layer.PRIVATE_DEVICES and facts.uid != 0:
            return State.MISSING, "only root can make device nodes", "run the service as root"
        if layer in NOT_HERE and self.trial.failure is None:
            return State.MISSING, *NOT_HERE[layer]
        return UNTESTED


def _landlock(facts: Facts) -> tuple[str, str]:
    if facts.landlock_abi > 0:
        return f"version {facts.landlock_abi} is too old to be of use", "use Linux 5.19 or newer"
    if facts.security_modules and "landlock" not in facts.security_modules.split(","):
        mend = f"add lsm=landlock,{facts.security_modules} to the kernel's command line"
        return f"Landlock is not among the active security modules ({facts.security_modules})", mend
    return "the kernel has no Landlock, or it is switched off", "use Linux 5.19 or newer with CONFIG_SECURITY_LANDLOCK"


def _overlay(facts: Facts) -> tuple[str, str]:
    if not facts.overlay_known:
        return "the kernel does not know the overlay file system", "sudo modprobe overlay"
    return "an overlay cannot be mounted in a user namespace here", "use Linux 5.11 or newer, and /usr on a usual disk"


def _broken(trial: Trial, ours: Mapping[str, str]) -> Iterator[Layer]:
    """Layers that a look from inside contradicts. Every one of them is a mistake of ours or the kernel's."""
    status_text, mounts, namespaces = ([*trial.look.split(SEPARATOR), "", ""])[:3]
    inside = dict(line.split(" ", 1) for line in namespaces.strip().splitlines() if " " in line)
    for name, layer in LAYER_OF_NAMESPACE.items():
        if not inside.get(name) or inside[name] == ours.get(name):
            yield layer
    status = parse_status(status_text)
    if any(status.get(name, "1").strip("0") for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")):
        yield Layer.NO_CAPABILITIES
    if status.get("NoNewPrivs") != "1":
        yield Layer.NO_NEW_PRIVILEGES
    if status.get("Seccomp") != "2":
        yield Layer.SECCOMP
    if not _has_own_root(mounts):
        yield Layer.OWN_ROOT


def _has_own_root(mountinfo: str) -> bool:
    """Whether `/` is a read-only tmpfs."""
    for line in mountinfo.strip().splitlines():
        place, _, kind = line.partition(" - ")
        fields = place.split()
        if len(fields) > 5 and fields[4] == "/":  # noqa: PLR2004 - the fields of proc(5)
            return kind.startswith("tmpfs ") and "ro" in fields[5].split(",")
    return False

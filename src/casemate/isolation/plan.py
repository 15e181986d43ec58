"""From a spec and the facts of the machine to a launch plan: a pure function."""

from __future__ import annotations

import math
import resource
import struct
from functools import lru_cache
from typing import Final

import msgspec

from casemate import limits as bound
from casemate.isolation import landlock, seccomp, way
from casemate.isolation.host import HostFacts
from casemate.isolation.rootfs import build_root, private_directories
from casemate.isolation.steps import LaunchPlan, Step, StepKind
from casemate.isolation.syscalls import WATCHED
from casemate.model.layers import REQUIRED, Layer
from casemate.model.resources import Limits
from casemate.model.spec import GUEST_ID, HOSTNAME, WORK_DIRECTORY, WRITABLE_DIRECTORIES, SandboxSpec

CLONE_NEWNS: Final = 0x00020000
CLONE_NEWCGROUP: Final = 0x02000000
CLONE_NEWUTS: Final = 0x04000000
CLONE_NEWIPC: Final = 0x08000000
CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWPID: Final = 0x20000000
NAMESPACES: Final = CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP
"""All but the network namespace, which the keeper makes beside them and a step of the plan enters."""

NO_CORE_DUMP_BYTES: Final = 1
"""A limit of 0 would still feed a core_pattern pipe on the host; 1 byte is too small for any dump."""


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """What is chosen for one start: its host ids, its processors, and whether a cgroup holds it."""

    uid: int
    gid: int
    cpus: tuple[int, ...]
    cgroup: bool


def processors_wanted(limits: Limits) -> int:
    """How many processors a share of `cpus` may spread over: 0.5 → 1, 2.5 → 3."""
    return max(1, math.ceil(limits.cpus))


def choose_processors(allowed: tuple[int, ...], count: int, turn: int) -> tuple[int, ...]:
    """`count` of the allowed processors, starting at another one each turn so that runs spread out."""
    if count >= len(allowed):
        return allowed
    start = turn % len(allowed)
    return tuple(sorted((allowed + allowed)[start : start + count]))


def uses_landlock(host: HostFacts) -> bool:
    """Its first version forbids every rename from one directory to another, which programs cannot live with."""
    return host.landlock_abi >= landlock.ABI_SHARED_RENAME


def layers_in_force(spec: SandboxSpec, host: HostFacts, around: Surroundings) -> tuple[Layer, ...]:
    """The layers that this start has on this machine, in the order of the glossary."""
    extra = {
        Layer.CGROUP: around.cgroup,
        Layer.LANDLOCK: uses_landlock(host),
        Layer.HOST_UID: around.uid != host.uid,
        Layer.PRIVATE_BASE: private_directories(host, spec.mounts).isdisjoint(host.overlay_refused),
        Layer.PRIVATE_DEVICES: host.device_nodes,
        Layer.EGRESS: spec.network,
        Layer.WATCHED_CALLS: host.watched == WATCHED,
    }
    return REQUIRED + tuple(layer for layer, present in extra.items() if present)


def affinity_mask(cpus: tuple[int, ...]) -> bytes:
    """The processors as the kernel's bit mask, in whole 64-bit words."""
    mask = sum(1 << cpu for cpu in cpus)
    return mask.to_bytes((max(cpus) // 64 + 1) * 8, "little")


def resource_limits(limits: Limits, *, cgroup: bool) -> dict[int, tuple[int, int]]:
    """The rlimits, as belt and braces beside a cgroup and as the first wall without one."""
    processes = limits.processes + 1 + (bound.PROCESSES_SLACK if cgroup else 0)
    table = {
        resource.RLIMIT_CORE: (NO_CORE_DUMP_BYTES, NO_CORE_DUMP_BYTES),
        resource.RLIMIT_FSIZE: (limits.disk_bytes, limits.disk_bytes),
        resource.RLIMIT_NOFILE: (limits.open_files, limits.open_files),
        resource.RLIMIT_NPROC: (processes, processes),
        resource.RLIMIT_STACK: (bound.STACK_SOFT_BYTES, bound.STACK_HARD_BYTES),
        resource.RLIMIT_MEMLOCK: (0, 0),
        resource.RLIMIT_MSGQUEUE: (0, 0),
        resource.RLIMIT_SIGPENDING: (bound.PENDING_SIGNALS_MAX, bound.PENDING_SIGNALS_MAX),
        resource.RLIMIT_NICE: (0, 0),
        resource.RLIMIT_RTPRIO: (0, 0),
    }
    if not cgroup:
        table[resource.RLIMIT_DATA] = (limits.memory_bytes, limits.memory_bytes)
        if limits.cpu_time_s is not None:
            seconds = math.ceil(limits.cpu_time_s) + 1
            table[resource.RLIMIT_CPU] = (seconds, seconds)
    return table


def make_plan(spec: SandboxSpec, host: HostFacts, around: Surroundings) -> LaunchPlan:
    """Everything the launcher has to do, in its order (see the module docstrings of steps and rootfs)."""
    processors = Step(StepKind.AFFINITY, (affinity_mask(around.cpus),))
    shape = SandboxSpec(
        limits=spec.limits,
        base=spec.base,
        mounts=spec.mounts,
        inputs=spec.inputs,
        links=spec.links,
        network=spec.network,
    )
    steps = _steps.__wrapped__ if spec.inputs else _steps  # one with inputs of its own is never wanted again
    before, after = steps(shape, host, len(around.cpus), cgroup=around.cgroup)
    listening = (*(way.listen(port) for port in spec.listen), *(way.steps(ipv6=host.ipv6) if spec.network else ()))
    return LaunchPlan(
        clone_flags=NAMESPACES,
        uid_inside=GUEST_ID,
        uid_outside=around.uid,
        gid_inside=GUEST_ID,
        gid_outside=around.gid,
        steps=(*before, *listening, processors, *after),
    )


@lru_cache(maxsize=bound.PLANS_CACHED_MAX)
def _steps(spec: SandboxSpec, host: HostFacts, cpus: int, *, cgroup: bool) -> tuple[tuple[Step, ...], tuple[Step, ...]]:
    """All steps before and after the choice of processors, which is another one at every start."""
    root = build_root(host, spec, cpus)
    steps = [Step(StepKind.SOURCE, (path,)) for path in root.sources]
    steps += [Step(StepKind.COUNTS, (*host.watches, 0))] if any(host.watches) else []
    steps += [Step(StepKind.IDENTITY), Step(StepKind.HOSTNAME, (HOSTNAME,))]
    steps += root.steps
    steps += [Step(StepKind.PIVOT), Step(StepKind.EXPOSE, (WORK_DIRECTORY,)), Step(StepKind.NETWORK)]
    return tuple(steps), tuple(_lockdown(spec.limits, host, cgroup=cgroup))


def _lockdown(limits: Limits, host: HostFacts, *, cgroup: bool) -> list[Step]:
    steps = []
    ours = dict(host.hard_limits)
    for number, (soft, hard) in resource_limits(limits, cgroup=cgroup).items():
        most = ours.get(number, resource.RLIM_INFINITY)
        most = hard if most == resource.RLIM_INFINITY else min(hard, most)
        steps.append(Step(StepKind.RLIMIT, (number, min(soft, most), most)))
    steps += [Step(StepKind.DROP_CAPABILITIES), Step(StepKind.NO_NEW_PRIVILEGES)]
    if uses_landlock(host):
        steps.append(_landlock_step(host.landlock_abi))
    policy = seccomp.DEFAULT if cgroup else seccomp.WITHOUT_CGROUP
    if host.watched:
        policy = policy.watching(*host.watched)
        table = b"".join(struct.pack("<II", *pair) for pair in policy.watched().items())
        steps.append(Step(StepKind.WATCH, (table,)))
    steps.append(Step(StepKind.SECCOMP, (seccomp.compile_filter(policy),)))
    return steps


def _landlock_step(abi: int) -> Step:
    rules = landlock.ruleset(abi, read_execute=("/",), read_write=(*WRITABLE_DIRECTORIES, "/dev", "/proc"))
    pairs = tuple((rule.path, int(rule.access)) for rule in rules.rules)
    return Step(StepKind.LANDLOCK, (int(rules.handled_fs), int(rules.scoped), int(rules.restrict_flags), pairs))

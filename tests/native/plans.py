"""Plans and requests as the engine really sends them, and an independent reading of their wire form."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Final

from casemate import limits
from casemate.isolation.host import read_host_facts
from casemate.isolation.nursery import make_nursery_plan, nursery_spec
from casemate.isolation.plan import Surroundings, make_plan
from casemate.isolation.protocol import (
    RequestKind,
    SpawnFlag,
    encode_adopt,
    encode_mkdir,
    encode_open,
    encode_signal,
    encode_spawn,
)
from casemate.isolation.steps import PLAN_MAGIC, PLAN_VERSION, SHAPES, LaunchPlan, StepKind, encode_plan
from casemate.model.resources import Limits
from casemate.model.spec import Mount, SandboxSpec

HEAD: Final = struct.Struct("<12I")
FDS_MAX: Final = 16
CLONE_FLAGS: Final = 0x10000000 | 0x20000000 | 0x00020000 | 0x08000000 | 0x04000000 | 0x02000000
"""User, process, mount, IPC, UTS and control group namespace; the network's is made beside them."""

STRINGS_MAX: Final = 8192
REQUEST_SHAPES: Final = {
    RequestKind.SPAWN: "uuuusvv",
    RequestKind.OPEN: "uuus",
    RequestKind.MKDIR: "uuss",
    RequestKind.SIGNAL: "uuu",
    RequestKind.ADOPT: "uuuuuu",
}


def default_plan(
    *, cgroup: bool = True, mounts: tuple[Mount, ...] = (), listen: tuple[int, ...] = (), network: bool = False
) -> LaunchPlan:
    around = Surroundings(uid=1_900_000_000, gid=1_900_000_000, cpus=(0,), cgroup=cgroup)
    spec = SandboxSpec(limits=Limits(cpu_time_s=2.0), mounts=mounts, listen=listen, network=network)
    return make_plan(spec, read_host_facts(), around)


def nursery_plan() -> LaunchPlan:
    """The plan of a nursery on this machine, as root makes it."""
    around = Surroundings(uid=100_007, gid=100_007, cpus=(0,), cgroup=True)
    mounts = (Mount("/usr/share", "/opt/share"),)
    return make_nursery_plan(nursery_spec(mounts), read_host_facts(), around, range(100_000, 165_536))


def real_plans() -> list[tuple[bytes, int]]:
    """Encoded plans, each with the number of descriptors that goes with it."""
    mounts = (Mount("/usr/share", "/opt/share"), Mount("/usr/lib", "/opt/lib"))
    joined = encode_plan(default_plan(), cgroup_kind=1, cgroup_fds=4)
    into = encode_plan(default_plan(mounts=mounts, listen=(3127,), network=True), cgroup_kind=2, cgroup_fds=1)
    without = encode_plan(default_plan(cgroup=False), cgroup_kind=0, cgroup_fds=0)
    nested = encode_plan(default_plan(), cgroup_kind=1, cgroup_fds=4, devices_fds=1)
    nursery = encode_plan(nursery_plan(), cgroup_kind=1, cgroup_fds=4)
    return [(joined, 5), (into, 2), (without, 1), (nested, 6), (nursery, 5)]


def real_requests() -> list[bytes]:
    environment = ["PATH=/usr/bin:/bin", "LANG=C.UTF-8", "EMPTY="]
    words = ["/bin/sh", "-c", "echo \N{SNOWMAN}", ""]
    return [
        encode_spawn(1, words, environment, cwd="/work", flags=SpawnFlag.STDIN | SpawnFlag.CHANNEL),
        encode_spawn(2, ["sh"], [], cwd="/", flags=SpawnFlag.PTY, rows=50, columns=132),
        encode_spawn(3, ["true"] * 500, ["A=" + "b" * 1000] * 50, cwd="/work", flags=SpawnFlag.NONE),
        encode_open("/work/a file", flags=0o1102),
        encode_mkdir("/work", "directory"),
        encode_adopt(4, 17, (1, 2, 63, 62)),
        encode_signal(3, 9),
    ]


class _Reader:
    """Reads one value after the other; raises ValueError where the launcher must refuse."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def take(self, length: int) -> bytes:
        if length > len(self.data):
            raise ValueError("short")
        taken, self.data = self.data[:length], self.data[length:]
        return taken

    def u32(self) -> int:
        return int.from_bytes(self.take(4), "little")

    def string(self) -> None:
        length = self.u32()
        if length >= limits.MESSAGE_MAX_BYTES or self.take(length + 1).find(b"\0") != length:
            raise ValueError("string")

    def items(self, number_bytes: int) -> None:
        count = self.u32()
        if count > STRINGS_MAX:
            raise ValueError("too many")
        for _ in range(count):
            self.string()
            self.take(number_bytes)

    def values(self, shape: str) -> None:
        read = {
            "u": lambda: self.take(4),
            "q": lambda: self.take(8),
            "s": self.string,
            "b": lambda: self.take(self.u32()),
            "v": lambda: self.items(0),
            "r": lambda: self.items(8),
        }
        for letter in shape:
            take: Callable[[], object] = read[letter]
            take()
        if self.data:
            raise ValueError("more than its shape")


def plan_is_sound(data: bytes, fds: int) -> bool:
    """What the launcher should say about a plan that comes with that many descriptors."""
    if not HEAD.size <= len(data) <= limits.PLAN_MAX_BYTES:
        return False
    magic, version, length, steps, flags, uid, _, gid, _, kind, cgroup_fds, devices_fds = HEAD.unpack_from(data)
    if (magic, version, length) != (PLAN_MAGIC, PLAN_VERSION, len(data)) or steps > limits.PLAN_STEPS_MAX:
        return False
    if (
        kind > 2
        or cgroup_fds >= FDS_MAX
        or devices_fds > 1
        or 1 + cgroup_fds + devices_fds != fds
        or (kind == 2 and cgroup_fds != 1)
    ):
        return False
    if flags != CLONE_FLAGS or uid == 0 or gid == 0:
        return False
    try:
        return all(_step_is_sound(*step) for step in _split(data[HEAD.size :], steps))
    except ValueError:
        return False


def _split(body: bytes, steps: int) -> Iterator[tuple[int, bytes]]:
    reader = _Reader(body)
    for _ in range(steps):
        kind = reader.u32()
        yield kind, reader.take(reader.u32())
    if reader.data:
        raise ValueError("more than its steps")


def _step_is_sound(kind: int, payload: bytes) -> bool:
    _Reader(payload).values(SHAPES[StepKind(kind)])
    return True


def request_is_sound(data: bytes) -> bool:
    """What init should say about a request."""
    reader = _Reader(data)
    try:
        kind = RequestKind(reader.u32())
        reader.values(REQUEST_SHAPES[kind])
    except ValueError:
        return False
    return True

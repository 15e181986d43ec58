"""The steps of a launch plan and their wire form, the twin of `native/casemate.h`.

A plan is data: an ordered tuple of steps. The launcher carries them out in that order and stops at
the first that fails, answering with its index.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import IntEnum
from functools import lru_cache
from typing import Any, Final, TypeAlias

import msgspec

from casemate import limits
from casemate.errors import InternalError

PLAN_MAGIC: Final = 0x4C504D43
PLAN_VERSION: Final = 5

WireValue: TypeAlias = Any
"""int, str, bytes, a sequence of str, or of (str, int), as the shape says."""


class StepKind(IntEnum):
    """What a step does; the numbers are the wire's."""

    SOURCE = 1
    IDENTITY = 2
    HOSTNAME = 3
    ROOT = 4
    TMPFS = 5
    DIRECTORY = 6
    FILE = 7
    SYMLINK = 8
    BIND = 9
    BIND_OWN = 10
    COVER = 11
    OVERLAY = 12
    PROC = 13
    DEVPTS = 14
    DEVICES = 15
    PIVOT = 16
    READ_ONLY = 17
    AFFINITY = 18
    RLIMIT = 19
    EXPOSE = 20
    NETWORK = 21
    LISTEN = 22
    DROP_CAPABILITIES = 23
    NO_NEW_PRIVILEGES = 24
    LANDLOCK = 25
    SECCOMP = 26
    IDS = 27
    COUNTS = 28
    KEEP_CAPABILITIES = 29
    NETLINK = 30
    WATCH = 31


SHAPES: Final = {
    StepKind.SOURCE: "s",
    StepKind.IDENTITY: "",
    StepKind.HOSTNAME: "s",
    StepKind.ROOT: "ss",
    StepKind.TMPFS: "ss",
    StepKind.DIRECTORY: "su",
    StepKind.FILE: "sub",
    StepKind.SYMLINK: "ss",
    StepKind.BIND: "usuu",
    StepKind.BIND_OWN: "ssu",
    StepKind.COVER: "ss",
    StepKind.OVERLAY: "ussu",
    StepKind.PROC: "ss",
    StepKind.DEVPTS: "ss",
    StepKind.DEVICES: "sussr",
    StepKind.PIVOT: "",
    StepKind.READ_ONLY: "su",
    StepKind.AFFINITY: "b",
    StepKind.RLIMIT: "uqq",
    StepKind.EXPOSE: "s",
    StepKind.NETWORK: "",
    StepKind.LISTEN: "uub",
    StepKind.DROP_CAPABILITIES: "",
    StepKind.NO_NEW_PRIVILEGES: "",
    StepKind.LANDLOCK: "qqur",
    StepKind.SECCOMP: "b",
    StepKind.IDS: "uuuu",
    StepKind.COUNTS: "uuu",
    StepKind.KEEP_CAPABILITIES: "q",
    StepKind.NETLINK: "uub",
    StepKind.WATCH: "b",
}
"""u: u32, q: u64, s: string, b: block, v: strings, r: (string, u64) pairs."""


class Step(msgspec.Struct, frozen=True):
    """One step; `arguments` follow the shape of its kind."""

    kind: StepKind
    arguments: tuple[Any, ...] = ()

    def __str__(self) -> str:
        words = [str(argument) for argument in self.arguments if isinstance(argument, str)]
        return " ".join([self.kind.name.lower().replace("_", " "), *words])


class LaunchPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the launcher needs to know, except descriptors."""

    clone_flags: int
    uid_inside: int
    uid_outside: int
    gid_inside: int
    gid_outside: int
    steps: tuple[Step, ...]


def encode_value(shape: str, value: WireValue) -> bytes:
    """One value in its wire form."""
    if shape == "u":
        return struct.pack("<I", value)
    if shape == "q":
        return struct.pack("<Q", value)
    if shape == "b":
        return struct.pack("<I", len(value)) + bytes(value)
    if shape == "v":
        return struct.pack("<I", len(value)) + b"".join(encode_value("s", item) for item in value)
    if shape == "r":
        pairs = (encode_value("s", path) + struct.pack("<Q", access) for path, access in value)
        return struct.pack("<I", len(value)) + b"".join(pairs)
    raw = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else bytes(value)
    if b"\0" in raw:
        raise InternalError("a string for the launcher holds a NUL byte")
    return struct.pack("<I", len(raw)) + raw + b"\0"


def encode_values(shapes: str, values: Sequence[Any]) -> bytes:
    """Values after one another, as their shapes say."""
    return b"".join(encode_value(shape, value) for shape, value in zip(shapes, values, strict=True))


@lru_cache(maxsize=limits.STEPS_CACHED_MAX)
def encode_step(step: Step) -> bytes:
    """One step in its wire form: kind, length, payload."""
    payload = encode_values(SHAPES[step.kind], step.arguments)
    return struct.pack("<II", step.kind, len(payload)) + payload


def encode_plan(plan: LaunchPlan, *, cgroup_kind: int, cgroup_fds: int, devices_fds: int = 0) -> bytes:
    """The plan as the launcher reads it. Raises InternalError if it is larger than the launcher takes."""
    body = b"".join(map(encode_step, plan.steps))
    length = struct.calcsize("<12I") + len(body)
    if length > limits.PLAN_MAX_BYTES or len(plan.steps) > limits.PLAN_STEPS_MAX:
        raise InternalError(f"launch plan of {length} bytes and {len(plan.steps)} steps is too large")
    head = (PLAN_MAGIC, PLAN_VERSION, length, len(plan.steps), plan.clone_flags)
    ids = (plan.uid_inside, plan.uid_outside, plan.gid_inside, plan.gid_outside)
    return struct.pack("<12I", *head, *ids, cgroup_kind, cgroup_fds, devices_fds) + body

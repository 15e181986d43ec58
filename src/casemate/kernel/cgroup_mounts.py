"""Where control groups are mounted and in which of them this process sits. Pure parsing of two files of `/proc`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

V1_CONTROLLERS: Final = ("memory", "pids", "cpu", "cpuacct")
V2_CONTROLLERS: Final = ("cpu", "memory", "pids")
_FIELDS_BEFORE: Final = 6
_FIELDS_AFTER: Final = 3


class CgroupMount(msgspec.Struct, frozen=True, kw_only=True):
    """One mounted hierarchy, or a part of one: `root` is the group that shows at `point`."""

    version: str
    point: str
    root: str
    controllers: frozenset[str] = frozenset()

    def directory(self, group: str) -> str | None:
        """The directory of a group named as `/proc/self/cgroup` names it; None if this mount does not show it."""
        if ".." in group.split("/") or ".." in self.root.split("/"):
            return None
        root = self.root.rstrip("/")
        if group != root and not group.startswith(root + "/"):
            return None
        return (self.point.rstrip("/") + group[len(root) :]).rstrip("/")


def parse_mounts(mountinfo: str) -> tuple[CgroupMount, ...]:
    """The mounts of control groups in `/proc/self/mountinfo`, in its order: what is mounted later lies on top."""
    mounts = (_parse_mount(line) for line in mountinfo.splitlines())
    return tuple(mount for mount in mounts if mount)


def _parse_mount(line: str) -> CgroupMount | None:
    before, _, after = line.partition(" - ")
    place, kind = before.split(" "), after.split(" ")
    if len(place) < _FIELDS_BEFORE or len(kind) < _FIELDS_AFTER or kind[0] not in {"cgroup", "cgroup2"}:
        return None
    controllers = frozenset(kind[2].split(",")).intersection(V1_CONTROLLERS) if kind[0] == "cgroup" else frozenset()
    version = "v1" if kind[0] == "cgroup" else "v2"
    return CgroupMount(version=version, point=_unescape(place[4]), root=_unescape(place[3]), controllers=controllers)


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def parse_membership(cgroup: str) -> Mapping[str, str]:
    """Which group this process is in, by controller; the empty key is version 2's one group."""
    groups: dict[str, str] = {}
    for line in cgroup.splitlines():
        _, controllers, group = [*line.split(":", 2), "", ""][:3]
        groups.update(dict.fromkeys(controllers.split(","), group))
    return groups

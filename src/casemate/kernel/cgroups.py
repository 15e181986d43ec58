"""Control groups: finding out which kind works here and opening it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from casemate.config import CGROUP_VARIABLE
from casemate.errors import ConfigError
from casemate.kernel.cgroup_files import typed
from casemate.kernel.cgroup_mounts import V2_CONTROLLERS, CgroupMount, parse_membership, parse_mounts
from casemate.kernel.cgroup_types import CgroupRoot, CgroupUnavailable
from casemate.kernel.cgroup_v1 import open_v1
from casemate.kernel.cgroup_v2 import open_v2

if TYPE_CHECKING:
    from collections.abc import Sequence

_OFF: Final = "none"


def open_root(*, choice: str | None, source: str = CGROUP_VARIABLE) -> CgroupRoot | CgroupUnavailable:
    """The place for an engine's control groups, or why there is none.

    With the `choice` None a place below our own group is found, `none` switches control groups off, and a
    path names the group to use, either as `/proc/self/cgroup` would name it (`/casemate`; version 1: in
    every hierarchy) or as a directory below a mount of control groups. `source` is what it came from.
    Raises ConfigError if it is neither, CapacityError or LaunchError if we cannot even look.
    """
    if choice == _OFF:
        mend = f"unset {source}" if source == CGROUP_VARIABLE else f"remove {source} from the configuration"
        return CgroupUnavailable(reason=f"switched off by {source}={_OFF}", hint=mend)
    try:
        return _open(choice, source)
    except OSError as error:
        raise typed(error, "looking for control groups") from error


def _open(choice: str | None, source: str) -> CgroupRoot | CgroupUnavailable:
    mounts = parse_mounts(_read("/proc/self/mountinfo"))
    groups = parse_membership(_read("/proc/self/cgroup"))
    chosen = None if choice is None else _group_of(choice, source, mounts)
    unified = [mount for mount in mounts if mount.version == "v2"]
    for mount in unified[::-1]:
        if _carries_all(mount) or len(unified) == len(mounts):
            return open_v2(mount, groups.get("", "/"), chosen)
    if mounts:
        return open_v1(mounts, groups, chosen)
    return CgroupUnavailable(
        reason="no control groups are mounted", hint="sudo mount -t cgroup2 cgroup2 /sys/fs/cgroup"
    )


def _read(path: str) -> str:
    return Path(path).read_text(encoding="utf-8", errors="surrogateescape")


def _carries_all(mount: CgroupMount) -> bool:
    """Whether version 2 has our controllers: in a hybrid system version 1 usually holds them."""
    controllers = Path(f"{mount.point}/cgroup.controllers")
    return controllers.exists() and set(V2_CONTROLLERS) <= set(controllers.read_text().split())


def _group_of(choice: str, source: str, mounts: Sequence[CgroupMount]) -> str:
    """The name of the chosen group in its hierarchy."""
    if not choice.startswith("/") or ".." in choice.split("/"):
        raise ConfigError(source, f"must be `{_OFF}` or an absolute path without `..`, not {choice!r}")
    choice = "/" + choice.strip("/")
    points = [mount for mount in mounts if choice == mount.point or choice.startswith(mount.point + "/")]
    if not points:
        return choice
    mount = max(points, key=lambda mount: len(mount.point))
    return mount.root.rstrip("/") + choice[len(mount.point) :] or "/"

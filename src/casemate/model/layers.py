"""The layers of isolation, by the names that specs, results and `casemate doctor` use."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Layer(StrEnum):
    """One wall of the sandbox. A spec may require any of them; a Result lists those in force."""

    USER_NAMESPACE = "user-namespace"
    PID_NAMESPACE = "pid-namespace"
    NETWORK_NAMESPACE = "network-namespace"
    MOUNT_NAMESPACE = "mount-namespace"
    IPC_NAMESPACE = "ipc-namespace"
    UTS_NAMESPACE = "uts-namespace"
    CGROUP_NAMESPACE = "cgroup-namespace"
    OWN_ROOT = "own-root"
    NO_CAPABILITIES = "no-capabilities"
    NO_NEW_PRIVILEGES = "no-new-privileges"
    SECCOMP = "seccomp"
    LIMITS = "limits"
    CGROUP = "cgroup"
    LANDLOCK = "landlock"
    HOST_UID = "host-uid"
    PRIVATE_BASE = "private-base"
    PRIVATE_DEVICES = "private-devices"
    EGRESS = "egress"
    WATCHED_CALLS = "watched-calls"


class Tier(StrEnum):
    """What the layers add up to."""

    NONE = "none"
    STANDARD = "standard"


REQUIRED: Final = (
    Layer.USER_NAMESPACE,
    Layer.PID_NAMESPACE,
    Layer.NETWORK_NAMESPACE,
    Layer.MOUNT_NAMESPACE,
    Layer.IPC_NAMESPACE,
    Layer.UTS_NAMESPACE,
    Layer.CGROUP_NAMESPACE,
    Layer.OWN_ROOT,
    Layer.NO_CAPABILITIES,
    Layer.NO_NEW_PRIVILEGES,
    Layer.SECCOMP,
    Layer.LIMITS,
)
"""Without every one of these the standard tier does not exist and nothing runs."""

ADDITIONAL: Final = (
    Layer.CGROUP,
    Layer.LANDLOCK,
    Layer.HOST_UID,
    Layer.PRIVATE_BASE,
    Layer.PRIVATE_DEVICES,
    Layer.EGRESS,
    Layer.WATCHED_CALLS,
)
"""Used and reported wherever the machine offers them; a spec may make any of them required.

`egress` is for sandboxes that have a network alone, and none of those is without it.
"""


def tier_of(working: frozenset[Layer]) -> Tier:
    """The tier that a set of working layers reaches."""
    return Tier.STANDARD if working.issuperset(REQUIRED) else Tier.NONE

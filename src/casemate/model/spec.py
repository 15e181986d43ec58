"""What a caller asks of a sandbox, as values."""

from __future__ import annotations

from typing import Final

import msgspec

from casemate.model.layers import Layer
from casemate.model.resources import Limits

WORK_DIRECTORY: Final = "/work"
CODE_DIRECTORY: Final = "/code"
HOME_DIRECTORY: Final = "/home/guest"
GUEST_DIRECTORY: Final = "/opt/casemate/guest"
ADDON_DIRECTORY: Final = "/opt/casemate/addon"
RUNTIME_DIRECTORY: Final = "/opt/runtime"
BASE_DIRECTORY: Final = "/opt/casemate/base"
"""Where those who make sandboxes in a nursery have the mask of a base."""

WRITABLE_DIRECTORIES: Final = (WORK_DIRECTORY, CODE_DIRECTORY, HOME_DIRECTORY, "/tmp", "/dev/shm")  # noqa: S108
GUEST_ID: Final = 1000
GUEST_NAME: Final = "guest"
HOSTNAME: Final = "sandbox"
HARNESS_NAME: Final = ".harness"
"""A declared harness lies beside the code, under this name."""

RESERVED_NAMES: Final = frozenset({"", ".", "..", HARNESS_NAME})
"""What a file of code cannot be called."""

BASE_ENVIRONMENT: Final = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": HOME_DIRECTORY,
    "USER": GUEST_NAME,
    "LOGNAME": GUEST_NAME,
    "LANG": "C.UTF-8",
}
"""All that a guest sees of an environment when the caller names nothing."""


class Mount(msgspec.Struct, frozen=True):
    """A path of the machine that appears read-only at `target`.

    `kin`: a directory that lasts, where `source` is one of many in it that come and go: what is learnt of one holds
    for all.
    """

    source: str
    target: str
    kin: str = ""


class SandboxSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One sandbox: limits, what it sees of the machine beside the base, and the layers it insists on.

    `base`: a directory with what hides parts of the machine's own; empty: nothing is hidden.
    `inputs` are directories that are its alone, and lie in its work directory; `links` are symbolic links there, each
    with its name and what it leads to. `listen` are ports of its own loopback interface whose listening sockets the
    engine gets. `network`: whatever its programs connect to comes to further sockets, which the engine gets too.
    """

    limits: Limits = Limits()
    base: str = ""
    mounts: tuple[Mount, ...] = ()
    inputs: tuple[Mount, ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    require: frozenset[Layer] = frozenset()
    listen: tuple[int, ...] = ()
    network: bool = False

"""Turns "these paths may be read, those written" into a Landlock ruleset for one version of the kernel's interface.

Landlock is the second wall behind the mounts: it holds even for a file that a mistake of ours left visible. It may
only be given rights that the running kernel knows, hence the version; with version 0 (no Landlock) the result is
empty and says so, for the layer is additional and its absence is reported, never hidden.

Networking is not restricted here: a program may listen and connect within its own network namespace.
"""

from __future__ import annotations

from enum import IntFlag
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator


class Access(IntFlag):
    """What can be done with files, by the kernel's bits (LANDLOCK_ACCESS_FS_*)."""

    EXECUTE = 1 << 0
    WRITE_FILE = 1 << 1
    READ_FILE = 1 << 2
    READ_DIR = 1 << 3
    REMOVE_DIR = 1 << 4
    REMOVE_FILE = 1 << 5
    MAKE_CHAR = 1 << 6
    MAKE_DIR = 1 << 7
    MAKE_REG = 1 << 8
    MAKE_SOCK = 1 << 9
    MAKE_FIFO = 1 << 10
    MAKE_BLOCK = 1 << 11
    MAKE_SYM = 1 << 12
    REFER = 1 << 13
    TRUNCATE = 1 << 14
    IOCTL_DEV = 1 << 15


class Scope(IntFlag):
    """What is confined to the sandbox's own processes (LANDLOCK_SCOPE_*)."""

    ABSTRACT_UNIX_SOCKET = 1 << 0
    SIGNAL = 1 << 1


class Restrict(IntFlag):
    """How the ruleset is put in force (LANDLOCK_RESTRICT_SELF_*)."""

    LOG_SAME_EXEC_OFF = 1 << 0
    LOG_SUBDOMAINS_OFF = 1 << 2


ABI_SHARED_RENAME: Final = 2
"""Below this version every rename or link from one directory into another fails, whatever the rules say."""

_ADDED: Final = (
    (1, Access(Access.REFER - 1)),
    (2, Access.REFER),
    (3, Access.TRUNCATE),
    (5, Access.IOCTL_DEV),
)
_ABI_SCOPES: Final = 6
_ABI_QUIET: Final = 7

READ_EXECUTE: Final = Access.EXECUTE | Access.READ_FILE | Access.READ_DIR


class PathRule(msgspec.Struct, frozen=True):
    """Rights on a directory and on all below it."""

    path: str
    access: Access


class LandlockRules(msgspec.Struct, frozen=True):
    """All that landlock_create_ruleset, landlock_add_rule and landlock_restrict_self are to be given."""

    handled_fs: Access = Access(0)
    scoped: Scope = Scope(0)
    restrict_flags: Restrict = Restrict(0)
    rules: tuple[PathRule, ...] = ()


def handled(abi: int) -> Access:
    """Return every right over files that this version of the interface can control."""
    return reduce(or_, (rights for since, rights in _ADDED if since <= abi), Access(0))


def ruleset(abi: int, read_execute: tuple[str, ...], read_write: tuple[str, ...]) -> LandlockRules:
    """Return the ruleset for these directories, empty where the kernel has no Landlock.

    Where a path stands in both lists the rights add up. What no rule covers is denied.
    """
    known = handled(abi)
    if not known:
        return LandlockRules()
    return LandlockRules(
        handled_fs=known,
        scoped=Scope.ABSTRACT_UNIX_SOCKET | Scope.SIGNAL if abi >= _ABI_SCOPES else Scope(0),
        # A guest probing its walls must not be able to fill the host's audit log with denials.
        restrict_flags=Restrict.LOG_SAME_EXEC_OFF | Restrict.LOG_SUBDOMAINS_OFF if abi >= _ABI_QUIET else Restrict(0),
        rules=(*_rules(read_execute, READ_EXECUTE & known), *_rules(read_write, known)),
    )


def _rules(paths: tuple[str, ...], access: Access) -> Iterator[PathRule]:
    return (PathRule(path=path, access=access) for path in paths)

"""What a package set is: its recipe, its lock, its content, as values that are written to disk."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import msgspec

from casemate import limits
from casemate.errors import InvalidInput
from casemate.model.flow import Flow

FORMAT: Final = 1
_NAME: Final = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", re.ASCII)
DIGEST: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_IMPORT: Final = re.compile(r"[A-Za-z@_.][A-Za-z0-9@_./-]*", re.ASCII)


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was asked for: enough to make the set anew.

    `source` is a directory of packages instead of the network, `allow` are further hosts that may be reached.
    """

    runtime: str
    packages: tuple[str, ...]
    preload: tuple[str, ...] = ()
    source: str = ""
    allow: tuple[str, ...] = ()


class Locked(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One package that a set was made from, to the byte: `hash` is `ALGORITHM-DIGEST` of the file `file`."""

    name: str
    version: str
    file: str
    hash: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a set consists of. Its digest is the set's: whatever differs makes another set.

    `tree` is the digest of all its files; `left_out` are things of the installation that a set cannot hold.
    """

    format: int
    runtime: str
    installer: str
    packages: tuple[str, ...]
    preload: tuple[str, ...]
    lock: tuple[Locked, ...]
    tree: str
    files: int
    size_bytes: int
    left_out: tuple[str, ...] = ()


class NamedSet(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a name stands for at present. `flows` is everything that was reached, or tried, while it was made."""

    digest: str
    recipe: Recipe
    flows: tuple[Flow, ...] = ()


class PackageSet(msgspec.Struct, frozen=True, kw_only=True):
    """One package set: a runtime of its own, by the name `name`. `source_path` is its directory here."""

    name: str
    digest: str
    recipe: Recipe
    manifest: Manifest
    source_path: str
    flows: tuple[Flow, ...] = ()


def is_set_name(name: str) -> bool:
    """Whether a set can have that name."""
    return len(name) <= limits.SET_NAME_MAX_CHARS and _NAME.fullmatch(name) is not None


def check_set_name(name: str, taken: Iterable[str]) -> str:
    """A name for a set, which will be a runtime's. Raises InvalidInput."""
    if not is_set_name(name):
        hint = "lower-case letters and digits, in words joined by '-', starting with a letter"
        raise InvalidInput("name", f"{name[:80]!r} is no name for a package set", hint=hint)
    if name in taken:
        raise InvalidInput("name", f"{name!r} is a runtime already")
    return name


def check_preload(names: Iterable[str]) -> tuple[str, ...]:
    """Imports for a warm interpreter. Raises InvalidInput."""
    found = tuple(dict.fromkeys(names))
    wrong = [name for name in found if not _IMPORT.fullmatch(name)]
    if wrong or len(found) > limits.SET_PRELOAD_MAX:
        raise InvalidInput("preload", f"{wrong[0][:80]!r} cannot be imported" if wrong else "too many names")
    return found

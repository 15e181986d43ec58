"""What an installer has to say for itself; everything else is the same for all of them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

import msgspec

from casemate import limits
from casemate.egress.rules import HTTP_PORT, HTTPS_PORT, HostRule, normal_host
from casemate.errors import BuildFailed, InvalidInput
from casemate.model.packages import Locked
from casemate.model.runtime import PackageSets
from casemate.runtimes.interpreter import Interpreter
from casemate.sets.phase import Phase


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What to install. `offline`: the packages come from a directory, seen inside among the artifacts."""

    packages: tuple[str, ...]
    preload: tuple[str, ...]
    offline: bool
    interpreter: Interpreter
    sets: PackageSets


class Installer(Protocol):
    """The three phases of an installation. Only the first has a network, and it runs no code of packages then."""

    def check(self, package: str) -> str:
        """One wanted package as the installer takes it. Raises InvalidInput."""

    def fetch(self, job: Job) -> Phase:
        """Resolve, and leave the files that are to be installed."""

    def lock(self, artifacts: Path) -> tuple[Locked, ...]:
        """What was fetched, to the byte. Raises BuildFailed."""

    def install(self, job: Job, lock: Sequence[Locked]) -> Phase:
        """Leave the tree that the set will be."""

    def probe(self, job: Job) -> Phase:
        """Import what is to be preloaded, with the set in its place."""


FIRST_STATUS: Final = 20
"""With this and the next ones a probe ends that cannot import the first name, the second, and so on."""


def probe_statuses(preload: Sequence[str]) -> dict[int, str]:
    """What the statuses of a probe mean."""
    return {FIRST_STATUS + number: f"{name!r} cannot be imported" for number, name in enumerate(preload)}


def ask_client(command: Sequence[str], environment: Mapping[str, str] = os.environ) -> str:
    """What the caller's own installer says of its configuration. Raises BuildFailed."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, env=environment, timeout=limits.SET_CLIENT_TIMEOUT_S
        )
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", "") or ""
        raise BuildFailed(f"{command[0]!r} does not say how it is configured", log=str(said)) from error
    return done.stdout


def read_configured(path: str) -> bytes:
    """A file that the caller's configuration names. Raises BuildFailed."""
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:
        raise BuildFailed(
            f"{path[:200]!r}, which your installer is configured with, cannot be read: {error}"
        ) from error


def rule_of(url: str) -> HostRule | None:
    """The rule that a configured address needs; None for one that is not on a network."""
    scheme, mark, rest = url.partition("://")
    ports = {"http": HTTP_PORT, "https": HTTPS_PORT}
    if not mark or scheme.lower() not in ports:
        return None
    place = rest.partition("/")[0].partition("?")[0].rpartition("@")[2]
    name, colon, digits = place.rpartition(":")
    if not colon or digits.endswith("]"):
        name, digits = place, str(ports[scheme.lower()])
    host = normal_host(name)
    if not host or not digits.isdigit():
        raise InvalidInput("index", f"{url[:80]!r} names no host")
    return HostRule(host, int(digits), anywhere=True)

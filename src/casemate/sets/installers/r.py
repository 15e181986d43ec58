"""Packages for R: Debian's own, by apt and the caller's sources, or source tarballs and Debian packages of a directory.

Debian's are compiled for the R that Debian has and need no compiler. What is to be seen of the machine's apt is
copied inside: its sources, keys, preferences and the list of what is installed, so that apt fetches only the rest.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from casemate.errors import BuildFailed, InvalidInput
from casemate.model.packages import Locked
from casemate.model.spec import HOME_DIRECTORY
from casemate.sets.installers.base import FIRST_STATUS, Job, ask_client, probe_statuses, read_configured, rule_of
from casemate.sets.phase import INSIDE, PROXY_URL, Phase

SCRIPT: Final = "r.sh"
INDEX: Final = "PACKAGES"
APT: Final = f"{HOME_DIRECTORY}/apt"
APT_FILES: Final = (
    "sources.list",
    "sources.list.d/*",
    "trusted.gpg",
    "trusted.gpg.d/*",
    "preferences.d/*",
    "keyrings/*",
)
STATUS: Final = "/var/lib/dpkg/status"
SETTINGS: Final = f"""
Dir::Etc "{APT}/etc/";
Dir::State "{APT}/state/";
Dir::State::status "{APT}/status";
Dir::Cache "{APT}/cache/";
Acquire::http::Proxy "{PROXY_URL}";
Acquire::https::Proxy "{PROXY_URL}";
Acquire::Languages "none";
APT::Sandbox::User "";
Debug::NoLocking "true";
"""
KEPT_SETTINGS: Final = re.compile(r"Acquire::Check-[\w-]+ \"[\w-]+\";", re.ASCII)
"""Of the caller's settings those about how old a signed index may be."""

_PACKAGE: Final = re.compile(r"[A-Za-z][A-Za-z0-9.]*[A-Za-z0-9]", re.ASCII)
_FILE: Final = re.compile(r"(?P<name>[A-Za-z][A-Za-z0-9.+-]*)_(?P<version>[^_/]+)(_[a-z0-9]+\.deb|\.tar\.gz)", re.ASCII)


class RPackages:
    """The installer `r`."""

    def check(self, package: str) -> str:
        """A name. Versions are those of Debian, or of the directory."""
        wanted = package.strip()
        if not _PACKAGE.fullmatch(wanted):
            hint = "write the NAME alone; files of yours go into a directory: --from"
            raise InvalidInput("packages", f"{package[:80]!r} is no package of R's", hint=hint)
        return wanted

    def fetch(self, job: Job) -> Phase:
        if job.offline:
            files = {"/code/resolve.R": (INSIDE / "resolve.R").read_bytes()}
            return Phase(name="resolving", script=SCRIPT, arguments=("resolve", *job.packages), files=files)
        places = ask_client(("apt-get", "indextargets", "--format", "$(REPO_URI)")).split()
        rules = dict.fromkeys(rule for place in places if (rule := rule_of(place)) is not None)
        if not rules:
            raise BuildFailed("no source of apt's is on a network", hint="--from installs from a directory")
        arguments = ("fetch", *job.packages)
        return Phase(name="fetching", script=SCRIPT, arguments=arguments, files=dict(_apt_files()), rules=tuple(rules))

    def lock(self, artifacts: Path) -> tuple[Locked, ...]:
        return tuple(_locked(path) for path in sorted(artifacts.iterdir()) if path.name != INDEX)

    def install(self, job: Job, lock: Sequence[Locked]) -> Phase:  # noqa: ARG002 - the protocol's
        files = {"/code/install.R": (INSIDE / "install.R").read_bytes()}
        return Phase(name="installing", script=SCRIPT, arguments=("install", *job.packages), files=files)

    def probe(self, job: Job) -> Phase:
        files = {"/code/probe.R": (INSIDE / "probe.R").read_bytes()}
        return Phase(
            name="importing",
            script=SCRIPT,
            arguments=("probe", str(FIRST_STATUS), *job.preload),
            files=files,
            environment=job.sets.environment,
            statuses=probe_statuses(job.preload),
        )


def _apt_files() -> Iterator[tuple[str, bytes]]:
    """apt's own files under the places that the settings name."""
    etc = Path("/etc/apt")
    for path in sorted(path for pattern in APT_FILES for path in etc.glob(pattern) if path.is_file()):
        yield f"{APT}/etc/{path.relative_to(etc)}", read_configured(str(path))
    kept = KEPT_SETTINGS.findall(ask_client(("apt-config", "dump")))
    yield f"{APT}/apt.conf", "\n".join([SETTINGS, *kept, ""]).encode()
    yield f"{APT}/status", read_configured(STATUS)


def _locked(path: Path) -> Locked:
    found = _FILE.fullmatch(path.name)
    if found is None:
        raise BuildFailed(f"{path.name[:80]!r} is neither a source package of R's nor one of Debian's")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Locked(name=found["name"], version=found["version"], file=path.name, hash=f"sha256-{digest}")

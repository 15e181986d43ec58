"""Packages for Node, by npm: from the caller's configured registries, or from tarballs in a directory."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from casemate import limits
from casemate.egress.rules import HostRule
from casemate.errors import BuildFailed, InvalidInput
from casemate.model.packages import Locked
from casemate.model.spec import HOME_DIRECTORY
from casemate.sets.installers.base import FIRST_STATUS, Job, ask_client, probe_statuses, read_configured, rule_of
from casemate.sets.phase import INSIDE, PROXY_URL, Phase

SCRIPT: Final = "npm.sh"
LOCK: Final = "package-lock.json"
CERTIFICATES: Final = f"{HOME_DIRECTORY}/certificates.pem"
SETTINGS: Final = f"{HOME_DIRECTORY}/npmrc"
_WORD: Final = r"[a-z0-9][a-z0-9._~-]*"
_PACKAGE: Final = re.compile(rf"(?P<name>(@{_WORD}/)?{_WORD})(@(?P<range>[A-Za-z0-9.^~<>=*|+ -]{{1,100}}))?", re.ASCII)
_INTEGRITY: Final = re.compile(r"sha(1|256|384|512)-[A-Za-z0-9+/]+={0,2}", re.ASCII)
_SETTING: Final = re.compile(r"[\x21-\x7e]+", re.ASCII)
_DIRECTORY: Final = "node_modules/"


class LockedPackage(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of a lock file. Other keys are none of ours."""

    version: str = ""
    resolved: str = ""
    integrity: str = ""
    name: str = ""


class LockFile(msgspec.Struct, frozen=True):
    """A lock file: packages by where they are installed."""

    packages: dict[str, LockedPackage]


class Npm:
    """The installer `npm`."""

    def check(self, package: str) -> str:
        """A name with an optional scope and range, but no address, path or option."""
        wanted = package.strip()
        if not _PACKAGE.fullmatch(wanted):
            hint = "write NAME, @SCOPE/NAME or NAME@RANGE; tarballs of yours go into a directory: --from"
            raise InvalidInput("packages", f"{package[:80]!r} is no package of npm's", hint=hint)
        return wanted

    def fetch(self, job: Job) -> Phase:
        files = {"/code/project.json": project_of(job.packages)}
        if job.offline:
            files["/code/tarballs.mjs"] = (INSIDE / "tarballs.mjs").read_bytes()
            return Phase(name="resolving", script=SCRIPT, arguments=("fetch", "offline"), files=files)
        npm = shutil.which("npm")
        if npm is None:
            raise BuildFailed("npm is not on this machine", hint="apt-get install npm")
        settings = msgspec.json.decode(ask_client((npm, "config", "list", "--long", "--json")), type=dict[str, Any])
        lines, rules = settings_of(settings)
        certificates = settings.get("cafile")
        if isinstance(certificates, str) and certificates:
            files[CERTIFICATES] = read_configured(certificates)
            lines.append(f"cafile={CERTIFICATES}")
        files[SETTINGS] = "\n".join([*lines, ""]).encode()
        return Phase(name="fetching", script=SCRIPT, arguments=("fetch",), files=files, rules=rules)

    def lock(self, artifacts: Path) -> tuple[Locked, ...]:
        with (artifacts / LOCK).open("rb") as file:
            return locked(file.read(limits.SET_LOCK_MAX_BYTES))

    def install(self, job: Job, lock: Sequence[Locked]) -> Phase:  # noqa: ARG002 - the protocol's
        """By the same lock file that `lock` has read; npm checks what it unpacks against it."""
        return Phase(name="installing", script=SCRIPT, arguments=("install",))

    def probe(self, job: Job) -> Phase:
        arguments = (str(FIRST_STATUS), *job.preload)
        return Phase(name="importing", script="probe.mjs", arguments=arguments, statuses=probe_statuses(job.preload))


def project_of(packages: Sequence[str]) -> bytes:
    """A package.json that wants these packages."""
    wanted = {}
    for package in packages:
        found = _PACKAGE.fullmatch(package)
        if found is not None:
            wanted[found["name"]] = (found["range"] or "*").strip()
    return msgspec.json.encode({"name": "set", "private": True, "dependencies": wanted})


def settings_of(settings: Mapping[str, Any]) -> tuple[list[str], tuple[HostRule, ...]]:
    """Of the caller's configuration what fetching needs: the registries, each with its rule, and no secret."""
    lines = [f"proxy={PROXY_URL}", f"https-proxy={PROXY_URL}", "noproxy="]
    rules = []
    for key, value in settings.items():
        is_registry = key == "registry" or (key.startswith("@") and key.endswith(":registry"))
        if not is_registry or not isinstance(value, str):
            continue
        rule = rule_of(value)
        if rule is None or not _SETTING.fullmatch(key) or not _SETTING.fullmatch(value):
            raise BuildFailed(f"npm's {key[:80]!r} is not on a network", hint="--from installs from a directory")
        lines.append(f"{key}={value}")
        rules.append(rule)
    if settings.get("strict-ssl") is False:
        lines.append("strict-ssl=false")
    return lines, tuple(dict.fromkeys(rules))


def locked(data: bytes) -> tuple[Locked, ...]:
    """The packages of a lock file. Raises BuildFailed for what is none, or has no hashes."""
    try:
        packages = msgspec.json.decode(data, type=LockFile).packages
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise BuildFailed(f"npm left no lock file: {error}") from error
    found = {_locked(place, package) for place, package in packages.items() if place}
    return tuple(sorted(found, key=lambda each: (each.name, each.version)))


def _locked(place: str, package: LockedPackage) -> Locked:
    if not _INTEGRITY.fullmatch(package.integrity) or not package.version:
        raise BuildFailed(f"npm's lock has no hash of {place[:80]!r}")
    name = package.name or place.rpartition(_DIRECTORY)[2]
    file = package.resolved.rpartition("/")[2] or f"{name}@{package.version}"
    return Locked(name=name, version=package.version, file=file, hash=package.integrity)

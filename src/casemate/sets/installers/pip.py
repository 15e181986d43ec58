"""Packages for Python, by pip: wheels from the caller's configured indexes, or wheels and sources from a directory."""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from casemate.egress.rules import HTTPS_PORT, HostRule
from casemate.errors import BuildFailed, InvalidInput
from casemate.model.packages import Locked
from casemate.model.spec import HOME_DIRECTORY
from casemate.sets.installers.base import FIRST_STATUS, Job, ask_client, probe_statuses, read_configured, rule_of
from casemate.sets.phase import ARTIFACTS_DIRECTORY, INSIDE, OUT_DIRECTORY, PROXY_URL, Phase

SCRIPT: Final = "pip.py"
ISOLATED: Final = ("-I",)
LOCK_FILE: Final = f"{HOME_DIRECTORY}/lock.txt"
CERTIFICATES: Final = f"{HOME_DIRECTORY}/certificates.pem"
QUIET: Final = ("--disable-pip-version-check", "--no-input", "--no-color", "--progress-bar=off", "--no-cache-dir")
_VERSION: Final = r"[A-Za-z0-9][A-Za-z0-9.*+!_-]*"
_CLAUSE: Final = rf"(===|==|~=|!=|<=|>=|<|>)\s*{_VERSION}"
_NAME: Final = r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?"
_REQUIREMENT: Final = re.compile(rf"{_NAME}(\[{_NAME}(,{_NAME})*\])?\s*({_CLAUSE}(\s*,\s*{_CLAUSE})*)?", re.ASCII)
_WHEEL: Final = re.compile(
    rf"(?P<name>{_NAME})-(?P<version>[A-Za-z0-9][A-Za-z0-9._+!]*)(-\d[A-Za-z0-9._]*)?"
    r"-[A-Za-z0-9._]+-[A-Za-z0-9._]+-[A-Za-z0-9._]+\.whl",
    re.ASCII,
)
_OPTION: Final = re.compile(r"([A-Za-z0-9:_.-]+)=(.*)", re.ASCII)


class Indexes(msgspec.Struct, frozen=True, kw_only=True):
    """Where packages come from, and how those are spoken to. `certificates` is a file of ours."""

    urls: tuple[str, ...]
    rules: tuple[HostRule, ...]
    trusted: tuple[str, ...] = ()
    certificates: str = ""


class Pip:
    """The installer `pip`."""

    def check(self, package: str) -> str:
        """A requirement with extras and versions, but no address, path or option."""
        wanted = package.strip()
        if not _REQUIREMENT.fullmatch(wanted):
            hint = "write NAME, NAME==VERSION or NAME>=VERSION; files of yours go into a directory: --from"
            raise InvalidInput("packages", f"{package[:80]!r} is no requirement", hint=hint)
        return re.sub(r"\s+", "", wanted)

    def fetch(self, job: Job) -> Phase:
        """Wheels for everything. Building one runs code of its package, so that is only done without a network."""
        common = ("wheel", *QUIET, "--wheel-dir", OUT_DIRECTORY)
        if job.offline:
            words = (*common, "--no-index", "--find-links", ARTIFACTS_DIRECTORY, "--", *job.packages)
            return Phase(name="resolving", script=SCRIPT, flags=ISOLATED, arguments=words)
        indexes = self.indexes(job)
        files = {CERTIFICATES: read_configured(indexes.certificates)} if indexes.certificates else {}
        options = [f"--index-url={indexes.urls[0]}", f"--proxy={PROXY_URL}", "--only-binary=:all:"]
        options += [f"--extra-index-url={url}" for url in indexes.urls[1:]]
        options += [f"--trusted-host={host}" for host in indexes.trusted]
        options += [f"--cert={CERTIFICATES}"] if files else []
        words = (*common, *options, "--", *job.packages)
        return Phase(name="fetching", script=SCRIPT, flags=ISOLATED, arguments=words, files=files, rules=indexes.rules)

    def indexes(self, job: Job) -> Indexes:
        """As the caller's pip is configured."""
        client = (job.interpreter.host_path, *ISOLATED, str(INSIDE / SCRIPT))
        options = options_for("wheel", parse_options(ask_client((*client, "config", "list"))))
        default, _, files = ask_client((*client, "default-index")).strip().partition("\n")
        return indexes_of(options, default=default, files_host=files)

    def lock(self, artifacts: Path) -> tuple[Locked, ...]:
        return tuple(_locked(path) for path in sorted(artifacts.iterdir()))

    def install(self, job: Job, lock: Sequence[Locked]) -> Phase:
        """Exactly the locked files, then their bytecode."""
        words = ("install", *QUIET, "--no-index", "--find-links", ARTIFACTS_DIRECTORY, "--no-deps", "--require-hashes")
        target = ("--no-compile", "--no-warn-script-location", "--target", OUT_DIRECTORY, "--requirement", LOCK_FILE)
        return Phase(
            name="installing",
            script="pip.sh",
            arguments=(job.sets.target, *words, *target),
            files={LOCK_FILE: requirements_of(lock).encode(), f"/code/{SCRIPT}": (INSIDE / SCRIPT).read_bytes()},
        )

    def probe(self, job: Job) -> Phase:
        return Phase(
            name="importing",
            script="probe.py",
            flags=ISOLATED,
            arguments=(*job.sets.environment.values(), str(FIRST_STATUS), *job.preload),
            statuses=probe_statuses(job.preload),
        )


def requirements_of(lock: Sequence[Locked]) -> str:
    """The lock in the form that pip checks hashes by."""
    return "".join(f"{each.name}=={each.version} --hash={each.hash.replace('-', ':', 1)}\n" for each in lock)


def _locked(path: Path) -> Locked:
    """A wheel by its file name, which a guest gave."""
    wheel = _WHEEL.fullmatch(path.name)
    if wheel is None:
        raise BuildFailed(f"{path.name[:80]!r} is no wheel")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    name = re.sub(r"[-_.]+", "-", wheel["name"]).lower()
    return Locked(name=name, version=wheel["version"], file=path.name, hash=f"sha256-{digest}")


def parse_options(text: str) -> dict[str, str]:
    """The lines of `pip config list`: `section.option='value'`. Others are passed over."""
    found = {}
    for line in text.splitlines():
        option = _OPTION.fullmatch(line.strip())
        if option is None:
            continue
        try:
            value = ast.literal_eval(option[2])
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        if isinstance(value, str):
            found[option[1]] = value
    return found


def options_for(command: str, options: Mapping[str, str]) -> dict[str, str]:
    """What holds for one command: the environment before its own section before what is for all."""
    found = {}
    for section in ("global", command, ":env:"):
        prefix = f"{section}."
        found.update({key.removeprefix(prefix): value for key, value in options.items() if key.startswith(prefix)})
    return found


def indexes_of(options: Mapping[str, str], *, default: str, files_host: str) -> Indexes:
    """The indexes that are on a network, each with its rule. pip's own default keeps its files on another host."""
    wanted = [options.get("index-url", default), *options.get("extra-index-url", "").split()]
    found = [(url, rule) for url in wanted if (rule := rule_of(url)) is not None]
    if not found:
        raise BuildFailed("no index of pip's is on a network", hint="--from installs from a directory")
    rules = [rule for _, rule in found]
    if rule_of(default) in rules:
        rules.append(HostRule(files_host, HTTPS_PORT, anywhere=True))
    return Indexes(
        urls=tuple(url for url, _ in found),
        rules=tuple(dict.fromkeys(rules)),
        trusted=tuple(options.get("trusted-host", "").split()),
        certificates=options.get("cert", ""),
    )

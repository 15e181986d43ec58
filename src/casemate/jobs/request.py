"""A job as it is asked for, made into what is to be run. Pure: what is wrong is refused by its name."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import msgspec

from casemate import job_limits as bound
from casemate.egress.policy import Rules
from casemate.errors import InvalidInput
from casemate.executions.request import check_code_size, check_maximum
from casemate.jobs.config import JobSettings
from casemate.jobs.policy import SHELL, check_policy, narrowed
from casemate.limits import ARGV_TOTAL_MAX_BYTES, ENV_MAX, ENV_TOTAL_MAX_BYTES, FILE_NAME_MAX_BYTES, PATH_MAX_BYTES
from casemate.model.job import JobFile, JobSpec, Retries
from casemate.model.labels import check_labels
from casemate.model.network import NO_NETWORK, NetworkPolicy
from casemate.service_limits import LABEL_MAX_CHARS

JOB_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
IMAGES: Final = ("host",)
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_MODE_MAX: Final = 0o777


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A job as somebody asks for it. `command` is text or words; `limits` are by the names that people write."""

    command: str | tuple[str, ...] | None = None
    shell: bool = False
    code: str = ""
    runtime: str = ""
    environment: dict[str, str] = {}
    secrets: tuple[str, ...] = ()
    stdin: bytes = b""
    limits: dict[str, Any] = {}
    network: NetworkPolicy = NO_NETWORK
    files: tuple[JobFile, ...] = ()
    shared: tuple[str, ...] = ()
    collect: tuple[str, ...] = ()
    image: str = "host"
    priority: int = 5
    retries: Retries = Retries()
    labels: dict[str, str] = {}
    template: str = ""


def secrets_of(spec: JobSpec) -> tuple[str, ...]:
    """The names of all secrets that a job needs."""
    return (*spec.secrets, *(each.secret for each in spec.network.inject))


def check_secrets(spec: JobSpec, missing: Collection[str]) -> None:
    """Raise InvalidInput that names a secret that is not there, and the field that asks for it."""
    injected = tuple(each.secret for each in spec.network.inject)
    for field, names in (("secrets", spec.secrets), ("network.inject", injected)):
        for name in names:
            if name in missing:
                raise InvalidInput(field, f"there is no secret {name[:80]!r}", hint="`casemate secrets set` sets one")


def spec_of(asked: Asked, settings: JobSettings, maximum: Mapping[str, Any]) -> JobSpec:
    """What is to be run, with every default filled in. Raises InvalidInput, and NotAllowed for what policy forbids."""
    argv = _words(asked)
    if not argv and not asked.code:
        raise InvalidInput("command", "is empty")
    _check_argv(argv)
    _check_environment(asked.environment, asked.secrets)
    _check_files(asked.files)
    _check_globs("shared", asked.shared)
    _check_globs("collect", asked.collect)
    _check_network(asked.network)
    _check_rest(asked)
    check_maximum(asked.limits, maximum)
    spec = JobSpec(
        argv=argv,
        shell=asked.shell,
        code=asked.code,
        runtime=asked.runtime,
        environment=asked.environment,
        secrets=asked.secrets,
        stdin=asked.stdin,
        limits={**settings.limits, **asked.limits},
        network=asked.network,
        files=asked.files,
        shared=asked.shared,
        collect=asked.collect,
        image=asked.image,
        priority=asked.priority,
        retries=asked.retries,
        labels=asked.labels,
        template=asked.template,
    )
    check_policy(spec, asked.command if isinstance(asked.command, str) else "", settings)
    return msgspec.structs.replace(spec, network=narrowed(spec.network, settings))


def still_allowed(spec: JobSpec, settings: JobSettings, maximum: Mapping[str, Any]) -> JobSpec:
    """What was accepted before, by the rules of today. Raises InvalidInput and NotAllowed naming what they refuse.

    What is today's default is within bounds as it is: the node narrows that.
    """
    _check_image(spec.image)
    usual = settings.limits
    check_maximum({name: value for name, value in spec.limits.items() if value != usual.get(name)}, maximum)
    check_policy(spec, "", settings)
    return msgspec.structs.replace(spec, network=narrowed(spec.network, settings))


def check_id(text: str) -> str:
    """An id that somebody has chosen. Raises InvalidInput."""
    if not JOB_ID.fullmatch(text):
        problem = "must be 1 to 64 of A-Z a-z 0-9 . _ -, and begin with a letter or digit"
        raise InvalidInput("id", problem)
    return text


# The command --------------------------------------------------------------------------------------


def _words(asked: Asked) -> tuple[str, ...]:
    """The command as words: split as a shell splits words, with nothing else that a shell does."""
    if (asked.command is None) == (not asked.code):
        raise InvalidInput("command", "there must be a command, or code for a runtime, and not both")
    if asked.command is None:
        _check_code(asked)
        return ()
    if asked.runtime:
        raise InvalidInput("runtime", "a command has none", hint="give code for a runtime, or a command without one")
    if not isinstance(asked.command, str):
        if asked.shell:
            raise InvalidInput("shell", "a list of words needs none", hint="give the command as one text")
        return asked.command
    if len(asked.command) > bound.COMMAND_MAX_CHARS:
        raise InvalidInput("command", f"is longer than {bound.COMMAND_MAX_CHARS} characters")
    if asked.shell:
        return (SHELL, "-c", asked.command) if asked.command.strip() else ()
    return _split(asked.command)


def _split(text: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise InvalidInput("command", str(error).lower(), hint="quotes come in pairs") from error


def _check_code(asked: Asked) -> None:
    check_code_size(asked.code)
    if not asked.runtime:
        raise InvalidInput("runtime", "is missing: code needs one")
    if asked.shell:
        raise InvalidInput("shell", "code has none")


def _check_argv(argv: Sequence[str]) -> None:
    if argv and not argv[0]:
        raise InvalidInput("command", "its first word is empty")
    if len(argv) > bound.WORDS_MAX or sum(len(_encoded("command", word)) + 1 for word in argv) > ARGV_TOTAL_MAX_BYTES:
        raise InvalidInput("command", f"has more than {bound.WORDS_MAX} words or {ARGV_TOTAL_MAX_BYTES} bytes")


def _encoded(field: str, text: str) -> bytes:
    if "\0" in text:
        raise InvalidInput(field, "holds a NUL character")
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(field, "is no text in UTF-8") from error


# What stands beside it ------------------------------------------------------------------------------


def _check_environment(environment: Mapping[str, str], secrets: Sequence[str]) -> None:
    if len(environment) > ENV_MAX:
        raise InvalidInput("environment", f"has more than {ENV_MAX} variables")
    total_bytes = 0
    for name, value in environment.items():
        if not _NAME.fullmatch(name):
            raise InvalidInput(f"environment.{name[:80]}", "is no name of a variable")
        total_bytes += len(name) + len(_encoded(f"environment.{name[:80]}", value)) + 2
    if total_bytes > ENV_TOTAL_MAX_BYTES:
        raise InvalidInput("environment", f"has more than {ENV_TOTAL_MAX_BYTES} bytes")
    _check_count("secrets", secrets, bound.JOB_SECRETS_MAX)
    for name in secrets:
        if not _NAME.fullmatch(name) or len(name) > LABEL_MAX_CHARS:
            raise InvalidInput("secrets", f"{name[:80]!r} is no name of a variable")
        if name in environment:
            raise InvalidInput("secrets", f"{name[:80]!r} is in the environment, too")


def _check_files(files: Sequence[JobFile]) -> None:
    _check_count("files", files, bound.JOB_FILES_MAX)
    seen: set[str] = set()
    for at, file in enumerate(files):
        _check_path(f"files[{at}].path", file.path)
        if file.path in seen:
            raise InvalidInput(f"files[{at}].path", f"{file.path[:80]!r} is there twice")
        seen.add(file.path)
        if (file.content is not None) + bool(file.object) + bool(file.url) != 1:
            raise InvalidInput(f"files[{at}]", "needs exactly one of content, object and url")
        if not 0 <= file.mode <= _MODE_MAX:
            raise InvalidInput(f"files[{at}].mode", "must be from 0000 to 0777")
    for at, file in enumerate(files):
        parents = file.path.split("/")[:-1]
        if any("/".join(parents[: count + 1]) in seen for count in range(len(parents))):
            raise InvalidInput(f"files[{at}].path", f"{file.path[:80]!r} is below another file")


def _check_path(field: str, path: str) -> None:
    size_bytes = len(_encoded(field, path))
    parts = path.split("/")
    if not path or size_bytes > PATH_MAX_BYTES or {"", ".", ".."} & {*parts} or not path.isprintable():
        raise InvalidInput(field, f"{path[:80]!r} is no path below the job's input", hint="write it as data/one.csv")
    if any(len(part.encode()) > FILE_NAME_MAX_BYTES for part in parts):
        raise InvalidInput(field, f"has a name of more than {FILE_NAME_MAX_BYTES} bytes")


def _check_globs(field: str, globs: Sequence[str]) -> None:
    _check_count(field, globs, bound.JOB_GLOBS_MAX)
    for glob in globs:
        if len(_encoded(field, glob)) > PATH_MAX_BYTES or not glob or glob.startswith("/") or ".." in glob.split("/"):
            raise InvalidInput(field, f"{glob[:80]!r} is no pattern for paths", hint="write it as reports/*.csv")


def _check_network(network: NetworkPolicy) -> None:
    """By the gateway's own rules: what it would refuse when the job begins is refused here."""
    _check_count("network.allowed_hosts", network.allowed_hosts, bound.JOB_HOSTS_MAX)
    for field, ports in (("allowed_ports", network.allowed_ports), ("blocked_ports", network.blocked_ports)):
        _check_count(f"network.{field}", ports, bound.JOB_PORTS_MAX)
    _check_count("network.strip_headers", (*network.strip_headers, *network.inject), bound.JOB_HEADERS_MAX)
    try:
        Rules(network)
    except InvalidInput as error:
        raise InvalidInput(f"network.{error.field}", error.message.partition(": ")[2], hint=error.hint) from error


def _check_image(image: str) -> None:
    if image not in IMAGES:
        raise InvalidInput("image", f"{image[:80]!r} is not known", hint="known: " + ", ".join(IMAGES))


def _check_rest(asked: Asked) -> None:
    _check_image(asked.image)
    if len(asked.stdin) > bound.JOB_STDIN_MAX_BYTES:
        problem = f"is larger than {bound.JOB_STDIN_MAX_BYTES} bytes"
        raise InvalidInput("stdin", problem, hint="give it as a file")
    if not 0 <= asked.retries.max <= bound.RETRIES_MAX:
        raise InvalidInput("retries.max", f"must be from 0 to {bound.RETRIES_MAX}")
    if not 0 <= asked.retries.backoff_s <= bound.BACKOFF_WRITTEN_MAX_S:
        raise InvalidInput("retries.backoff", f"must be from 0 to {bound.BACKOFF_WRITTEN_MAX_S:g} seconds")
    check_labels(asked.labels)


def _check_count(field: str, values: Sequence[object], most: int) -> None:
    if len(values) > most:
        raise InvalidInput(field, f"more than {most}")

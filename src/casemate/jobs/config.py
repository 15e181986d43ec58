"""`[jobs]` of the configuration, and its variables: what a job gets that asks for nothing, and what none may ask for.

Every key can also be set by the environment, as `CASEMATE_JOBS_` and its name, and some as `SANDBOX_…`, which are
written as such settings often are: lists with commas between.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any, Final, Literal, get_args, get_origin

import msgspec

from casemate import job_limits as bound
from casemate.config import Config
from casemate.egress.policy import parse_pattern
from casemate.errors import ConfigError, InvalidInput
from casemate.executions.patterns import check_forbidden
from casemate.jobs.log_rules import LogRules
from casemate.model.network import BLOCKED_PORTS
from casemate.model.resources import Limits
from casemate.model.result import MINIMAL_BASE
from casemate.model.units import parse_bytes, parse_duration
from casemate.service_config import JOBS_PREFIX

_PORT_MAX: Final = 65_535


class JobsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[jobs]`, as people write it; see the reference of the configuration for each key."""

    cpu: str | float = bound.JOB_CPU
    memory: str | int = bound.JOB_MEMORY_BYTES
    disk: str | int = bound.JOB_DISK_BYTES
    timeout: str | float = bound.JOB_TIMEOUT_S
    base: Literal["minimal", "machine"] = "minimal"
    programs: list[str] = []
    allowed_commands: list[str] = []
    denied: list[str] = []
    refuse_dangerous: bool = True
    allowed_hosts: list[str] = []
    blocked_ports: list[int] = msgspec.field(default_factory=lambda: [*BLOCKED_PORTS])
    concurrency: int = 0
    lease: str | float = bound.LEASE_S
    retention_days: int = bound.JOB_RETENTION_DAYS
    log_max: str | int = bound.LOG_KEPT_MAX_BYTES
    log_retention_days: int = bound.LOG_RETENTION_DAYS
    log_retention: dict[str, int] = {}


class JobSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The same as values. `limits` are those of a job that asks for none, by the names that people write."""

    limits: dict[str, Any]
    base: str = MINIMAL_BASE
    programs: tuple[str, ...] = ()
    allowed_commands: tuple[str, ...] = ()
    denied: tuple[str, ...] = ()
    refuse_dangerous: bool = True
    allowed_hosts: tuple[str, ...] = ()
    blocked_ports: tuple[int, ...] = BLOCKED_PORTS
    concurrency: int = 0
    lease_s: float = bound.LEASE_S
    retention_days: int = bound.JOB_RETENTION_DAYS
    log_max_bytes: int = bound.LOG_KEPT_MAX_BYTES
    log_rules: LogRules = LogRules()


def load_jobs(config: Config, environment: Mapping[str, str] = os.environ) -> JobSettings:
    """What the file and the environment say together. Raises ConfigError naming the key or the variable."""
    written = {**config.jobs, **_from_common_variables(environment), **_from_variables(environment)}
    return _checked(_converted(written))


# From variables -----------------------------------------------------------------------------------


def _listed(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _ports(text: str) -> list[int]:
    return [int(word) for word in _listed(text)]


_COMMON: Final[Mapping[str, tuple[str, Callable[[str], object]]]] = {
    "SANDBOX_DEFAULT_CPU": ("cpu", str),
    "SANDBOX_DEFAULT_MEMORY": ("memory", str),
    "SANDBOX_DEFAULT_DISK": ("disk", str),
    "SANDBOX_DEFAULT_TIMEOUT": ("timeout", str),
    "SANDBOX_ALLOWED_COMMANDS": ("allowed_commands", _listed),
    "SANDBOX_ALLOWED_HOSTS": ("allowed_hosts", _listed),
    "SANDBOX_BLOCKED_PORTS": ("blocked_ports", _ports),
}


def _from_common_variables(environment: Mapping[str, str]) -> dict[str, object]:
    found = {}
    for variable, (name, read) in _COMMON.items():
        if variable in environment:
            try:
                found[name] = read(environment[variable])
            except ValueError as error:
                raise ConfigError(variable, f"{environment[variable][:80]!r} is no list of ports") from error
    return found


def _from_variables(environment: Mapping[str, str]) -> dict[str, object]:
    names = {JOBS_PREFIX + each.upper(): each for each in JobsConfig.__struct_fields__}
    for variable in sorted(environment):
        if variable.startswith(JOBS_PREFIX) and variable not in names:
            raise ConfigError(variable[:80], "is no variable of Casemate's", hint=_meant(variable, names))
    kinds = {each.name: each.type for each in msgspec.structs.fields(JobsConfig)}
    return {
        name: _value_of(variable, environment[variable], kinds[name])
        for variable, name in names.items()
        if variable in environment
    }


def _value_of(variable: str, text: str, kind: Any) -> Any:  # noqa: ANN401 - whatever the field holds
    try:
        if getattr(kind, "__origin__", None) in {dict, list}:
            return msgspec.json.decode(text, type=kind)
        return msgspec.convert(text, kind, strict=False)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise ConfigError(variable, str(error), hint=_choices(kind)) from error


# Checked ------------------------------------------------------------------------------------------


def _converted(written: Mapping[str, Any]) -> JobsConfig:
    kinds = {each.name: each.type for each in msgspec.structs.fields(JobsConfig)}
    for name, value in written.items():
        if name not in kinds:
            raise ConfigError(f"jobs.{name}"[:200], "is no key", hint=_meant(name, kinds))
        try:
            msgspec.convert(value, kinds[name])
        except msgspec.ValidationError as error:
            raise ConfigError(f"jobs.{name}", str(error).partition(" - at ")[0], hint=_choices(kinds[name])) from error
    return JobsConfig(**written)


def _choices(kind: Any) -> str:  # noqa: ANN401 - whatever the field holds
    return "known: " + ", ".join(get_args(kind)) if get_origin(kind) is Literal else ""


def _checked(written: JobsConfig) -> JobSettings:
    limits = {name: getattr(written, name) for name in ("cpu", "memory", "disk", "timeout")}
    try:
        Limits().replacing(limits)
        lease_s = parse_duration(written.lease, field="jobs.lease")
        log_max_bytes = parse_bytes(written.log_max, field="jobs.log_max")
        check_forbidden(written.denied, field="jobs.denied")
    except InvalidInput as error:
        place = error.field.replace("limits.", "jobs.", 1)
        raise ConfigError(place, error.message.partition(": ")[2], hint=error.hint) from error
    _check_number("lease", lease_s, bound.LEASE_MIN_S, bound.LEASE_MAX_S)
    _check_number("concurrency", written.concurrency, 0, bound.JOB_CONCURRENCY_MAX)
    _check_number("retention_days", written.retention_days, 1, bound.JOB_RETENTION_MAX_DAYS)
    _check_number("log_max", log_max_bytes, bound.LOG_KEPT_LEAST_BYTES, bound.LOG_KEPT_MOST_BYTES)
    _check_log_days(written)
    _check_words("allowed_commands", written.allowed_commands, bound.ALLOWED_COMMANDS_MAX)
    _check_words("allowed_hosts", written.allowed_hosts, bound.JOB_HOSTS_MAX)
    _check_hosts(written.allowed_hosts)
    for port in written.blocked_ports:
        _check_number("blocked_ports", port, 1, _PORT_MAX)
    return JobSettings(
        limits=limits,
        base=written.base,
        programs=_programs(written),
        allowed_commands=tuple(written.allowed_commands),
        denied=tuple(written.denied),
        refuse_dangerous=written.refuse_dangerous,
        allowed_hosts=tuple(written.allowed_hosts),
        blocked_ports=tuple(written.blocked_ports),
        concurrency=written.concurrency or bound.JOBS_A_PROCESSOR * len(os.sched_getaffinity(0)),
        lease_s=lease_s,
        retention_days=written.retention_days,
        log_max_bytes=log_max_bytes,
        log_rules=LogRules(days=written.log_retention_days, of=written.log_retention),
    )


def _programs(written: JobsConfig) -> tuple[str, ...]:
    """What is allowed by its name is there to be called."""
    _check_words("programs", written.programs, bound.PROGRAMS_MAX)
    for word in written.programs:
        if "/" in word:
            hint = "a program is named without its directory"
            raise ConfigError("jobs.programs", f"{word[:80]!r} is no name of a program", hint=hint)
    allowed = {word.rpartition("/")[2] for word in written.allowed_commands}
    return tuple(sorted({*written.programs, *allowed}))


def _check_log_days(written: JobsConfig) -> None:
    if len(written.log_retention) > bound.LOG_RULES_MAX:
        raise ConfigError("jobs.log_retention", f"more than {bound.LOG_RULES_MAX}")
    days = {f"log_retention.{name[:80]}": each for name, each in written.log_retention.items()}
    for name, each in {"log_retention_days": written.log_retention_days, **days}.items():
        _check_number(name, each, 1, bound.LOG_RETENTION_MAX_DAYS)


def _check_number(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise ConfigError(f"jobs.{name}", f"must be from {least:g} to {most:g}")


def _check_words(name: str, words: list[str], most: int) -> None:
    if len(words) > most:
        raise ConfigError(f"jobs.{name}", f"more than {most}")
    for word in words:
        if not word or not word.isprintable() or " " in word:
            raise ConfigError(f"jobs.{name}", f"{word[:80]!r} is no single word")


def _check_hosts(hosts: list[str]) -> None:
    try:
        for text in hosts:
            parse_pattern(text, "jobs.allowed_hosts")
    except InvalidInput as error:
        raise ConfigError(error.field, error.message.partition(": ")[2], hint=error.hint) from error


def _meant(name: str, known: Mapping[str, object]) -> str:
    close = get_close_matches(name, known, n=1)
    return f"did you mean {close[0]}?" if close else "known: " + ", ".join(sorted(known))

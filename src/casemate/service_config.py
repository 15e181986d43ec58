"""The parts of the configuration that only the service reads: `[service]` and `[languages]`, and their variables.

Every key of `[service]` can also be set by the environment, as `CASEMATE_SERVICE_` and its name; tables as JSON.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from casemate import service_limits as bound
from casemate.config import CGROUP_VARIABLE, CONFIG_VARIABLE, DATA_VARIABLE, Config, data_directory
from casemate.errors import ConfigError, InvalidInput
from casemate.model.accounting import Accounting, read_accounting
from casemate.model.resources import Limits
from casemate.model.units import parse_bytes, parse_duration
from casemate.network_config import NetworkTable, read_network
from casemate.object_config import PREFIX as OBJECTS_PREFIX
from casemate.object_config import VARIABLES as OBJECT_VARIABLES
from casemate.object_config import ObjectsTerms, read_objects
from casemate.sdk import VARIABLES as CLIENT_VARIABLES

PREFIX: Final = "CASEMATE_"
SERVICE_PREFIX: Final = "CASEMATE_SERVICE_"
JOBS_PREFIX: Final = "CASEMATE_JOBS_"
COMMON_PREFIX: Final = "SANDBOX_"
SETTING_PREFIXES: Final = (SERVICE_PREFIX, JOBS_PREFIX, OBJECTS_PREFIX, COMMON_PREFIX)
"""Of variables that are for the service's own processes."""

TEST_PREFIX: Final = "CASEMATE_TEST_"
NODE_SOCKET: Final = "run/node.sock"
"""Where the node listens, below the service's data directory."""

NODE_SPOOL: Final = "run/spool"
"""Where it keeps what is staged for jobs."""

KNOWN_VARIABLES: Final = frozenset(
    {CONFIG_VARIABLE, CGROUP_VARIABLE, DATA_VARIABLE, *CLIENT_VARIABLES, *OBJECT_VARIABLES}
)
QUEUE_VARIABLE: Final = "SANDBOX_REDIS_URL"
DATABASE_ADDRESSES: Final = ("postgresql://", "postgres://")
"""The records are in a file unless their place begins so."""

LANGUAGE_ALIASES: Final = {"js": "javascript"}
LOG_LEVELS: Final = ("debug", "info", "warning", "error")
MASK: Final = "********"
_SECRET: Final = re.compile(r"secret|token|passw|credential|key$", re.IGNORECASE)
_PASSWORD: Final = re.compile(r"(://[^/?#:@]*:)[^/?#]*(?=@)|([?&]password=)[^&]*")
"""In an address."""

_ENVIRONMENT_NAME: Final = r"[a-z][a-z0-9-]*"
_PORT_MAX: Final = 65_535


class LanguageConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What functions in one language get: `memory` in MB (of 1024 KiB) and `timeout` in seconds.

    `runtime`: what runs them, where that is not the language itself; a package set, for example.
    """

    memory: int
    timeout: float
    runtime: str = ""

    def limits(self) -> dict[str, Any]:
        """As limits of a run."""
        return {"memory": self.memory * bound.MIB, "timeout": self.timeout}


class ServiceConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[service]`, as people write it; see the reference of the configuration for each key."""

    host: str = "127.0.0.1"
    port: int = bound.SERVICE_PORT
    data: str = ""
    database: str = ""
    drain: str | float = bound.SERVICE_DRAIN_S
    concurrency: int = 0
    queue: int = bound.SERVICE_QUEUE
    request_max: str | int = bound.SERVICE_REQUEST_BYTES
    rate: float = bound.SERVICE_RATE_PER_S
    burst: int = bound.SERVICE_BURST
    proxies: list[str] = []
    tls_certificate: str = ""
    tls_key: str = ""
    environment: str = "dev"
    location: str = ""
    tags: dict[str, str] = {}
    log_level: str = "info"
    log_retention_days: int = bound.SERVICE_RETENTION_DAYS
    maximum: dict[str, Any] = {}
    patterns: dict[str, list[str]] = {}


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """The same as values: checked, with units, and every default filled in."""

    host: str
    port: int
    data: Path
    database: str
    drain_s: float
    concurrency: int
    queue: int
    request_max_bytes: int
    rate_per_s: float
    burst: int
    proxies: tuple[str, ...]
    tls_certificate: str
    tls_key: str
    environment: str
    location: str
    tags: dict[str, str]
    log_level: str
    log_retention_days: int
    maximum: dict[str, Any]
    patterns: dict[str, tuple[str, ...]]
    languages: dict[str, LanguageConfig]
    objects: ObjectsTerms
    accounting: Accounting = Accounting()
    network: NetworkTable = NetworkTable()


def load_service(config: Config, environment: Mapping[str, str] = os.environ) -> Service:
    """What the file and the environment say together. Raises ConfigError naming the key or the variable."""
    check_variables(environment)
    written = {**config.service, **_from_queue_variable(environment), **_from_variables(environment)}
    return _checked(_converted(written), read_languages(config.languages), config, environment)


def check_variables(environment: Mapping[str, str]) -> None:
    """Refuse a variable of ours that nothing reads: it may be a misspelt limit. Raises ConfigError."""
    known = {*KNOWN_VARIABLES, *(SERVICE_PREFIX + name.upper() for name in ServiceConfig.__struct_fields__)}
    for name in sorted(environment):
        if name.startswith((TEST_PREFIX, JOBS_PREFIX)):  # those of jobs are looked at where these are read
            continue
        if name.startswith(PREFIX) and name not in known:
            raise ConfigError(name[:80], "is no variable of Casemate's", hint=_meant(name, known))


def check_tables(service: Mapping[str, Any], languages: Mapping[str, Any]) -> None:
    """What is wrong in a file alone, wherever that is used. Raises ConfigError naming the key."""
    _check_values(_converted(service))
    read_languages(languages)


def read_languages(written: Mapping[str, Any]) -> dict[str, LanguageConfig]:
    """The languages by their own names. Raises ConfigError naming the language and the field."""
    found: dict[str, LanguageConfig] = {}
    for name, table in written.items():
        own_name = LANGUAGE_ALIASES.get(name, name)
        if own_name in found:
            raise ConfigError(f"languages.{name}", f"is {own_name}, which is there already")
        found[own_name] = _language(f"languages.{name}", table)
    return found


def _language(place: str, table: object) -> LanguageConfig:
    if not isinstance(table, dict):
        raise ConfigError(place, "must be a table with memory and timeout")
    for field in ("memory", "timeout"):
        if field not in table:
            raise ConfigError(f"{place}.{field}", "is missing", hint="memory in MB, timeout in seconds")
    for field in table:
        if field not in LanguageConfig.__struct_fields__:
            raise ConfigError(
                f"{place}.{field}"[:200], "is no key", hint=_meant(field, LanguageConfig.__struct_fields__)
            )
    _check_number(f"{place}.memory", table["memory"], least=1, most=bound.LANGUAGE_MEMORY_MAX_MB, whole=True)
    _check_number(f"{place}.timeout", table["timeout"], least=bound.WALL_MIN_S, most=bound.WALL_MAX_S)
    if not isinstance(table.get("runtime", ""), str):
        raise ConfigError(f"{place}.runtime", "must be the name of a runtime")
    return LanguageConfig(**table)


def _check_number(key: str, value: object, *, least: float, most: float, whole: bool = False) -> None:
    kinds = int if whole else int | float
    if not isinstance(value, kinds) or isinstance(value, bool) or not least <= value <= most:
        raise ConfigError(key, f"must be a {'whole ' * whole}number from {least:g} to {most:.15g}")


def _from_queue_variable(environment: Mapping[str, str]) -> dict[str, Any]:
    """Where the queue is, by the name that other services have for it; here it is where the records are."""
    written = environment.get(QUEUE_VARIABLE, "")
    if not written:
        return {}
    if not written.startswith(DATABASE_ADDRESSES):
        hint = "jobs wait in the records: give the address of a PostgreSQL, or nothing for a file"
        raise ConfigError(QUEUE_VARIABLE, "is no address of a PostgreSQL", hint=hint)
    return {"database": written}


def _from_variables(environment: Mapping[str, str]) -> dict[str, Any]:
    found = {}
    for field in msgspec.structs.fields(ServiceConfig):
        variable = SERVICE_PREFIX + field.name.upper()
        if variable in environment:
            found[field.name] = _value_of(variable, environment[variable], field.type)
    return found


def _value_of(variable: str, text: str, kind: Any) -> Any:  # noqa: ANN401 - whatever the field holds
    try:
        if getattr(kind, "__origin__", None) in {dict, list}:
            return msgspec.json.decode(text, type=kind)
        return msgspec.convert(text, kind, strict=False)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        wanted = {int: "a whole number", float: "a number"}.get(kind)
        raise ConfigError(variable, f"{text[:80]!r} is not {wanted}" if wanted else str(error)) from error


def _converted(written: Mapping[str, Any]) -> ServiceConfig:
    for name in written:
        if name not in ServiceConfig.__struct_fields__:
            raise ConfigError(f"service.{name}"[:200], "is no key", hint=_meant(name, ServiceConfig.__struct_fields__))
    for field in msgspec.structs.fields(ServiceConfig):
        if field.name in written:
            try:
                msgspec.convert(written[field.name], field.type)
            except msgspec.ValidationError as error:
                problem = str(error).partition(" - at ")[0]
                raise ConfigError(f"service.{field.name}", problem) from error
    return ServiceConfig(**written)


def _checked(
    written: ServiceConfig, languages: dict[str, LanguageConfig], config: Config, environment: Mapping[str, str]
) -> Service:
    drain_s, request_max_bytes = _check_values(written)
    return Service(
        host=written.host,
        port=written.port,
        data=_data(written.data, config, environment),
        database=written.database,
        drain_s=drain_s,
        concurrency=written.concurrency or max(2, len(os.sched_getaffinity(0))),
        queue=written.queue,
        request_max_bytes=request_max_bytes,
        rate_per_s=written.rate,
        burst=written.burst,
        proxies=tuple(written.proxies),
        tls_certificate=written.tls_certificate,
        tls_key=written.tls_key,
        environment=written.environment,
        location=written.location,
        tags=written.tags,
        log_level=written.log_level,
        log_retention_days=written.log_retention_days,
        maximum=written.maximum,
        patterns={name: tuple(each) for name, each in written.patterns.items()},
        languages=languages,
        objects=read_objects(config.objects),
        accounting=read_accounting(config.accounting),
        network=read_network(config.network),
    )


def _data(written: str, config: Config, environment: Mapping[str, str]) -> Path:
    if not written:
        return data_directory(config, environment) / "service"
    if not written.startswith("/"):
        raise ConfigError("service.data", "must be an absolute path")
    return Path(written)


def _check_values(written: ServiceConfig) -> tuple[float, int]:
    """What values of the right types can still get wrong; the time to drain and the size of a request."""
    _check_number("service.port", written.port, least=0, most=_PORT_MAX, whole=True)
    _check_number("service.concurrency", written.concurrency, least=0, most=bound.SERVICE_CONCURRENCY_MAX, whole=True)
    _check_number("service.queue", written.queue, least=0, most=bound.SERVICE_QUEUE_MAX, whole=True)
    _check_number("service.rate", written.rate, least=0.001, most=bound.SERVICE_RATE_MAX_PER_S)
    _check_number("service.burst", written.burst, least=1, most=bound.SERVICE_RATE_MAX_PER_S, whole=True)
    days = written.log_retention_days
    _check_number("service.log_retention_days", days, least=1, most=bound.SERVICE_RETENTION_MAX_DAYS, whole=True)
    _check_words(written)
    _check_proxies(written.proxies)
    _check_tls(written)
    _check_limits("service.maximum", written.maximum)
    for runtime, patterns in written.patterns.items():
        _check_patterns(f"service.patterns.{runtime}", patterns)
    try:
        drain_s = parse_duration(written.drain, field="service.drain")
        request_max_bytes = parse_bytes(written.request_max, field="service.request_max")
    except InvalidInput as error:
        raise ConfigError(error.field, error.message.partition(": ")[2], hint=error.hint) from error
    _check_number("service.drain", drain_s, least=0, most=bound.SERVICE_DRAIN_MAX_S)
    _check_number("service.request_max", request_max_bytes, least=1, most=bound.SERVICE_REQUEST_MAX_BYTES)
    return drain_s, request_max_bytes


def _check_words(written: ServiceConfig) -> None:
    name = written.environment
    if not re.fullmatch(_ENVIRONMENT_NAME, name) or len(name) > bound.SERVICE_NAME_MAX_CHARS:
        raise ConfigError("service.environment", f"{name[:80]!r} is no name", hint="small letters, digits and dashes")
    if written.log_level not in LOG_LEVELS:
        raise ConfigError("service.log_level", "must be one of " + ", ".join(LOG_LEVELS))
    if not written.host or "\0" in written.host:
        raise ConfigError("service.host", "must be an address")
    if len(written.tags) > bound.SERVICE_TAGS_MAX:
        raise ConfigError("service.tags", f"more than {bound.SERVICE_TAGS_MAX}")
    if written.database and not written.database.startswith(DATABASE_ADDRESSES):
        raise ConfigError(
            "service.database", "is no address", hint="postgresql://user@host/name, or nothing for a file"
        )
    _check_text("service.location", written.location)
    for word in (*written.tags, *written.tags.values()):
        _check_text("service.tags", word)


def _check_text(key: str, word: str) -> None:
    if len(word) > bound.SERVICE_TAG_MAX_CHARS or not word.isprintable():
        raise ConfigError(key, f"{word[:80]!r} is no plain text")


def _check_tls(written: ServiceConfig) -> None:
    for name in ("tls_certificate", "tls_key"):
        path = getattr(written, name)
        if bool(path) != bool(written.tls_certificate or written.tls_key):
            raise ConfigError(f"service.{name}", "is missing", hint="a certificate needs its key, and the key that")
        if path and not path.startswith("/"):
            raise ConfigError(f"service.{name}", "must be an absolute path")


def _check_proxies(written: list[str]) -> None:
    if len(written) > bound.SERVICE_PROXIES_MAX:
        raise ConfigError("service.proxies", f"more than {bound.SERVICE_PROXIES_MAX}")
    for each in written:
        try:
            ipaddress.ip_network(each)
        except ValueError as error:
            raise ConfigError("service.proxies", f"{each[:80]!r} is neither an address nor a network") from error


def _check_limits(key: str, written: Mapping[str, Any]) -> None:
    try:
        Limits().replacing(written)
    except InvalidInput as error:
        place = error.field.replace("limits", key, 1)
        raise ConfigError(place, error.message.partition(": ")[2], hint=error.hint) from error


def _check_patterns(key: str, patterns: list[str]) -> None:
    if len(patterns) > bound.SERVICE_PATTERNS_MAX:
        raise ConfigError(key, f"more than {bound.SERVICE_PATTERNS_MAX}")
    for pattern in patterns:
        if len(pattern) > bound.SERVICE_PATTERN_MAX_CHARS:
            raise ConfigError(key, f"{pattern[:80]!r} is longer than {bound.SERVICE_PATTERN_MAX_CHARS} characters")
        if not pattern.strip() or not pattern.isprintable():
            raise ConfigError(key, f"{pattern[:80]!r} is no plain text")


def _meant(name: str, known: Iterable[str]) -> str:
    from difflib import get_close_matches  # only a mistake pays for it

    close = get_close_matches(name, known, n=1)
    return f"did you mean {close[0]}?" if close else "known: " + ", ".join(sorted(known))


def masked(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """The same with everything that a name calls secret made unreadable."""
    if isinstance(value, dict):
        return {
            key: MASK if inner and isinstance(inner, str) and _SECRET.search(key) else masked(inner)
            for key, inner in value.items()
        }
    if isinstance(value, str):
        return _PASSWORD.sub(lambda found: (found[1] or found[2]) + MASK, value)
    return [masked(inner) for inner in value] if isinstance(value, list) else value

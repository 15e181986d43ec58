"""Configuration: one TOML file and a few environment variables. Unknown keys are refused by name."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from casemate import limits as bound
from casemate.errors import ConfigError, InvalidInput
from casemate.model.pool import Bounds
from casemate.model.resources import Limits
from casemate.model.runtime import Runtime
from casemate.model.spec import RESERVED_NAMES
from casemate.model.units import parse_bytes, parse_duration

CONFIG_VARIABLE: Final = "CASEMATE_CONFIG"
CGROUP_VARIABLE: Final = "CASEMATE_CGROUP"
CGROUP_KEY: Final = "engine.cgroup"
PLACEHOLDERS: Final = ("interpreter", "code", "guest", "harness")
_PLACEHOLDER: Final = r"\{(\w+)\}"
_NAME: Final = r"[A-Za-z0-9][A-Za-z0-9._+-]*"
DATA_VARIABLE: Final = "CASEMATE_DATA_DIR"
LIBRARY_PLACES: Final = frozenset({"opt", "node_modules"})
"""Where inside a directory of packages may appear: at places that nothing else has."""


class EngineConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`cgroup`: empty to find one, `none` to do without, or the path of the cgroup to work below.

    `data_directory`: where package sets are kept; empty for the place that the user's environment names.
    """

    cgroup: str = ""
    data_directory: str = ""


class PoolConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sandboxes made ahead of their use.

    `ready_max`: most of one kind, 0 for none; `memory`: what all of them may hold together, as people write it;
    `idle`: how long without demand a kind is kept.
    """

    ready_max: int = bound.POOL_READY_MAX
    memory: str | int = bound.POOL_MEMORY_BYTES
    idle: str | float = bound.POOL_IDLE_S

    def bounds(self) -> Bounds:
        """As values. Raises ConfigError naming the key."""
        most: object = self.ready_max
        if not isinstance(most, int) or not 0 <= self.ready_max <= bound.POOL_KEPT_MAX:
            raise ConfigError("pool.ready_max", f"must be a whole number from 0 to {bound.POOL_KEPT_MAX}")
        try:
            return Bounds(
                ready_max=self.ready_max,
                memory_bytes=parse_bytes(self.memory, field="pool.memory"),
                idle_s=parse_duration(self.idle, field="pool.idle"),
            )
        except InvalidInput as error:
            raise ConfigError(error.field, error.message.partition(": ")[2], hint=error.hint) from error


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that can be configured.

    `limits` are the defaults of every run, written as people write them; `runtimes` declares more
    languages or replaces built-in ones. The others are the service's alone, see `service_config`.
    """

    limits: dict[str, Any] = {}
    engine: EngineConfig = EngineConfig()
    pool: PoolConfig = PoolConfig()
    runtimes: dict[str, Runtime] = {}
    service: dict[str, Any] = {}
    languages: dict[str, Any] = {}
    jobs: dict[str, Any] = {}
    objects: dict[str, Any] = {}
    network: dict[str, Any] = {}
    accounting: dict[str, Any] = {}

    def default_limits(self) -> Limits:
        """The limits of a run that asks for nothing. Raises ConfigError naming the key."""
        try:
            return Limits().replacing(self.limits)
        except InvalidInput as error:
            raise ConfigError(error.field, error.message.partition(": ")[2], hint=error.hint) from error


def config_paths(environment: Mapping[str, str]) -> list[Path]:
    """Where a configuration is looked for; the first that exists counts."""
    if environment.get(CONFIG_VARIABLE):
        return [Path(environment[CONFIG_VARIABLE])]
    places = [Path("/etc")]
    if environment.get("HOME"):
        places.insert(0, Path(environment["HOME"]) / ".config")
    if environment.get("XDG_CONFIG_HOME"):
        places.insert(0, Path(environment["XDG_CONFIG_HOME"]))
    return [place / "casemate" / "config.toml" for place in places]


def load_config(environment: Mapping[str, str] = os.environ) -> Config:
    """The configuration of this process. Raises ConfigError naming the file or the key."""
    config = Config()
    for path in config_paths(environment):
        if os.access(path, os.F_OK) or environment.get(CONFIG_VARIABLE):
            config = read_config(path)
            break
    variables = {"cgroup": CGROUP_VARIABLE, "data_directory": DATA_VARIABLE}
    given = {key: environment[variable] for key, variable in variables.items() if variable in environment}
    return msgspec.structs.replace(config, engine=msgspec.structs.replace(config.engine, **given))


def data_directory(config: Config, environment: Mapping[str, str] = os.environ) -> Path:
    """Where this user's package sets are kept. Raises ConfigError if nothing says where."""
    named = config.engine.data_directory
    for base, below in ((named, ""), (environment.get("XDG_DATA_HOME"), "casemate")):
        if base and base.startswith("/"):
            return Path(base, below)
        if named:
            raise ConfigError("engine.data_directory", "must be an absolute path")
    if not environment.get("HOME", "").startswith("/"):
        raise ConfigError("engine.data_directory", "nothing says where", hint=f"set {DATA_VARIABLE}")
    return Path(environment["HOME"], ".local", "share", "casemate")


def cgroup_source(config: Config, environment: Mapping[str, str] = os.environ) -> str:
    """What chose the control group, the variable or the key, for messages about it."""
    return CGROUP_VARIABLE if environment.get(CGROUP_VARIABLE) == config.engine.cgroup else CGROUP_KEY


def read_config(path: Path) -> Config:
    """One file. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            data = file.read(bound.CONFIG_MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(str(path), f"cannot be read: {error.strerror}") from error
    if len(data) > bound.CONFIG_MAX_BYTES:
        raise ConfigError(str(path), f"is larger than {bound.CONFIG_MAX_BYTES} bytes")
    return parse_config(data, name=str(path))


def parse_config(data: bytes, *, name: str) -> Config:
    """A configuration from its text. Raises ConfigError naming the key, or `name` where there is none."""
    try:
        config = msgspec.toml.decode(data, type=Config)
    except msgspec.ValidationError as error:
        raise _explained(error, data, name) from error
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise ConfigError(name, f"is no valid TOML: {error}") from error
    try:
        check_config(config)
    except ConfigError as error:
        problem = error.message.removeprefix(f"{error.field}: ")
        raise ConfigError(error.field, problem, hint=_in_file(error.hint, name)) from error
    return config


def check_config(config: Config) -> None:
    """What a value of the right types can still get wrong. Raises ConfigError naming the key."""
    if not isinstance(config.pool, PoolConfig):
        raise ConfigError("pool", "must be a PoolConfig")
    config.default_limits()
    config.pool.bounds()
    for name, runtime in config.runtimes.items():
        _check_runtime(name, runtime)
    if config.network:
        from casemate.network_config import read_network

        read_network(config.network)
    if config.objects:
        from casemate.object_config import read_objects  # a run has nothing to do with it

        read_objects(config.objects)
    if config.service or config.languages:
        from casemate.service_config import check_tables  # a run has nothing to do with it

        check_tables(config.service, config.languages)
    if config.accounting:
        from casemate.model.accounting import read_accounting

        read_accounting(config.accounting)


def _in_file(hint: str, name: str) -> str:
    return f"{hint}; in {name}" if hint else f"in {name}"


def _explained(error: msgspec.ValidationError, data: bytes, name: str) -> ConfigError:
    """What msgspec found, with the name of the runtime that it leaves out, and the keys that there are."""
    place, problem = _place(error)
    if place.startswith("runtimes[...]"):
        for runtime, declared in msgspec.toml.decode(data)["runtimes"].items():
            try:
                msgspec.convert(declared, Runtime)
            except msgspec.ValidationError as found:
                inner, problem = _place(found)
                place = f"runtimes.{runtime}.{inner}".rstrip(".")
                break
    unknown = problem.partition("unknown field `")[2].rstrip("`")
    hint = _known_keys(place, unknown) if unknown else ""
    return ConfigError(
        (f"{place}.{unknown}" if unknown else place).lstrip(".") or name, problem, hint=_in_file(hint, name)
    )


def _place(error: msgspec.ValidationError) -> tuple[str, str]:
    problem, _, place = str(error).partition(" - at `$")
    return place.rstrip("`").lstrip("."), problem


def _known_keys(place: str, unknown: str) -> str:
    from difflib import get_close_matches  # only a mistake pays for it

    known = {"": Config, "engine": EngineConfig, "pool": PoolConfig}.get(place, Runtime).__struct_fields__
    close = get_close_matches(unknown, known, n=1)
    return f"did you mean {close[0]}?" if close else "known: " + ", ".join(known)


def _check_runtime(name: str, runtime: Runtime) -> None:
    """What a declaration can get wrong, found when it is read and not when it is first used."""
    key = f"runtimes.{name}"
    for word in (name, *runtime.aliases):
        if not re.fullmatch(_NAME, word):
            raise ConfigError(key, f"{word[:80]!r} is no name for a runtime", hint="letters, digits and any of . _ + -")
    for ending in runtime.extensions:
        if not ending.startswith("."):
            raise ConfigError(f"{key}.extensions", f"{ending[:80]!r} has no dot", hint=f"write it as .{ending[:80]}")
    _check_placeholders(key, runtime)
    for field in ("interpreter", "command"):
        if not all(getattr(runtime, field)) or not getattr(runtime, field):
            raise ConfigError(f"{key}.{field}", "must be a list of words")
    if runtime.filename in RESERVED_NAMES or "/" in runtime.filename:
        raise ConfigError(f"{key}.filename", f"{runtime.filename[:80]!r} is not a file name")
    variables = (*runtime.environment.items(), *runtime.harness_environment.items())
    words = (*runtime.interpreter, *runtime.command, *runtime.session, *runtime.paths, *itertools.chain(*variables))
    if any("\0" in word for word in (*words, runtime.filename)):
        raise ConfigError(key, "holds a NUL character")
    _check_library(key, runtime)
    try:
        Limits().replacing(runtime.limits)
    except InvalidInput as error:
        raise ConfigError(f"{key}.{error.field}", error.message.partition(": ")[2], hint=error.hint) from error


def _check_placeholders(key: str, runtime: Runtime) -> None:
    """Refuse what is nearly one; a word in braces that is none may be the interpreter's own."""
    for field in ("command", "interactive", "session"):
        for found in re.findall(_PLACEHOLDER, " ".join(getattr(runtime, field))):
            if found in PLACEHOLDERS:
                continue
            from difflib import get_close_matches

            close = get_close_matches(found, PLACEHOLDERS, n=1)
            if close:
                raise ConfigError(f"{key}.{field}", f"{{{found}}} is unknown", hint=f"did you mean {{{close[0]}}}?")


def _check_library(key: str, runtime: Runtime) -> None:
    """Packages go to places of their own, where nothing else is mounted."""
    places: dict[str, str] = {}
    if runtime.sets is not None:
        places["sets.target"] = runtime.sets.target
    if runtime.library is not None:
        places |= {"library.target": runtime.library.target, "library.source": runtime.library.source}
    for field, place in places.items():
        parts = place.split("/")[1:]
        if not place.startswith("/") or not all(parts) or {".", ".."} & set(parts) or "\0" in place:
            raise ConfigError(f"{key}.{field}", f"{place[:80]!r} is not an absolute path")
        if field.endswith("target") and parts[0] not in LIBRARY_PLACES:
            raise ConfigError(f"{key}.{field}", "must be below /opt or be /node_modules")

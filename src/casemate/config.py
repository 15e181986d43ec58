"""Configuration: one TOML file and a few environment variables. Unknown keys are refused by name."""

from __future__ import annotations

import itertools
import os
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


class EngineConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`cgroup`: empty to find one, `none` to do without, or the path of the cgroup to work below."""

    cgroup: str = ""


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
    languages or replaces built-in ones.
    """

    limits: dict[str, Any] = {}
    engine: EngineConfig = EngineConfig()
    pool: PoolConfig = PoolConfig()
    runtimes: dict[str, Runtime] = {}

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
    choice = environment.get(CGROUP_VARIABLE)
    if choice is not None:
        config = msgspec.structs.replace(config, engine=msgspec.structs.replace(config.engine, cgroup=choice))
    return config


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
    """A configuration from its text. Raises ConfigError naming the key where msgspec names one."""
    try:
        config = msgspec.toml.decode(data, type=Config)
    except msgspec.ValidationError as error:
        problem, _, place = str(error).partition(" - at `$")
        key = place.rstrip("`").lstrip(".") or name
        raise ConfigError(key, problem) from error
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise ConfigError(name, f"is no valid TOML: {error}") from error
    check_config(config)
    return config


def check_config(config: Config) -> None:
    """What a value of the right types can still get wrong. Raises ConfigError naming the key."""
    config.default_limits()
    config.pool.bounds()
    for name, runtime in config.runtimes.items():
        _check_runtime(f"runtimes.{name}", runtime)


def _check_runtime(key: str, runtime: Runtime) -> None:
    """What a declaration can get wrong, found when it is read and not when it is first used."""
    for field in ("interpreter", "command"):
        if not all(getattr(runtime, field)) or not getattr(runtime, field):
            raise ConfigError(f"{key}.{field}", "must be a list of words")
    if runtime.filename in RESERVED_NAMES or "/" in runtime.filename:
        raise ConfigError(f"{key}.filename", f"{runtime.filename[:80]!r} is not a file name")
    variables = (*runtime.environment.items(), *runtime.harness_environment.items())
    words = (*runtime.interpreter, *runtime.command, *runtime.paths, *itertools.chain(*variables))
    if any("\0" in word for word in (*words, runtime.filename)):
        raise ConfigError(key, "holds a NUL character")
    try:
        Limits().replacing(runtime.limits)
    except InvalidInput as error:
        raise ConfigError(f"{key}.{error.field}", error.message.partition(": ")[2], hint=error.hint) from error

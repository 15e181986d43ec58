"""How much one execution may use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from casemate import limits as bound
from casemate.errors import InvalidInput
from casemate.model.units import format_bytes, format_duration, parse_bytes, parse_duration, parse_number


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of one execution. Every one is enforced and has a verdict of its own.

    `cpu_time_s` of None means: no more than `wall_s` times the number of processors allows.
    """

    wall_s: float = bound.WALL_DEFAULT_S
    cpu_time_s: float | None = None
    cpus: float = bound.CPUS_DEFAULT
    memory_bytes: int = bound.MEMORY_DEFAULT_BYTES
    processes: int = bound.PROCESSES_DEFAULT
    disk_bytes: int = bound.DISK_DEFAULT_BYTES
    inodes: int = bound.INODES_DEFAULT
    open_files: int = bound.OPEN_FILES_DEFAULT
    output_bytes: int = bound.OUTPUT_DEFAULT_BYTES

    def __post_init__(self) -> None:
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                write = _WRITERS.get(name.rpartition("_")[2], "{:g}".format)
                problem = f"{write(value)} is outside {write(low)} to {write(high)}"
                raise InvalidInput(f"limits.{_PUBLIC[name]}", problem)

    def replacing(self, overrides: Mapping[str, Any]) -> Limits:
        """These limits with some replaced, written as people write them.

        Keys: timeout, cpu_time, cpu, memory, processes, disk, inodes, open_files, output.
        Raises InvalidInput naming the key.
        """
        changes: dict[str, Any] = {}
        for key, value in overrides.items():
            if key not in _PARSERS:
                raise InvalidInput(f"limits.{key}"[:80], "unknown limit", hint="known: " + ", ".join(_PARSERS))
            attribute, parse = _PARSERS[key]
            if not isinstance(value, int | float | str):
                example = _EXAMPLES.get(parse, "16")
                problem = f"must be a number or text such as {example}, not {type(value).__name__}"
                raise InvalidInput(f"limits.{key}", problem)
            changes[attribute] = parse(value, f"limits.{key}")
        return msgspec.structs.replace(self, **changes)


def _count(value: str | float, field: str) -> int:
    number = parse_number(value, field=field)
    if number != int(number):
        raise InvalidInput(field, "must be a whole number")
    return int(number)


def _size(value: str | float, field: str) -> int:
    if isinstance(value, float):
        raise InvalidInput(field, "must be a whole number of bytes or text such as 512Mi")
    return parse_bytes(value, field=field)


def _duration(value: str | float, field: str) -> float:
    return parse_duration(value, field=field)


_EXAMPLES: Final[Mapping[object, str]] = {_duration: "5s", _size: "512Mi"}
_PARSERS: Final[dict[str, tuple[str, Callable[[int | float | str, str], int | float]]]] = {
    "timeout": ("wall_s", _duration),
    "cpu_time": ("cpu_time_s", _duration),
    "cpu": ("cpus", lambda value, field: parse_number(value, field=field)),
    "memory": ("memory_bytes", _size),
    "processes": ("processes", _count),
    "disk": ("disk_bytes", _size),
    "inodes": ("inodes", _count),
    "open_files": ("open_files", _count),
    "output": ("output_bytes", _size),
}
_WRITERS: Final[Mapping[str, Callable[[Any], str]]] = {
    "bytes": format_bytes,
    "s": format_duration,
    "processes": str,
    "inodes": str,
    "files": str,
}
"""How an amount is shown, by the last word of its name."""

LIMIT_NAMES: Final = tuple(_PARSERS)
ATTRIBUTES: Final = {key: attribute for key, (attribute, _) in _PARSERS.items()}
"""The names that people write, and those of the fields."""

_PUBLIC: Final = {attribute: key for key, (attribute, _) in _PARSERS.items()}
_RANGES: Final = (
    ("wall_s", bound.WALL_MIN_S, bound.WALL_MAX_S),
    ("cpu_time_s", bound.WALL_MIN_S, bound.CPU_TIME_MAX_S),
    ("cpus", bound.CPUS_MIN, bound.CPUS_MAX),
    ("memory_bytes", bound.MEMORY_MIN_BYTES, bound.MEMORY_MAX_BYTES),
    ("processes", 1, bound.PROCESSES_MAX),
    ("disk_bytes", bound.DISK_MIN_BYTES, bound.DISK_MAX_BYTES),
    ("inodes", bound.INODES_MIN, bound.INODES_MAX),
    ("open_files", bound.OPEN_FILES_MIN, bound.OPEN_FILES_MAX),
    ("output_bytes", 0, bound.OUTPUT_MAX_BYTES),
)

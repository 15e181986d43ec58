"""What can be recorded of a program while it runs, for whoever wrote it: what it printed, its calls, its steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, TypeAlias

import msgspec

from casemate import limits
from casemate.errors import InvalidInput

Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=(1 << 53) - 1)]
"""What every language counts exactly."""


class Debug(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to be recorded. Nothing, unless it is asked for."""

    console: bool = False
    stack: bool = False
    profile: bool = False
    steps: bool = False


class ConsoleLine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A line that was printed: on `stdout` or `stderr`, at what level, and when, counted from the program's start."""

    stream: str
    level: str
    text: str
    at_us: Count


class ProfileEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A function: how often it was called, and the time in itself and together with what it called.

    `file` is empty for what is built in. Times are None where the language's harness cannot measure them.
    """

    function: str
    file: str
    line: Count
    calls: Count
    own_us: Count | None
    total_us: Count | None


class Step(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A line of the program that was reached, and the function that it stands in; none at the top level."""

    line: Count
    function: str = ""


class DebugRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was recorded. Of what has a bound the rest is counted in `…_dropped`.

    `stack` is the traceback of what the program did not catch. `profile` is None if it was not asked for, or if the
    program ended so that it could not say anything.
    """

    console: tuple[ConsoleLine, ...] = ()
    stack: str = ""
    profile: tuple[ProfileEntry, ...] | None = None
    steps: tuple[Step, ...] = ()
    console_dropped: Count = 0
    profile_dropped: Count = 0
    steps_dropped: Count = 0


DebugLike: TypeAlias = Debug | Mapping[str, Any] | None
OFF: Final = Debug()
NAMES: Final = Debug.__struct_fields__
RECORDED: Final = ("console", "profile", "steps")
"""What a harness has to do something for."""


def check_debug(wanted: DebugLike) -> Debug | None:
    """What is to be recorded, from a mapping as people write it; None for nothing. Raises InvalidInput."""
    if wanted is None or wanted == OFF:
        return None
    if isinstance(wanted, Debug):
        return wanted
    if not isinstance(wanted, Mapping):
        raise InvalidInput("debug", "must be a mapping", hint=f'write debug={{"{NAMES[0]}": True}}')
    for name, value in wanted.items():
        if name not in NAMES:
            raise InvalidInput(f"debug.{str(name)[:80]}", "cannot be recorded", hint="known: " + ", ".join(NAMES))
        if not isinstance(value, bool):
            raise InvalidInput(f"debug.{name}", "must be True or False")
    asked = Debug(**wanted)
    return None if asked == OFF else asked


def bounded(found: DebugRecord, asked: Debug, stack: str) -> DebugRecord:
    """Only what was asked for, and no more of it than is kept, whatever a guest claims to have recorded."""
    console = found.console[: limits.DEBUG_CONSOLE_LINES_MAX] if asked.console else ()
    profile = found.profile[: limits.DEBUG_PROFILE_MAX] if asked.profile and found.profile is not None else None
    steps = found.steps[: limits.DEBUG_STEPS_MAX] if asked.steps else ()
    return DebugRecord(
        console=tuple(map(_bounded_line, console)),
        stack=stack if asked.stack else "",
        profile=None if profile is None else tuple(map(_bounded_entry, profile)),
        steps=tuple(Step(line=each.line, function=each.function[: limits.DEBUG_NAME_MAX_CHARS]) for each in steps),
        console_dropped=(found.console_dropped + len(found.console) - len(console)) if asked.console else 0,
        profile_dropped=(found.profile_dropped + len(found.profile or ()) - len(profile or ())) if asked.profile else 0,
        steps_dropped=(found.steps_dropped + len(found.steps) - len(steps)) if asked.steps else 0,
    )


def _bounded_line(line: ConsoleLine) -> ConsoleLine:
    most = limits.DEBUG_NAME_MAX_CHARS
    text = line.text[: limits.DEBUG_LINE_MAX_CHARS]
    return ConsoleLine(stream=line.stream[:most], level=line.level[:most], text=text, at_us=line.at_us)


def _bounded_entry(entry: ProfileEntry) -> ProfileEntry:
    most = limits.DEBUG_NAME_MAX_CHARS
    return msgspec.structs.replace(entry, function=entry.function[:most], file=entry.file[-most:])

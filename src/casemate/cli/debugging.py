"""What was recorded of a program, as lines for people. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from casemate.cli.messages import printable
from casemate.model.debug import ConsoleLine, DebugRecord, ProfileEntry, Step
from casemate.model.units import SECOND_US, format_duration


def lines(record: DebugRecord) -> Iterator[str]:
    """One part after the other; what is empty is left out."""
    yield from _part("console", map(_console, record.console), record.console_dropped)
    yield from _part("stack", map(_indented, record.stack.splitlines()), 0)
    yield from _part("profile", map(_profile, record.profile or ()), record.profile_dropped)
    yield from _part("steps", map(_step, record.steps), record.steps_dropped)


def _part(name: str, found: Iterator[str], dropped: int) -> Iterator[str]:
    shown = [f"  {line}" for line in found]
    if shown or dropped:
        yield f"{name}:"
        yield from shown
    if dropped:
        yield f"  … {dropped} more"


def _time(time_us: int) -> str:
    return format_duration(time_us / SECOND_US)


def _indented(line: str) -> str:
    return " " * (len(line) - len(line.lstrip(" "))) + printable(line)


def _console(line: ConsoleLine) -> str:
    return f"{_time(line.at_us):>10}  {printable(line.level):<7}  {printable(line.text)}"


def _profile(entry: ProfileEntry) -> str:
    place = f"{printable(entry.file)}:{entry.line}" if entry.file else "built in"
    times = ""
    if entry.own_us is not None and entry.total_us is not None:
        times = f"own {_time(entry.own_us):>10}  all {_time(entry.total_us):>10}  "
    return f"{entry.calls:>8} calls  {times}{printable(entry.function)} ({place})"


def _step(step: Step) -> str:
    return f"line {step.line}" + (f" in {printable(step.function)}" if step.function else "")

"""What the command line makes of a Result: an exit status, one line of words, a JSON document. Pure."""

from __future__ import annotations

import signal
from typing import Final

from casemate.cli.messages import printable
from casemate.model.resources import Limits
from casemate.model.result import Event, Reason, Result, Usage
from casemate.model.units import format_bytes, format_duration

EXIT_USAGE: Final = 2
EXIT_TIMEOUT: Final = 124
EXIT_OURS: Final = 125
EXIT_INTERRUPTED: Final = 130
EXIT_LIMIT: Final = 137
EXIT_BROKEN_PIPE: Final = 141
SIGNAL_BASE: Final = 128
_PLACES_SHOWN: Final = 5
_DNS: Final = "dns"
FAR_BELOW: Final = 0.75
"""Of the memory limit: a peak below it was no growth up to the limit but one allocation beyond it."""

LIMIT_REASONS: Final = frozenset({Reason.CPU, Reason.MEMORY, Reason.PROCESSES, Reason.DISK, Reason.OUTPUT})


def exit_status(result: Result) -> int:
    """The status that the command ends with."""
    if result.reason in LIMIT_REASONS:
        return EXIT_LIMIT
    if result.reason is Reason.TIMEOUT:
        return EXIT_TIMEOUT
    if result.reason is Reason.CANCELLED:
        return EXIT_INTERRUPTED
    if result.reason in {Reason.LOST, Reason.INTERNAL}:
        return EXIT_OURS
    if result.signal is not None:
        return SIGNAL_BASE + result.signal
    return result.exit_code or (0 if result.ok else 1)


def verdict_line(result: Result, limits: Limits) -> str:
    """What there is to say about the end that the program's own output does not; empty if nothing."""
    if result.reason is Reason.TIMEOUT:
        return f"time limit of {format_duration(limits.wall_s)} reached; raise it with --timeout"
    if result.reason in LIMIT_REASONS:
        return _limit_line(result.reason, limits, result.usage, result.events)
    if result.reason is Reason.VALIDATION:
        return f"the output is no JSON value: {printable(result.error.message)}" if result.error else "invalid output"
    if result.reason is Reason.LOST:
        return "the sandbox ended without saying how; nothing is known of the program's status"
    if result.reason is Reason.INTERNAL:
        why = next((event.detail for event in result.events if event.kind == "internal"), "no more is known")
        return f"the program was ended because casemate could not go on: {printable(why)}"
    if result.reason is Reason.SIGNAL:
        return f"ended by signal {_signal_name(result.signal)}"
    if result.error is not None and result.reason in {Reason.DENIED, Reason.EXIT}:
        return printable(result.error.message)
    return ""


def side_line(result: Result, limits: Limits) -> str:
    """A limit that refused something and is not the reason: what came after may be why. Empty if there is none."""
    refused = _refused(result.events)
    if result.ok or result.reason is Reason.PROCESSES or not refused:
        return ""
    return f"process limit of {limits.processes} reached{refused}; raise it with --processes"


def _refused(events: tuple[Event, ...]) -> str:
    return next((f" ({event.detail})" for event in events if event.kind == "process-limit"), "")


def network_line(result: Result) -> str:
    """Which places it was refused, each once; empty if none."""
    flows = [flow for flow in result.flows if not flow.allowed and flow.host]
    refused = list(dict.fromkeys(flow.host if flow.protocol == _DNS else f"{flow.host}:{flow.port}" for flow in flows))
    if not refused:
        return ""
    more = f" and {len(refused) - _PLACES_SHOWN} more" if len(refused) > _PLACES_SHOWN else ""
    return f"it was refused {printable(', '.join(refused[:_PLACES_SHOWN]))}{more}; --allow lets it reach what you trust"


def _signal_name(number: int | None) -> str:
    known = {each.value: each.name for each in signal.Signals}
    return f"{number} ({known[number]})" if number in known else str(number)


def _limit_line(reason: Reason, limits: Limits, usage: Usage, events: tuple[Event, ...]) -> str:
    if reason is Reason.MEMORY:
        far = usage.memory_peak_bytes is not None and usage.memory_peak_bytes < limits.memory_bytes * FAR_BELOW
        more = ", and far more was asked for" if far else ""
        peak = f" (peak {format_bytes(usage.memory_peak_bytes)}{more})" if usage.memory_peak_bytes else ""
        return f"memory limit of {format_bytes(limits.memory_bytes)} reached{peak}; raise it with --memory"
    if reason is Reason.CPU:
        used = format_duration(round(usage.cpu_user_s + usage.cpu_system_s, 3))
        limit = f" of {format_duration(limits.cpu_time_s)}" if limits.cpu_time_s is not None else ""
        return f"processor time limit{limit} reached (used {used}); raise it with --cpu-time"
    if reason is Reason.PROCESSES:
        return f"process limit of {limits.processes} reached{_refused(events)}; raise it with --processes"
    if reason is Reason.OUTPUT:
        return f"output limit of {format_bytes(limits.output_bytes)} reached; raise it with --output-limit"
    return _disk_line(limits, usage)


def _disk_line(limits: Limits, usage: Usage) -> str:
    """Bytes or inodes: what is far from full was not it."""
    if usage.disk_bytes is not None and usage.disk_bytes < limits.disk_bytes // 2:
        return f"limit of {limits.inodes} files reached; raise it with --inodes"
    return f"disk limit of {format_bytes(limits.disk_bytes)} reached; raise it with --disk"

"""Times at which a schedule makes a job, in a time zone. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo

import msgspec
from cronsim import CronSim, CronSimError

from casemate.errors import InvalidInput
from casemate.job_limits import CRON_MAX_CHARS, MISSED_AFTER_S
from casemate.model.units import SECOND_US

SKIP: Final = "skip"
_FIELDS: Final = 5
_ZONE: Final = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(?:/[A-Za-z0-9_+-]+){0,2}", re.ASCII)
_SHORT: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
}


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done now: make the job of a time, or none; and when to look again. None: never."""

    fire_us: int | None
    next_us: int | None


def check_times(cron: str, zone: str) -> None:
    """Raise InvalidInput for what is no schedule, or one that never comes."""
    if len(cron) > CRON_MAX_CHARS or not cron.isprintable():
        raise InvalidInput("schedule.cron", f"must be at most {CRON_MAX_CHARS} characters that can be shown")
    _zone(zone)
    try:
        next(_times(cron, zone, 0))
    except (CronSimError, StopIteration, ValueError) as error:
        hint = "minute, hour, day of the month, month, day of the week: `30 2 * * 1-5`"
        raise InvalidInput("schedule.cron", f"{cron[:80]!r} is no schedule", hint=hint) from error


def next_after(cron: str, zone: str, at_us: int) -> int | None:
    """The first time after that."""
    return next(_times(cron, zone, at_us), None)


def turn_at(cron: str, zone: str, missed: str, due_us: int, at_us: int) -> Turn:
    """What a schedule that was due, or missed, does now. However many of its times have passed: at most one job."""
    next_us = next_after(cron, zone, at_us)
    if due_us > at_us:
        return Turn(fire_us=None, next_us=due_us)
    latest_us = max(due_us, next(_times(cron, zone, at_us + 1, reverse=True), due_us))
    is_late = at_us - latest_us > MISSED_AFTER_S * SECOND_US
    return Turn(fire_us=None if is_late and missed == SKIP else latest_us, next_us=next_us)


def _times(cron: str, zone: str, at_us: int, *, reverse: bool = False) -> Iterator[int]:
    cron = _SHORT.get(cron.strip(), cron)
    if len(cron.split()) != _FIELDS:
        raise CronSimError("Wrong number of fields")
    begin = datetime.fromtimestamp(at_us // SECOND_US, UTC).astimezone(_zone(zone))
    if reverse and at_us % SECOND_US:
        begin = begin.replace(microsecond=1)
    for found in CronSim(cron, begin, reverse=reverse):
        yield int(found.timestamp()) * SECOND_US


def _zone(name: str) -> ZoneInfo:
    try:
        if not _ZONE.fullmatch(name):
            raise ValueError(name)  # noqa: TRY301  (as an unknown one)
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError) as error:
        raise InvalidInput("schedule.zone", f"{name[:80]!r} is no time zone", hint="such as Europe/Berlin") from error

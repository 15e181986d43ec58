"""`casemate jobs schedule` and `schedules`: jobs that are made again and again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from casemate.cli.arguments import Parsed, UsageError
from casemate.cli.jobs import job_of
from casemate.cli.messages import printable, say
from casemate.cli.service import client_of, show_rows, show_value, text_of

if TYPE_CHECKING:
    from casemate.model.job_told import ScheduleRecord


def schedule(parsed: Parsed) -> int:
    """Make one; its id."""
    cron = parsed.one("cron")
    if cron is None:
        raise UsageError("jobs schedule", "give the times by --cron")
    body = job_of(parsed, "jobs schedule")
    with client_of(parsed) as client:
        made = client.schedules.create(
            cron, body, zone=parsed.one("zone"), missed=parsed.one("missed"), name=parsed.one("name")
        )
    show_value(parsed, made, printable(made.id))
    return 0


def schedules(parsed: Parsed) -> int:
    """List them, or change one."""
    action, *words = parsed.words or ("list",)
    if action == "list" and not words:
        return _list(parsed)
    if action not in {"pause", "resume", "delete"} or len(words) != 1:
        raise UsageError("jobs schedules", "write `jobs schedules`, or pause, resume or delete and an ID")
    with client_of(parsed) as client:
        if action == "delete":
            client.schedules.delete(words[0])
            say(f"{printable(words[0])} makes no more jobs")
        else:
            changed = client.schedules.change(words[0], paused=action == "pause")
            show_value(parsed, changed, f"{printable(changed.id)} is {'paused' if changed.paused else 'resumed'}")
    return 0


def _refusal(schedule: ScheduleRecord) -> str:
    """Why it last made no job, when, and how often in all, as long as it has made none since."""
    at, last = schedule.refused_at, schedule.last_at
    if at is None or (last is not None and last >= at):
        return ""
    return f"{schedule.refused_reason}; {text_of(at)}, {schedule.refused_count} in all"


def _list(parsed: Parsed) -> int:
    columns = {
        "ID": lambda each: each.id,
        "NAME": lambda each: each.name,
        "CRON": lambda each: each.cron,
        "ZONE": lambda each: each.zone,
        "NEXT": lambda each: "paused" if each.paused else each.next_at,
        "LAST": lambda each: each.last_at,
        "REFUSED": _refusal,
    }
    with client_of(parsed) as client:
        show_rows(parsed, client.schedules.list(), columns)
    return 0

"""What the service tells its clients of jobs and schedules. What is unknown here is passed over."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import msgspec

ENDED_STATES: Final = frozenset({"succeeded", "failed", "cancelled", "dead"})


class JobStep(msgspec.Struct, frozen=True, kw_only=True):
    """One change of a job's state."""

    state: str
    at: datetime | None = None
    attempt: int = 0
    detail: str = ""


class JobUsage(msgspec.Struct, frozen=True, kw_only=True):
    """What a job uses just now."""

    cpu_s: float = 0.0
    memory_bytes: int = 0
    processes: int = 0
    wall_s: float = 0.0


class JobRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A job as the service has it. `result` is the document of how its last attempt ended; lists leave it out."""

    id: str
    state: str
    command: tuple[str, ...] = ()
    shell: bool = False
    runtime: str = ""
    labels: dict[str, str] = {}
    priority: int = 5
    template: str = ""
    attempt: int = 0
    attempts_max: int = 1
    lost: int = 0
    created_at: datetime | None = None
    due_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    wall_s: float | None = None
    status: str | None = None
    reason: str | None = None
    exit_code: int | None = None
    schedule_id: str = ""
    request_id: str = ""
    cancel_asked: bool = False
    spec: dict[str, Any] | None = None
    transitions: tuple[JobStep, ...] | None = None
    usage: JobUsage | None = None
    result: dict[str, Any] | None = None

    @property
    def has_ended(self) -> bool:
        return self.state in ENDED_STATES

    @property
    def ok(self) -> bool:
        return self.state == "succeeded"


class ScheduleRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A job that is made again and again."""

    id: str
    name: str = ""
    cron: str = ""
    zone: str = "UTC"
    missed: str = "skip"
    paused: bool = False
    created_at: datetime | None = None
    next_at: datetime | None = None
    last_at: datetime | None = None
    last_job_id: str = ""
    refused_at: datetime | None = None
    refused_reason: str = ""
    refused_count: int = 0
    spec: dict[str, Any] = {}


class JobQueue(msgspec.Struct, frozen=True, kw_only=True):
    """How many jobs of a tenant have not ended, and how many are dead."""

    paused: bool = False
    all_paused: bool = False
    waiting: int = 0
    active: int = 0
    dead: int = 0

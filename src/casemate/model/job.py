"""Jobs as values: what is asked for, what state it is in, and how each attempt went."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Final

import msgspec

from casemate.model.network import NO_NETWORK, NetworkPolicy


class JobState(StrEnum):
    """`dead`: it has failed at its last attempt, and waits for somebody to look at it.

    `cleaned` is a step of attempts alone, in which no job stays: nothing of the attempt is left where it ran.
    """

    QUEUED = "queued"
    PREPARING = "preparing"
    RUNNING = "running"
    COLLECTING = "collecting"
    CLEANED = "cleaned"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DEAD = "dead"


ENDED: Final = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.DEAD})
ACTIVE: Final = frozenset({JobState.PREPARING, JobState.RUNNING, JobState.COLLECTING})
"""Somebody has a lease on it."""


class Retries(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How often it is tried again after a failure, and how long until then: `backoff_s`, doubled each time, capped."""

    max: int = 0
    backoff_s: float = 1.0


class JobFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One input. Exactly one of `content`, `object` and `url` says where it comes from.

    `object` is a key in the tenant's objects (`shared/…`, `templates/…`, `jobs/ID/artifacts/…`); `url` one of our own
    signed addresses. `path` is relative, below the job's `input` directory; `mode` its permissions. `digest`: SHA-256,
    in hexadecimal, of what an object has to be; empty where that is not known.
    """

    path: str
    content: bytes | None = None
    object: str = ""
    url: str = ""
    mode: int = 0o644
    digest: str = ""


class JobSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to be run.

    `argv` is the command as words; or `code` is a program for `runtime`. `shell`: the command was given as one text
    for a shell, which is its third word. `secrets`: names of the tenant's secrets, which become variables of the same
    name. `limits` as for `casemate.run`, by those names. `shared`: globs of the tenant's shared objects to be seen
    below `shared/`. `collect`: globs of what is kept, beside `output/**`.
    """

    argv: tuple[str, ...] = ()
    shell: bool = False
    code: str = ""
    runtime: str = ""
    environment: dict[str, str] = {}
    secrets: tuple[str, ...] = ()
    stdin: bytes = b""
    limits: dict[str, Any] = {}
    network: NetworkPolicy = NO_NETWORK
    files: tuple[JobFile, ...] = ()
    shared: tuple[str, ...] = ()
    collect: tuple[str, ...] = ()
    image: str = "host"
    priority: int = 5
    retries: Retries = Retries()
    labels: dict[str, str] = {}
    template: str = ""


class Transition(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One change of state, and when. `detail` is our own wording."""

    state: JobState
    at_us: int
    attempt: int = 0
    detail: str = ""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One job as the records have it. `result` is the document of the last attempt's Result.

    `attempt` counts from 1; 0: none has begun. `lost` counts attempts of which nothing has come back.
    `due_us`: not before. `schedule_id`: the schedule that has made it, or empty.
    """

    id: str
    tenant_id: str
    key_id: str
    spec: JobSpec
    state: JobState = JobState.QUEUED
    attempt: int = 0
    lost: int = 0
    created_us: int = 0
    due_us: int = 0
    started_us: int | None = None
    ended_us: int | None = None
    status: str | None = None
    reason: str | None = None
    exit_code: int | None = None
    result: bytes | None = None
    request_id: str = ""
    schedule_id: str = ""
    cancel_asked: bool = False


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant with jobs that are ready, and how many of its jobs are leased. `since_us`: when it was last served."""

    tenant_id: str
    ready: int
    leased: int
    leased_max: int
    since_us: int

"""Jobs and schedules as they are answered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from casemate.api.documents import moment
from casemate.cluster.messages import Sampled
from casemate.model.job import Job, JobSpec, Transition
from casemate.model.units import SECOND_US
from casemate.store.schedules import Schedule


def job_document(job: Job) -> dict[str, Any]:
    """A job in short, as lists have it."""
    return {
        "id": job.id,
        "state": job.state,
        "command": job.spec.argv,
        "shell": job.spec.shell,
        "runtime": job.spec.runtime,
        "labels": job.spec.labels,
        "priority": job.spec.priority,
        "template": job.spec.template,
        "attempt": job.attempt,
        "attempts_max": job.spec.retries.max + 1,
        "lost": job.lost,
        "created_at": moment(job.created_us),
        "due_at": moment(job.due_us),
        "started_at": moment(job.started_us),
        "ended_at": moment(job.ended_us),
        "wall_s": _wall_s(job),
        "status": job.status,
        "reason": job.reason,
        "exit_code": job.exit_code,
        "schedule_id": job.schedule_id,
        "request_id": job.request_id,
        "cancel_asked": job.cancel_asked,
    }


def _wall_s(job: Job) -> float | None:
    if job.started_us is None or job.ended_us is None:
        return None
    return max(0, job.ended_us - job.started_us) / SECOND_US


def full_document(
    job: Job, transitions: Sequence[Transition] | None = None, usage: Sampled | None = None
) -> dict[str, Any]:
    """All of it."""
    found = job_document(job)
    found["spec"] = spec_document(job.spec)
    if transitions is not None:
        found["transitions"] = [transition_document(each) for each in transitions]
    found["usage"] = None if usage is None else usage_document(usage)
    found["result"] = None if job.result is None else msgspec.Raw(job.result)
    return found


def spec_document(spec: JobSpec) -> dict[str, Any]:
    """What was asked for. Values of secrets are not in it: a job has only their names."""
    found: dict[str, Any] = msgspec.to_builtins(spec)
    for file in found["files"]:
        if file["content"] is not None:
            file["content"] = {"base64": file["content"]}
    found["stdin"] = {"base64": found["stdin"]}
    return found


def transition_document(each: Transition) -> dict[str, Any]:
    """One change of state."""
    return {"state": each.state, "at": moment(each.at_us), "attempt": each.attempt, "detail": each.detail}


def usage_document(usage: Sampled) -> dict[str, Any]:
    """What is used just now."""
    return {
        "cpu_s": usage.cpu_s,
        "memory_bytes": usage.memory_bytes,
        "processes": usage.processes,
        "wall_s": usage.wall_s,
    }


def schedule_document(row: Schedule) -> dict[str, Any]:
    """A schedule and its job."""
    return {
        "id": row.id,
        "name": row.name,
        "cron": row.cron,
        "zone": row.zone,
        "missed": row.missed,
        "paused": row.is_paused,
        "created_at": moment(row.created_us),
        "next_at": moment(row.next_us),
        "last_at": moment(row.last_us),
        "last_job_id": row.last_job_id,
        "refused_at": moment(row.refused_us),
        "refused_reason": row.refused_why,
        "refused_count": row.refused_count,
        "spec": spec_document(row.spec),
    }

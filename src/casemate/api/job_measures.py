"""What Prometheus reads of jobs."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from casemate.model.flow import Flow
from casemate.model.job import Job
from casemate.model.result import Result
from casemate.model.units import SECOND_US
from casemate.queue.protocol import Ending

_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0)
_BYTES: Final = tuple(float(2**power) for power in range(22, 35))
_INCIDENTS: Final = frozenset({"memory-limit", "process-limit", "bad-reply", "syscall", "denied"})
"""Events of a result that somebody who looks after a service wants to see a growing number of."""


class JobMeasures:
    """Counters of jobs. No tenant, key or id is a label."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._jobs = Counter("casemate_jobs", "Jobs that have ended", ("state", "reason"), registry=registry)
        self._attempts = Counter(
            "casemate_job_attempts", "Attempts at jobs that have ended", ("status", "reason"), registry=registry
        )
        self._seconds = Histogram(
            "casemate_job_seconds", "Time of attempts by the clock", buckets=_SECONDS, registry=registry
        )
        self._waiting_s = Histogram(
            "casemate_job_wait_seconds",
            "From a job's acceptance, or the time it was due, to its program",
            buckets=_SECONDS,
            registry=registry,
        )
        self._cpu_s = Counter("casemate_job_cpu_seconds", "Processor time of attempts", registry=registry)
        self._memory = Histogram(
            "casemate_job_memory_bytes", "Most memory of attempts", buckets=_BYTES, registry=registry
        )
        self.waiting = Gauge("casemate_jobs_waiting", "Jobs that wait", registry=registry)
        self.active = Gauge("casemate_jobs_active", "Jobs that somebody has a lease on", registry=registry)
        self.dead = Gauge("casemate_jobs_dead", "Jobs that wait for somebody to look at them", registry=registry)
        self.slots = Gauge("casemate_job_slots", "Jobs that this service carries out at a time", registry=registry)
        self.slots_taken = Gauge("casemate_job_slots_taken", "How many of them it does", registry=registry)
        self._schedules_refused = Counter(
            "casemate_schedules_refused", "Times of schedules at which no job could be made", registry=registry
        )
        self._log_mistakes = Counter(
            "casemate_job_log_mistakes", "Logs that lack lines for a mistake of ours", registry=registry
        )
        self._incidents = Counter(
            "casemate_security_incidents", "What was tried and refused", ("kind",), registry=registry
        )

    def observe_end(self, _: Job, ending: Ending, result: Result) -> None:
        """Count an attempt, and the job if that has ended with it."""
        self._attempts.labels(result.status, result.reason).inc()
        if ending.state != "queued":
            self._jobs.labels(ending.state, result.reason).inc()
        usage = result.usage
        self._seconds.observe(usage.wall_s)
        self._cpu_s.inc(usage.cpu_user_s + usage.cpu_system_s)
        if usage.memory_peak_bytes is not None:
            self._memory.observe(usage.memory_peak_bytes)
        for event in result.events:
            if event.kind in _INCIDENTS:
                self._incidents.labels(event.kind).inc()

    def observe_wait(self, job: Job, at_us: int) -> None:
        """The program of an attempt has begun."""
        self._waiting_s.observe(max(0, at_us - job.due_us) / SECOND_US)

    def observe_lost(self, job: Job) -> None:
        """An attempt of which nothing came back; the job is as it is now."""
        self._attempts.labels("failed", "lost").inc()
        if job.state != "queued":
            self._jobs.labels(job.state, "lost").inc()

    def observe_schedule_refused(self) -> None:
        """A time of a schedule at which no job could be made."""
        self._schedules_refused.inc()

    def observe_log_mistake(self) -> None:
        """A log of which lines, or all from now on, are not written down."""
        self._log_mistakes.inc()

    def observe_flow(self, flow: Flow) -> None:
        """What was tried on a network."""
        if not flow.allowed:
            self._incidents.labels("connection").inc()

    def observe_refusal(self) -> None:
        """A command or a host that the operator's policy forbids."""
        self._incidents.labels("command").inc()

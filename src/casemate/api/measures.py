"""What Prometheus reads: counted here, in one process, with labels of which there is a bounded number."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from casemate.api.job_measures import JobMeasures
from casemate.model.flow import PROTOCOLS, REASONS, Flow
from casemate.model.units import SECOND_US
from casemate.store.executions import Execution

_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_BYTES: Final = tuple(float(2**power) for power in range(22, 35))
_OTHER: Final = "other"
"""The runtime of executions that name one in which nothing has run: a caller may send any name."""


class Measures:
    """Counters of one service. No tenant, key or id is a label: there may be any number of them."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Histogram(
            "casemate_http_request_seconds",
            "Requests by route and status",
            ("method", "route", "status"),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._executions = Counter(
            "casemate_executions", "Executions that have ended", ("kind", "runtime", "reason"), registry=self.registry
        )
        self._seconds = Histogram(
            "casemate_execution_seconds",
            "Time of executions by the clock",
            ("kind", "runtime"),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._waiting_s = Histogram(
            "casemate_execution_wait_seconds",
            "From acceptance to start",
            ("kind",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._memory = Histogram(
            "casemate_execution_memory_bytes",
            "Most memory of executions",
            ("runtime",),
            buckets=_BYTES,
            registry=self.registry,
        )
        self._notices = Counter(
            "casemate_notices", "Attempts to send an event, by what came of them", ("state",), registry=self.registry
        )
        self.refused = Counter("casemate_refused", "Requests refused for a bound", ("why",), registry=self.registry)
        self.waiting = Gauge(
            "casemate_executions_waiting", "Executions that wait for their turn", registry=self.registry
        )
        self.running = Gauge("casemate_executions_running", "Executions that have their turn", registry=self.registry)
        self.node_up = Gauge("casemate_node_up", "Whether there is a connection to the node", registry=self.registry)
        self.jobs = JobMeasures(self.registry)
        self._flows = Counter(
            "casemate_flows",
            "Attempts of jobs to reach something",
            ("verdict", "protocol", "reason"),
            registry=self.registry,
        )
        self._flow_bytes = Counter(
            "casemate_flow_bytes", "What has gone through the gateway", ("direction",), registry=self.registry
        )
        self._known_runtimes: set[str] = set()

    def observe_request(self, method: str, route: str, status: int, seconds: float) -> None:
        self._requests.labels(method, route, str(status)).observe(seconds)

    def observe_notice(self, state: str) -> None:
        """Count an attempt to send an event: `delivered`, `waiting` for another one, or `failed` for good."""
        self._notices.labels(state).inc()

    def observe_end(self, row: Execution) -> None:
        """Count an execution that has ended."""
        runtime = self._runtime_of(row)
        self._executions.labels(row.kind, runtime, row.reason or "").inc()
        if row.wall_us is not None:
            self._seconds.labels(row.kind, runtime).observe(row.wall_us / SECOND_US)
        if row.started_us is not None:
            self._waiting_s.labels(row.kind).observe(max(0, row.started_us - row.created_us) / SECOND_US)
        if row.memory_peak_bytes is not None:
            self._memory.labels(runtime).observe(row.memory_peak_bytes)

    def observe_flow(self, flow: Flow) -> None:
        """Count an attempt to reach something. What a node says is one of a few words, or it is another one."""
        reason = flow.reason if flow.reason in REASONS else _OTHER
        protocol = flow.protocol if flow.protocol in PROTOCOLS else _OTHER
        verdict = "allowed" if flow.allowed else "refused"
        self._flows.labels(verdict, protocol, "" if flow.allowed else reason).inc()
        self._flow_bytes.labels("sent").inc(flow.sent_bytes)
        self._flow_bytes.labels("received").inc(flow.received_bytes)

    def _runtime_of(self, row: Execution) -> str:
        if row.wall_us:
            self._known_runtimes.add(row.runtime)
        return row.runtime if row.runtime in self._known_runtimes else _OTHER

    def text(self) -> bytes:
        """All of it in Prometheus' format."""
        return generate_latest(self.registry)

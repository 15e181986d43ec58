"""Workers of isolates over their lives, as their operator sees them."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import pytest
from tests.machine import left_running

import casemate
from casemate import limits
from casemate.config import Config, EngineConfig
from casemate.errors import InvalidInput, LaunchError
from casemate.isolation.protocol import EVERYTHING, encode_signal
from casemate.kernel.cgroup_types import CgroupUnavailable
from casemate.model.layers import Layer
from casemate.model.result import Reason
from casemate.model.workers import WorkerGroup, WorkerInfo, WorkerKind, WorkerState
from casemate.pool import decide
from casemate.pool.worker import Worker

MOST = 2
WAIT_S = 30.0
FOREVER = "console.log('begun'); for (;;) {}"
LIMITS = {"timeout": 20.0, "memory": "16Mi"}


@pytest.fixture
def working(monkeypatch: pytest.MonkeyPatch, slowness: float) -> Iterator[casemate.Engine]:
    """With few workers, each of which prepares in no time."""
    monkeypatch.setattr(limits, "WORKER_PREPARES_S", 0.0)
    monkeypatch.setattr(limits, "WORKER_TREND_PERIOD_S", 0.0)
    monkeypatch.setattr(decide, "most_workers", lambda *_: MOST)
    with casemate.Engine() as opened:
        yield opened
        assert left_running(opened, slowness) == []


def start(engine: casemate.Engine, code: str = "output = 1", **options: Any) -> casemate.Result:
    options["limits"] = {**LIMITS, **options.get("limits", {})}
    return casemate.run(code, "javascript", engine=engine, **options)


def workers(engine: casemate.Engine, *states: WorkerState) -> list[WorkerInfo]:
    found = [each for each in engine.workers().workers if each.kind is WorkerKind.ISOLATE]
    return [each for each in found if not states or each.state in states]


def group(engine: casemate.Engine) -> WorkerGroup:
    (found,) = [each for each in engine.workers().groups if each.kind is WorkerKind.ISOLATE]
    return found


def until(condition: Callable[[], Any]) -> None:
    event = threading.Event()
    deadline_s = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline_s, "it does not come to that"
        event.wait(0.002)


class Running:
    """A program that runs in a thread until it is let go."""

    def __init__(self, engine: casemate.Engine, code: str = FOREVER, **options: Any) -> None:
        self.token = casemate.CancelToken()
        self._pool = ThreadPoolExecutor(1)
        self.future = self._pool.submit(start, engine, code, cancel=self.token, **options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.token.cancel()
        self._pool.shutdown()


def begun(engine: casemate.Engine, tenant: str = "") -> Worker:
    """The worker that is at work for a tenant, once it is."""
    pool = engine.isolates
    until(lambda: [each for each in pool._busy if each.kind.tenant == tenant])
    return next(each for each in pool._busy if each.kind.tenant == tenant)


def test_s1_19_a_life_from_its_start_to_its_end_can_be_seen(
    working: casemate.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert working.workers().workers == ()
    starting, go = threading.Event(), threading.Event()
    ready = working.backend.start

    def slow(spec: Any) -> Any:
        starting.set()
        go.wait(WAIT_S)
        return ready(spec)

    monkeypatch.setattr(working.backend, "start", slow)
    with Running(working) as running:
        assert starting.wait(WAIT_S)
        assert group(working).starting == 1
        go.set()
        until(lambda: workers(working, WorkerState.BUSY))
        running.token.cancel()
        assert running.future.result(WAIT_S).reason is casemate.Reason.CANCELLED
    assert [each.ended for each in workers(working, WorkerState.ENDED)] == ["stopped"]
    start(working)
    assert len(workers(working, WorkerState.IDLE)) == 1


def test_s1_20_each_worker_has_its_processor_time_and_memory(working: casemate.Engine) -> None:
    # Many of the kernel's ticks, in which processor time is counted where there is no control group.
    start(working, "let sum = 0; for (let n = 0; n < 2e8; n++) sum += Math.sqrt(n); output = sum")
    (worker,) = workers(working)
    assert worker.cpu_s is not None
    assert worker.cpu_s > 0
    assert worker.memory_bytes is not None
    assert worker.memory_bytes > limits.MIB
    assert (worker.memory_limit_bytes, worker.cpus) == (decide.worker_memory(16 * limits.MIB), 1.0)


def test_s1_21_a_pool_keeps_to_its_bounds(working: casemate.Engine) -> None:
    with ThreadPoolExecutor(6) as pool:
        assert all(each.ok for each in pool.map(lambda _: start(working), range(30)))
    found = group(working)
    assert (found.least, found.most) == (0, MOST)
    assert found.idle + found.busy + found.starting <= MOST


def test_s1_23_a_frozen_worker_is_detected_in_time(
    working: casemate.Engine, slowness: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "WORKER_SILENCE_MAX_S", 1.0)
    monkeypatch.setattr(limits, "WORKER_HANDOVER_TIMEOUT_S", 1.0)
    with Running(working, "for (;;) {}") as running:  # one that has printed something is not tried again
        until(lambda: [each for each in workers(working, WorkerState.BUSY) if each.heartbeat_age_s is not None])
        begun(working).sandbox.request(encode_signal(EVERYTHING, signal.SIGSTOP)).close()
        frozen_s = time.monotonic()
        until(lambda: group(working).retired.get("silent"))
        assert time.monotonic() - frozen_s < (1.0 + 2.0) * slowness
        # It is tried once more, by a worker that a busy machine may keep silent for a second as well.
        monkeypatch.setattr(limits, "WORKER_SILENCE_MAX_S", WAIT_S)
        running.token.cancel()
        assert running.future.result(WAIT_S).reason is casemate.Reason.CANCELLED


def test_s1_24_a_killed_worker_is_replaced(working: casemate.Engine) -> None:
    assert start(working).ok
    assert start(working).ok
    (worker,) = workers(working, WorkerState.IDLE)
    working.isolates._idle[0].sandbox.kill()
    until(lambda: worker.id in [each.id for each in workers(working, WorkerState.ENDED)])
    assert start(working).ok
    assert worker.id not in [each.id for each in workers(working, WorkerState.IDLE)]


def test_s1_25_health_has_counts_and_restarts(working: casemate.Engine) -> None:
    assert start(working).ok
    assert start(working).ok
    working.isolates._idle[0].sandbox.kill()
    until(lambda: group(working).restarted or (start(working).ok and group(working).started > 1))
    found = group(working)
    assert found.retired == {"crashed": 1}
    assert found.started >= 2
    assert found.hits + found.misses >= 2


def test_s1_26_memory_and_processor_time_have_a_course(working: casemate.Engine) -> None:
    for _ in range(5):
        start(working, "for (let n = 0; n < 1e5; n++) Math.sqrt(n)")
    trend = workers(working)[0].trend
    assert len(trend) >= 3
    assert [each.at_us for each in trend] == sorted(each.at_us for each in trend)
    assert [each.cpu_s for each in trend] == sorted(each.cpu_s for each in trend)


def test_s1_26_a_course_has_its_bound(working: casemate.Engine) -> None:
    start(working)
    worker = working.isolates._idle[0]
    for _ in range(2 * limits.WORKER_TREND_SAMPLES):
        worker.served(1)
    assert len(workers(working)[0].trend) == limits.WORKER_TREND_SAMPLES


def test_s1_45_who_finds_all_busy_waits(working: casemate.Engine) -> None:
    with Running(working), Running(working), Running(working, "output = 7") as third:
        until(lambda: group(working).waiting == 1)
        assert not third.future.done()


def test_s1_46_the_clock_ends_the_worker(working: casemate.Engine, slowness: float) -> None:
    result = start(working, FOREVER, limits={"timeout": 1.0})
    assert result.reason is casemate.Reason.TIMEOUT
    assert [each.ended for each in workers(working)] == ["stopped"]
    assert left_running(working, slowness) == []


def test_s1_47_a_job_has_limits_of_its_own_within_the_largest(working: casemate.Engine) -> None:
    assert start(working, FOREVER, limits={"timeout": 0.3}).usage.wall_s < 5
    grow = "const kept = []; for (let n = 0; n < 24; n++) kept.push('x'.repeat(1).padEnd(1e6, String(n)).split(''));"
    assert start(working, grow).reason is casemate.Reason.MEMORY
    assert start(working, grow, limits={"memory": "512Mi"}).ok
    with pytest.raises(InvalidInput):
        start(working, limits={"memory": limits.ISOLATE_HEAP_MAX_BYTES + 1})


def test_s1_48_an_output_that_is_no_value_fails(working: casemate.Engine) -> None:
    result = start(working, "output = Promise.resolve")
    assert result.reason is casemate.Reason.VALIDATION
    assert result.error is not None
    assert result.error.type == "InvalidOutput"


def test_s1_49_success_has_an_output_a_time_and_memory(working: casemate.Engine) -> None:
    result = start(working, "output = {a: 1}")
    assert (result.ok, result.output, result.error) == (True, {"a": 1}, None)
    assert 0 < result.usage.wall_s < WAIT_S
    assert result.usage.memory_peak_bytes is not None
    assert 100_000 < result.usage.memory_peak_bytes < 16 * limits.MIB


@pytest.mark.parametrize("wanted", [True, False])
def test_s1_50_a_failure_has_the_stack_in_its_record_only_when_asked_for(
    working: casemate.Engine, wanted: bool
) -> None:
    result = start(working, "throw new Error('no')", debug={"stack": wanted, "console": True})
    assert (result.ok, result.reason) == (False, casemate.Reason.EXCEPTION)
    assert result.debug is not None
    assert bool(result.debug.stack) is wanted


def test_s1_51_failing_jobs_leave_the_pool_as_it_was(working: casemate.Engine) -> None:
    start(working)
    before = [each.id for each in workers(working)]
    for _ in range(10):
        assert not start(working, "throw new Error('no')").ok
    assert [each.id for each in workers(working)] == before


def test_s1_52_the_next_job_has_the_same_worker_and_a_new_context(working: casemate.Engine) -> None:
    first = start(working, "globalThis.left = 1")
    second = start(working, "output = typeof left")
    assert second.output == "undefined"
    assert first.worker is not None
    assert second.worker is not None
    assert first.worker.worker == second.worker.worker


def test_s1_53_a_burst_never_makes_more_than_the_most(working: casemate.Engine) -> None:
    seen: list[int] = []
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.001):
            seen.extend(each.idle + each.busy + each.starting for each in working.workers().groups)

    watching = threading.Thread(target=watch)
    watching.start()
    with ThreadPoolExecutor(12) as pool:
        assert all(each.ok for each in pool.map(lambda _: start(working), range(24)))
    done.set()
    watching.join(WAIT_S)
    assert max(seen) == MOST


def test_s1_54_a_waiting_job_starts_when_a_worker_is_free(working: casemate.Engine) -> None:
    with Running(working) as first, Running(working), Running(working, "output = 7") as third:
        until(lambda: group(working).waiting == 1)
        first.token.cancel()
        assert third.future.result(WAIT_S).output == 7


def test_s1_55_the_memory_of_each_worker_is_limited(working: casemate.Engine) -> None:
    result = start(working, "const kept = []; for (;;) kept.push(new Array(1e5).fill(7.5))")
    assert result.reason is casemate.Reason.MEMORY
    start(working)
    (worker,) = workers(working, WorkerState.IDLE)
    assert worker.memory_limit_bytes == decide.worker_memory(16 * limits.MIB)


def test_s1_56_recording_is_off_by_default_and_for_the_operator_alone(working: casemate.Engine) -> None:
    looks = "output = [typeof inspector, typeof Debugger, typeof process]"
    plain, watched = start(working, looks), start(working, looks, debug={"steps": True})
    assert plain.debug is None
    assert watched.debug is not None
    assert watched.debug.steps
    assert plain.output == watched.output == ["undefined"] * 3
    assert not any("inspect" in word for each in working.isolates._idle for word in each.kind.argv)


def test_s1_57_a_crash_gives_a_clean_result_and_a_log_entry(
    working: casemate.Engine, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "casemate"), Running(working, tenant="shop") as running:
        until(lambda: workers(working, WorkerState.BUSY))
        worker = begun(working, "shop")
        until(lambda: worker.cpu_s >= 0 and worker.heard_s > worker.started_s)
        worker.sandbox.kill()
        until(lambda: worker.id in [each.id for each in workers(working, WorkerState.ENDED)])
        running.token.cancel()
        assert running.future.result(WAIT_S).reason in {casemate.Reason.LOST, casemate.Reason.CANCELLED}
    assert f"worker {worker.id} of tenant 'shop' has ended" in caplog.text
    assert caplog.text.strip().endswith("crashed")


def test_s1_58_a_worker_that_does_not_get_ready_is_told_and_never_used(
    working: casemate.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "WORKER_START_TIMEOUT_S", 0.0)
    with pytest.raises(LaunchError, match="does not get ready"):
        start(working)
    assert (group(working).started, group(working).busy) == (0, 0)


def test_s1_59_each_execution_has_its_record_of_memory(working: casemate.Engine) -> None:
    before_us = time.time_ns() // 1000
    sample = start(working).worker
    assert sample is not None
    assert sample.worker == workers(working)[0].id
    assert before_us <= sample.at_us <= time.time_ns() // 1000
    assert 0 < sample.heap_used_bytes <= sample.heap_total_bytes < sample.resident_bytes
    assert sample.malloced_bytes > 0
    assert sample.external_bytes >= 0


def test_s1_61_a_worker_that_leaks_is_retired_and_noted(
    working: casemate.Engine, caplog: pytest.LogCaptureFixture
) -> None:
    assert start(working).ok
    assert start(working).ok
    leaking = working.isolates._idle[0]
    leaking.samples = list(range(limits.LEAK_SAMPLES))
    with caplog.at_level(logging.WARNING, "casemate"):
        assert start(working).ok
        until(lambda: group(working).retired.get("leak") == 1)
    assert leaking.id in [each.id for each in workers(working, WorkerState.ENDED) if each.ended == "leak"]
    until(lambda: "leak" in caplog.text)
    assert start(working).ok


def used_s(result: casemate.Result) -> float:
    return result.usage.cpu_user_s + result.usage.cpu_system_s


@pytest.mark.alone
def test_s1_62_two_workers_with_shares_of_two_to_one_get_so_much(working: casemate.Engine) -> None:
    if isinstance(working.backend.cgroups, CgroupUnavailable):
        pytest.skip("there is no control group here")
    with ThreadPoolExecutor(2) as pool:
        runs = [
            pool.submit(start, working, FOREVER, tenant=str(cpus), limits={"cpu": cpus, "timeout": 2.0})
            for cpus in (0.4, 0.2)
        ]
        two, one = (used_s(each.result(WAIT_S)) for each in runs)
    assert 1.5 < two / one < 2.7


def test_s1_63_a_worker_without_a_control_group_is_held_to_its_share(slowness: float) -> None:
    with casemate.Engine(Config(engine=EngineConfig(cgroup="none"))) as working:
        whole = start(working, FOREVER, limits={"cpu": 1.0, "cpu_time": 1.0, "timeout": 60.0 * slowness})
        part = start(working, FOREVER, limits={"cpu": 0.2, "cpu_time": 1.0, "timeout": 2.0})
        assert Layer.CGROUP not in whole.isolation.layers
        assert whole.reason is Reason.CPU, "it gets as much as it may use"
        assert part.reason is Reason.TIMEOUT
        assert used_s(part) < 2.0 * 0.2 * 1.6 * slowness


def test_what_is_ready_and_the_zygote_that_makes_it_are_told_of_as_well(working: casemate.Engine) -> None:
    working.keep_ready("python", 1)
    report = working.workers()
    (ready,) = [each for each in report.workers if each.kind is WorkerKind.READY]
    assert (ready.label, ready.state) == ("python", WorkerState.IDLE)
    assert ready.memory_bytes is not None
    assert ready.memory_bytes > 0
    assert [each.kind for each in report.groups] == [WorkerKind.READY]
    assert all(each.kind in {WorkerKind.READY, WorkerKind.ZYGOTE} for each in report.workers)
    working.keep_ready("python", 0)

"""The pool of workers with workers that are only pipes: who gets one, who waits, and what is left at the end."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from casemate import limits
from casemate.engine.drive import drive
from casemate.errors import CapacityError, LaunchError, SandboxClosed
from casemate.isolation.waiting import Steps, Wait
from casemate.model.spec import SandboxSpec
from casemate.pool.decide import Retirement
from casemate.pool.isolates import WorkerPool
from casemate.pool.worker import Kind, Worker

WAIT_S = 20.0


class FakeSandbox:
    """Ends when it is killed, as far as the worker's channel tells."""

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair()

    def kill(self) -> None:
        self.theirs.close()


class Makers:
    """Makes workers, or fails as it is told to."""

    def __init__(self) -> None:
        self.made: list[Worker] = []
        self.buried: list[FakeSandbox] = []
        self.failure: Exception | None = None

    def steps(self, kind: Kind) -> Steps[Worker]:
        yield Wait(deadline_s=0)
        return self.now(kind)

    def now(self, kind: Kind) -> Worker:
        if self.failure is not None:
            raise self.failure
        sandbox = FakeSandbox()
        fds = (*os.pipe(), *os.pipe())
        worker = Worker(kind, cast("Any", sandbox), sandbox.ours, fds, self.bury)
        self.made.append(worker)
        return worker

    def bury(self, sandbox: Any) -> None:
        sandbox.kill()
        self.buried.append(sandbox)


def kind(tenant: str = "a") -> Kind:
    return Kind(tenant=tenant, argv=(), environment=(), spec=SandboxSpec())


@pytest.fixture
def makers() -> Makers:
    return Makers()


@pytest.fixture
def pool(makers: Makers, monkeypatch: pytest.MonkeyPatch) -> Iterator[WorkerPool]:
    monkeypatch.setattr(limits, "WORKER_PREPARES_S", 0.0)
    made = WorkerPool(makers.steps, makers.now, most=2)
    yield made
    made.close()
    for worker in makers.made:
        worker.close()
    assert len(makers.buried) == len(makers.made)


def until(condition: Callable[[], bool]) -> None:
    event = threading.Event()
    for _ in range(int(WAIT_S * 1000)):
        if condition():
            return
        event.wait(0.001)
    raise AssertionError("it does not come to that")


def take(pool: WorkerPool, tenant: str = "a") -> Worker:
    return drive(pool.take(kind(tenant)))


def test_a_worker_that_was_given_back_is_taken_again(pool: WorkerPool) -> None:
    first = take(pool)
    pool.give_back(first)
    assert take(pool) is first
    assert (pool.status().hits, pool.status().misses) == (1, 1)


def test_no_worker_goes_to_another_tenant(pool: WorkerPool) -> None:
    first = take(pool)
    pool.give_back(first)
    assert take(pool, "b") is not first


def test_an_idle_worker_of_another_tenant_makes_way(pool: WorkerPool, makers: Makers) -> None:
    for tenant in ("a", "b", "c"):
        pool.give_back(take(pool, tenant))
    assert [worker.tenant for worker in pool.status().workers] == ["b", "c"]
    assert pool.status().retired == {Retirement.EVICTED: 1}
    assert len(makers.buried) == 1


def test_others_are_served_while_a_worker_that_makes_way_ends(
    pool: WorkerPool, makers: Makers, monkeypatch: pytest.MonkeyPatch
) -> None:
    for tenant in ("a", "b"):
        pool.give_back(take(pool, tenant))
    bury, seen = Worker.close, []

    def close(worker: Worker) -> None:
        asking = threading.Thread(target=lambda: seen.append(len(pool.status().workers)), daemon=True)
        asking.start()
        asking.join(WAIT_S)
        bury(worker)

    monkeypatch.setattr(Worker, "close", close)
    take(pool, "c")
    assert seen == [1]


def test_a_dead_worker_is_not_handed_out(pool: WorkerPool) -> None:
    first = take(pool)
    pool.give_back(first)
    first.sandbox.kill()
    assert take(pool) is not first


def test_who_finds_none_waits_until_one_is_given_back(pool: WorkerPool) -> None:
    first, _second = take(pool), take(pool)
    found: list[Worker] = []
    thread = threading.Thread(target=lambda: found.append(take(pool)))
    thread.start()
    until(lambda: pool.status().waiting == 1)
    pool.give_back(first)
    thread.join(WAIT_S)
    assert found == [first]


def test_who_waits_may_start_one_in_the_place_of_one_that_ends(pool: WorkerPool) -> None:
    first, _second = take(pool), take(pool)
    found: list[Worker] = []
    thread = threading.Thread(target=lambda: found.append(take(pool)))
    thread.start()
    until(lambda: pool.status().waiting == 1)
    pool.give_back(first, Retirement.STOPPED)
    thread.join(WAIT_S)
    assert found
    assert found[0] is not first


def test_tenants_come_by_turns_however_many_of_one_wait(pool: WorkerPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "WAITED_ENOUGH_S", 0.0)
    held = [take(pool, "greedy"), take(pool, "greedy")]
    waiting = [(tenant, pool.take(kind(tenant))) for tenant in ["greedy"] * 4 + ["modest", "modest", "other"]]
    for _, steps in waiting:
        next(steps)
    served = []
    while waiting:
        pool.give_back(held.pop(0))
        at = next(at for at, (_, steps) in enumerate(waiting) if (worker := granted(steps)))
        served.append(waiting.pop(at)[0])
        assert worker is not None
        held.append(worker)
    assert served == ["greedy", "modest", "other", "greedy", "modest", "greedy", "greedy"]


def test_who_lines_up_again_and_again_keeps_nobody_out(pool: WorkerPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "WAITED_ENOUGH_S", 0.0)
    held = [take(pool, "eager"), take(pool, "eager")]
    patient = [pool.take(kind("patient")) for _ in range(3)]
    for steps in patient:
        next(steps)
    served = 0
    for _ in range(6):
        eager = pool.take(kind("eager"))
        next(eager)
        pool.give_back(held.pop(0))
        waiting = eager if (worker := granted(eager)) else patient[served]
        served += waiting is not eager
        worker = worker or granted(waiting)
        assert worker is not None
        held.append(worker)
        eager.close()
    assert served == 3


def granted(steps: Steps[Worker]) -> Worker | None:
    """The worker that this waiter has been given, or else nothing."""
    try:
        wait = next(steps)
        assert isinstance(wait, Wait)
        if wait.read:
            return None
        assert wait.deadline_s == 0
        next(steps)
    except StopIteration as ended:
        assert isinstance(ended.value, Worker)
        return ended.value
    raise AssertionError("a worker that never starts")


def test_who_gives_up_waiting_is_forgotten(pool: WorkerPool) -> None:
    first, _second = take(pool), take(pool)
    steps = pool.take(kind())
    next(steps)
    assert pool.status().waiting == 1
    steps.close()
    assert pool.status().waiting == 0
    pool.give_back(first)
    assert take(pool) is first


def test_what_was_granted_to_somebody_who_has_gone_goes_to_the_next(pool: WorkerPool) -> None:
    first, _second = take(pool), take(pool)
    gone, waiting = pool.take(kind()), pool.take(kind())
    next(gone)
    next(waiting)
    pool.give_back(first)
    gone.close()
    assert drive(waiting) is first


def test_a_failed_start_is_told_and_gives_its_place_free(pool: WorkerPool, makers: Makers) -> None:
    makers.failure = LaunchError("step", 5, "no")
    for _ in range(5):
        with pytest.raises(LaunchError):
            take(pool)
    makers.failure = None
    assert take(pool) is not take(pool)
    assert pool.status().starting == 0


def test_a_worker_that_ended_is_replaced_beforehand(pool: WorkerPool, makers: Makers) -> None:
    pool.give_back(take(pool))
    pool.give_back(take(pool), Retirement.CRASHED)
    until(lambda: [worker.state for worker in pool.status().workers] == ["idle"])
    assert len(makers.made) == 2


def test_executions_in_quick_succession_get_a_second_worker(
    pool: WorkerPool, makers: Makers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "WORKER_PREPARES_S", WAIT_S)
    pool.give_back(take(pool))
    pool.give_back(take(pool))
    until(lambda: len(pool.status().workers) == 2)


def test_the_first_execution_of_all_replaces_nothing(pool: WorkerPool, makers: Makers) -> None:
    pool.give_back(take(pool), Retirement.CRASHED)
    until(lambda: pool._thread is None)
    assert len(makers.made) == 1


def test_an_idle_worker_that_dies_is_noticed_and_replaced(pool: WorkerPool, makers: Makers) -> None:
    pool.give_back(take(pool))
    pool.give_back(take(pool))
    makers.made[0].sandbox.kill()
    until(lambda: len(makers.made) == 2 and len(pool.status().workers) == 1)
    assert pool.status().retired == {Retirement.CRASHED: 1}


def test_a_busy_worker_that_dies_is_left_to_whoever_uses_it(pool: WorkerPool, makers: Makers) -> None:
    worker = take(pool)
    worker.sandbox.kill()
    until(lambda: worker in pool._noticed)
    assert [each.state for each in pool.status().workers] == ["busy"]
    pool.give_back(worker, Retirement.CRASHED)
    assert not pool._noticed


def test_an_old_worker_serves_until_another_one_is_there(pool: WorkerPool, makers: Makers) -> None:
    pool.give_back(take(pool))
    old = take(pool)
    old.runs = limits.WORKER_RUNS_MAX
    pool.give_back(old)
    until(lambda: len(makers.made) == 2)
    until(lambda: [worker.number for worker in pool.status().workers] == [makers.made[-1].number])
    assert pool.status().retired == {Retirement.COUNT: 1}


def test_workers_end_when_they_were_idle_for_long(
    pool: WorkerPool, makers: Makers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "WORKER_IDLE_MAX_S", 0.05)
    pool.give_back(take(pool))
    until(lambda: not pool.status().workers)
    until(lambda: pool._thread is None)
    assert pool.status().retired == {Retirement.IDLE: 1}


def test_clearing_ends_what_is_idle_and_leaves_what_works(pool: WorkerPool) -> None:
    busy, idle = take(pool), take(pool)
    pool.give_back(idle)
    pool.clear()
    assert [worker.number for worker in pool.status().workers] == [busy.number]


def test_closing_ends_everything_and_lets_nobody_wait(pool: WorkerPool) -> None:
    take(pool), take(pool)
    steps = pool.take(kind())
    next(steps)
    pool.close()
    with pytest.raises(SandboxClosed):
        drive(steps)
    with pytest.raises(SandboxClosed):
        take(pool)


def test_without_a_descriptor_for_waiting_there_is_a_typed_error(
    pool: WorkerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(pool), take(pool)

    def none(*_: object) -> int:
        raise OSError(24, "no more")

    monkeypatch.setattr(os, "eventfd", none)
    with pytest.raises(CapacityError):
        take(pool)

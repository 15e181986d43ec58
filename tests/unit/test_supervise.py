"""Memory without a control group: a quick sum, and a closer look where it says too much."""

from __future__ import annotations

from collections.abc import Callable
from unittest.mock import Mock

import pytest

from casemate.engine import supervise
from casemate.engine.supervise import Supervisor
from casemate.kernel.watchdog import TreeSample
from casemate.limits import CLOSER_LOOK_PAUSE_RATIO, MIB
from casemate.model.resources import Limits
from casemate.model.result import Reason

LIMIT_BYTES = 64 * MIB
LOOK_S = 0.5

Measure = Callable[..., Supervisor]


class Clock:
    """The monotonic clock; it goes on when somebody takes a closer look."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.closer_looks = 0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(supervise, "time", clock)
    return clock


@pytest.fixture
def measure(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> Measure:
    """Make a supervisor of a sandbox that seems to use so much, and uses so much."""

    def make(quick_bytes: int, exact_bytes: int) -> Supervisor:
        def sample(_pid: int, *, files_bytes: int = 0, exact_memory: bool = False) -> TreeSample:
            clock.closer_looks += exact_memory
            clock.now_s += LOOK_S * exact_memory
            used_bytes = (exact_bytes if exact_memory else quick_bytes) + files_bytes
            return TreeSample(memory_bytes=used_bytes, processes=1, cpu_user_s=0.0, cpu_system_s=0.0)

        monkeypatch.setattr(supervise, "sample", sample)
        monkeypatch.setattr(supervise, "used_bytes", lambda _fd: 0)
        return Supervisor(Mock(cgroup=None), Limits(memory_bytes=LIMIT_BYTES))

    return make


def test_what_is_over_the_limit_only_at_first_sight_goes_on(measure: Measure) -> None:
    supervisor = measure(LIMIT_BYTES * 3, LIMIT_BYTES // 2)
    assert supervisor.look() is None
    assert supervisor.read().memory_peak_bytes == LIMIT_BYTES // 2, "not what was seen at first sight"


def test_what_is_over_the_limit_is_stopped_at_the_first_look(measure: Measure) -> None:
    supervisor = measure(LIMIT_BYTES * 3, LIMIT_BYTES + 1)
    assert supervisor.look() is Reason.MEMORY
    assert supervisor.read().memory_peak_bytes == LIMIT_BYTES + 1


def test_closer_looks_rest_for_longer_than_they_take(measure: Measure, clock: Clock) -> None:
    supervisor = measure(LIMIT_BYTES * 3, LIMIT_BYTES // 2)
    end_s = clock.now_s + 100 * LOOK_S
    while clock.now_s < end_s:
        supervisor.look()
        clock.now_s += 0.02
    assert clock.closer_looks <= 100 / (1 + CLOSER_LOOK_PAUSE_RATIO) + 1

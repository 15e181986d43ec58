"""Things made ahead: taken once each, made by demand, thrown away when dead, old or unwanted, within bounds."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from casemate import limits
from casemate.errors import CapacityError, SandboxClosed
from casemate.model.pool import Bounds
from casemate.pool.ready import Maker, ReadyPool

WAIT_S = 30.0


class Factory:
    """Makes numbers, remembers what became of them, and fails as told."""

    def __init__(self) -> None:
        self.made: list[int] = []
        self.discarded: list[int] = []
        self.gone = threading.Semaphore(0)
        self.lock = threading.Lock()
        self.dead: set[int] = set()
        self.is_broken = False
        self.tried = threading.Semaphore(0)
        self.may_go = threading.Event()
        self.may_go.set()
        self.ending = threading.Event()
        self.may_end = threading.Event()
        self.may_end.set()
        self.weight_bytes = 1

    def make(self, _: str) -> int:
        self.may_go.wait(WAIT_S)
        self.tried.release()
        if self.is_broken:
            raise CapacityError("no room")
        with self.lock:
            self.made.append(len(self.made))
            return self.made[-1]

    def discard(self, thing: int) -> None:
        self.ending.set()
        self.may_end.wait(WAIT_S)
        self.discarded.append(thing)
        self.gone.release()

    def pool(self, **bounds: float) -> ReadyPool[str, int]:
        maker: Maker[str, int] = Maker(
            self.make, lambda _: self.weight_bytes, lambda thing: thing not in self.dead, self.discard, str
        )
        settings = {"ready_max": 4, "memory_bytes": limits.POOL_MEMORY_BYTES, "idle_s": 60.0, **bounds}
        return ReadyPool(maker, Bounds(**settings))  # type: ignore[arg-type]


@pytest.fixture
def factory() -> Factory:
    return Factory()


@pytest.fixture
def pool(factory: Factory) -> Iterator[ReadyPool[str, int]]:
    made = factory.pool()
    yield made
    factory.may_go.set()
    factory.may_end.set()
    made.close()


def test_nothing_is_made_for_a_single_take(factory: Factory, pool: ReadyPool[str, int]) -> None:
    assert pool.take("a") is None
    assert pool.statistics()[0].starting == 0
    assert pool._threads == []
    assert factory.made == []


def test_the_third_take_finds_one(pool: ReadyPool[str, int]) -> None:
    assert pool.take("a") is None
    assert pool.take("a") is None
    assert pool.wait_ready("a", 1, WAIT_S)
    assert pool.take("a") is not None
    seen = pool.statistics()[0]
    assert (seen.label, seen.hits, seen.misses, seen.busy) == ("a", 1, 2, 3)
    pool.done("a")
    assert pool.statistics()[0].busy == 2


def test_what_is_kept_is_there_without_demand(pool: ReadyPool[str, int]) -> None:
    pool.keep("a", 3)
    assert pool.wait_ready("a", 3, WAIT_S)
    assert pool.statistics()[0].memory_bytes == 3
    pool.keep("a", 0)
    assert pool.take("b") is None


def test_what_is_let_go_is_thrown_away_and_nothing_else(factory: Factory, pool: ReadyPool[str, int]) -> None:
    for key in ("a", "b"):
        pool.keep(key, 2)
        assert pool.wait_ready(key, 2, WAIT_S)
    assert pool.let_go(lambda key: key == "a")
    for _ in range(2):
        assert factory.gone.acquire(timeout=WAIT_S)
    assert [each.ready for each in pool.statistics()] == [0, 2]
    assert not pool.let_go(lambda key: key == "a")


def test_those_that_died_are_not_counted_as_ready(factory: Factory, pool: ReadyPool[str, int]) -> None:
    pool.keep("a", 2)
    assert pool.wait_ready("a", 2, WAIT_S)
    factory.dead.update(factory.made)
    assert (pool.statistics()[0].ready, pool.statistics()[0].memory_bytes) == (0, 0)
    pool.keep("a", 2)
    assert pool.wait_ready("a", 2, WAIT_S)
    assert pool.statistics()[0].ready == 2


def test_each_thing_is_taken_once(factory: Factory, pool: ReadyPool[str, int]) -> None:
    pool.keep("a", 4)
    taken: list[int] = []

    def take_many() -> None:
        for _ in range(50):
            thing = pool.take("a")
            if thing is not None:
                taken.append(thing)

    threads = [threading.Thread(target=take_many) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == len(set(taken))
    assert set(taken) <= set(factory.made)


def test_a_dead_one_is_thrown_away_and_the_next_one_taken(factory: Factory, pool: ReadyPool[str, int]) -> None:
    pool.keep("a", 2)
    assert pool.wait_ready("a", 2, WAIT_S)
    first, second = (made.thing for made in pool._kinds["a"].ready)
    factory.dead.add(first)
    assert pool.take("a") == second
    assert factory.discarded == [first]


def test_an_old_one_is_replaced(factory: Factory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "POOL_AGE_MAX_S", 0.0)
    pool = factory.pool()
    pool.keep("a", 1)
    for _ in range(3):
        assert factory.tried.acquire(timeout=WAIT_S)
    pool.close()
    assert sorted(factory.discarded) == factory.made


def test_without_demand_everything_goes(factory: Factory) -> None:
    pool = factory.pool(idle_s=0.05)
    pool.take("a")
    pool.take("a")
    assert factory.gone.acquire(timeout=WAIT_S)
    pool.close()
    assert sorted(factory.discarded) == factory.made


def test_memory_is_bounded(factory: Factory) -> None:
    factory.weight_bytes = limits.POOL_MEMORY_BYTES // 2 + 1
    pool = factory.pool()
    pool.keep("a", 4)
    assert pool.wait_ready("a", 2, WAIT_S)
    assert not pool.wait_ready("a", 4, 0.05)
    pool.close()


def test_what_cannot_be_made_is_told_and_tried_again_later(factory: Factory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "POOL_RETRY_MIN_S", 0.001)
    factory.is_broken = True
    pool = factory.pool()
    pool.keep("a", 1)
    for _ in range(3):
        assert factory.tried.acquire(timeout=WAIT_S)
    assert pool.statistics()[0].problem == "no room"
    factory.is_broken = False
    assert pool.wait_ready("a", 1, WAIT_S)
    assert pool.statistics()[0].problem == ""
    pool.close()


def test_closing_throws_away_all_also_what_is_being_made(factory: Factory) -> None:
    pool = factory.pool()
    pool.keep("a", 2)
    assert pool.wait_ready("a", 2, WAIT_S)
    factory.may_go.clear()
    pool.keep("a", 4)
    closing = threading.Thread(target=pool.close)
    closing.start()
    factory.may_go.set()
    closing.join(WAIT_S)
    assert sorted(factory.discarded) == factory.made
    assert pool.take("a") is None
    pool.close()


def test_clearing_leaves_nothing_and_forgets_the_demand(factory: Factory, pool: ReadyPool[str, int]) -> None:
    pool.take("a")
    pool.take("a")
    assert pool.wait_ready("a", 1, WAIT_S)
    pool.clear()
    assert sorted(factory.discarded) == factory.made
    assert pool.take("a") is None
    assert pool.statistics()[0].ready == 0


def test_clearing_waits_for_what_a_thread_is_throwing_away(factory: Factory, pool: ReadyPool[str, int]) -> None:
    pool.keep("a", 1)
    assert pool.wait_ready("a", 1, WAIT_S)
    factory.may_end.clear()
    pool.keep("a", 0)
    assert factory.ending.wait(WAIT_S)
    clearing = threading.Thread(target=pool.clear)
    clearing.start()
    clearing.join(0.05)
    assert clearing.is_alive()
    factory.may_end.set()
    clearing.join(WAIT_S)
    assert factory.discarded == factory.made == [0]


def test_kinds_are_bounded(factory: Factory, pool: ReadyPool[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "POOL_KINDS_MAX", 2)
    for name in ("a", "b", "c", "d"):
        assert pool.take(name) is None
        pool.done(name)
    assert len(pool.statistics()) == 2
    assert factory.made == []


def test_without_room_for_a_thread_there_is_nothing_ready_and_no_error(
    pool: ReadyPool[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert [pool.take("a") for _ in range(4)] == [None] * 4
    assert pool.take("a") is None
    assert pool.wait_ready("a", 1, WAIT_S)


def test_whatever_goes_wrong_the_next_one_is_made(
    factory: Factory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(limits, "POOL_RETRY_MIN_S", 0.001)
    outcomes: list[Exception | None] = [ZeroDivisionError("ours"), KeyError("ours"), None]
    make, discard = factory.make, factory.discard

    def fail_at_first(key: str) -> int:
        error = outcomes.pop(0) if outcomes else None
        if error is not None:
            raise error
        return make(key)

    def fail_to_discard(thing: int) -> None:
        discard(thing)
        raise CapacityError("it does not die")

    monkeypatch.setattr(factory, "make", fail_at_first)
    monkeypatch.setattr(factory, "discard", fail_to_discard)
    pool = factory.pool()
    pool.keep("a", 1)
    assert pool.wait_ready("a", 1, WAIT_S)
    factory.dead.add(0)
    assert pool.take("a") != 0
    pool.keep("a", 2)
    assert pool.wait_ready("a", 2, WAIT_S)
    pool.close()
    assert "nothing can be made ahead" in caplog.text
    assert "cannot be ended" in caplog.text


def test_a_closed_pool_and_one_of_too_many_kinds_say_so(
    factory: Factory, pool: ReadyPool[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "POOL_KINDS_MAX", 1)
    pool.keep("a", 1)
    with pytest.raises(CapacityError, match="kinds"):
        pool.keep("b", 1)
    pool.close()
    with pytest.raises(SandboxClosed):
        pool.keep("a", 1)
    assert not pool.wait_ready("a", 1, WAIT_S)
    assert factory.discarded == factory.made


def test_waiting_ends_when_the_memory_is_used_up(factory: Factory, monkeypatch: pytest.MonkeyPatch) -> None:
    factory.weight_bytes = limits.POOL_MEMORY_BYTES
    monkeypatch.setattr(limits, "POOL_MEMORY_GUESS_BYTES", limits.POOL_MEMORY_BYTES)
    pool = factory.pool()
    pool.keep("a", 2)
    assert not pool.wait_ready("a", 2, WAIT_S)
    assert pool.is_full
    pool.close()


def test_more_done_than_taken_is_no_debt(pool: ReadyPool[str, int]) -> None:
    pool.take("a")
    pool.done("a")
    pool.done("a")
    assert pool.statistics()[0].busy == 0

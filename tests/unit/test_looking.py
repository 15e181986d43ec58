"""Whether the object store answers: looked at seldom, by one look for all who ask, and never waited for long."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from casemate.blobs import looking as module
from casemate.blobs.looking import OK, UNAVAILABLE, Looking
from casemate.errors import RecordsUnavailable
from casemate.object_limits import OBJECTS_LOOK_KEPT_S

if TYPE_CHECKING:
    import pytest


class Store:
    """Answers when it is let, and as it is told."""

    def __init__(self) -> None:
        self.looks = 0
        self.is_well = True
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def look(self) -> None:
        self.looks += 1
        await self.may_answer.wait()
        if not self.is_well:
            raise RecordsUnavailable("io", "it is away")


class Clock:
    at_s = 100.0

    def __call__(self) -> float:
        return self.at_s


def looking(store: Any, clock: Clock, wait_s: float = 60.0) -> Looking:
    return Looking(store, wait_s=wait_s, clock=clock)


def test_however_often_it_is_asked_the_store_is_looked_at_once_in_a_while() -> None:
    async def test() -> None:
        store, clock = Store(), Clock()
        found = looking(store, clock)
        store.may_answer.clear()
        asked = [asyncio.create_task(found.state()) for _ in range(100)]
        await asyncio.sleep(0)
        store.may_answer.set()
        assert await asyncio.gather(*asked) == [OK] * 100
        store.is_well = False
        assert [await found.state() for _ in range(100)] == [OK] * 100
        assert store.looks == 1
        clock.at_s += OBJECTS_LOOK_KEPT_S
        assert [await found.state() for _ in range(100)] == [UNAVAILABLE] * 100
        assert store.looks == 2
        store.is_well = True
        clock.at_s += OBJECTS_LOOK_KEPT_S
        assert await found.state() == OK

    asyncio.run(test())


def test_a_store_that_does_not_answer_is_not_waited_for_and_not_asked_twice() -> None:
    async def test() -> None:
        store, clock = Store(), Clock()
        store.may_answer.clear()
        found = looking(store, clock, wait_s=0.0)
        assert [await found.state() for _ in range(100)] == [UNAVAILABLE] * 100
        clock.at_s += 10 * OBJECTS_LOOK_KEPT_S
        assert await found.state() == UNAVAILABLE
        assert store.looks == 1
        store.may_answer.set()
        assert found._looking is not None
        await found._looking
        assert await found.state() == OK
        store.may_answer.clear()
        clock.at_s += OBJECTS_LOOK_KEPT_S
        assert await found.state() == OK, "what was seen last"
        assert store.looks == 2

    asyncio.run(test())


def test_a_look_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OBJECTS_LOOK_GIVEN_UP_S", 0.0)

    async def test() -> None:
        store, clock = Store(), Clock()
        found = looking(store, clock)
        assert await found.state() == OK
        clock.at_s += OBJECTS_LOOK_KEPT_S
        store.may_answer.clear()
        assert await found.state() == UNAVAILABLE

    asyncio.run(test())

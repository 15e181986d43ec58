"""What waits to be taken has a bound: when it is reached the program waits, and in the end it is given up."""

from __future__ import annotations

import asyncio
import select

import pytest

from casemate import job_limits as bound
from casemate.cluster.messages import Answer, Phase
from casemate.engine.valve import Valve
from casemate.errors import CapacityError
from casemate.node.outbox import Outbox


def answer(phase: str = "running") -> Answer:
    return Phase(id="a", phase=phase)


def test_answers_come_in_their_order_and_then_none() -> None:
    async def main() -> None:
        outbox = Outbox()
        taking = asyncio.create_task(outbox.take())
        await asyncio.sleep(0)
        outbox.put(answer("a"), 1)
        outbox.put(answer("b"), 1)
        assert [await taking, await outbox.take()] == [answer("a"), answer("b")]
        outbox.put(answer("c"), 1)
        outbox.end()
        assert await outbox.take() == answer("c")
        assert await outbox.take() is None

    asyncio.run(main())


def test_a_full_one_shuts_its_valve_until_something_is_taken() -> None:
    async def main() -> None:
        outbox = Outbox()
        outbox.put(answer(), bound.OUTBOX_BYTES - 1)
        assert outbox.valve.is_open
        outbox.put(answer(), 1)
        assert outbox.is_full
        assert not outbox.is_overfull
        waiting = asyncio.create_task(outbox.room())
        await asyncio.sleep(0)
        assert not waiting.done()
        await outbox.take()
        await waiting
        assert outbox.valve.is_open

    asyncio.run(main())


def test_what_nobody_takes_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bound, "OUTBOX_STALL_MAX_S", 0.001)

    async def main() -> None:
        outbox = Outbox()
        outbox.put(answer(), bound.OUTBOX_BYTES)
        with pytest.raises(CapacityError, match="nobody takes"):
            await outbox.room()

    asyncio.run(main())


def test_what_cannot_wait_is_left_out_beyond_twice_the_bound() -> None:
    async def main() -> None:
        outbox = Outbox()
        while not outbox.is_overfull:
            outbox.put(answer(), bound.ANSWER_BYTES)
        await outbox.take()
        assert (outbox.is_full, outbox.is_overfull) == (True, False)

    asyncio.run(main())


def is_readable(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


def test_a_valve_wakes_whoever_waits_for_it_to_open() -> None:
    valve = Valve()
    assert valve.is_open
    for _ in range(2):
        valve.shut()
        valve.shut()
        assert (valve.is_open, is_readable(valve.fd)) == (False, False)
        valve.open()
        valve.open()
        assert (valve.is_open, is_readable(valve.fd)) == (True, True)

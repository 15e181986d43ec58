"""Whose turn it is: order, priority, fairness, bounds; and nothing left behind, whoever goes away when."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from casemate.errors import InvalidInput, ServiceUnavailable, TooManyRequests
from casemate.queue.fairness import Bounds, Line
from casemate.queue.gate import Gate

WIDE = Bounds(running_max=1000, waiting_max=1000)
arrivals = st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 9)), min_size=1, max_size=60)


# The decision -------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 9), min_size=1, max_size=60))
def test_s1_12_higher_priority_first_and_s1_10_order_of_arrival_among_equals(priorities: list[int]) -> None:
    line = Line()
    tickets = [line.add("a", WIDE, priority) for priority in priorities]
    taken = [line.take() for _ in tickets]
    assert taken == sorted(tickets, key=lambda ticket: (-ticket.priority, ticket.serial))
    assert line.take() is None


def test_s1_12_high_priority_overtakes_those_that_wait_and_not_those_that_run() -> None:
    line = Line()
    low = [line.add("a", WIDE, 1) for _ in range(3)]
    assert line.take() is low[0]
    high = line.add("a", WIDE, 9)
    assert line.running == 1
    assert [line.take() for _ in range(3)] == [high, *low[1:]]


@given(arrivals)
def test_s1_10_jobs_of_one_tenant_and_one_priority_start_in_order_of_arrival(arrivals: list[tuple[str, int]]) -> None:
    line = Line()
    for tenant, priority in arrivals:
        line.add(tenant, WIDE, priority)
    last: dict[tuple[str, int], int] = {}
    while (ticket := line.take()) is not None:
        kind = (ticket.tenant, ticket.priority)
        assert last.get(kind, 0) < ticket.serial
        last[kind] = ticket.serial


@settings(max_examples=200)
@given(
    slots=st.integers(1, 4),
    others=st.lists(st.integers(1, 40), max_size=8),
    moves=st.lists(st.tuples(st.integers(0, 100), st.integers(0, 12)), max_size=120),
)
def test_no_tenant_starves_whoever_floods(slots: int, others: list[int], moves: list[tuple[int, int]]) -> None:
    """A tenant with nothing running has a turn after at most as many others as there were tenants waiting."""
    line = Line()
    for number, count in enumerate(others):
        for _ in range(count):
            line.add(f"t{number}", WIDE, 9)
    running = [line.take() for _ in range(min(slots, line.waiting))]
    ahead = sum(1 for waiting, _ in line.counts().values() if waiting)
    mine = line.add("mine", WIDE, 0)
    for overtaken, (which, newcomer) in enumerate(moves):
        line.add(f"t{newcomer}", WIDE, 9)
        if running:
            ended = running.pop(which % len(running))
            assert ended is not None
            line.release(ended.tenant)
        taken = line.take()
        if taken is mine:
            return
        running.append(taken)
        assert overtaken < ahead


def test_turns_are_shared_evenly_or_by_share() -> None:
    line = Line()
    twice = Bounds(running_max=1000, waiting_max=1000, share=2.0)
    for _ in range(100):
        line.add("a", WIDE)
        line.add("b", twice)
    assert Counter(ticket.tenant for _ in range(30) if (ticket := line.take())) == {"a": 10, "b": 20}


def test_a_tenant_at_its_bound_lets_others_by() -> None:
    line = Line()
    narrow = Bounds(running_max=1, waiting_max=10)
    for _ in range(3):
        line.add("a", narrow)
    line.add("b", narrow)
    assert [ticket.tenant for _ in range(4) if (ticket := line.take())] == ["a", "b"]
    line.release("a")
    assert line.take() is not None
    assert line.take() is None


@given(arrivals, st.randoms(use_true_random=False))
def test_whoever_leaves_is_never_called_and_nothing_is_kept_of_it(
    arrivals: list[tuple[str, int]], random: object
) -> None:
    line = Line()
    tickets = [line.add(tenant, WIDE, priority) for tenant, priority in arrivals]
    gone = tickets[::2]
    for ticket in gone:
        line.leave(ticket)
    assert line.waiting == len(tickets) - len(gone)
    taken = []
    while (ticket_taken := line.take()) is not None:
        taken.append(ticket_taken)
    assert sorted(taken, key=lambda each: each.serial) == tickets[1::2]
    for ticket in taken:
        line.release(ticket.tenant)
    assert line.counts() == {}
    assert (line.waiting, line.running) == (0, 0)


# The gate -----------------------------------------------------------------------------------------


async def settle() -> None:
    """Let every task that can go on do so."""
    for _ in range(5):
        await asyncio.sleep(0)


class Guests:
    """Tasks that go through a gate, note it, and stay until they are let out."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.entered: list[str] = []
        self.leave = asyncio.Event()

    async def _visit(self, name: str, tenant: str, priority: int, bounds: Bounds) -> None:
        async with self.gate.turn(tenant, priority, bounds=bounds):
            self.entered.append(name)
            await self.leave.wait()

    def send(self, name: str, tenant: str = "a", priority: int = 5, bounds: Bounds = WIDE) -> asyncio.Task[None]:
        return asyncio.create_task(self._visit(name, tenant, priority, bounds))


def test_s1_10_and_s1_12_at_the_gate() -> None:
    async def scenario() -> None:
        gate = Gate(1)
        guests = Guests(gate)
        tasks = [guests.send("first")]
        await settle()
        tasks += [guests.send("low", priority=1), guests.send("second"), guests.send("third")]
        await settle()
        tasks.append(guests.send("urgent", priority=9))
        await settle()
        assert guests.entered == ["first"]
        guests.leave.set()
        await asyncio.gather(*tasks)
        assert guests.entered == ["first", "urgent", "second", "third", "low"]
        assert gate.statistics().admitted_total == 5

    asyncio.run(scenario())


def test_a_flooding_tenant_is_refused_alone_and_delays_others_by_one_turn() -> None:
    async def scenario() -> None:
        gate = Gate(1)
        guests = Guests(gate)
        bounds = Bounds(running_max=1, waiting_max=50)
        flood = [guests.send(f"flood{number}", "a", 9, bounds) for number in range(60)]
        await settle()
        mine = guests.send("mine", "b", 0, bounds)
        await settle()
        statistics = gate.statistics()
        assert statistics.tenants["a"].waiting == 50
        assert statistics.tenants["b"].waiting == 1
        assert statistics.refused_total == 9
        guests.leave.set()
        outcomes = await asyncio.gather(*flood, mine, return_exceptions=True)
        refused = [each for each in outcomes if isinstance(each, TooManyRequests)]
        assert len(refused) == 9
        assert all(each.retry_after_s >= 1 for each in refused)
        assert guests.entered[:3] == ["flood0", "flood1", "mine"], "one turn beyond that which was running"
        assert gate.statistics().tenants == {}

    asyncio.run(scenario())


def test_the_line_of_all_tenants_together_is_bounded() -> None:
    async def scenario() -> None:
        gate = Gate(0, waiting_max=3)
        guests = Guests(gate)
        tasks = [guests.send(str(number), f"t{min(number, 2)}") for number in range(4)]
        await settle()
        assert [task.done() for task in tasks] == [False, False, False, True]
        assert isinstance(tasks[3].exception(), TooManyRequests)
        gate.resize(1)
        await settle()
        assert guests.entered == ["0"]
        guests.leave.set()
        await asyncio.gather(*tasks[:3])

    asyncio.run(scenario())


def test_s9_a_tenant_that_fills_the_line_keeps_nobody_else_out_of_it() -> None:
    async def scenario() -> None:
        gate = Gate(0, waiting_max=100)
        guests = Guests(gate)
        greedy = [guests.send(f"g{number}", "greedy") for number in range(101)]
        await settle()
        assert isinstance(greedy[100].exception(), TooManyRequests)
        others = [guests.send(f"o{number}", "other") for number in range(60)]
        await settle()
        assert [task.done() for task in others] == [False] * 50 + [True] * 10
        gate.resize(2)
        await settle()
        assert guests.entered == ["g0", "o0"]
        guests.leave.set()
        await asyncio.gather(*greedy, *others, return_exceptions=True)

    asyncio.run(scenario())


def test_s9_who_has_no_turn_does_not_wait_for_the_long_runs_of_one_tenant() -> None:
    async def scenario() -> None:
        gate = Gate(4)
        guests = Guests(gate)
        greedy = [guests.send(f"g{number}", "greedy") for number in range(10)]
        await settle()
        others = [guests.send(f"o{number}", "other") for number in range(2)]
        await settle()
        assert guests.entered == ["g0", "g1", "g2", "g3", "o0"]
        assert gate.statistics().running == 5
        guests.leave.set()
        await asyncio.gather(*greedy, *others)

    asyncio.run(scenario())


def test_a_tenant_that_may_not_wait_still_enters_where_there_is_room() -> None:
    async def scenario() -> None:
        gate = Gate(2)
        none_waits = Bounds(running_max=1, waiting_max=0)
        async with gate.turn("a", bounds=none_waits) as turn:
            assert turn.waited_s >= 0
            with pytest.raises(TooManyRequests):
                await gate.turn("a", bounds=none_waits).__aenter__()
            async with gate.turn("b", bounds=none_waits):
                assert gate.statistics().running == 2

    asyncio.run(scenario())


@pytest.mark.parametrize("when", ["before it is let in", "in the moment in which it is let in"])
def test_whoever_is_cancelled_while_it_waits_takes_no_turn_with_it(when: str) -> None:
    async def scenario() -> None:
        gate = Gate(1)
        guests = Guests(gate)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(gate.turn("a", bounds=WIDE))
            waiting = guests.send("waits", "b")
            other = guests.send("other", "c")
            await settle()
            if when == "before it is let in":
                waiting.cancel()
                await settle()
                assert gate.statistics().waiting == 1
        if when != "before it is let in":
            waiting.cancel()
        guests.leave.set()
        await asyncio.gather(waiting, other, return_exceptions=True)
        assert waiting.cancelled()
        assert guests.entered == ["other"]
        assert (gate.statistics().waiting, gate.statistics().running, gate.statistics().tenants) == (0, 0, {})

    asyncio.run(scenario())


def test_a_gate_that_closes_tells_whoever_waits_and_lets_those_inside_go_on() -> None:
    async def scenario() -> None:
        gate = Gate(1)
        guests = Guests(gate)
        inside, waiting = guests.send("inside"), guests.send("waiting")
        await settle()
        gate.close()
        with pytest.raises(ServiceUnavailable):
            await waiting
        with pytest.raises(ServiceUnavailable):
            await guests.send("late")
        guests.leave.set()
        await inside
        assert (gate.statistics().waiting, gate.statistics().running) == (0, 0)

    asyncio.run(scenario())


@pytest.mark.parametrize("priority", [-1, 10])
def test_there_are_ten_priorities(priority: int) -> None:
    with pytest.raises(InvalidInput):
        asyncio.run(Gate(1).turn("a", priority, bounds=WIDE).__aenter__())


def test_ten_thousand_turns_with_cancellations_leave_nothing() -> None:
    async def scenario() -> None:
        gate = Gate(3, waiting_max=100_000)
        inside = Counter[str]()
        bounds = Bounds(running_max=2, waiting_max=100_000)

        async def visit(tenant: str) -> None:
            async with gate.turn(tenant, bounds=bounds):
                inside[tenant] += 1
                assert sum(inside.values()) <= 3
                assert inside[tenant] <= 2
                await asyncio.sleep(0)
                inside[tenant] -= 1

        for _ in range(10):
            tasks = [asyncio.create_task(visit(f"t{number % 7}")) for number in range(1000)]
            await settle()
            for task in tasks[::3]:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        statistics = gate.statistics()
        assert (statistics.waiting, statistics.running, statistics.tenants) == (0, 0, {})

    asyncio.run(scenario())


def test_whoever_leaves_by_an_error_gives_its_turn_back() -> None:
    async def fails(gate: Gate, act: Callable[[], None]) -> None:
        async with gate.turn("a", bounds=WIDE):
            act()

    def act() -> None:
        raise ValueError("of its own")

    async def scenario() -> None:
        gate = Gate(1)
        for _ in range(3):
            with pytest.raises(ValueError, match="of its own"):
                await fails(gate, act)
        assert gate.statistics().running == 0

    asyncio.run(scenario())

"""Executions and calls over real records and a node that does as it is told: whatever happens, each ends once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from tests.integration.records import opened, with_tenant

from casemate.cluster.memory import MemoryBus
from casemate.cluster.messages import (
    Answer,
    Answered,
    CheckSyntax,
    ItemEnded,
    ItemsEnded,
    Question,
    RunItems,
)
from casemate.errors import ServiceUnavailable
from casemate.executions.book import Book, ended_by_us
from casemate.executions.request import ExecutionRequest
from casemate.executions.service import Executions, answer_to
from casemate.functions.calls import Calls, all_results
from casemate.functions.published import Callee
from casemate.model.function import Item, ItemResult, Source
from casemate.model.result import Reason, Usage
from casemate.queue.gate import Gate
from casemate.store import executions
from casemate.store.database import Database, Records
from casemate.store.executions import ENDED, RUNNING, Execution
from casemate.tenancy.scopes import Scopes
from casemate.tenancy.terms import Principal

JOIN_TIMEOUT_S: Final = 30.0
SOURCE: Final = Source(runtime="python", code="")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with opened(tmp_path / "records.db") as found:
        yield found


@pytest.fixture
def caller(database: Database) -> Principal:
    return Principal(
        tenant_id=with_tenant(database),
        tenant_name="one",
        key_id="key_x",
        scopes=Scopes(),
        rate_per_s=1.0,
        burst=1,
        concurrency_max=4,
        queue_max=10,
    )


class Node:
    """Gives back what items hold, when it may go on, and knows how many questions it has not left."""

    def __init__(self, wall_s: float = 0.0) -> None:
        self.open = 0
        self.asked = asyncio.Event()
        self.may_go_on = asyncio.Event()
        self.may_go_on.set()
        self._usage = Usage(wall_s=wall_s)

    async def handle(self, question: Question, _: asyncio.Event) -> AsyncGenerator[Answer, None]:
        self.open += 1
        try:
            if isinstance(question, CheckSyntax):
                yield Answered(id=question.id, value={"valid": True})
            elif isinstance(question, RunItems):
                self.asked.set()
                await self.may_go_on.wait()
                for index, item in enumerate(question.items):
                    ended = ItemResult(
                        id=item.id, success=True, reason=Reason.EXIT, output=item.data, usage=self._usage
                    )
                    yield ItemEnded(id=question.id, index=index, result=ended)
                yield ItemsEnded(id=question.id)
        finally:
            self.open -= 1


def check(call_id: str) -> CheckSyntax:
    return CheckSyntax(id=call_id, tenant="t", request_id="r", runtime="python", code="")


def recorded(database: Database, tenant_id: str) -> list[Execution]:
    return list(database.read_now(lambda records: executions.list_executions(records, tenant_id)).items)


def test_a_call_that_has_ended_says_when_it_was_accepted_began_and_ended(database: Database, caller: Principal) -> None:
    ended: list[Execution] = []

    async def scenario() -> list[ItemResult]:
        calls = Calls(Book(database, 1), MemoryBus(Node().handle), Gate(4), on_end=ended.append)
        row = await calls.begin(caller, SOURCE, kind="batch", request_id="r")
        return await all_results(calls.results(caller, row, Callee(source=SOURCE), [Item(data=1), Item(data=2)]))

    assert [each.output for each in asyncio.run(scenario())] == [1, 2]
    (row,) = ended
    assert row.started_us is not None, "measurements would have no time of waiting"
    assert row.created_us <= row.started_us <= (row.ended_us or 0)


def test_items_that_run_beside_each_other_took_no_longer_than_their_call(database: Database, caller: Principal) -> None:
    ended: list[Execution] = []

    async def scenario() -> None:
        calls = Calls(Book(database, 1), MemoryBus(Node(wall_s=1000.0).handle), Gate(4), on_end=ended.append)
        row = await calls.begin(caller, SOURCE, kind="batch", request_id="r")
        await all_results(calls.results(caller, row, Callee(source=SOURCE), [Item(data=1), Item(data=2)]))

    asyncio.run(scenario())
    (row,) = ended
    assert row.wall_us is not None
    assert row.wall_us < 1000 * 1_000_000


@pytest.mark.parametrize(("taken", "reason"), [(1, Reason.CANCELLED), (2, Reason.EXIT)])
def test_who_goes_with_the_last_answer_in_hand_has_not_cancelled(
    database: Database, caller: Principal, taken: int, reason: Reason
) -> None:
    ended: list[Execution] = []

    async def scenario() -> None:
        calls = Calls(Book(database, 1), MemoryBus(Node().handle), Gate(4), on_end=ended.append)
        row = await calls.begin(caller, SOURCE, kind="batch", request_id="r")
        results = calls.results(caller, row, Callee(source=SOURCE), [Item(data=1), Item(data=2)])
        for _ in range(taken):
            await anext(results)
        await results.aclose()

    asyncio.run(scenario())
    (row,) = ended
    assert row.reason == reason


def test_an_execution_whose_caller_goes_before_it_is_accepted_has_an_end(database: Database, caller: Principal) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def slow(_: Records) -> None:
        entered.set()
        assert go_on.wait(JOIN_TIMEOUT_S)

    async def scenario() -> None:
        database.post(slow)
        assert await asyncio.to_thread(entered.wait, JOIN_TIMEOUT_S)
        accepting = asyncio.create_task(Book(database, 1).accept(caller, kind="code", runtime="r", request_id="r"))
        await asyncio.sleep(0)
        accepting.cancel()
        await asyncio.wait([accepting])
        assert accepting.cancelled()
        go_on.set()
        await database.write(lambda _: None)

    asyncio.run(scenario())
    (row,) = recorded(database, caller.tenant_id)
    assert (row.state, row.reason) == (ENDED, Reason.CANCELLED)


def test_whoever_leaves_a_call_has_left_the_node_when_that_is_done(database: Database, caller: Principal) -> None:
    async def scenario() -> Any:
        bus = MemoryBus(Node().handle)
        calls = Calls(Book(database, 1), bus, Gate(1))
        row = await calls.begin(caller, SOURCE, kind="batch", request_id="r")
        results = calls.results(caller, row, Callee(source=SOURCE), [Item(data=1), Item(data=2)])
        await anext(results)
        await results.aclose()
        return await answer_to(bus, check(f"{row.id}.0"))  # a call of that id that was not left would be under way

    assert asyncio.run(scenario()) == {"valid": True}
    (row,) = recorded(database, caller.tenant_id)
    assert (row.state, row.reason) == (ENDED, Reason.CANCELLED)


def test_a_question_is_left_when_its_answer_is_there() -> None:
    async def scenario() -> Any:
        node = Node()
        bus = MemoryBus(node.handle)
        found = await answer_to(bus, check("chk"))
        again = await answer_to(bus, check("chk"))  # of the same id: a call that was not closed would be under way
        await bus.close()
        return found, again, node.open

    assert asyncio.run(scenario()) == ({"valid": True}, {"valid": True}, 0)


def test_when_an_execution_began_is_recorded_with_its_end_or_while_it_goes_on(
    database: Database, caller: Principal
) -> None:
    async def scenario() -> tuple[Execution, Execution]:
        book = Book(database, 1)
        short = book.started(await book.accept(caller, kind="code", runtime="r", request_id="r"))
        await book.ended(short, ended_by_us(Reason.CANCELLED, "it was short"))
        long = book.started(await book.accept(caller, kind="code", runtime="r", request_id="r"))
        with book.changes.watching(caller.tenant_id) as noted:
            await asyncio.wait_for(noted.wait(), JOIN_TIMEOUT_S)
        return short, long

    short, long = asyncio.run(scenario())
    found = {row.id: row for row in recorded(database, caller.tenant_id)}
    assert (found[short.id].state, found[short.id].started_us) == (ENDED, short.started_us)
    assert (found[long.id].state, found[long.id].started_us) == (RUNNING, long.started_us)


def test_a_service_that_ends_waits_for_calls_as_for_executions(database: Database, caller: Principal) -> None:
    async def scenario() -> None:
        node = Node()
        node.may_go_on.clear()
        calls = Calls(Book(database, 1), MemoryBus(node.handle), Gate(4))
        await calls.drain(0.0)
        row = await calls.begin(caller, SOURCE, kind="function", request_id="r")
        called = asyncio.create_task(all_results(calls.results(caller, row, Callee(source=SOURCE), [Item(data=1)])))
        await node.asked.wait()
        await calls.drain(0.0)
        assert not called.done(), "only as long as it may"
        draining = asyncio.create_task(calls.drain(JOIN_TIMEOUT_S))
        node.may_go_on.set()
        await draining
        assert [each.output for each in await called] == [1]

    asyncio.run(scenario())
    (row,) = recorded(database, caller.tenant_id)
    assert (row.state, row.reason) == (ENDED, Reason.EXIT)


def test_an_execution_that_is_accepted_while_the_service_closes_is_refused_and_has_an_end(
    database: Database, caller: Principal
) -> None:
    async def scenario() -> None:
        running = Executions(Book(database, 1), MemoryBus(Node().handle), Gate(4))
        request = ExecutionRequest(runtime="python", code="")
        accepting = asyncio.create_task(running.accept(caller, request, "r"))
        await asyncio.sleep(0)
        await running.close(0.0)
        with pytest.raises(ServiceUnavailable):
            await accepting

    asyncio.run(scenario())
    (row,) = recorded(database, caller.tenant_id)
    assert (row.state, row.reason) == (ENDED, Reason.LOST)

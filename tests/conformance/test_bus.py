"""What every Bus does, whatever carries it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, Final, Protocol

import pytest

from casemate import service_limits as limits
from casemate.cluster.bus import Bus
from casemate.cluster.local import LocalBus
from casemate.cluster.memory import MemoryBus
from casemate.cluster.messages import (
    Answer,
    Answered,
    Ask,
    Cancel,
    Ended,
    ItemEnded,
    ItemsEnded,
    Output,
    Question,
    Refused,
    RunCode,
    RunItems,
    RunJob,
    Started,
)
from casemate.cluster.refusals import error_of
from casemate.cluster.server import NodeServer
from casemate.errors import Conflict, InvalidInput, NodeLost, NodeUnavailable
from casemate.model.function import Item, ItemResult, Source
from casemate.model.result import Chunk, Isolation, Reason, Result, Status

TIMEOUT_S: Final = 30.0
PIECE: Final = b"x" * (64 * 1024)
ids = (f"call-{number}" for number in itertools.count())


class Node:
    """A node that does what the code of a question says, and notes what became of it."""

    def __init__(self) -> None:
        self.open: set[str] = set()
        self.closed = asyncio.Event()
        self.pieces = 0
        self.items = 0

    async def handle(self, question: Question, stop: asyncio.Event) -> AsyncGenerator[Answer, None]:
        self.open.add(question.id)
        try:
            async with aclosing(self._answers(question, stop)) as answers:
                async for answer in answers:
                    yield answer
        finally:
            self.open.discard(question.id)
            self.closed.set()

    async def _answers(self, question: Question, stop: asyncio.Event) -> AsyncGenerator[Answer, None]:
        if isinstance(question, Ask):
            yield Answered(id=question.id, value={"about": question.about})
        elif isinstance(question, RunItems):
            for index, item in enumerate(question.items):
                self.items += 1
                ended = ItemResult(id=item.id, success=True, reason=Reason.EXIT, output="x" * len(PIECE))
                yield ItemEnded(id=question.id, index=index, result=ended)
            yield ItemsEnded(id=question.id)
        elif isinstance(question, RunJob):
            for number in range(int(question.argv[0])):
                self.pieces += 1
                yield Output(id=question.id, chunk=Chunk("stdout", PIECE, number * len(PIECE)))
            yield Ended(id=question.id, result=result(None))
        elif isinstance(question, RunCode):
            async for answer in self._run(question, stop):
                yield answer

    async def _run(self, question: RunCode, stop: asyncio.Event) -> AsyncGenerator[Answer, None]:
        if question.code == "refuse":
            raise InvalidInput("limits.memory", "too small", hint="take more")
        if question.code == "mistake":
            raise ZeroDivisionError
        if question.code == "silent":
            return
        yield Started(id=question.id)
        if question.code == "flood":
            for number in range(question.options["pieces"]):
                self.pieces += 1
                yield Output(id=question.id, chunk=Chunk("stdout", PIECE, number * len(PIECE)))
        if question.code == "wait":
            await stop.wait()
        yield Ended(id=question.id, result=result(question.options.get("output")))


def result(output: Any) -> Result:
    isolation = Isolation(backend="test", layers=())
    return Result(status=Status.SUCCEEDED, reason=Reason.EXIT, output=output, isolation=isolation)


def run(code: str, **options: Any) -> RunCode:
    return RunCode(id=next(ids), tenant="t", request_id="r", runtime="python", code=code, options=options)


class Open(Protocol):
    """A bus, its node, and how that is lost and comes back."""

    bus: Bus
    node: Node
    lose: Callable[[], Awaitable[None]]
    restore: Callable[[], Awaitable[None]]


class Opened:
    def __init__(self, bus: Any, node: Node) -> None:
        self.bus = bus
        self.node = node


@asynccontextmanager
async def in_memory(_: Path) -> AsyncIterator[Any]:
    node = Node()
    bus = MemoryBus(node.handle)
    opened: Any = Opened(bus, node)

    async def restore() -> None:
        bus.restore()

    opened.lose, opened.restore = bus.lose, restore
    yield opened
    await bus.close()


@asynccontextmanager
async def over_a_socket(folder: Path) -> AsyncIterator[Any]:
    node = Node()
    bus = LocalBus(folder / "node.sock")
    opened: Any = Opened(bus, node)

    async def restore() -> None:
        opened.listening = NodeServer(node.handle).listening(folder / "node.sock")
        await opened.listening.__aenter__()
        await bus.connected.wait()

    async def lose() -> None:
        await opened.listening.__aexit__(None, None, None)
        while bus.is_connected:  # noqa: ASYNC110 - the loop's own work, no time
            await asyncio.sleep(0)

    opened.lose, opened.restore = lose, restore
    await bus.start()
    await restore()
    yield opened
    await bus.close()
    await opened.listening.__aexit__(None, None, None)


@pytest.fixture(params=[in_memory, over_a_socket], ids=["memory", "socket"])
def check(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Callable[[Open], Awaitable[None]]], None]:
    """Carry out a test in a loop of its own."""

    async def main(test: Callable[[Open], Awaitable[None]]) -> None:
        async with asyncio.timeout(TIMEOUT_S), request.param(tmp_path) as opened:
            await test(opened)

    return lambda test: asyncio.run(main(test), debug=False)


Check = Callable[[Callable[[Open], Awaitable[None]]], None]


async def all_of(answers: AsyncIterator[Answer]) -> list[Answer]:
    return [answer async for answer in answers]


def test_s1_3_answers_come_in_order_and_end_with_the_last(check: Check) -> None:
    async def test(opened: Open) -> None:
        started, ended = await all_of(opened.bus.call(run("", output={"a": [1, None, "ä"]})))
        assert isinstance(started, Started)
        assert isinstance(ended, Ended)
        assert ended.result.output == {"a": [1, None, "ä"]}

    check(test)


@pytest.mark.parametrize("number", [2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 10**400, -(10**400)])
def test_numbers_of_any_size_arrive_as_they_are(check: Check, number: int) -> None:
    async def test(opened: Open) -> None:
        ended = (await all_of(opened.bus.call(run("", output=[number, {"n": number}]))))[-1]
        assert isinstance(ended, Ended)
        assert ended.result.output == [number, {"n": number}]

    check(test)


def test_calls_run_side_by_side(check: Check) -> None:
    async def test(opened: Open) -> None:
        async with aclosing(opened.bus.call(run("wait"))) as waiting:
            assert isinstance(await anext(waiting), Started)
            results = await asyncio.gather(*(all_of(opened.bus.call(run("", output=n))) for n in range(100)))
            assert [answers[-1].result.output for answers in results] == [*range(100)]  # type: ignore[union-attr]

    check(test)


def test_what_is_refused_is_an_answer_and_becomes_the_same_error(check: Check) -> None:
    async def test(opened: Open) -> None:
        (refusal,) = await all_of(opened.bus.call(run("refuse")))
        assert isinstance(refusal, Refused)
        error = error_of(refusal)
        assert isinstance(error, InvalidInput)
        assert (error.field, error.message, error.hint) == ("limits.memory", "limits.memory: too small", "take more")

    check(test)


@pytest.mark.parametrize("code", ["mistake", "silent"])
def test_mistakes_of_the_node_end_one_call(check: Check, code: str) -> None:
    async def test(opened: Open) -> None:
        (refusal,) = await all_of(opened.bus.call(run(code)))
        assert isinstance(refusal, Refused)
        assert refusal.code == "internal"
        assert opened.bus.is_connected

    check(test)


def test_a_cancelled_call_answers_to_its_end(check: Check) -> None:
    async def test(opened: Open) -> None:
        question = run("wait")
        answers = opened.bus.call(question)
        assert isinstance(await anext(answers), Started)
        assert await all_of(opened.bus.call(Cancel(id=question.id))) == []
        assert isinstance(await anext(answers), Ended)

    check(test)


def test_cancelling_what_is_not_there_does_nothing(check: Check) -> None:
    async def test(opened: Open) -> None:
        assert await all_of(opened.bus.call(Cancel(id="nobody"))) == []
        assert len(await all_of(opened.bus.call(Ask(id="a", about="health")))) == 1

    check(test)


def test_closing_the_iterator_ends_the_work(check: Check) -> None:
    async def test(opened: Open) -> None:
        async with aclosing(opened.bus.call(run("wait"))) as answers:
            await anext(answers)
            assert opened.node.open
        await opened.node.closed.wait()
        assert not opened.node.open

    check(test)


def test_closing_ends_work_that_waits_to_be_taken(check: Check) -> None:
    async def test(opened: Open) -> None:
        async with aclosing(opened.bus.call(items(200))) as answers:
            await anext(answers)
        await opened.node.closed.wait()
        assert opened.node.items < 200

    check(test)


def test_two_calls_of_one_id_are_refused(check: Check) -> None:
    async def test(opened: Open) -> None:
        question = run("wait")
        async with aclosing(opened.bus.call(question)) as answers:
            await anext(answers)
            with pytest.raises(Conflict):
                await all_of(opened.bus.call(question))

    check(test)


def test_s1_3_a_lost_node_is_told_to_every_call_and_to_the_next(check: Check) -> None:
    async def test(opened: Open) -> None:
        calls = [opened.bus.call(run("wait")) for _ in range(3)]
        for call in calls:
            await anext(call)
        await opened.lose()
        for call in calls:
            with pytest.raises(NodeLost):
                await anext(call)
        assert not opened.bus.is_connected
        assert not opened.node.open
        with pytest.raises(NodeUnavailable):
            await anext(opened.bus.call(run("")))

    check(test)


def test_s1_24_a_node_that_comes_back_is_used_again(check: Check) -> None:
    async def test(opened: Open) -> None:
        await opened.lose()
        await opened.restore()
        assert len(await all_of(opened.bus.call(run("")))) == 2

    check(test)


def items(count: int) -> RunItems:
    source = Source(runtime="python", code="")
    return RunItems(id=next(ids), tenant="", request_id="", source=source, items=(Item(),) * count)


def test_items_wait_for_a_slow_taker_and_none_is_lost(check: Check) -> None:
    async def test(opened: Open) -> None:
        async with aclosing(opened.bus.call(items(200))) as answers:
            await anext(answers)
            for _ in range(20):  # others are not held up meanwhile
                await all_of(opened.bus.call(run("")))
            assert opened.node.items * len(PIECE) < limits.CALL_WINDOW_BYTES + 4 * len(PIECE)
            rest = [answer async for answer in answers]
        assert [answer.index for answer in rest[:-1]] == [*range(1, 200)]  # type: ignore[union-attr]

    check(test)


def test_output_that_nobody_takes_is_dropped_and_its_offsets_tell(check: Check) -> None:
    async def test(opened: Open) -> None:
        async with aclosing(opened.bus.call(run("flood", pieces=200))) as answers:
            await anext(answers)
            while opened.node.pieces < 200:  # the program goes on though nobody reads
                await all_of(opened.bus.call(run("")))
            rest = [answer async for answer in answers]
        chunks = [answer.chunk for answer in rest if isinstance(answer, Output)]
        assert isinstance(rest[-1], Ended)
        assert 0 < len(chunks) * len(PIECE) <= limits.CALL_WINDOW_BYTES + len(PIECE)
        assert chunks[0].offset == 0

    check(test)


def test_output_of_a_job_waits_for_a_slow_taker_and_none_is_lost(check: Check) -> None:
    async def test(opened: Open) -> None:
        asked = RunJob(id=next(ids), tenant="t", request_id="r", argv=("200",))
        async with aclosing(opened.bus.call(asked)) as answers:
            first = await anext(answers)
            for _ in range(20):  # others are not held up meanwhile
                await all_of(opened.bus.call(run("")))
            assert opened.node.pieces * len(PIECE) < limits.CALL_WINDOW_BYTES + 4 * len(PIECE)
            rest = [answer async for answer in answers]
        assert isinstance(rest.pop(), Ended)
        offsets = [answer.chunk.offset for answer in (first, *rest) if isinstance(answer, Output)]
        assert offsets == [number * len(PIECE) for number in range(200)]

    check(test)


def test_output_that_is_taken_is_complete(check: Check) -> None:
    async def test(opened: Open) -> None:
        taken = await all_of(opened.bus.call(run("flood", pieces=20)))
        assert sum(isinstance(answer, Output) for answer in taken) == 20

    check(test)


def test_closing_a_bus_ends_its_work(check: Check) -> None:
    async def test(opened: Open) -> None:
        answers = opened.bus.call(run("wait"))
        await anext(answers)
        await opened.bus.close()
        await opened.node.closed.wait()
        with pytest.raises(NodeLost):
            await anext(answers)
        assert not opened.bus.is_connected

    check(test)

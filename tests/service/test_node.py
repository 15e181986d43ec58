"""The node with a real engine: what is asked over its socket happens in sandboxes, and ends with whoever asked."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from tests.machine import left_running
from tests.warm import open_engine

import casemate
from casemate.cluster.local import LocalBus
from casemate.cluster.messages import (
    Answer,
    Answered,
    Ask,
    Cancel,
    Ended,
    Output,
    Refused,
    RunCode,
    Started,
)
from casemate.cluster.server import NodeServer
from casemate.errors import NodeLost
from casemate.model.node import NodeHealth, NodeRuntime
from casemate.model.result import Reason
from casemate.model.workers import WorkersReport
from casemate.node.daemon import Node

TIMEOUT_S: Final = 60.0
NOBODY: Final = 65534


@pytest.fixture(scope="module")
def engine() -> Iterator[casemate.Engine]:
    with open_engine() as opened:
        yield opened


@asynccontextmanager
async def connected(engine: casemate.Engine, folder: Path) -> AsyncIterator[LocalBus]:
    node = Node(engine)
    await node.try_out()
    path = folder / "node.sock"
    async with (
        asyncio.timeout(TIMEOUT_S),
        NodeServer(node.handle).listening(path),
        LocalBus(path) as bus,
    ):
        await bus.connected.wait()
        yield bus


Check = Callable[[Callable[[LocalBus], Awaitable[None]]], None]


@pytest.fixture
def check(engine: casemate.Engine, tmp_path: Path, slowness: float) -> Iterator[Check]:
    """Carry out a test with a bus to a node; afterwards nothing runs any more."""

    async def main(test: Callable[[LocalBus], Awaitable[None]]) -> None:
        async with connected(engine, tmp_path) as bus:
            await test(bus)

    yield lambda test: asyncio.run(main(test))
    assert left_running(engine, slowness) == []


def question(code: str, **values: Any) -> RunCode:
    given = {"id": "a", "tenant": "t", "request_id": "r", "runtime": "python", **values}
    return RunCode(code=code, **given)


async def all_of(answers: AsyncGenerator[Answer, None]) -> list[Answer]:
    return [answer async for answer in answers]


async def result_of(bus: LocalBus, asked: RunCode) -> casemate.Result:
    answer = (await all_of(bus.call(asked)))[-1]
    assert isinstance(answer, Ended), answer
    return answer.result


async def refusal_of(bus: LocalBus, asked: Any) -> Refused:
    (answer,) = await all_of(bus.call(asked))
    assert isinstance(answer, Refused), answer
    return answer


def test_s1_1_code_runs_with_what_it_is_given(check: Check) -> None:
    code = "import sys; output = [input, open('data.bin', 'rb').read().hex(), sys.stdin.read()]"

    async def test(bus: LocalBus) -> None:
        asked = question(code, options={"input": {"n": 2**70}}, files={"data.bin": b"\xff\0"}, stdin=b"words")
        assert (await result_of(bus, asked)).output == [{"n": 2**70}, "ff00", "words"]

    check(test)


def test_results_are_those_of_the_library(check: Check, engine: casemate.Engine) -> None:
    code = "print('out'); import sys; print('err', file=sys.stderr); open('f', 'w').write('x'); raise ValueError('no')"

    async def test(bus: LocalBus) -> None:
        remote = await result_of(bus, question(code, options={"collect": ["f"]}))
        here = await casemate.arun(code, engine=engine, collect=["f"])
        assert msgspec.structs.replace(remote, usage=here.usage, isolation=here.isolation) == here
        assert type(remote.reason) is Reason

    check(test)


def test_output_comes_while_it_is_made(check: Check) -> None:
    async def test(bus: LocalBus) -> None:
        call = bus.call(question("print('first'); import time; time.sleep(1000)", live=True))
        assert isinstance(await anext(call), Started)
        answer = await anext(call)
        assert isinstance(answer, Output)
        assert answer.chunk.data == b"first\n"
        await call.aclose()

    check(test)


def test_without_live_only_the_result_comes(check: Check) -> None:
    async def test(bus: LocalBus) -> None:
        kinds = [type(answer) for answer in await all_of(bus.call(question("print('x' * 100_000)")))]
        assert kinds == [Started, Ended]

    check(test)


@pytest.mark.parametrize("runtime", ["python", "bash"])
def test_a_cancelled_run_ends_with_its_result(check: Check, runtime: str) -> None:
    code = {"python": "print('begun', flush=True); import time; time.sleep(1000)", "bash": "echo begun; sleep 1000"}

    async def test(bus: LocalBus) -> None:
        call = bus.call(question(code[runtime], runtime=runtime, live=True))
        await anext(call)
        await anext(call)
        await all_of(bus.call(Cancel(id="a")))
        ended = (await all_of(call))[-1]
        assert isinstance(ended, Ended)
        assert ended.result.reason is Reason.CANCELLED
        assert ended.result.stdout.text == "begun\n"

    check(test)


def test_s1_3_a_lost_connection_kills_the_run(engine: casemate.Engine, tmp_path: Path, slowness: float) -> None:
    async def main() -> None:
        node = Node(engine)
        server = NodeServer(node.handle)
        async with server.listening(tmp_path / "node.sock"):
            async with LocalBus(tmp_path / "node.sock") as bus:
                await bus.connected.wait()
                call = bus.call(question("echo; sleep 1000", runtime="bash", live=True))
                assert isinstance(await anext(call), Started)
                assert isinstance(await anext(call), Output)
                assert server.running_count == 1
            with pytest.raises(NodeLost):
                await anext(call)
            async with asyncio.timeout(TIMEOUT_S):
                while server.running_count:  # noqa: ASYNC110 - what is asked is whether the count ever falls
                    await asyncio.sleep(0.001)
        assert left_running(engine, slowness) == []

    asyncio.run(main())


def test_a_call_that_is_given_up_is_killed(check: Check) -> None:
    async def test(bus: LocalBus) -> None:
        async with aclosing(bus.call(question("sleep 1000", runtime="bash"))) as call:
            await anext(call)
        while (await health(bus)).running_count:
            continue

    check(test)


async def health(bus: LocalBus) -> NodeHealth:
    return msgspec.convert(await ask(bus, "health"), NodeHealth)


async def ask(bus: LocalBus, about: str) -> Any:
    (answer,) = await all_of(bus.call(Ask(id=f"ask-{about}", about=about)))
    assert isinstance(answer, Answered)
    return answer.value


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"limits": {"memory": "much"}}, "limits.memory"),
        ({"limts": {}}, "limts"),
        ({"stdin": 0}, "stdin"),
        ({"files": {"x": "/etc/passwd"}}, "files"),
        ({"tenant": "other"}, "tenant"),
        ({"engine": None}, "engine"),
        ({"live": True}, "live"),
        ({"code": "x"}, "code"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_options_are_refused_by_name(check: Check, options: dict[str, Any], field: str) -> None:
    async def test(bus: LocalBus) -> None:
        refusal = await refusal_of(bus, question("", options=options))
        assert (refusal.code, refusal.field) == ("invalid_input", field)

    check(test)


def test_unknown_runtimes_are_refused(check: Check) -> None:
    async def test(bus: LocalBus) -> None:
        assert (await refusal_of(bus, question("", runtime="cobol"))).code == "unknown_runtime"

    check(test)


def test_it_tells_how_it_is_and_what_it_has(check: Check) -> None:
    async def test(bus: LocalBus) -> None:
        found = await health(bus)
        assert not found.problem
        assert found.layers
        assert found.pid == os.getpid()
        runtimes = msgspec.convert(await ask(bus, "runtimes"), list[NodeRuntime])
        assert {"python", "bash"} <= {each.name for each in runtimes if each.available}
        await result_of(bus, question("pass"))
        await result_of(bus, question("pass"))
        workers = msgspec.convert(await ask(bus, "workers"), WorkersReport)
        assert workers.at_us > 0
        assert (await refusal_of(bus, Ask(id="a", about="secrets"))).field == "about"

    check(test)


def test_garbage_cuts_the_connection_off_and_no_other(check: Check, tmp_path: Path) -> None:
    async def test(bus: LocalBus) -> None:
        for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"\0\0\0\1\xc1", b"\xff" * 8):
            reader, writer = await asyncio.open_unix_connection(tmp_path / "node.sock")
            writer.write(garbage)
            writer.write_eof()
            with_end = await asyncio.gather(reader.read(), return_exceptions=True)
            assert with_end[0] == b"" or isinstance(with_end[0], ConnectionError)
            writer.transport.abort()
        assert (await result_of(bus, question("output = 1"))).output == 1

    check(test)


@pytest.mark.root
def test_other_users_reach_no_node(check: Check, tmp_path: Path) -> None:
    code = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"

    async def test(bus: LocalBus) -> None:
        for folder in (tmp_path, *tmp_path.parents[:2]):
            folder.chmod(0o755)  # only the socket itself is in the way
        command = [sys.executable, "-I", "-c", code, str(tmp_path / "node.sock")]
        done = await asyncio.to_thread(
            subprocess.run,
            ["setpriv", f"--reuid={NOBODY}", "--clear-groups", *command],
            capture_output=True,
            check=False,
        )
        assert done.returncode != 0
        assert bus.is_connected

    check(test)

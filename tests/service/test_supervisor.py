"""The service's processes: what crashes is started again, what is asked to end ends, and nothing is left behind."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from tests.service.serving import WAIT_S, Serving

from casemate import limits
from casemate.cluster.local import LocalBus
from casemate.cluster.messages import Answer, Ended, Output, RunCode, Started
from casemate.errors import NodeLost
from casemate.kernel.processes import process_tree
from casemate.service_config import NODE_SOCKET

ENDS_WITHIN_S = 20.0
"""Less than what is killed for taking too long is given."""

STUBBORN_END_S = 1.0
SUPERVISOR_MAX_BYTES = 25 * limits.MIB


@pytest.fixture
def data(tmp_path: Path) -> Path:
    made = tmp_path / "data"
    made.mkdir(mode=0o700)
    return made


@pytest.fixture
def serving(data: Path) -> Iterator[Serving]:
    with Serving(data) as opened:
        yield opened


@contextmanager
def watched(pids: list[int]) -> Iterator[list[int]]:
    """Descriptors that become readable as these processes end."""
    pidfds = []
    for pid in pids:
        with suppress(ProcessLookupError):
            pidfds.append(os.pidfd_open(pid))
    try:
        yield pidfds
    finally:
        for pidfd in pidfds:
            os.close(pidfd)


def all_end(pidfds: list[int], within_s: float) -> bool:
    until_s = time.monotonic() + within_s
    return all(select.select([pidfd], [], [], max(0.0, until_s - time.monotonic()))[0] for pidfd in pidfds)


def cpu_s(pid: int) -> float:
    """The processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def run(code: str) -> RunCode:
    return RunCode(id=f"run-{time.monotonic_ns()}", tenant="t", request_id="r", runtime="bash", code=code, live=True)


async def last_of(answers: AsyncGenerator[Answer, None]) -> Answer:
    return [answer async for answer in answers][-1]


async def begun(bus: LocalBus) -> AsyncGenerator[Answer, None]:
    """A run that goes on for long, and whose program is there."""
    call = bus.call(run("echo; sleep 1000"))
    assert isinstance(await anext(call), Started)
    assert isinstance(await anext(call), Output)
    return call


async def run_to_end(bus: LocalBus) -> Ended:
    await asyncio.wait_for(bus.connected.wait(), WAIT_S)
    ended = await last_of(bus.call(run("echo hello")))
    assert isinstance(ended, Ended)
    return ended


def test_s1_1_it_serves_and_tells_the_key_once(serving: Serving, slowness: float) -> None:
    assert serving.until("operator's key").endswith(": cm_test")
    address = serving.ready()
    told = serving.ask(address)
    assert told["pid"] in serving.children()

    async def main() -> None:
        async with LocalBus(serving.data / NODE_SOCKET) as bus:
            assert (await run_to_end(bus)).result.stdout.text == "hello\n"

    asyncio.run(main())


def test_children_get_no_secrets_of_the_environment(serving: Serving) -> None:
    told = serving.ask(serving.ready())
    assert told["environment"]["CASEMATE_SERVICE_PORT"] == "0"
    assert "A_SECRET" not in told["environment"]
    environ = Path(f"/proc/{serving.node_pid()}/environ").read_bytes()
    assert b"A_SECRET" not in environ
    assert b"CASEMATE_SERVICE" not in environ


def test_s2_81_keys_of_objects_are_for_the_api_alone(tmp_path: Path) -> None:
    with Serving(tmp_path / "data", CASEMATE_OBJECTS_SECRET_KEY="hush", CASEMATE_OBJECTS_KEY="ab" * 32) as serving:
        told = serving.ask(serving.ready())
        assert told["environment"]["CASEMATE_OBJECTS_SECRET_KEY"] == "hush"
        environ = Path(f"/proc/{serving.node_pid()}/environ").read_bytes()
        assert b"CASEMATE_OBJECTS" not in environ
        assert not any("hush" in line for line in serving.lines)


def test_the_data_directory_is_ours_alone(serving: Serving) -> None:
    serving.ready()

    async def main() -> None:
        async with LocalBus(serving.data / NODE_SOCKET) as bus:
            await asyncio.wait_for(bus.connected.wait(), WAIT_S)

    asyncio.run(main())
    for path in (serving.data, serving.data / "run", serving.data / "lock", serving.data / NODE_SOCKET):
        assert path.lstat().st_mode & 0o077 == 0


def test_the_supervisor_is_small(serving: Serving) -> None:
    serving.ready()
    status = Path(f"/proc/{serving.process.pid}/status").read_text()
    held_kib = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
    assert held_kib * limits.KIB <= SUPERVISOR_MAX_BYTES


def test_s1_24_a_killed_node_is_started_again(serving: Serving) -> None:
    serving.ready()

    async def main() -> None:
        async with LocalBus(serving.data / NODE_SOCKET) as bus:
            await run_to_end(bus)
            call = await begun(bus)
            before = serving.node_pid()
            tree = process_tree(before)
            with watched(tree) as pidfds:
                os.kill(before, signal.SIGKILL)
                with pytest.raises(NodeLost):
                    await last_of(call)
                assert await asyncio.to_thread(all_end, pidfds, ENDS_WITHIN_S)
            await run_to_end(bus)
            assert serving.node_pid() != before

    asyncio.run(main())


def test_s1_3_a_killed_api_is_started_again_and_no_connection_is_refused(serving: Serving) -> None:
    address = serving.ready()
    before = serving.ask(address)["pid"]
    os.kill(before, signal.SIGKILL)
    assert serving.ask(address)["pid"] != before
    serving.until("started again")
    serving.ready()
    assert sum("operator's key" in line for line in serving.lines) == 1


def test_a_part_that_crashes_again_and_again_ends_the_service(data: Path) -> None:
    (data / "crash").touch()
    with Serving(data) as serving:
        assert serving.wait() == 125
        assert "the api process has ended 4 times" in serving.until("error unavailable")
        assert "status 3" in serving.lines[-1]


def test_a_second_service_on_the_same_data_is_refused(serving: Serving) -> None:
    serving.ready()
    with Serving(serving.data) as second:
        assert second.wait() == 125
        assert f"process {serving.process.pid}" in second.until("in use by another")
    assert serving.process.poll() is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_everything_within_seconds(serving: Serving, number: signal.Signals, slowness: float) -> None:
    serving.ready()

    async def main() -> None:
        async with LocalBus(serving.data / NODE_SOCKET) as bus:
            await run_to_end(bus)
            call = await begun(bus)
            with watched(serving.children()) as pidfds:
                began_s = time.monotonic()
                serving.process.send_signal(number)
                assert await asyncio.to_thread(serving.wait) == 0
                assert time.monotonic() - began_s < ENDS_WITHIN_S * slowness
                assert await asyncio.to_thread(all_end, pidfds, ENDS_WITHIN_S)
            with pytest.raises(NodeLost):
                await last_of(call)

    asyncio.run(main())
    assert not (serving.data / NODE_SOCKET).exists()


def test_a_part_that_does_not_end_is_killed(data: Path) -> None:
    (data / "stubborn").touch()
    with Serving(data, STUBBORN_END_S, CASEMATE_SERVICE_DRAIN="100ms") as serving:
        serving.ready()
        serving.process.send_signal(signal.SIGTERM)
        serving.until("the api process is killed")
        assert serving.wait() == 0


def test_while_one_part_ends_slowly_the_other_may_have_ended_and_nothing_spins(data: Path, slowness: float) -> None:
    (data / "stubborn").touch()
    with Serving(data, STUBBORN_END_S, CASEMATE_SERVICE_DRAIN="1s") as serving:
        serving.ready()
        serving.process.send_signal(signal.SIGTERM)
        serving.until("another signal")
        os.kill(serving.node_pid(), signal.SIGTERM)  # as service managers do, which ask all processes at once
        before_s = cpu_s(serving.process.pid)
        serving.until("the api process is killed")
        assert cpu_s(serving.process.pid) - before_s < 0.5 * slowness
        assert serving.wait() == 0


def test_a_second_signal_does_not_wait_for_what_runs(data: Path, slowness: float) -> None:
    (data / "stubborn").touch()
    with Serving(data, STUBBORN_END_S, CASEMATE_SERVICE_DRAIN="1h") as serving:
        serving.ready()
        serving.process.send_signal(signal.SIGTERM)
        serving.until("another signal")
        serving.process.send_signal(signal.SIGTERM)
        serving.until("the api process is killed")
        assert serving.wait() == 0


def test_killing_the_supervisor_leaves_nothing(serving: Serving) -> None:
    serving.ready()

    async def main() -> None:
        async with LocalBus(serving.data / NODE_SOCKET) as bus:
            await run_to_end(bus)
            call = await begun(bus)
            with watched(serving.children()) as pidfds:
                assert len(pidfds) >= 4
                serving.process.kill()
                assert await asyncio.to_thread(all_end, pidfds, ENDS_WITHIN_S)
            with pytest.raises(NodeLost):
                await last_of(call)

    asyncio.run(main())
    with Serving(serving.data) as again:
        again.ready()


def test_a_directory_that_others_can_open_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with Serving(tmp_path) as serving:
        assert serving.wait() == 125
        assert "chmod 700" in serving.until("open to other users")


def test_a_port_in_use_is_told(serving: Serving, tmp_path: Path) -> None:
    _, port = serving.ready()
    with Serving(tmp_path / "other", CASEMATE_SERVICE_PORT=str(port)) as second:
        assert second.wait() == 125
        assert "Address already in use" in second.until("service.port")

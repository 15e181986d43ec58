"""A node is killed in the middle of a job: nothing of the job stays, and the next node begins with nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from contextlib import aclosing
from pathlib import Path
from typing import Final

import pytest
from tests.service.serving import Serving

from casemate.cluster.local import LocalBus
from casemate.cluster.messages import Answered, Ended, Output, Refused, RunJob, StageFile
from casemate.errors import NodeLost
from casemate.service_config import NODE_SOCKET, NODE_SPOOL

TIMEOUT_S: Final = 60.0
PAUSE_S: Final = 0.005


def running(marker: str) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if marker.encode() in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def until_there(marker: str) -> None:
    """Both: the shell says a line, and becomes the second afterwards."""
    while len(running(marker)) < 2:
        threading.Event().wait(PAUSE_S)


def until_gone(marker: str) -> None:
    while running(marker):
        threading.Event().wait(PAUSE_S)


async def staged(bus: LocalBus, run: str) -> None:
    asked = StageFile(id=f"stage-{run}", tenant="t", run=run, area="input", path="data", offset=0, data=b"x")
    (answer,) = [each async for each in bus.call(asked)]
    assert isinstance(answer, Answered)


def asked(run: str, *argv: str, staged_count: int) -> RunJob:
    return RunJob(id=run, tenant="t", request_id="r", argv=argv, staged=staged_count)


async def lose_a_job(bus: LocalBus, serving: Serving, marker: str) -> None:
    await staged(bus, "a")
    script = f"setsid -f sleep {marker}; echo; exec sleep {marker}"
    async with aclosing(bus.call(asked("a", "sh", "-c", script, staged_count=1))) as answers:
        async for answer in answers:
            if isinstance(answer, Output):
                break
        await asyncio.to_thread(until_there, marker)
        os.kill(serving.node_pid(), signal.SIGKILL)
        with pytest.raises(NodeLost):
            async for _ in answers:
                pass


def test_s2_32_a_killed_node_leaves_nothing_of_its_jobs(tmp_path: Path) -> None:
    marker = f"1{os.getpid():09d}"  # seconds that nobody else sleeps
    data = tmp_path / "data"

    async def main(serving: Serving) -> None:
        async with asyncio.timeout(TIMEOUT_S), LocalBus(data / NODE_SOCKET) as bus:
            await bus.connected.wait()
            await lose_a_job(bus, serving, marker)
            await asyncio.to_thread(until_gone, marker)
            await bus.connected.wait()
            assert sorted(data.glob(f"{NODE_SPOOL}/*")) == []
            last = [each async for each in bus.call(asked("b", "true", staged_count=1))][-1]
            assert isinstance(last, Refused)
            await staged(bus, "b")
            last = [each async for each in bus.call(asked("b", "cat", "data", staged_count=1))][-1]
            assert isinstance(last, Ended)
            assert last.result.ok

    with Serving(data) as serving:
        serving.ready()
        asyncio.run(main(serving))

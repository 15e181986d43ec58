"""Jobs on a node: what is staged is there and cannot be changed, everything that comes of it comes, nothing stays."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from tests.machine import left_running
from tests.service.jobbing import Check, Jobber, jobber
from tests.warm import open_engine

import casemate


@pytest.fixture(scope="module")
def engine() -> Iterator[casemate.Engine]:
    with open_engine() as opened:
        yield opened


@pytest.fixture
def check(engine: casemate.Engine, tmp_path: Path, slowness: float) -> Iterator[Check]:
    """Carry out a test with a node; afterwards nothing runs any more, and nothing is staged."""

    async def main(test: Callable[[Jobber], Awaitable[None]]) -> None:
        async with jobber(engine, tmp_path) as asking:
            await test(asking)
            assert list(asking.spool.iterdir()) == []

    yield lambda test: asyncio.run(main(test))
    assert left_running(engine, slowness) == []


def test_s2_1_a_command_runs_with_its_files_and_leaves_files(check: Check) -> None:
    async def test(node: Jobber) -> None:
        script = (
            "cat data.csv input/data.csv shared/common.txt; echo word >&2; cp data.csv output/copy; echo x > kept.txt"
        )
        files = {"input/data.csv": b"1,2\n", "shared/common.txt": b"all\n"}
        seen = await node.run("sh", "-c", script, files=files, collect=("*.txt",), staged=2)
        assert seen.ended.ok
        assert seen.output == {"stdout": b"1,2\n1,2\nall\n", "stderr": b"word\n"}
        assert seen.files == {"kept.txt": b"x\n", "output/copy": b"1,2\n"}
        assert seen.digests["output/copy"] == hashlib.sha256(b"1,2\n").hexdigest()
        assert seen.phases == ["running", "collecting"]
        assert seen.ended.files == ()
        assert seen.ended.events == ()

    check(test)

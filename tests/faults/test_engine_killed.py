"""The engine's process is killed, or interrupted, at any moment: nothing of it is there after the next start."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.faults.leftovers import children, wait_until

import casemate
from casemate.kernel.cgroup_types import CgroupUnavailable
from casemate.kernel.processes import is_running, process_tree, start_time

WORKER = Path(__file__).parent / "worker.py"
KILLS = 6
MOMENT_MAX_S = 0.04


def marked_processes(mark: str) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if mark.encode() in path.read_bytes() and int(path.parent.name) != os.getpid():
                found.append(int(path.parent.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def groups_of(pid: int) -> list[Path]:
    """The control groups of an engine's process, wherever they are."""
    with casemate.Engine(warm=False) as engine:
        root = engine.backend.cgroups
        bases = () if isinstance(root, CgroupUnavailable) else root.search_paths
        return [path for base in bases for path in Path(base).glob(f"casemate-{pid}-*")]


@contextmanager
def worker(*arguments: str, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, str(WORKER), *arguments]
    environment = {**os.environ, **variables}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        try:
            yield process
        finally:
            process.kill()


def assert_gone(pid: int, mark: str, seen: dict[int, int | None]) -> None:
    assert wait_until(lambda: not marked_processes(mark)), marked_processes(mark)
    still = [child for child, began in seen.items() if began is not None and is_running(child, began)]
    assert wait_until(lambda: not any(is_running(child, seen[child] or 0) for child in still)), still
    assert groups_of(pid) == []


@pytest.mark.parametrize("seed", range(KILLS))
@pytest.mark.parametrize("kind", ["threads", "asyncio", "sandboxes"])
def test_engine_killed_at_any_moment(kind: str, seed: int) -> None:
    mark = f"mark-{uuid.uuid4().hex}"
    kill_worker(mark, seed, kind, mark)


@pytest.mark.parametrize("seed", range(KILLS))
def test_engine_without_control_groups_killed_at_any_moment(seed: int) -> None:
    """There is no group to empty then: what the kernel and init do by themselves has to be enough."""
    mark = f"mark-{uuid.uuid4().hex}"
    kill_worker(mark, seed, "threads", mark, CASEMATE_CGROUP="none")


def kill_worker(mark: str, seed: int, *arguments: str, **variables: str) -> None:
    with worker(*arguments, **variables) as process:
        time.sleep(random.Random(seed).uniform(0, MOMENT_MAX_S))
        seen = {pid: start_time(pid) for pid in process_tree(process.pid)[1:]}
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert_gone(process.pid, mark, seen)


@pytest.mark.parametrize("after_ms", [0.2, 0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4, 5, 8, 20])
def test_engine_interrupted_at_any_moment(after_ms: float) -> None:
    mark = f"mark-{uuid.uuid4().hex}"
    with worker("interrupted", mark, str(after_ms)) as process:
        seen = {pid: start_time(pid) for pid in children(process.pid)}
        _, stderr = process.communicate(timeout=30)
    assert b"KeyboardInterrupt" in stderr
    assert process.returncode == -signal.SIGINT
    assert_gone(process.pid, mark, seen)

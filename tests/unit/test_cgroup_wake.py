"""Waiting for the kernel ahead of time changes nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from threading import Timer

import pytest

from casemate.kernel import cgroup_wake


@pytest.fixture
def moves(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleQueue[bytes]]:
    """What is written to the group of this process, which it is all the same."""
    found = SimpleQueue[bytes]()
    write = os.write

    def noted(fd: int, data: bytes) -> int:
        if Path(f"/proc/self/fd/{fd}").readlink().name != "cgroup.procs":
            return write(fd, data)
        found.put(data)
        return len(data)

    monkeypatch.setattr(os, "write", noted)
    yield found
    cgroup_wake.let_sleep()


def test_it_moves_us_to_where_we_are_until_it_may_sleep(
    moves: SimpleQueue[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cgroup.procs").touch()
    monkeypatch.setattr(cgroup_wake, "_own_group", lambda: str(tmp_path / "cgroup.procs"))
    cgroup_wake.keep_awake()
    cgroup_wake.keep_awake()
    assert [moves.get(timeout=10) for _ in range(3)] == [b"0"] * 3
    cgroup_wake.let_sleep()
    assert cgroup_wake._over.acquire(timeout=10)
    cgroup_wake._over.release()
    cgroup_wake.let_sleep()


def test_nobody_changes_place() -> None:
    before = Path("/proc/self/cgroup").read_text()
    cgroup_wake.let_sleep()
    cgroup_wake._over.acquire()
    release = Timer(0, cgroup_wake._over.release)
    release.start()
    cgroup_wake._keep()
    release.join()
    assert Path("/proc/self/cgroup").read_text() == before


@pytest.mark.parametrize("membership", ["", "0::/user.slice\n", "7:pids:/nowhere/at/all\n", "8:pids\n"])
def test_where_there_is_nothing_to_wake_nothing_happens(
    membership: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moves: SimpleQueue[bytes]
) -> None:
    (tmp_path / "cgroup").write_text(membership)
    monkeypatch.setattr(cgroup_wake, "_MEMBERSHIP", str(tmp_path / "cgroup"))
    cgroup_wake._keep()
    assert moves.empty()


def test_it_is_there_before_anything_heavy() -> None:
    code = "import sys, casemate.kernel.cgroup_wake; print({'pathlib', 'msgspec', 'ctypes'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"

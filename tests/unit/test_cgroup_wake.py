"""Waiting for the kernel ahead of time changes nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from casemate.kernel import cgroup_wake


def test_nobody_changes_place() -> None:
    before = Path("/proc/self/cgroup").read_text()
    cgroup_wake.wake()
    assert Path("/proc/self/cgroup").read_text() == before


@pytest.mark.parametrize("membership", ["", "0::/user.slice\n", "7:pids:/nowhere/at/all\n", "8:pids\n"])
def test_where_there_is_nothing_to_wake_nothing_happens(
    membership: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cgroup").write_text(membership)
    monkeypatch.setattr(cgroup_wake, "_MEMBERSHIP", str(tmp_path / "cgroup"))
    cgroup_wake.wake()


def test_it_is_there_before_anything_heavy() -> None:
    code = "import sys, casemate.kernel.cgroup_wake; print({'pathlib', 'msgspec', 'ctypes'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"

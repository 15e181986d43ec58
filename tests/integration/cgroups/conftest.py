"""Groups and processes inside them. An ordinary user has these tests only in a control group that was given to him."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from casemate.kernel.cgroup_mounts import parse_membership, parse_mounts
from casemate.kernel.cgroup_types import CgroupLimits, CgroupRoot, CgroupUnavailable, RunCgroup
from casemate.kernel.cgroups import open_root
from casemate.limits import MIB

JOIN = """
import os, sys
for fd in map(int, sys.argv[1].split(",")):
    target = f"/proc/self/fd/{fd}/cgroup.procs" if os.path.isdir(f"/proc/self/fd/{fd}") else f"/proc/self/fd/{fd}"
    with open(target, "w") as procs:
        procs.write("0")
def say(text):
    print(text, flush=True)
"""

Spawn = Callable[..., "subprocess.Popen[str]"]
Limits = Callable[..., CgroupLimits]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if os.geteuid() == 0 or _delegated():
        return
    ours = [item for item in items if item.path.is_relative_to(Path(__file__).parent)]
    config.hook.pytest_deselected(items=ours)
    items[:] = [item for item in items if item not in ours]


def _delegated() -> bool:
    mounts = [mount for mount in parse_mounts(Path("/proc/self/mountinfo").read_text()) if mount.version == "v2"]
    group = parse_membership(Path("/proc/self/cgroup").read_text()).get("", "/")
    return any(os.access(mount.directory(group) or "", os.W_OK) for mount in mounts)


def _limits(*, memory_bytes: int = 256 * MIB, processes: int = 32, cpus: float = 2.0) -> CgroupLimits:
    return CgroupLimits(memory_bytes=memory_bytes, processes=processes, cpus=cpus)


@pytest.fixture(scope="session")
def limits() -> Limits:
    return _limits


@pytest.fixture
def root() -> Iterator[CgroupRoot]:
    opened = open_root(choice=None)
    assert not isinstance(opened, CgroupUnavailable), opened
    yield opened
    opened.close()


@pytest.fixture
def group(root: CgroupRoot) -> Iterator[RunCgroup]:
    made = root.create("run-1", _limits())
    yield made
    made.remove()


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    """Start a Python program inside a group; what it starts itself is for the group to end."""
    with ExitStack() as started:

        def start(group: RunCgroup, code: str) -> subprocess.Popen[str]:
            fds = group.join_fds
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", JOIN + textwrap.dedent(code), ",".join(map(str, fds))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=fds,
                text=True,
            )
            started.callback(_end, process)
            return process

        yield start


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()

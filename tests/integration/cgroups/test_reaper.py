"""What a killed engine leaves behind is removed by the next one; what lives is left alone."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import Mock

import pytest

from casemate import limits
from casemate.isolation import reaper
from casemate.isolation.reaper import reap
from casemate.kernel.cgroup_tree import EngineRoot, is_abandoned
from casemate.kernel.cgroup_types import CgroupRoot
from casemate.kernel.processes import start_time

pytestmark = [pytest.mark.limits, pytest.mark.alone]

STRANGER = 1_234
LAST_NUMBER = limits.CGROUP_ENGINES_MAX - 1
"""No engine of ours comes that far."""

ENGINE = """
import signal, subprocess, sys
from casemate.kernel.cgroup_types import CgroupLimits
from casemate.kernel.cgroups import open_root
root = open_root(choice=None)
for number in range(3):
    group = root.create(f"run-{number}", CgroupLimits(memory_bytes=2**26, processes=20, cpus=1.0))
    fds = ",".join(map(str, group.join_fds))
    subprocess.Popen([sys.executable, "-I", "-S", "-c", sys.argv[1], fds], pass_fds=group.join_fds)
print("ready", root.path, flush=True)
signal.pause()
"""
INSIDE = """
import os, signal, sys
for fd in map(int, sys.argv[1].split(",")):
    target = f"/proc/self/fd/{fd}"
    with open(target + "/cgroup.procs" if os.path.isdir(target) else target, "w") as procs:
        procs.write("0")
for _ in range(3):
    os.fork()
os.write(1, b"%d\\n" % os.getpid())
while True:
    signal.pause()
"""


@contextmanager
def engine() -> Iterator[tuple[subprocess.Popen[str], str, list[int]]]:
    """Another engine with processes in its groups: it, its directory, and the processes in its groups."""
    read, write = os.pipe()
    command = [sys.executable, "-c", ENGINE, INSIDE]
    with subprocess.Popen(command, stdout=write, text=True) as process, os.fdopen(read) as output:
        os.close(write)
        words = [output.readline().split() for _ in range(25)]
        inside = [int(line[0]) for line in words if len(line) == 1]
        place = next(line[1] for line in words if len(line) == 2)
        assert len(inside) == 24
        try:
            yield process, place, inside
        finally:
            process.kill()


def alive(pids: list[int]) -> list[int]:
    return [pid for pid in pids if start_time(pid) is not None]


def directories_like(root: CgroupRoot, name: str) -> list[Path]:
    """Unlike Path.rglob it passes over what others of this machine are just removing."""
    folders = (Path(folder) for start in root.search_paths for folder, _, _ in os.walk(start))
    return [folder for folder in folders if folder.match(name)]


def is_reaped(root: CgroupRoot, directory: Path | str) -> bool:
    """Whether a directory is gone after our reaping: another suite's engine that opens at this moment may be first."""
    reap(root)
    return not Path(directory).exists()


def test_dead_engine_is_cleared_up_with_its_processes(root: CgroupRoot) -> None:
    with engine() as (process, place, inside):
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert len(alive(inside)) == 24
        report = reap(root)
        assert place not in report.left
        assert place not in report.removed or report.killed_processes >= 24
        assert report.complete
        assert alive(inside) == []
        assert directories_like(root, Path(place).name) == []
        assert place not in reap(root).removed


def test_living_engine_is_left_alone(root: CgroupRoot) -> None:
    with engine() as (_, place, inside):
        assert not is_reaped(root, place)
        assert len(alive(inside)) == 24
        assert Path(root.path).exists()
    assert is_reaped(root, place)


def stray(root: CgroupRoot, name: str) -> Path:
    directory = Path(root.path).parent / name
    directory.mkdir()
    return directory


def test_used_process_id_with_another_start_time_is_a_dead_engine(root: CgroupRoot) -> None:
    directory = stray(root, f"casemate-{os.getpid()}-1")
    assert is_reaped(root, directory)


def test_engine_that_waits_to_be_collected_is_dead(root: CgroupRoot) -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as owner:
        directory = stray(root, f"casemate-{owner.pid}-{start_time(owner.pid)}")
        assert not is_reaped(root, directory)
        owner.kill()
        os.waitid(os.P_PID, owner.pid, os.WEXITED | os.WNOWAIT)
        assert is_reaped(root, directory)


def test_lock_protects_an_engine_whose_process_we_cannot_see(root: CgroupRoot) -> None:
    directory = stray(root, f"casemate-{os.getpid()}-1-7")
    fd = os.open(directory, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_SH)
    assert not is_abandoned(str(directory))
    assert not is_reaped(root, directory)
    os.close(fd)
    assert is_reaped(root, directory)


def test_engines_lock_their_directories(root: CgroupRoot) -> None:
    assert isinstance(root, EngineRoot)
    for path in root._directories.paths:
        fd = os.open(path, os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(fd)


@pytest.mark.parametrize("name", ["casemate-1", "casemate-x-1", "casemate-1-1-x", "xcasemate-1-1"])
def test_directories_of_other_names_are_nobodys_leftover(root: CgroupRoot, name: str) -> None:
    directory = stray(root, name)
    assert not is_reaped(root, directory)
    directory.rmdir()


def test_nested_groups_of_a_dead_engine_go_too(root: CgroupRoot) -> None:
    directory = stray(root, f"casemate-{os.getpid()}-2")
    (directory / "run-1" / "deeper" / "still").mkdir(parents=True)
    assert is_reaped(root, directory)


@pytest.fixture
def stranger_s_place() -> Iterator[Path]:
    """A directory that an ordinary user can reach; who is root acts as one meanwhile, for whom rights count."""
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        place = Path(directory)
        place.chmod(0o777)
        before = os.geteuid()
        os.seteuid(before or STRANGER)
        try:
            yield place
        finally:
            os.seteuid(before)
            for closed in place.iterdir():
                closed.chmod(0o700)


@pytest.mark.parametrize("mode", [0o000, 0o300, 0o400])
def test_directory_that_is_closed_to_us_holds_up_nothing(stranger_s_place: Path, mode: int) -> None:
    closed = stranger_s_place / "closed"
    (closed / "casemate-999999999-1").mkdir(parents=True)
    closed.chmod(mode)
    ours = stranger_s_place / "casemate-999999999-2"
    ours.mkdir()
    report = reap(Mock(search_paths=(str(stranger_s_place),)))
    assert report.removed[-1:] == (str(ours),)
    assert report.left == ()
    assert report.complete


def test_search_that_reaches_a_bound_says_so(root: CgroupRoot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "REAP_DIRECTORIES_MAX", 0)
    assert not reap(root).complete


def test_what_cannot_be_removed_is_reported_once_the_time_is_over(
    root: CgroupRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Named after a living process, so that no reaper of another suite sees it; what others left is not looked at."""
    monkeypatch.setattr(limits, "REAP_TIME_MAX_S", 0.2)
    directory = stray(root, f"casemate-{os.getpid()}-{start_time(os.getpid())}-{LAST_NUMBER}")
    monkeypatch.setattr(reaper, "is_abandoned", lambda group: group == str(directory))
    child = directory
    for _ in range(3):
        child = child / "deep"
        child.mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(limits, "REAP_DIRECTORIES_MAX", 2)  # sees two of the four directories, so EBUSY stays
        assert reap(root).left == (str(directory),)
    assert reap(root).removed == (str(directory),)

"""The control groups of runs, on whatever version this machine has."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from casemate import limits as bound
from casemate.errors import CapacityError, InternalError, LaunchError, SandboxClosed
from casemate.kernel import cgroup_files
from casemate.kernel.cgroup_tree import ControlGroup, EngineRoot
from casemate.kernel.cgroup_types import CgroupLimits, CgroupRoot, CgroupUnavailable, RunCgroup
from casemate.kernel.cgroups import open_root
from casemate.limits import MIB

pytestmark = pytest.mark.limits

Spawn = Callable[..., "subprocess.Popen[str]"]
Limits = Callable[..., CgroupLimits]


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def directories_of(group: RunCgroup) -> tuple[str, ...]:
    assert isinstance(group, ControlGroup)
    return group._driver.directories


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def tell(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


# Memory -----------------------------------------------------------------------------------------


def test_touching_more_memory_than_allowed_is_an_oom_kill(root: CgroupRoot, spawn: Spawn, limits: Limits) -> None:
    group = root.create("run-1", limits(memory_bytes=32 * MIB))
    process = spawn(group, "block = bytearray(128 * 2**20)")
    assert process.wait() == -signal.SIGKILL
    counters = group.counters()
    assert counters.oom_kills >= 1
    assert counters.memory_peak_bytes is None or 24 * MIB < counters.memory_peak_bytes <= 32 * MIB
    group.remove()


def test_memory_in_unnamed_files_counts(root: CgroupRoot, spawn: Spawn, limits: Limits) -> None:
    group = root.create("run-1", limits(memory_bytes=32 * MIB))
    code = """
    fd = os.memfd_create("x")
    for _ in range(128):
        os.write(fd, bytes(2**20))
    """
    assert spawn(group, code).wait() == -signal.SIGKILL
    assert group.counters().oom_kills >= 1
    group.remove()


def test_oom_kill_of_a_child_is_counted_and_leaves_its_parent(root: CgroupRoot, spawn: Spawn, limits: Limits) -> None:
    group = root.create("run-1", limits(memory_bytes=32 * MIB))
    code = """
    if os.fork() == 0:
        bytearray(128 * 2**20)
    os.wait()
    """
    status = spawn(group, code).wait()
    assert group.counters().oom_kills >= 1
    assert status == 0
    group.remove()


def test_reserving_memory_without_touching_it_is_no_use_of_memory(
    root: CgroupRoot, spawn: Spawn, limits: Limits
) -> None:
    group = root.create("run-1", limits(memory_bytes=32 * MIB))
    assert spawn(group, "import mmap; mmap.mmap(-1, 2**30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)").wait() == 0
    assert group.counters().oom_kills == 0
    group.remove()


def test_swap_is_off(group: RunCgroup) -> None:
    for directory in directories_of(group):
        for name, values in {
            "memory.swap.max": {"0"},
            "memory.memsw.limit_in_bytes": {str(256 * MIB)},
            "memory.swappiness": {"0"},
            "memory.oom.group": {"0"},
        }.items():
            if (file := Path(directory) / name).exists():
                assert file.read_text().strip() in values


def test_memory_in_use_shows_while_it_runs(group: RunCgroup, spawn: Spawn) -> None:
    process = spawn(group, "block = bytearray(64 * 2**20); say('ready'); input()")
    assert line_of(process) == "ready"
    now = group.counters().memory_now_bytes
    assert now is not None
    assert 64 * MIB <= now < 128 * MIB
    tell(process)
    assert process.wait() == 0


# Processes --------------------------------------------------------------------------------------


def test_processes_are_limited_and_the_attempts_counted(root: CgroupRoot, spawn: Spawn, limits: Limits) -> None:
    group = root.create("run-1", limits(processes=10))
    code = """
    import errno
    def one():
        try:
            pid = os.fork()
        except OSError as error:
            say(errno.errorcode[error.errno])
            return False
        if pid == 0:
            sys.stdin.read()
            os._exit(0)
        return True
    count = 1
    while one():
        count += 1
    say(count)
    """
    process = spawn(group, code)
    assert line_of(process) == "EAGAIN"
    assert line_of(process) == "11"  # ten and the one that stands for the sandbox's init
    counters = group.counters()
    assert counters.process_limit_hits >= 1
    assert counters.processes_peak in {10, None}
    group.kill()
    group.remove()


def test_threads_count_as_processes(root: CgroupRoot, spawn: Spawn, limits: Limits) -> None:
    group = root.create("run-1", limits(processes=10))
    code = """
    import _thread
    lock = _thread.allocate_lock()
    lock.acquire()
    count = 1
    try:
        while True:
            _thread.start_new_thread(lock.acquire, ())
            count += 1
    except RuntimeError:
        say(count)
    os._exit(0)
    """
    assert line_of(spawn(group, code)) == "11"
    assert group.counters().process_limit_hits >= 1
    group.kill()
    group.remove()


# Processor time ---------------------------------------------------------------------------------

BURN = """
def burn(seconds):
    while sum(os.times()[:2]) < seconds:
        sum(range(100_000))
"""


def test_processor_time_of_dead_children_is_counted(group: RunCgroup, spawn: Spawn) -> None:
    code = f"""{BURN}
for _ in range(3):
    if os.fork() == 0:
        burn(0.2)
        os._exit(0)
    os.wait()
"""
    assert spawn(group, code).wait() == 0
    counters = group.counters()
    assert 0.55 < counters.cpu_user_s + counters.cpu_system_s < 1.5
    assert counters.cpu_user_s > counters.cpu_system_s


def test_processor_time_of_children_that_nobody_waits_for_is_counted(group: RunCgroup, spawn: Spawn) -> None:
    code = f"""{BURN}
import signal
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
if os.fork() == 0:
    burn(0.3)
    os._exit(0)
try:
    os.wait()
except ChildProcessError:
    pass
"""
    assert spawn(group, code).wait() == 0
    counters = group.counters()
    assert counters.cpu_user_s + counters.cpu_system_s > 0.28


@pytest.mark.parametrize(("cpus", "ahead_s"), [(0.25, 0.15), (0.01, 0.07)])
def test_share_of_a_processor_is_held(
    root: CgroupRoot, spawn: Spawn, limits: Limits, cpus: float, ahead_s: float
) -> None:
    """For a second, and where others keep the processors busy until it has had any time at all."""
    group = root.create("run-1", limits())
    process = spawn(group, "say('ready')\nwhile True: pass")
    assert line_of(process) == "ready"
    group.set_limits(limits(cpus=cpus))
    began_s, before_s = time.monotonic(), used_s(group)
    while (now_s := time.monotonic()) < began_s + 1.0 or (used_s(group) == before_s and now_s < began_s + 30.0):
        os.sched_yield()
    found_s = used_s(group) - before_s
    assert 0.0 < found_s < cpus * (time.monotonic() - began_s) + ahead_s
    group.kill()
    group.remove()


def used_s(group: RunCgroup) -> float:
    counters = group.counters()
    return counters.cpu_user_s + counters.cpu_system_s


# Changing limits --------------------------------------------------------------------------------


def test_limits_can_be_lowered_and_raised(root: CgroupRoot, spawn: Spawn, limits: Limits) -> None:
    group = root.create("run-1", limits(memory_bytes=64 * MIB))
    group.set_limits(limits(memory_bytes=48 * MIB, processes=2, cpus=0.02))
    group.set_limits(limits(memory_bytes=256 * MIB))
    assert spawn(group, "block = bytearray(128 * 2**20)").wait() == 0
    assert group.counters().oom_kills == 0
    group.set_limits(limits(memory_bytes=32 * MIB))
    assert spawn(group, "block = bytearray(128 * 2**20)").wait() == -signal.SIGKILL
    group.remove()


def test_limits_of_a_removed_group_cannot_be_changed(group: RunCgroup, limits: Limits) -> None:
    group.remove()
    with pytest.raises(SandboxClosed):
        group.set_limits(limits())


# Killing and removing ---------------------------------------------------------------------------


def test_kill_reaches_what_hides_and_what_is_stopped(group: RunCgroup, spawn: Spawn) -> None:
    code = """
    import signal
    for number in range(1, 32):
        if number not in (signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD):
            signal.signal(number, signal.SIG_IGN)
    for _ in range(5):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.kill(os.getpid(), signal.SIGSTOP)
            os._exit(0)
        os.wait()
    say('ready')
    while True:
        signal.pause()
    """
    process = spawn(group, code)
    assert line_of(process) == "ready"
    group.kill()
    assert process.wait() == -signal.SIGKILL
    group.remove()
    assert not any(Path(directory).exists() for directory in directories_of(group))


def test_fork_bomb_is_removed_within_seconds(root: CgroupRoot, spawn: Spawn, limits: Limits, slowness: float) -> None:
    group = root.create("run-1", limits(processes=200))
    code = """
    import signal
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    say('ready')
    while True:
        try:
            os.fork()
        except OSError:
            pass
    """
    assert line_of(spawn(group, code)) == "ready"
    while group.counters().process_limit_hits == 0:
        os.sched_yield()
    started = time.monotonic()
    group.kill()
    group.remove()
    assert time.monotonic() - started < 2.0 * slowness


def test_removing_kills_what_is_left(group: RunCgroup, spawn: Spawn) -> None:
    process = spawn(group, "say('ready'); input()")
    assert line_of(process) == "ready"
    group.remove()
    assert process.wait() == -signal.SIGKILL


def test_processes_one_by_one_are_killed_where_the_kernel_cannot_kill_a_group(group: RunCgroup, spawn: Spawn) -> None:
    process = spawn(group, "for _ in range(20): os.fork() or input()\nsay('ready'); input()")
    assert line_of(process) == "ready"
    directory = directories_of(group)[0]
    inside = cgroup_files.members(directory)
    cgroup_files._kill_listed(directory, time.monotonic() + 10)
    assert len(inside) == 21
    assert process.wait() == -signal.SIGKILL


def test_a_process_that_is_no_longer_in_the_group_is_not_killed(group: RunCgroup) -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as stranger:
        assert cgroup_files._kill_batch(directories_of(group)[0], [stranger.pid]) == {stranger.pid}
        assert stranger.poll() is None


def test_uncollected_dead_process_does_not_keep_the_group(group: RunCgroup, spawn: Spawn) -> None:
    process = spawn(group, "say('ready'); input()")
    assert line_of(process) == "ready"
    group.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    group.remove()
    assert not any(Path(directory).exists() for directory in directories_of(group))


def test_what_does_not_die_is_an_error_at_last_and_removed_later(
    root: CgroupRoot, limits: Limits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bound, "CGROUP_REMOVE_TIMEOUT_S", 0.05)
    group = root.create("run-1", limits())
    busy = Path(directories_of(group)[0]) / "busy"
    busy.mkdir()
    with pytest.raises(CapacityError, match="does not die"):
        group.remove()
    group.remove()
    root.create("run-2", limits()).remove()
    assert busy.exists()
    busy.rmdir()
    root.create("run-3", limits()).remove()
    assert not any(Path(directory).exists() for directory in directories_of(group))


def test_no_new_runs_beside_too_many_that_do_not_die(
    root: CgroupRoot, limits: Limits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bound, "CGROUP_REMOVE_TIMEOUT_S", 0.0)
    monkeypatch.setattr(bound, "CGROUP_STUCK_MAX", 1)
    group = root.create("run-1", limits())
    busy = Path(directories_of(group)[0]) / "busy"
    busy.mkdir()
    with pytest.raises(CapacityError):
        group.remove()
    with pytest.raises(CapacityError, match="earlier runs"):
        root.create("run-2", limits())
    busy.rmdir()
    root.create("run-3", limits()).remove()


def test_removing_twice_is_removing_once(group: RunCgroup) -> None:
    last = group.counters()
    group.remove()
    group.remove()
    assert group.counters() == last


def test_counters_that_were_never_read_are_gone_with_the_group(group: RunCgroup) -> None:
    group.remove()
    with pytest.raises(SandboxClosed):
        group.counters()


def test_many_runs_leave_no_descriptor_and_no_directory(root: CgroupRoot, limits: Limits) -> None:
    before = descriptors()
    for number in range(100):
        group = root.create(f"run-{number}", limits())
        group.counters()
        group.remove()
    assert descriptors() == before
    assert cgroup_files.subgroups(root.path) == []


def test_ways_in_can_be_given_back_early(group: RunCgroup) -> None:
    before, count = descriptors(), len(group.join_fds)
    group.joined()
    group.joined()
    assert group.join_fds == ()
    assert descriptors() == before - count


def test_runs_of_many_threads_do_not_disturb_each_other(root: CgroupRoot, limits: Limits) -> None:
    failures: list[BaseException] = []

    def work(thread: int) -> None:
        try:
            for number in range(25):
                group = root.create(f"run-{thread}-{number}", limits())
                group.counters()
                group.kill()
                group.remove()
        except BaseException as error:  # noqa: BLE001 - reported below, in the thread that may fail
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert cgroup_files.subgroups(root.path) == []


# Failing ----------------------------------------------------------------------------------------


def test_same_name_twice_fails_and_leaves_the_first_alone(group: RunCgroup, root: CgroupRoot, limits: Limits) -> None:
    before = descriptors()
    with pytest.raises(LaunchError) as caught:
        root.create("run-1", limits())
    assert caught.value.step == "cgroup"
    assert descriptors() == before
    assert all(Path(directory).exists() for directory in directories_of(group))


def test_name_that_is_no_name_is_refused(root: CgroupRoot, limits: Limits) -> None:
    for name in ("", "../x", "run/1", "Run", "x" * 100):
        with pytest.raises(InternalError):
            root.create(name, limits())


@pytest.fixture
def few_descriptors() -> Iterator[Callable[[int], None]]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    def leave(count: int) -> None:
        used = {int(entry.name) for entry in Path("/proc/self/fd").iterdir()}
        free = [number for number in range(soft) if number not in used]
        resource.setrlimit(resource.RLIMIT_NOFILE, (free[count] if count < len(free) else soft, hard))

    yield leave
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def removed_after(group: RunCgroup) -> Iterator[RunCgroup]:
    try:
        yield group
    finally:
        group.remove()


def test_too_few_descriptors_fail_cleanly_at_every_step(
    root: CgroupRoot, limits: Limits, few_descriptors: Callable[[int], None]
) -> None:
    root.create("run-1", limits()).remove()
    before = descriptors()
    failures = 0
    for count in range(1, 40):
        few_descriptors(count)
        try:
            with removed_after(root.create("run-1", limits())) as group:
                group.counters()
        except CapacityError:
            failures += 1
        finally:
            few_descriptors(100_000)
        assert descriptors() == before
        assert cgroup_files.subgroups(root.path) == []
    assert 3 < failures < 30


def test_vanished_engine_directory_is_a_typed_error(limits: Limits) -> None:
    opened = open_root(choice=None)
    assert isinstance(opened, EngineRoot)
    for path in opened._directories.paths:
        Path(path).rmdir()
    with pytest.raises(LaunchError, match="No such file"):
        opened.create("run-1", limits())
    opened.close()


# The engine's own place -------------------------------------------------------------------------


def test_two_engines_of_one_process_have_places_of_their_own(root: CgroupRoot, limits: Limits) -> None:
    second = open_root(choice=None)
    assert not isinstance(second, CgroupUnavailable)
    assert second.path != root.path
    groups = [engine.create("run-1", limits()) for engine in (root, second)]
    second.close()
    assert Path(directories_of(groups[0])[0]).exists()
    groups[0].remove()


def test_closing_removes_everything_with_what_lives_in_it(spawn: Spawn, limits: Limits) -> None:
    before = descriptors()
    opened = open_root(choice=None)
    assert isinstance(opened, EngineRoot)
    group = opened.create("run-1", limits())
    process = spawn(group, "say('ready'); input()")
    assert line_of(process) == "ready"
    group.joined()
    opened.close()
    opened.close()
    assert process.wait() == -signal.SIGKILL
    assert not any(Path(path).exists() for path in opened._directories.paths)
    group.remove()
    with pytest.raises(SandboxClosed):
        opened.create("run-2", limits())
    process.communicate()
    assert descriptors() == before


def test_forked_copy_of_an_engine_removes_nothing(root: CgroupRoot, group: RunCgroup) -> None:
    if (pid := os.fork()) == 0:
        root.close()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert all(Path(directory).exists() for directory in directories_of(group))

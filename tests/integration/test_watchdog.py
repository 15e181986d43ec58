"""What a tree of processes uses, measured on real trees."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from casemate.kernel import processes
from casemate.kernel.processes import is_running, process_tree, start_time
from casemate.kernel.watchdog import TreeSample, sample
from casemate.limits import MIB

PROLOGUE = """
import os, sys, ctypes
def say(text):
    print(text, flush=True)
def burn(seconds):
    while sum(os.times()[:2]) < seconds:
        sum(range(100_000))
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # orphans come to us, as they come to a sandbox's init
"""

Spawn = Callable[[str], "subprocess.Popen[str]"]


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    """Start a program that stands for a sandbox's init and wait until it says `ready`; all of it ends with the test."""
    with ExitStack() as started:

        def start(code: str) -> subprocess.Popen[str]:
            command = [sys.executable, "-I", "-S", "-c", PROLOGUE + textwrap.dedent(code)]
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
            )
            started.callback(_end, process)
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            return process

        yield start


def _end(process: subprocess.Popen[str]) -> None:
    for pid in process_tree(process.pid):
        if start_time(pid) is not None:
            os.kill(pid, 9)
    process.communicate()


def measured(process: subprocess.Popen[str], *, exact_memory: bool = False) -> TreeSample:
    taken = sample(process.pid, exact_memory=exact_memory)
    assert taken is not None
    return taken


def test_memory_of_the_whole_tree_is_summed(spawn: Spawn) -> None:
    process = spawn("""
    read, write = os.pipe()
    for _ in range(2):
        if os.fork() == 0:
            block = bytearray(40 * 2**20)
            os.write(write, b"x")
            input()
        os.read(read, 1)
    say('ready'); input()
    """)
    assert 80 * MIB < measured(process).memory_bytes < 160 * MIB


def test_shared_memory_counts(spawn: Spawn) -> None:
    process = spawn(
        "import mmap; block = mmap.mmap(-1, 40 * 2**20); block.write(bytes(40 * 2**20)); say('ready'); input()"
    )
    assert 40 * MIB < measured(process).memory_bytes < 130 * MIB
    assert 40 * MIB < measured(process, exact_memory=True).memory_bytes < 130 * MIB


def test_exact_memory_counts_a_page_of_a_forked_family_once(spawn: Spawn) -> None:
    process = spawn("""
    block = bytearray(b"x") * (60 * 2**20)
    for _ in range(4):
        if os.fork() == 0:
            input()
    say('ready'); input()
    """)
    assert measured(process).memory_bytes > 280 * MIB
    assert 60 * MIB < measured(process, exact_memory=True).memory_bytes < 120 * MIB


def test_files_in_memory_count_unless_they_are_what_is_mapped(spawn: Spawn) -> None:
    process = spawn("""
    import mmap
    block = mmap.mmap(-1, 40 * 2**20)
    block.write(b"x" * len(block))
    say('ready'); input()
    """)
    private, with_less, with_more = (
        taken.memory_bytes
        for files_bytes in (0, 30 * MIB, 100 * MIB)
        if (taken := sample(process.pid, files_bytes=files_bytes)) is not None
    )
    assert private == with_less
    assert 55 * MIB < with_more - with_less <= 60 * MIB


def test_processes_and_threads_are_counted_without_the_init(spawn: Spawn) -> None:
    process = spawn("""
    import _thread
    lock = _thread.allocate_lock()
    lock.acquire()
    if os.fork() == 0:
        for _ in range(3):
            _thread.start_new_thread(lock.acquire, ())
        say('ready')
        input()
    os.wait()
    """)
    assert measured(process).processes == 4


def test_children_of_threads_are_found(spawn: Spawn) -> None:
    process = spawn("""
    import _thread
    def work():
        if os.fork() == 0:
            say('ready')
        input()
    _thread.start_new_thread(work, ())
    _thread.allocate_lock().acquire()
    lock = _thread.allocate_lock(); lock.acquire(); lock.acquire()
    """)
    assert measured(process).processes == 2


def test_orphans_stay_in_the_tree(spawn: Spawn) -> None:
    process = spawn("""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            input()
        os._exit(0)
    os.wait()
    say('ready'); input()
    """)
    assert measured(process).processes == 1


def test_processor_time_of_dead_children_is_counted_once(spawn: Spawn) -> None:
    process = spawn("""
    for _ in range(2):
        if os.fork() == 0:
            burn(0.2)
            os._exit(0)
        os.wait()
    say('ready'); input()
    """)
    taken = measured(process)
    assert 0.38 <= taken.cpu_user_s + taken.cpu_system_s < 1.0
    assert taken.cpu_user_s > taken.cpu_system_s


def test_hostile_names_change_nothing(spawn: Spawn) -> None:
    process = spawn("""
    with open("/proc/self/comm", "w") as comm:
        comm.write("a) Z 1 (\\rb")
    say('ready'); input()
    """)
    taken = measured(process)
    assert taken.processes == 0
    assert 1 * MIB < taken.memory_bytes < 100 * MIB


def test_kernel_without_lists_of_children_is_scanned(spawn: Spawn, monkeypatch: pytest.MonkeyPatch) -> None:
    process = spawn("""
    for _ in range(3):
        os.fork()
    if os.getppid() and len(os.listdir("/proc/self/task")) == 1:
        say('ready')
    input()
    """)
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(7)] == 7 * ["ready\n"]
    listed = process_tree(process.pid)
    assert len(listed) == 8
    monkeypatch.setattr(processes, "_kernel_lists_children", lambda: False)
    assert sorted(process_tree(process.pid)) == sorted(listed)


def test_tree_larger_than_the_bound_is_cut(spawn: Spawn, monkeypatch: pytest.MonkeyPatch) -> None:
    process = spawn("os.fork(); os.fork(); say('ready'); input()")
    monkeypatch.setattr("casemate.limits.WATCH_PROCESSES_MAX", 2)
    assert len(process_tree(process.pid)) == 2


def test_dead_and_uncollected_and_unknown_inits_have_no_sample(spawn: Spawn) -> None:
    process = spawn("say('ready'); input()")
    started = start_time(process.pid)
    assert started is not None
    assert is_running(process.pid, started)
    assert not is_running(process.pid, started + 1)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert sample(process.pid) is None
    assert not is_running(process.pid, started)
    process.wait()
    assert sample(process.pid) is None
    assert process_tree(process.pid) == [process.pid]

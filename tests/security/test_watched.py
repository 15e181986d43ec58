"""Attempts at forbidden system calls are told, whoever makes them, and are refused as before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pytest

import casemate
from casemate import CancelToken, Engine, Layer, Reason, Result, Sandbox
from casemate.isolation.syscalls import NUMBERS, REFUSED, WATCHED

Execute = Callable[..., Result]
Answers = Callable[..., "dict[str, str]"]

PATIENCE_S: Final = 120.0
"""For what has to end, however slow the machine is."""

FLOOD: Final = 100_000
NEW_USER_NAMESPACE: Final = 0x10000000
PYTHON_PROGRAM: Final = """
import asyncio, ctypes, multiprocessing, os, resource, select, signal, socket, sqlite3, ssl, subprocess
subprocess.run(["true"], check=True)
asyncio.run(asyncio.sleep(0))
multiprocessing.Event()
"""
ORDINARY: Final = {
    "sh": ("-c", "ls -l / /proc/self > /dev/null; cat /etc/passwd | sort | head -1; ulimit -a; df; mount; id; ps; :"),
    "python3": ("-c", PYTHON_PROGRAM),
    "node": ("-e", "require('fs').readdirSync('/'); require('os').cpus(); require('child_process').execSync('true')"),
    "perl": ("-e", "print `true`"),
}


@pytest.fixture(scope="module", autouse=True)
def is_watched(engine: Engine, execute: Execute) -> None:
    if Layer.WATCHED_CALLS not in execute(["true"]).isolation.layers:
        pytest.skip("layer watched-calls: this kernel has no notifier of seccomp")


def tried(result: Result) -> dict[str, int]:
    """What the events tell of system calls, by name."""
    told = [event.detail.partition(": ") for event in result.events if event.kind == "syscall"]
    return {name: int(words.removesuffix(" refused")) for name, _, words in told}


def test_s2_62_every_watched_call_is_told_and_refused_as_before(run_probe: Execute, answers: Answers) -> None:
    words = {name: f"{name}={NUMBERS[name]}" for name in WATCHED}
    words["clone"] += f":{NEW_USER_NAMESPACE}"
    result = run_probe("calls", *words.values())
    assert tried(result) == dict.fromkeys(sorted(WATCHED), 1)
    errnos = {name: group.errno for group in REFUSED for name in group.names}
    names = {1: "EPERM", 38: "ENOSYS"}
    assert answers(result) == {name: names[errnos.get(name) or 1] for name in WATCHED}


def test_s2_62_a_program_that_ends_at_once_is_told_of(run_probe: Execute) -> None:
    assert tried(run_probe("watched", "at-once")) == {"bpf": 1}


def test_s2_62_a_flood_from_threads_ends_and_is_counted(run_probe: Execute, answers: Answers, slowness: float) -> None:
    result = run_probe("watched", "flood", limits={"timeout": PATIENCE_S * slowness})
    assert answers(result) == {"others": "0"}
    assert tried(result) == {"ptrace": FLOOD}
    assert len(result.events) == 1


def test_s2_62_children_are_told_of_also_those_that_share_memory(run_probe: Execute) -> None:
    result = run_probe("watched", "children")
    assert (result.ok, tried(result)) == (True, {"ptrace": 4})


def test_s2_62_whoever_is_killed_while_it_asks_leaves_nothing(run_probe: Execute, answers: Answers) -> None:
    result = run_probe("watched", "killed")
    assert answers(result) == {"others": "0"}
    assert tried(result)["ptrace"] >= 9


def test_s2_62_calls_that_signals_interrupt_are_refused_all_the_same(run_probe: Execute, answers: Answers) -> None:
    result = run_probe("watched", "interrupted")
    assert answers(result) == {"others": "0"}
    assert tried(result)["ptrace"] >= 2000


def test_s2_62_a_program_that_is_killed_is_told_of(run_probe: Execute, slowness: float) -> None:
    """With at least half of what it has tried, which at its word was 1000."""
    token = CancelToken()
    limits = {"timeout": PATIENCE_S * slowness}
    result = run_probe("watched", "forever", on_output=lambda _: token.cancel(), cancel=token, limits=limits)
    assert result.reason is Reason.CANCELLED
    assert tried(result)["ptrace"] >= 500


def test_s2_62_a_flood_keeps_nobody_else_waiting(
    sandbox: Callable[..., Sandbox], compiled: Callable[[str], bytes]
) -> None:
    place = sandbox()
    place.files.write("/code/probe", compiled("watched"))
    begun = place.exec(["sh", "-c", "chmod 755 /code/probe; mkfifo f; /code/probe forever > f & head -1 f"])
    assert begun.stdout.text == "others\t0\n"
    found = place.exec(["sh", "-c", "echo here"])
    assert (found.ok, found.stdout.text) == (True, "here\n")


@pytest.mark.parametrize("program", ORDINARY)
def test_s2_62_ordinary_programs_try_nothing_that_is_told(execute: Execute, program: str, slowness: float) -> None:
    result = execute([program, *ORDINARY[program]], limits={"timeout": PATIENCE_S * slowness, "memory": "1Gi"})
    assert (result.ok, tried(result)) == (True, {}), result.stderr.text


def test_s2_62_nor_do_the_harnesses_of_runtimes(engine: Engine, slowness: float) -> None:
    found = {}
    for runtime, code in {"python": "output = 1", "node": "output = 1", "r": "output <- 1", "bash": "echo 1"}.items():
        limits = {"timeout": PATIENCE_S * slowness}
        found[runtime] = tried(casemate.run(code, runtime=runtime, engine=engine, limits=limits))
    assert not any(found.values())


TRIES: Final = """
import ctypes
call = ctypes.CDLL(None, use_errno=True).syscall
output = [(call(number, flags, 0, 0, 0, 0), ctypes.get_errno()) for number, flags in ((272, 1 << 28), (101, 0))]
"""


def test_s2_62_whoever_requires_the_watch_gets_no_fork_of_a_zygote() -> None:
    with casemate.Engine() as own:
        for _ in range(3):
            result = casemate.run(TRIES, engine=own, limits={"cpu": 1}, require=[Layer.WATCHED_CALLS])
            assert result.output == [[-1, 1], [-1, 1]]
            assert tried(result) == {"ptrace": 1, "unshare": 1}
            assert Layer.WATCHED_CALLS in result.isolation.layers
            own._publish()  # what is to be made ahead may be

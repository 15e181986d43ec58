"""An engine with a priority of its own, for processors or for disks: what it runs has none of it."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Final

import pytest

IOPRIO_SET, IOPRIO_GET = 251, 252
DISKS_REAL_TIME, DISKS_BEST_EFFORT, DISKS_IDLE = 1 << 13, 2 << 13, 3 << 13
BEST_EFFORT_MIDDLE: Final = 4
ORDINARY_UID: Final = 61234
NOT_RUN: Final = "not run"
LOOK: Final = f"""
import ctypes, os
disks = ctypes.CDLL(None).syscall({IOPRIO_GET}, 1, 0)
disks = 0 if disks == {DISKS_BEST_EFFORT | BEST_EFFORT_MIDDLE} else disks
print(os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0), disks)
"""
"""For a process without a priority for disks kernels say so, or which it is then treated as."""

SCRIPT: Final = f"""
import ctypes, os, sys
import casemate, casemate.engine.run
from casemate.isolation.launcher import PROGRAM
uid, policy, nice, disks = map(int, sys.argv[1:5])
os.setpriority(os.PRIO_PROCESS, 0, nice)
assert disks == 0 or ctypes.CDLL(None).syscall({IOPRIO_SET}, 1, 0, disks) == 0
os.sched_setscheduler(0, policy, os.sched_param(1 if policy in (os.SCHED_FIFO, os.SCHED_RR) else 0))
if uid != 0:
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
if os.access(PROGRAM, os.X_OK):
    print(casemate.execute(["/usr/bin/python3", "-I", "-S", "-c", sys.argv[5]]).stdout.text, end="")
else:
    print("{NOT_RUN}")
"""

ORDINARY: Final = [0, 0, 0]
"""Scheduling policy, nice value, priority for disks."""


def seen_by_a_guest(uid: int, *, policy: int = os.SCHED_OTHER, nice: int = 0, disks: int = 0) -> list[int]:
    """Ask a guest of an engine that has taken such a priority as root and then become that user."""
    numbers = [str(number) for number in (uid, policy, nice, disks)]
    command = [sys.executable, "-c", SCRIPT, *numbers, LOOK]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    if done.stdout.strip() == NOT_RUN:
        pytest.skip("an ordinary user cannot reach the launcher in this directory")
    return [int(word) for word in done.stdout.split()]


@pytest.mark.root
@pytest.mark.parametrize("uid", [0, ORDINARY_UID])
@pytest.mark.parametrize(
    "raised",
    [
        {"policy": os.SCHED_FIFO},
        {"policy": os.SCHED_RR, "nice": -20},
        {"nice": -5},
        {"disks": DISKS_REAL_TIME},
        {"disks": DISKS_BEST_EFFORT | 1},
        {"nice": -1, "disks": DISKS_REAL_TIME | 7},
    ],
    ids=str,
)
def test_guest_is_an_ordinary_process(raised: dict[str, int], uid: int) -> None:
    assert seen_by_a_guest(uid, **raised) == ORDINARY


@pytest.mark.root
@pytest.mark.parametrize("uid", [0, ORDINARY_UID])
def test_what_stands_below_the_ordinary_stays_there(uid: int) -> None:
    assert seen_by_a_guest(uid, nice=7)[:2] == [os.SCHED_OTHER, 7]
    assert seen_by_a_guest(uid, policy=os.SCHED_IDLE)[0] == os.SCHED_IDLE
    for disks in (DISKS_IDLE, DISKS_BEST_EFFORT | 6):
        assert seen_by_a_guest(uid, disks=disks)[2] == disks


def test_guest_of_an_ordinary_engine_is_an_ordinary_process() -> None:
    assert seen_by_a_guest(os.geteuid()) == ORDINARY

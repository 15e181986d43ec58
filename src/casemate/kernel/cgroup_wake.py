"""Takes the kernel's long breath before version 1 of control groups ahead of time. Imports next to nothing."""

from __future__ import annotations

import os
from _thread import allocate_lock, start_new_thread
from contextlib import suppress

from casemate import limits

_MEMBERSHIP = "/proc/self/cgroup"
_HIERARCHY = "pids"
_over = allocate_lock()
"""Held while somebody is kept awake."""


def keep_awake() -> None:
    """Move this process to where it is, again and again until `let_sleep`, in a thread of its own.

    After an idle pause the first move of any process into a control group of version 1 waits some ten
    milliseconds for a grace period (RCU); moves within the next one do not. A command line that knows that it
    will start a sandbox waits for it here while its modules are loaded, which takes longer than the two together.
    Whoever may not do this would not wait later either.
    """
    if _over.acquire(blocking=False):
        start_new_thread(_keep, ())


def let_sleep() -> None:
    """What was to be moved is where it belongs. Idempotent."""
    if _over.locked():
        _over.release()


def _keep() -> None:
    try:
        fd = os.open(_own_group(), os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return
    with suppress(OSError):
        for _ in range(limits.CGROUP_WAKES_MAX):
            os.write(fd, b"0")
            if _over.acquire(timeout=limits.CGROUP_WAKE_AGAIN_S):
                _over.release()
                break
    os.close(fd)


def _own_group() -> str:
    """Where to write for a move to where we are; empty if there is no such hierarchy."""
    with open(_MEMBERSHIP, "rb") as file:  # noqa: PTH123 - before pathlib is there
        lines = file.read().decode(errors="surrogateescape").splitlines()
    groups = [line.partition(f":{_HIERARCHY}:")[2] for line in lines if f":{_HIERARCHY}:" in line]
    return f"/sys/fs/cgroup/{_HIERARCHY}{groups[0]}/cgroup.procs" if groups else ""

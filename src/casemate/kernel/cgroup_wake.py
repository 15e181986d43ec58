"""Takes the kernel's long breath before version 1 of control groups ahead of time. Imports next to nothing."""

from __future__ import annotations

import os

_MEMBERSHIP = "/proc/self/cgroup"
_HIERARCHY = "pids"


def wake() -> None:
    """Move this process to where it is.

    After an idle pause the first move of any process into a control group of version 1 waits some ten
    milliseconds for a grace period (RCU); moves within the next ones do not. A command line that knows that it
    will start a sandbox waits for it here, in a thread of its own, while its modules are loaded. Whoever may not
    do this would not wait later either.
    """
    try:
        with open(_MEMBERSHIP, "rb") as file:  # noqa: PTH123 - before pathlib is there
            lines = file.read().decode(errors="surrogateescape").splitlines()
        groups = [line.partition(f":{_HIERARCHY}:")[2] for line in lines if f":{_HIERARCHY}:" in line]
        if not groups:
            return
        fd = os.open(f"/sys/fs/cgroup/{_HIERARCHY}{groups[0]}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, b"0")
        finally:
            os.close(fd)
    except OSError:
        return

"""What engines hold of a machine that others use at the same time."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Final

import casemate
from casemate.kernel.processes import process_tree

SETTLE_S: Final = 5.0
PAUSE_S: Final = 0.002
MOUNT_POINT_FIELD: Final = 4


def sandbox_mounts(engine: casemate.Engine) -> tuple[str, ...]:
    """The mounts in view that a sandbox can have left: at the place where each begins with its root.

    All others are the machine's, which may mount and unmount something at any moment.
    """
    place = engine.backend.host.staging
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return tuple(line for line in lines if line.split(" ")[MOUNT_POINT_FIELD] == place)


def left_running(engine: casemate.Engine, slowness: float) -> list[int]:
    """What an engine at rest still runs, its launcher aside.

    What it has killed, and what has helped to start it, ends within a moment; who is listed longer than a bound stays.
    """
    engine.rest()
    launcher = engine.backend.launcher.pid
    deadline_s = time.monotonic() + SETTLE_S * slowness
    while (left := [pid for pid in process_tree(launcher) if pid != launcher]) and time.monotonic() < deadline_s:
        threading.Event().wait(PAUSE_S)
    return left

"""What tests ask of the machine that others use at the same time."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import casemate

MOUNT_POINT_FIELD: Final = 4


def sandbox_mounts(engine: casemate.Engine) -> tuple[str, ...]:
    """The mounts in view that a sandbox can have left: at the place where each begins with its root.

    All others are the machine's, which may mount and unmount something at any moment.
    """
    place = engine.backend.host.staging
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return tuple(line for line in lines if line.split(" ")[MOUNT_POINT_FIELD] == place)

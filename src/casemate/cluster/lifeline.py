"""A pipe that ends with the supervisor, however that ends: its children watch it and leave nothing behind."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Callable

from casemate.errors import InvalidInput


def watch(lifeline_fd: int, on_end: Callable[[], None]) -> None:
    """Have the running loop call `on_end`, once, when the supervisor is gone. Raises InvalidInput if it is no pipe."""
    try:
        is_pipe = stat.S_ISFIFO(os.fstat(lifeline_fd).st_mode)
    except OSError:
        is_pipe = False
    if not is_pipe:
        raise InvalidInput("lifeline-fd", "must be a pipe", hint="`casemate serve` starts this; nobody else does")
    os.set_blocking(lifeline_fd, False)
    os.set_inheritable(lifeline_fd, False)  # noqa: FBT003
    loop = asyncio.get_running_loop()

    def look() -> None:
        try:
            if os.read(lifeline_fd, 1):
                return
        except BlockingIOError:
            return
        loop.remove_reader(lifeline_fd)
        on_end()

    loop.add_reader(lifeline_fd, look)

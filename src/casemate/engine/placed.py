"""The program's own file, which a harness puts into the work directory while the program runs.

The harness removes it, unless the program ends in a way that leaves no time for that: by `os._exit`, by a signal,
or because we killed it. Then it is removed here: it is nothing that the program has made.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress

from casemate.engine.collect import make_searchable, opened
from casemate.engine.execution import Outcome
from casemate.engine.program import Program


class PlacedProgram:
    """Made before the run: what has one of the names by then is not the harness's work, and stays."""

    def __init__(self, directory_fd: int, program: Program) -> None:
        self._directory_fd = directory_fd
        self._code = program.placed_code
        self._names = [name for name in program.placed_names if not self._is_there(name)]

    def remove(self, outcome: Outcome | None) -> None:
        """Remove what is left of it; without an outcome the run was broken off. Never raises for what a guest did."""
        for name in self._names:
            with suppress(OSError):
                try:
                    self._remove(name, cut=_was_killed(outcome))
                except PermissionError:  # a guest may take its own rights away
                    make_searchable(self._directory_fd)
                    self._remove(name, cut=_was_killed(outcome))

    def _is_there(self, name: str) -> bool:
        with suppress(OSError):
            os.stat(name, dir_fd=self._directory_fd, follow_symlinks=False)
            return True
        return False

    def _remove(self, name: str, *, cut: bool) -> None:
        """If it holds exactly the code or, where the harness may have been stopped at it, the code's beginning."""
        status = os.stat(name, dir_fd=self._directory_fd, follow_symlinks=False)
        if not stat.S_ISREG(status.st_mode) or status.st_size > len(self._code):
            return
        with opened(self._directory_fd, (os.fsencode(name),), os.O_RDONLY) as fd:
            data = os.read(fd, len(self._code) + 1)
        if data == self._code or (cut and self._code.startswith(data)):
            os.unlink(name, dir_fd=self._directory_fd)


def _was_killed(outcome: Outcome | None) -> bool:
    return outcome is None or outcome.wait_status is None or os.WIFSIGNALED(outcome.wait_status)

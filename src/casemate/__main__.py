"""Where the command line starts, as `casemate` and as `python -m casemate`: what comes before its imports."""

from __future__ import annotations

import gc
import os
import sys
from typing import NoReturn

from casemate.kernel.cgroup_wake import keep_awake

SOON_IN_SANDBOX = frozenset({"run", "exec"})


def main() -> NoReturn:
    """Run the command line and end the process."""
    gc.disable()  # nothing that an import makes is garbage; a run enables it again
    _open_standard_files()
    if sys.argv[1:2] and sys.argv[1] in SOON_IN_SANDBOX:
        keep_awake()
    from casemate.cli.main import main as command_line

    command_line()


def _open_standard_files() -> None:
    """Whoever starts us with one of them closed would have a file of the engine's take its number."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or os.fdopen(1, "w")
    sys.stderr = sys.stderr or os.fdopen(2, "w")


if __name__ == "__main__":
    main()

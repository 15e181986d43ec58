"""Programs that run the launcher, or anything else, under an instrument and gather its reports in a file."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
VALGRIND: Final = f"valgrind --quiet --error-exitcode=9 --leak-check=full --suppressions={HERE}/valgrind.supp"
KILLED_MEANWHILE: Final = re.compile(r"==\d+==Unable to get registers from thread \d+\.\n")
"""What is said where a process is killed while it is looked through for leaks, as those of a sandbox are."""

SANITIZER_OPTIONS: Final = "ASAN_OPTIONS=detect_leaks=1 UBSAN_OPTIONS=print_stacktrace=1"


class Instrument:
    """One program under one instrument: `program` starts it, `reports` is what the instrument has said.

    Descriptor 2 is the report file, in all processes that come from the program.
    """

    def __init__(self, directory: Path, program: Path, *, valgrind: bool) -> None:
        self.program = directory / f"{program.name}.sh"
        self._log = directory / f"{program.name}.log"
        self._log.touch()
        command = f"exec {VALGRIND} {program}" if valgrind else f"{SANITIZER_OPTIONS} exec {program}"
        self.program.write_text(f"#!/bin/sh\nexec 2>>{self._log}\n{command}\n")
        self.program.chmod(0o755)

    @property
    def reports(self) -> str:
        lines = self._log.read_text().splitlines(keepends=True)
        return "".join(line for line in lines if not KILLED_MEANWHILE.fullmatch(line))

    def run(self, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run([self.program], input=data, capture_output=True, check=False, timeout=100)

"""Programs that run the launcher, or anything else, under an instrument and gather its reports in a file."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
VALGRIND: Final = f"valgrind --quiet --error-exitcode=9 --leak-check=full --suppressions={HERE}/valgrind.supp"
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
        return self._log.read_text()

    def run(self, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run([self.program], input=data, capture_output=True, check=False, timeout=100)

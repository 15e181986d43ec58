"""What the command line does not import before a sandbox is being built, and that nobody misses it."""

from __future__ import annotations

import subprocess
import sys
from typing import Final

NOT_NEEDED: Final = (
    "asyncio",
    "fractions",
    "inspect",
    "json",
    "logging",
    "shutil",
    "subprocess",
    "tempfile",
)
LATER: Final = ("casemate.engine.inside", "casemate.engine.execution", "casemate.engine.collect")


def told(code: str) -> str:
    command = [sys.executable, "-I", "-c", f"import casemate.cli.main, casemate.cli.run, sys\n{code}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_a_run_does_not_import_what_it_does_not_need() -> None:
    assert told(f"print(sorted(set({[*NOT_NEEDED, *LATER]!r}) & set(sys.modules)))") == "[]"

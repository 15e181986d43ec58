"""The short form of `make soak`: every kind of run, many times, and nothing grows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SOAK = Path(__file__).parents[2] / "bench" / "soak.py"
RUNS = 200


@pytest.mark.soak
@pytest.mark.slow
def test_nothing_grows() -> None:
    done = subprocess.run([sys.executable, SOAK, "--runs", str(RUNS)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

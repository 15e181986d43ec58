"""The short form of `make soak`: every kind of run, many times, and nothing grows."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RUNS = 200
RUNS_WITH_KILLS = 100


@pytest.mark.soak
@pytest.mark.slow
def test_nothing_grows() -> None:
    command = [sys.executable, "-m", "bench.soak", "--runs", str(RUNS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.soak
@pytest.mark.slow
def test_nothing_grows_and_nothing_hangs_while_what_is_ready_is_killed() -> None:
    command = [sys.executable, "-m", "bench.soak", "--kills", "--runs", str(RUNS_WITH_KILLS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^killed: \d", done.stdout, re.MULTILINE), done.stdout

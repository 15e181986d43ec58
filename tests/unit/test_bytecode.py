"""The harness is read from bytecode that the engine keeps beside it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from casemate.runtimes.bytecode import keep_bytecode


def cached(directory: Path) -> Path:
    return directory / "__pycache__" / f"tool.{sys.implementation.cache_tag}.pyc"


def run(directory: Path) -> str:
    """What the module prints, imported by an interpreter that may not write beside it."""
    words = [sys.executable, "-B", "-c", "import tool"]
    return subprocess.run(words, cwd=directory, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "tool.py").write_text("print('first')\n")
    return tmp_path


def test_bytecode_is_made_once_and_used(directory: Path) -> None:
    keep_bytecode(directory)
    made = cached(directory).stat()
    keep_bytecode(directory)
    assert cached(directory).stat().st_mtime_ns == made.st_mtime_ns
    assert cached(directory).stat().st_ino == made.st_ino
    assert run(directory) == "first\n"


def test_a_changed_source_counts_even_if_its_time_is_an_old_one(directory: Path) -> None:
    keep_bytecode(directory)
    (directory / "tool.py").write_text("print('other')\n")
    os.utime(directory / "tool.py", (0, 0))
    assert run(directory) == "other\n"
    os.utime(directory / "tool.py")
    keep_bytecode(directory)
    assert run(directory) == "other\n"


def test_a_directory_that_cannot_be_written_to_is_left_as_it_is(directory: Path) -> None:
    (directory / "__pycache__").write_text("a file is in the way, for root as well")
    keep_bytecode(directory)
    assert run(directory) == "first\n"

"""The table of attacks is the one that the tests make."""

from __future__ import annotations

import subprocess
import sys

from tests.docs.pages import ROOT, tables

CASES = 183
PAGE = ROOT / "docs" / "reference" / "attacks.md"


def rows() -> list[list[str]]:
    return [row for table in tables(PAGE) for row in table[1:]]


def test_the_table_is_up_to_date() -> None:
    tool = ROOT / "tools" / "attack_table.py"
    done = subprocess.run([sys.executable, str(tool), "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"run `python tools/attack_table.py`\n{done.stderr}"


def test_every_case_is_listed_once() -> None:
    ids = [row[0] for row in rows()]
    assert len(ids) == len(set(ids)) == CASES


def test_every_case_is_proved_or_explained() -> None:
    assert [row[0] for row in rows() if row[2] == "open" or not row[3]] == []

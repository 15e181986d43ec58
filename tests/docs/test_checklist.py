"""The checklist is the one that the tests make, and the documents that it asks for are there."""

from __future__ import annotations

import subprocess
import sys

from tests.docs.pages import ROOT, tables

LINES = 50 + 79 + 95
PAGE = ROOT / "docs" / "reference" / "checklist.md"


def rows() -> list[list[str]]:
    return [row for table in tables(PAGE) for row in table[1:]]


def test_the_checklist_is_up_to_date() -> None:
    tool = ROOT / "tools" / "checklist.py"
    done = subprocess.run([sys.executable, str(tool), "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"run `python tools/checklist.py`\n{done.stderr}"


def test_every_line_is_listed_once() -> None:
    ids = [row[0] for row in rows()]
    assert len(ids) == len(set(ids)) == LINES


def test_every_line_is_proved_or_explained() -> None:
    assert [row[0] for row in rows() if row[2] == "open" or not row[3]] == []
    assert [row[0] for row in rows() if row[2] == "done" and "::" not in row[3]] == []


def test_s1_79_documents_of_security_resources_and_the_api_are_there_and_right() -> None:
    """Links of all pages are checked elsewhere; the reference of the API is the document that tests hold it to."""
    for page in ("docs/threat-model.md", "docs/reference/limits.md", "docs/reference/api.md"):
        assert (ROOT / page).read_text().startswith("# ")
    tool = ROOT / "tools" / "api_reference.py"
    done = subprocess.run([sys.executable, str(tool), "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"run `python tools/api_reference.py`\n{done.stderr}"

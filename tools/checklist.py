"""Makes docs/reference/checklist.md: every line of the checklist, its status, and the tests that prove it.

    python tools/checklist.py            write the page
    python tools/checklist.py --check    exit with 1 if the page is out of date

A test belongs to a line if its name begins with the line's id: `test_s1_13_…`, `test_s1_35_s1_44_…`.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

ROOT: Final = Path(__file__).parents[1]
LINES_FILE: Final = ROOT / "docs" / "reference" / "checklist.toml"
PAGE: Final = ROOT / "docs" / "reference" / "checklist.md"
TESTS: Final = ROOT / "tests"
SHOWN_MAX: Final = 4
"""So many tests of a line are named; of more it is said how many."""

NAMED_AFTER_LINES: Final = re.compile(r"test_((?:s\d_\d+_(?:and_)?)+)")
ONE: Final = re.compile(r"s(\d)_(\d+)_")
CHAPTERS: Final = ("S0", "S1", "S2")
STATUSES: Final = ("done", "partly", "later", "open")
HEAD: Final = """# Checklist

What the systems that Casemate takes the place of could do, or promised, line by line, and the tests that prove it here.

*done*: proved by the named tests. *partly*: as far as is said. *later*: needs a part that is not there yet. *open*:
nothing proves it.

This page is made by `tools/checklist.py`.
"""


class Line(NamedTuple):
    """One line: its id, what it asks for, where it stands, and what proves or explains that."""

    id: str
    what: str
    status: str
    proof: str


def proofs_by_line() -> dict[str, list[str]]:
    """The tests that are named after lines, as `module::name`, by the line's id."""
    found: dict[str, list[str]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        for name in _test_names(path):
            if match := NAMED_AFTER_LINES.match(name):
                for chapter, number in ONE.findall(match[1]):
                    shown = f"`{path.stem.removeprefix('test_')}::{name}`"
                    found.setdefault(f"S{chapter}.{int(number)}", []).append(shown)
    return found


def _test_names(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name


def read_lines() -> Mapping[str, Any]:
    """The list of lines, and why some have no tests named after them."""
    return tomllib.loads(LINES_FILE.read_text())


def judged(listed: Mapping[str, Any], tests: Mapping[str, list[str]]) -> Iterator[Line]:
    """Every line with its status."""
    for chapter in CHAPTERS:
        for number, what in listed[chapter].items():
            if number != "title":
                identity = f"{chapter}.{number}"
                yield Line(identity, what, *_status(identity, chapter, listed, tests.get(identity, [])))


def _status(identity: str, chapter: str, listed: Mapping[str, Any], tests: list[str]) -> tuple[str, str]:
    later = listed["later"].get(identity) or (not tests and listed["later"].get(chapter))
    if later:
        return "later", later
    if not tests:
        return "open", ""
    shown = ", ".join(tests[:SHOWN_MAX])
    if len(tests) > SHOWN_MAX:
        shown += f" and {len(tests) - SHOWN_MAX} more"
    if identity in listed["partly"]:
        return "partly", f"{listed['partly'][identity]}: {shown}"
    return "done", shown


def page(lines: list[Line], titles: Mapping[str, str]) -> str:
    """The whole page."""
    counts = {status: sum(line.status == status for line in lines) for status in STATUSES}
    summary = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    parts = [HEAD, f"{len(lines)} lines: {summary}.\n"]
    for chapter, title in titles.items():
        parts += [f"## {title}\n", "| id | what | status | tests, or what is missing |", "|---|---|---|---|"]
        parts += [f"| {' | '.join(line)} |" for line in lines if line.id.startswith(f"{chapter}.")]
        parts.append("")
    return "\n".join(parts).rstrip() + "\n"


def make() -> str:
    """The page as it has to be now. Raises KeyError for a test that is named after no line."""
    listed, tests = read_lines(), proofs_by_line()
    lines = list(judged(listed, tests))
    if unknown := tests.keys() - {line.id for line in lines}:
        raise KeyError(f"tests are named after lines that do not exist: {', '.join(sorted(unknown))}")
    return page(lines, {chapter: listed[chapter]["title"] for chapter in CHAPTERS})


def main(arguments: list[str]) -> int:
    """Write the page, or check it; the exit status."""
    text = make()
    if arguments == ["--check"]:
        return int(not PAGE.exists() or PAGE.read_text() != text)
    PAGE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

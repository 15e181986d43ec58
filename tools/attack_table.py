"""Makes docs/reference/attacks.md: every case of the attack list, its status, and the tests that prove it.

    python tools/attack_table.py            write the page
    python tools/attack_table.py --check    exit with 1 if the page is out of date

A test belongs to a case if its name begins with the case's id: `test_f9_…`, `test_p11_p12_…`.
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
CASES_FILE: Final = ROOT / "tools" / "attacks.toml"
PAGE: Final = ROOT / "docs" / "reference" / "attacks.md"
TESTS: Final = ROOT / "tests"
NAMED_AFTER_CASES: Final = re.compile(r"test_((?:[fpmcnkiosx]\d+_(?!\d))+)")
"""Not those named after a line of a checklist, such as `test_s1_24_…`."""

CHAPTERS: Final = "FPMCNKIOSX"
STATUSES: Final = ("done", "later", "not testable", "open")
HEAD: Final = """# Attacks and their tests

Every case that a sandbox has to withstand, and the tests that run it inside real sandboxes: as root and as an
ordinary user, with control groups of version 1 and 2, and those about limits without any. After each the machine has
to be as before, and the next run has to work.

*done*: proved by the named tests. *later*: needs a part that is not there yet. *not testable*: no test can bring it
about. *open*: nothing proves it.

This page is made by `tools/attack_table.py`.
"""


class Case(NamedTuple):
    """One attack: its id, what is tried, where it stands, and what proves or explains that."""

    id: str
    what: str
    status: str
    proof: str


def proofs_by_case() -> dict[str, list[str]]:
    """The tests that are named after cases, as `path::name`, by the case's id."""
    found: dict[str, list[str]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        for name in _test_names(path):
            if match := NAMED_AFTER_CASES.match(name):
                for case in match[1].strip("_").split("_"):
                    found.setdefault(case.upper(), []).append(f"{path.relative_to(ROOT)}::{name}")
    return found


def _test_names(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name


def read_cases() -> Mapping[str, Any]:
    """The list of cases, and why some have no tests named after them."""
    return tomllib.loads(CASES_FILE.read_text())


def judged(listed: Mapping[str, Any], tests: Mapping[str, list[str]]) -> Iterator[Case]:
    """Every case with its status. Tests count more than an explanation why there are none."""
    for chapter in CHAPTERS:
        for number, what in listed[chapter].items():
            if number != "title":
                yield Case(chapter + number, what, *_status(chapter + number, listed, tests))


def _status(case: str, listed: Mapping[str, Any], tests: Mapping[str, list[str]]) -> tuple[str, str]:
    if case in tests:
        return "done", ", ".join(map(_shown, tests[case]))
    if case in listed["elsewhere"]:
        return "done", f"`{listed['elsewhere'][case]}`"
    if case in listed["not_testable"]:
        return "not testable", listed["not_testable"][case]
    if case in listed["later"]:
        return "later", listed["later"][case]
    return "open", ""


def _shown(test: str) -> str:
    path, _, name = test.partition("::")
    return f"`{Path(path).stem.removeprefix('test_')}::{name}`"


def page(cases: list[Case], titles: Mapping[str, str]) -> str:
    """The whole page."""
    counts = {status: sum(case.status == status for case in cases) for status in STATUSES}
    summary = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    parts = [HEAD, f"{len(cases)} cases: {summary}.\n"]
    for chapter, title in titles.items():
        parts += [
            f"## {title}\n",
            "| id | what is tried | status | tests, or why there are none |",
            "|---|---|---|---|",
        ]
        parts += [_row(case) for case in cases if case.id[0] == chapter]
        parts.append("")
    return "\n".join(parts).rstrip() + "\n"


def _row(case: Case) -> str:
    return f"| {case.id} | {case.what} | {case.status} | {case.proof} |"


def make() -> str:
    """The page as it has to be now. Raises KeyError for a test that is named after no case."""
    listed, tests = read_cases(), proofs_by_case()
    cases = list(judged(listed, tests))
    if unknown := tests.keys() - {case.id for case in cases}:
        raise KeyError(f"tests are named after cases that do not exist: {', '.join(sorted(unknown))}")
    return page(cases, {chapter: listed[chapter]["title"] for chapter in CHAPTERS})


def main(arguments: list[str]) -> int:
    """Write the page, or check it; the exit status."""
    text = make()
    if arguments == ["--check"]:
        return int(not PAGE.exists() or PAGE.read_text() != text)
    PAGE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The pages about the project itself: the glossary, the promises, the decisions."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.docs.pages import ROOT, code_spans, name, tables

GLOSSARY = ROOT / "docs" / "concepts" / "glossary.md"
SPECIFICATION = ROOT / "SPECIFICATION.md"
DECISIONS = sorted((ROOT / "docs" / "adr").glob("*.md"))
WORDS = """
Sandbox Runtime Image Execution Result Function Job Task Workspace Tenant Policy Quota Budget Node Flow Guest Host
Harness Channel Base Input Output Limit Status Reason Event Engine Spec Plan Step Launcher Keeper Init Layer Tier
Approximate
"""


def test_the_glossary_has_every_word_once() -> None:
    terms = re.findall(r"^- \*\*([^*]+)\*\*:", GLOSSARY.read_text(), re.MULTILINE)
    assert len(terms) == len(set(terms))
    assert {*WORDS.split(), "API key"} <= set(terms)


def promises() -> list[list[str]]:
    return [row for table in tables(SPECIFICATION) if table[0][0] == "promise" for row in table[1:]]


@pytest.mark.parametrize("row", promises(), ids=lambda row: row[0][:60])
def test_a_promise_names_its_number_and_its_proof(row: list[str]) -> None:
    promise, number, proof = row
    assert promise
    assert number
    places = [span for span in code_spans(proof) if "/" in span]
    assert places or re.fullmatch(r"\*pending\*: \w.*", proof), "what is it waiting for?"
    for place in places:
        path, _, test = place.partition("::")
        assert (ROOT / path).exists(), path
        assert not test or re.search(rf"def {re.escape(test)}\(", (ROOT / path).read_text()), test


def test_decisions_are_numbered_and_say_what_was_decided() -> None:
    numbers = [path.name[:4] for path in DECISIONS]
    assert numbers == [f"{number:04}" for number in range(1, len(numbers) + 1)]


@pytest.mark.parametrize("path", DECISIONS, ids=name)
def test_a_decision_has_its_parts(path: Path) -> None:
    text = path.read_text()
    assert text.startswith(f"# {int(path.name[:4])}. ")
    for part in ("\nStatus: ", "\n## Context\n", "\n## Decision\n"):
        assert part in text, part


def test_the_changelog_has_a_place_for_what_comes() -> None:
    assert "\n## Unreleased\n" in (ROOT / "CHANGELOG.md").read_text()

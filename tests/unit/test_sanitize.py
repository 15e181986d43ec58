"""Sanitised code: what changes, that it is told, that lines keep their numbers, and that once is enough."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate import limits
from casemate.executions.sanitize import (
    CARRIAGE_RETURN_ENDS_LINE,
    STRICT_GUARD,
    Change,
    ChangeKind,
    as_document,
    sanitize,
)

LANGUAGES = ["python", "javascript", "node", "r", "bash"]
ODD = "\r\n\v\f\x00\x1b\x85\u2028\u2029\ufeff\u200b\u200c\u200d\u202e\u2066\u00ad#!ab1$ '\"/*"
TEXTS = st.text(st.one_of(st.sampled_from(ODD), st.characters(exclude_categories=["Cs"])), max_size=60)


def what(code: str, language: str = "python") -> list[tuple[str, int, str]]:
    return [(each.kind.value, each.line, each.what) for each in sanitize(code, language).changes]


@pytest.mark.parametrize(
    ("code", "clean", "name"),
    [
        ("\ufeffx = 1", "x = 1", "byte order mark U+FEFF"),
        ("x = '\x00'", "x = ''", "control character U+0000"),
        ("x = '\x1b[2J'", "x = '[2J'", "control character U+001B"),
        ("if admin: # \u202e } \u2066", "if admin: #  } ", "bidirectional control U+202E"),
        ("us\u200ber = 1", "user = 1", "invisible character U+200B"),
        ("us\u200der = 1", "user = 1", "invisible character U+200D"),
    ],
)
def test_s1_16_what_is_unsafe_is_removed_and_reported(code: str, clean: str, name: str) -> None:
    cleaned = sanitize(code, "python")
    assert cleaned.code == clean
    assert cleaned.changes[0] == Change(kind=ChangeKind.REMOVED, line=1, what=name)


@pytest.mark.parametrize(
    ("code", "clean", "name"),
    [
        ("a\r\nb", "a\nb", "CR LF to LF"),
        ("a # \rb", "a # \nb", "CR to LF"),
        ("# a\u2028b", "# a b", "invisible character U+2028 to a blank"),
    ],
)
def test_s1_17_what_is_risky_is_transformed_and_reported(code: str, clean: str, name: str) -> None:
    cleaned = sanitize(code, "python")
    assert (cleaned.code, what(code)) == (clean, [("transformed", 1, name)])
    assert as_document(cleaned.changes) == [{"kind": "transformed", "line": 1, "what": name}]


@pytest.mark.parametrize(
    ("code", "clean", "line"),
    [
        ("let x = 1\n", '"use strict";let x = 1\n', 1),
        ("#!/usr/bin/env node\nx = 1", '#!/usr/bin/env node\n"use strict";x = 1', 2),
    ],
)
def test_s1_18_a_guard_is_injected_and_reported(code: str, clean: str, line: int) -> None:
    assert sanitize(code, "javascript").code == clean
    assert what(code, "javascript") == [("injected", line, STRICT_GUARD)]


@pytest.mark.parametrize("code", ["'use strict'; x", '// a\n/* b\n*/ "use strict"\nx', "#!only a first line"])
def test_a_guard_that_is_there_is_not_injected_again(code: str) -> None:
    assert sanitize(code, "node").code == code


@pytest.mark.parametrize(
    "code", ["#!/bin/sh\necho 👨\u200d👩\u200d👧", "echo \u0645\u06cc\u200c\u062e\u0648", "\tx = 'é 中 \u00a0'\f"]
)
def test_what_people_write_stays(code: str) -> None:
    assert what(code, "bash") == []


@given(TEXTS, st.sampled_from(LANGUAGES))
def test_a_second_time_nothing_changes(code: str, language: str) -> None:
    once = sanitize(code, language)
    assert sanitize(once.code, language).code == once.code
    assert sanitize(once.code, language).changes == ()


@given(TEXTS, st.sampled_from(LANGUAGES))
def test_every_change_is_reported_and_no_line_moves(code: str, language: str) -> None:
    cleaned = sanitize(code, language)
    assert (cleaned.code == code) == (cleaned.changes == ())
    assert cleaned.changes_total == len(cleaned.changes)
    ends = "\r\n?|\n" if language in CARRIAGE_RETURN_ENDS_LINE else "\n"
    lines = len(re.findall(ends, code)) + 1
    assert cleaned.code.count("\n") + 1 == lines
    assert all(1 <= each.line <= lines for each in cleaned.changes)


def test_of_many_changes_the_first_are_told_and_all_are_counted() -> None:
    cleaned = sanitize("\x00" * (limits.CHANGES_MAX + 5), "python")
    assert (len(cleaned.changes), cleaned.changes_total) == (limits.CHANGES_MAX, limits.CHANGES_MAX + 5)

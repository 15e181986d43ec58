"""Forbidden patterns: what they find, what they do not, and that hostile code cannot make the search slow."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate import service_limits as limits
from casemate.errors import InvalidInput
from casemate.executions.patterns import SHIPPED, check_forbidden, find_forbidden, patterns_for
from casemate.executions.validate import ProblemKind, find_problems, validation
from casemate.model.syntax import SyntaxReport


def messages(code: str, language: str = "javascript") -> list[str]:
    return [each.message for each in find_forbidden(code, SHIPPED[language])]


@pytest.mark.parametrize("code", ["const fs = require('fs')", "require ('fs')", "require\n('fs')"])
def test_s1_27_loading_a_module_is_refused(code: str) -> None:
    assert messages(code) == ["Forbidden pattern: require("]


@pytest.mark.parametrize("code", ["import fs from 'fs'", "let a;\nimport\tfs from 'fs'"])
def test_s1_28_importing_is_refused(code: str) -> None:
    assert messages(code) == ["Forbidden pattern: import "]


def test_s1_29_the_process_is_refused() -> None:
    assert messages("process.exit()") == ["Forbidden pattern: process."]


def test_s1_30_child_processes_are_refused() -> None:
    assert messages("x('child_process')") == ["Forbidden pattern: child_process"]


def test_s1_31_the_directory_is_refused() -> None:
    assert messages("return __dirname") == ["Forbidden pattern: __dirname"]


def test_s1_32_eval_is_refused() -> None:
    assert messages("eval('1')") == ["Forbidden pattern: eval("]


def test_s1_33_the_constructor_of_functions_is_refused() -> None:
    assert messages("new Function('return 1')()") == ["Forbidden pattern: Function("]


@pytest.mark.parametrize("name", ["setTimeout", "setInterval"])
def test_s1_34_timers_are_refused(name: str) -> None:
    assert messages(f"{name}(() => 1, 5)") == [f"Forbidden pattern: {name}"]


@pytest.mark.parametrize(
    "code", ["acquire(1)", "important = 1", "processes.length", "my_eval(1)", "$eval(1)", "Functions()"]
)
def test_words_are_whole(code: str) -> None:
    assert messages(code) == []


def test_s1_14_the_list_is_configurable_and_off_by_default() -> None:
    assert patterns_for("javascript", wanted=False) == ()
    assert patterns_for("javascript", wanted=True) == SHIPPED["javascript"]
    assert patterns_for("cobol", wanted=True) == ()
    assert patterns_for("javascript", ["danger zone"]) == ("danger zone",)
    assert [each.message for each in find_forbidden("the danger\n  zone", ["danger zone"])] == [
        "Forbidden pattern: danger zone"
    ]


def test_each_is_named_once_with_its_place_in_the_order_of_the_code() -> None:
    found = find_forbidden("x\n  eval(1); eval(2)\nrequire('a')", ["require(", "eval("])
    assert [(each.pattern, each.line, each.column) for each in found] == [("eval(", 2, 3), ("require(", 3, 1)]


@pytest.mark.parametrize(
    ("language", "code"),
    [("python", "import  os"), ("python", "x = eval (y)"), ("r", "system('ls')"), ("bash", "eval $x")],
)
def test_every_language_has_a_list(language: str, code: str) -> None:
    assert len(messages(code, language)) == 1


@pytest.mark.parametrize(
    "wrong", ["eval(", [""], [" "], [3], ["x" * 501], ["a\nb"], ["x"] * (limits.SERVICE_PATTERNS_MAX + 1)]
)
def test_what_is_no_list_of_patterns_is_refused(wrong: list[str]) -> None:
    with pytest.raises(InvalidInput, match="patterns"):
        check_forbidden(wrong)


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20), st.text(), st.text())
def test_a_pattern_finds_itself_where_no_word_goes_on(pattern: str, before: str, after: str) -> None:
    if not pattern.strip() or not pattern.isprintable():
        return
    assert find_forbidden(f"{before}\n{pattern}\n{after}", [pattern])


@pytest.mark.parametrize("piece", ["require ", "require" + " " * 1000, "import\n", "eval\t\t", "((((", "a b "])
def test_hostile_code_is_searched_in_linear_time(piece: str) -> None:
    code = (piece * limits.CODE_MAX_BYTES)[: limits.CODE_MAX_BYTES]
    started_s = time.process_time()
    find_forbidden(code, [*SHIPPED["javascript"], "a b c", "require ( x"])
    assert time.process_time() - started_s < 3


def test_s1_15_code_that_is_too_large_is_refused() -> None:
    assert find_problems("x" * 10, max_bytes=10) == ()
    (problem,) = find_problems("x" * 11, max_bytes=10)
    assert (problem.kind, problem.message) == (ProblemKind.SIZE, "Code exceeds size limit")
    assert find_problems("é" * 6, max_bytes=10)


def test_s1_35_a_validation_has_the_first_error_and_all() -> None:
    assert validation([]).valid
    assert validation([], SyntaxReport(valid=True)).error is None
    found = validation(find_problems("eval(", ["eval("]), SyntaxReport(valid=False, message="odd", line=1))
    assert (found.valid, found.error) == (False, "Forbidden pattern: eval(")
    assert [each.kind for each in found.errors] == [ProblemKind.PATTERN, ProblemKind.SYNTAX]


def test_s1_36_the_text_of_a_syntax_error_has_its_prefix() -> None:
    assert validation([], SyntaxReport(valid=False, message="odd")).error == "Syntax error: odd"

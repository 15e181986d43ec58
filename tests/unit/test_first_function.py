"""The first named function of a program in JavaScript: what its harnesses find in the text."""

from __future__ import annotations

import json
import subprocess

import pytest
from tests.unit.guests import interpreter

from casemate.runtimes.bytecode import GUEST_FILES

FIND = """
const { firstFunction } = require(process.argv[1]);
console.log(JSON.stringify(JSON.parse(require('fs').readFileSync(0, 'utf8')).map(firstFunction)));
"""

CASES = [
    ("function plain() { return 1 }", "plain"),
    ("function plain(a, b) {}", "plain"),
    ("  \n function   spaced  (a) {}", "spaced"),
    ("async function later() {}", "later"),
    ("async  function\n later() {}", "later"),
    ("function* steps() { yield 1 }", "steps"),
    ("function *steps() {}", "steps"),
    ("async function* steps() {}", "steps"),
    ("const expressed = function () {}", "expressed"),
    ("const expressed = function inner() {}", "expressed"),
    ("let expressed = async function () {}", "expressed"),
    ("var expressed = function* () {}", "expressed"),
    ("const arrow = () => 1", "arrow"),
    ("const arrow = (a, b = [1, (2)], { c }) => { return c }", "arrow"),
    ("const arrow = each => each", "arrow"),
    ("const arrow = async () => {}", "arrow"),
    ("const arrow = async each => each", "arrow"),
    ("const arrow = async => async", "arrow"),
    ("let one = 1, arrow = () => one", "arrow"),
    ("assigned = () => 1", "assigned"),
    ("const $ = () => 1", "$"),
    ("function _private$1() {}", "_private$1"),
    ("function größe() {}", "größe"),
    ("// function not() {}\nfunction real() {}", "real"),
    ("/* function not() {} */ function real() {}", "real"),
    ("/* /* function not() {} */ function real() {}", "real"),
    ("function /* named */ real /* so */ () {}", "real"),
    ("const text = 'function not() {}'; function real() {}", "real"),
    ("const text = `function not() {} ${(() => `function not2() {}`)()} `; function real() {}", "real"),
    ("const pattern = /function not() {} [/`'\"]/g; function real() {}", "real"),
    ("const half = 4 / 2; const other = '/'; function real() {}", "real"),
    ("const settings = { not() {}, also: function not2() {} }; function real() {}", "real"),
    ("class Not { not2() {} }\nfunction real() {}", "real"),
    ("#!/usr/bin/env node\nfunction real() {}", "real"),
    ("export default function real() {}", "real"),
    ("export const real = () => 1", "real"),
    ("let a = 1\nfunction real() {}", "real"),
    ("if (true) { function not() {} }", None),
    ("(function not() {})()", None),
    ("(() => 1)()", None),
    ("!function not() {}()", None),
    ("void async function not() {}()", None),
    ("module.exports = function not() {}", None),
    ("function () {}", None),
    ("const not = 1; const alike = not", None),
    ("// function not() {}", None),
    ("'function not() {}", None),
    ("`function not() {}", None),
    ("", None),
]


def first_functions(sources: list[str]) -> list[str | None]:
    words = [interpreter("node"), "-e", FIND, str(GUEST_FILES / "functions.js")]
    ended = subprocess.run(words, input=json.dumps(sources), check=True, capture_output=True, text=True)
    found: list[str | None] = json.loads(ended.stdout)
    return found


def test_a1_28_the_first_named_function_is_found() -> None:
    found = first_functions([source for source, _ in CASES])
    assert list(zip([source for source, _ in CASES], found, strict=True)) == CASES


@pytest.mark.parametrize("piece", ["/", "`${", "(", "/*", "'", "a=>", "=", "}", "/[", "async ", "=/("])
def test_hostile_sources_have_an_answer(piece: str) -> None:
    assert first_functions([piece * 200_000, f"{piece * 50}\nfunction real() {{}}"])[0] in {None, "a"}

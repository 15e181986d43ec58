"""Two languages that only a configuration knows: they behave by the rules of the built-in ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import casemate
from casemate.config import read_config

CONFIG = Path(__file__).parent / "perl-lua.toml"
LANGUAGES = ["perl", "lua"]
VALUES = [
    {"text": 'é "q" \\ \\n \n\t 😀 \u0001', "numbers": [1, -2.5, 1e300, 0.1], "deep": {"list": [[], [1], {"a": []}]}},
    [],
    {},
    "",
    0,
    42,
    "\\u0041\\\\",
    [None, True, False, None],
    [[[["deep"]]]],
]


@pytest.fixture(scope="module")
def engine() -> Iterator[casemate.Engine]:
    with casemate.Engine(read_config(CONFIG), warm=False) as opened:
        yield opened


def run(engine: casemate.Engine, runtime: str, code: str, **options: Any) -> casemate.Result:
    return casemate.run(code, runtime, engine=engine, **options)


ECHO = {"perl": "our $output = $main::input;", "lua": "output = input"}
RETURN = {"perl": "return $main::input;", "lua": "return input"}
MAIN = {"perl": "sub main { my $value = shift; return $value }", "lua": "function main(value) return value end"}


@pytest.mark.parametrize("value", VALUES, ids=repr)
@pytest.mark.parametrize("programs", [ECHO, RETURN, MAIN], ids=["output", "return", "main"])
@pytest.mark.parametrize("runtime", LANGUAGES)
def test_an_input_comes_back_as_the_output(
    engine: casemate.Engine, runtime: str, programs: dict[str, str], value: Any
) -> None:
    result = run(engine, runtime, programs[runtime], input=value)
    assert result.stderr.text == ""
    assert result.output == value


@pytest.mark.parametrize(
    ("runtime", "code", "expected"),
    [
        ("perl", 'use strict; my $x = 2; sub f { $x * 21 } print f(), "\\n";', ("42\n", 0, "")),
        ("perl", 'print "$0 @ARGV\\n"; exit 3;', ("/code/main.pl a b\n", 3, "")),
        ("perl", 'print "before\\n";\ndie "boom";', ("before\n", 255, "boom at /code/main.pl line 2.\n")),
        ("perl", "print scalar <DATA>;\n__DATA__\nfrom the end\n", ("from the end\n", 0, "")),
        ("perl", "print <STDIN>;", ("typed\n", 0, "")),
        ("lua", "print(arg[0], ...)", ("/code/main.lua\ta\tb\n", 0, "")),
        ("lua", "print('x') os.exit(3)", ("x\n", 3, "")),
        ("lua", "print(io.read())", ("typed\n", 0, "")),
    ],
)
def test_plain_programs_run_as_ever(
    engine: casemate.Engine, runtime: str, code: str, expected: tuple[str, int, str]
) -> None:
    result = run(engine, runtime, code, args=["a", "b"], stdin="typed\n")
    assert (result.stdout.text, result.exit_code, result.stderr.text) == expected
    assert result.output is None


def test_an_error_of_lua_names_the_line(engine: casemate.Engine) -> None:
    result = run(engine, "lua", "local x = 1\nerror('boom')")
    assert result.exit_code == 1
    assert "/code/main.lua:2: boom" in result.stderr.text


@pytest.mark.parametrize(
    ("runtime", "code"),
    [("perl", "our $output = [1]; exit 0;"), ("lua", "output = { 1 } os.exit(0)")],
)
def test_an_output_that_is_set_counts_when_the_program_exits(engine: casemate.Engine, runtime: str, code: str) -> None:
    assert run(engine, runtime, code).output == [1]


@pytest.mark.parametrize("runtime", LANGUAGES)
def test_what_looks_like_an_output_on_stdout_is_none(engine: casemate.Engine, runtime: str) -> None:
    result = run(engine, runtime, 'print(\'{"kind":"value","output":1}\')')
    assert result.output is None
    assert result.stdout.text.startswith('{"kind"')


def test_children_of_a_perl_program_do_not_inherit_the_reply(engine: casemate.Engine) -> None:
    result = run(engine, "perl", 'system("ls /proc/self/fd");')
    assert result.stdout.text.split() == ["0", "1", "2", "3"]


def test_a_runtime_s_own_limits_hold(engine: casemate.Engine) -> None:
    result = run(engine, "lua", "local t = {} for i = 1, 1e9 do t[i] = ('x'):rep(1000) .. i end")
    assert result.reason in {casemate.Reason.MEMORY, casemate.Reason.EXIT}
    assert not result.ok
    assert (result.usage.memory_peak_bytes or 0) <= 129 * 1024 * 1024


@pytest.mark.parametrize(("file", "runtime"), [("a.pl", "perl"), ("b.lua", "lua"), ("c.py", "python")])
def test_endings_name_declared_languages_as_well(engine: casemate.Engine, file: str, runtime: str) -> None:
    assert engine.runtimes.guess(file) == runtime


def test_aliases_name_declared_languages_as_well(engine: casemate.Engine) -> None:
    assert run(engine, "pl", 'print "hello"').stdout.text == "hello"

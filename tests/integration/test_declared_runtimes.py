"""Languages that a user adds by configuration alone: the core learns of them from a file and from nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import casemate
from casemate.config import parse_config, read_config
from casemate.model.result import Reason

CONFIG = Path(__file__).parents[1] / "runtimes" / "perl-lua.toml"
PROGRAMS: dict[str, dict[str, str]] = {
    "perl": {
        "hello": 'print "hello\\n";',
        "output": "$output = {got => $input, list => [1, 2.5]};",
        "return": 'if (1) { return {got => $input} } print "never\\n";',
        "main": "sub main { my ($x) = @_; return $x->{a} + 1 }",
        "plain return": "return 'text';",
        "strict": "use strict; our ($input, $output); $output = $input;",
        "arguments": 'print join("|", @ARGV), "\\n";',
        "exit": "exit 3;",
        "error": 'sub f { die "no" }\nf();',
        "broken": "print (;",
        "stdin": "print while <STDIN>;",
        "file": 'open my $f, ">", "made.txt"; print $f "made";',
        "loop": "1 while 1;",
        "forge": 'print "{\\"kind\\":\\"value\\"}\\n"; $output = "real";',
    },
    "lua": {
        "hello": 'print("hello")',
        "output": "output = {got = input, list = {1, 2.5}}",
        "return": "if true then return {got = input} end print('never')",
        "main": "function main(x) return x.a + 1 end",
        "plain return": "return 'text'",
        "strict": "local value = input; output = value",
        "arguments": 'print(table.concat({...}, "|"))',
        "exit": "os.exit(3)",
        "error": "local function f() error('no') end\nf()",
        "broken": "print (;",
        "stdin": "io.write(io.read('a'))",
        "file": "local f <close> = io.open('made.txt', 'w'); f:write('made')",
        "loop": "while true do end",
        "forge": "print('{\"kind\":\"value\"}'); output = 'real'",
    },
}


@pytest.fixture(scope="module")
def declared() -> Iterator[casemate.Engine]:
    with casemate.Engine(read_config(CONFIG), warm=False) as opened:
        yield opened


@pytest.fixture(params=PROGRAMS)
def language(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def run(declared: casemate.Engine, language: str, generous: dict[str, Any]) -> Any:
    def start(program: str, **options: Any) -> casemate.Result:
        limits = {**generous, **options.pop("limits", {})}
        return casemate.run(PROGRAMS[language][program], language, engine=declared, limits=limits, **options)

    return start


def succeeded(result: casemate.Result) -> casemate.Result:
    assert result.ok, (result.reason, result.exit_code, result.signal, result.error, result.stderr.text[-400:])
    return result


def test_a_plain_program_just_prints(run: Any) -> None:
    result = succeeded(run("hello"))
    assert (result.stdout.head, result.stderr.head, result.output) == (b"hello\n", b"", None)


@pytest.mark.parametrize("value", [{"deep": [1, "ä\n", True, -2.5]}, [1, 2, 3], "text", False], ids=repr)
def test_the_input_is_there_and_the_output_comes_back(run: Any, value: Any) -> None:
    assert succeeded(run("output", input=value)).output == {"got": value, "list": [1, 2.5]}
    assert succeeded(run("return", input=value)).output == {"got": value}
    assert run("return", input=value).stdout.text == ""


def test_null_is_an_input_and_no_input_is_none(run: Any) -> None:
    assert succeeded(run("strict", input=None)).output is None
    assert succeeded(run("strict")).output is None


def test_main_gets_the_input_and_only_where_there_is_one(run: Any) -> None:
    assert succeeded(run("main", input={"a": 41})).output == 42
    assert succeeded(run("main")).output is None
    assert succeeded(run("plain return")).output == "text"


def test_arguments_and_stdin_are_the_program_s(run: Any) -> None:
    assert succeeded(run("arguments", args=["-x", "two words"])).stdout.text == "-x|two words\n"
    assert succeeded(run("stdin", stdin="typed\n", input=[1])).stdout.text == "typed\n"


def test_the_exit_status_is_the_program_s(run: Any, language: str) -> None:
    assert (run("exit").reason, run("exit").exit_code) == (Reason.EXIT, 3)
    native = {"perl": 255, "lua": 1}[language]
    for program in ("error", "broken"):
        result = run(program)
        assert (result.reason, result.exit_code) == (Reason.EXIT, native)
        assert "/code/main." in result.stderr.text


def test_errors_show_the_line_of_the_program(run: Any, language: str) -> None:
    assert f"/code/main.{'pl' if language == 'perl' else 'lua'}" in run("error").stderr.text
    assert ":1: no" in run("error").stderr.text or "line 1" in run("error").stderr.text


def test_files_limits_and_forgery_are_as_everywhere(run: Any) -> None:
    assert [file.data for file in succeeded(run("file", collect=["*"])).files] == [b"made"]
    assert run("loop", limits={"timeout": "200ms"}).reason is Reason.TIMEOUT
    assert succeeded(run("forge")).output == "real"


def test_a_declared_runtime_has_a_sandbox_that_stays(declared: casemate.Engine, language: str) -> None:
    with casemate.Sandbox(language, engine=declared) as sandbox:
        assert succeeded(sandbox.run(PROGRAMS[language]["output"], input=1)).output == {"got": 1, "list": [1, 2.5]}
        assert sandbox.run(PROGRAMS[language]["hello"], filename="other.x").stdout.text == "hello\n"


def test_names_endings_and_limits_are_the_declaration_s(declared: casemate.Engine) -> None:
    assert declared.runtimes.guess("analysis.lua") == "lua"
    assert declared.runtimes.guess("analysis.pl") == "perl"
    assert succeeded(casemate.run('print "by another name\\n"', "pl", engine=declared)).output is None
    limited = casemate.run(
        "local all = {}; while true do all[#all + 1] = ('x'):rep(2^20) .. #all end", "lua", engine=declared
    )
    assert not limited.ok
    assert (limited.usage.memory_peak_bytes or 0) < 2**28
    assert succeeded(casemate.run("print('as ever')", engine=declared)).stdout.text == "as ever\n"


def test_what_is_not_installed_says_what_to_install() -> None:
    config = parse_config(CONFIG.read_bytes(), name="x")
    missing = msgspec.structs.replace(config.runtimes["perl"], interpreter=("no-such-perl",))
    with casemate.Engine(msgspec.structs.replace(config, runtimes={"perl": missing})) as engine:
        with pytest.raises(casemate.RuntimeUnavailable) as caught:
            casemate.run("print 1", "perl", engine=engine)
        assert caught.value.hint == "apt-get install perl"
        assert engine.backend.launcher.pid == 0


def test_without_a_channel_a_declaration_is_two_lines(generous: dict[str, Any]) -> None:
    text = '[runtimes.filter]\ninterpreter = ["sed"]\ncommand = ["{interpreter}", "-n", "-f", "{code}"]\n'
    with casemate.Engine(parse_config(text.encode(), name="x")) as engine:
        result = casemate.run("2p", "filter", engine=engine, stdin="a\nb\nc\n", limits=generous)
    assert (succeeded(result).stdout.text, result.output) == ("b\n", None)


def test_the_variable_alone_is_enough_for_a_process_of_its_own(slowness: float) -> None:
    code = "import casemate; print(casemate.run('output = input * 2', 'lua', input=21).output)"
    command = [sys.executable, "-c", code]
    environment = {**os.environ, "CASEMATE_CONFIG": str(CONFIG)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60 * slowness, check=False)
    assert (done.stdout, done.stderr) == ("42\n", "")


def test_an_engine_refuses_a_configuration_that_is_wrong() -> None:
    with pytest.raises(casemate.ConfigError, match=r"limits\.memory"):
        casemate.Engine(casemate.Config(limits={"memory": "much"}))
    nothing = casemate.Runtime(interpreter=("sh",), command=())
    with pytest.raises(casemate.ConfigError, match=r"runtimes\.x\.command"):
        casemate.Engine(casemate.Config(runtimes={"x": nothing}))


# A session of a language that only a configuration knows --------------------------------------------

CALCULATOR = r"""
use JSON::PP;
$| = 1;
our %names;
sub get { my $count = shift; my $data = ""; while (length $data < $count) {
    sysread(FROM, $data, $count - length $data, length $data) or exit 0 } $data }
sub tell_all { my $body = encode_json(shift); syswrite(TO, pack("N", length $body) . $body) }
open FROM, "<&=", 3; open TO, ">&=", 4;
syswrite(TO, pack("N", 0));
while (1) {
    my $request = decode_json(get(unpack("N", get(4))));
    my $id = $request->{id};
    tell_all({kind => "taken", id => $id});
    local $SIG{INT} = sub { die "interrupted\n" };
    my $value = eval $request->{code};
    my $why = $@;
    my $display = {kind => "result", text => "$value"};
    tell_all({kind => "display", id => $id, display => $display}) if !$why && defined $value;
    my $error = {type => "Died", message => $why, traceback => ""};
    my $reply = $why ? {kind => "exception", error => $error} : {kind => "none"};
    tell_all({kind => "done", id => $id, exit_code => $why ? 1 : 0, reply => $reply});
}
"""


def test_a_session_needs_nothing_but_its_declaration() -> None:
    declared = casemate.Runtime(
        interpreter=("perl",),
        command=("{interpreter}", "{code}"),
        session=("{interpreter}", "{harness}"),
        harness=CALCULATOR,
    )
    with (
        casemate.Engine(casemate.Config(runtimes={"calculator": declared}), warm=False) as engine,
        casemate.Sandbox("calculator", stateful=True, engine=engine) as session,
    ):
        assert session.run("our $kept = 40; undef").displays == ()
        assert session.run("$kept + 2").displays[0].text == "42"
        assert session.run("1 while 1", limits={"timeout": "200ms"}).reason is Reason.TIMEOUT
        failed = session.run("die 'no'")
        assert (failed.reason, failed.error is not None) == (Reason.EXCEPTION, True)
        assert session.run("$kept").displays[0].text == "40"

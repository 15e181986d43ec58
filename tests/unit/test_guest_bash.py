"""The harness of bash: programs behave as under `bash FILE`, and their output arrives."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from tests.unit.guests import ENVIRONMENT, NO_INPUT, Ended, interpreter, json_values, run

from casemate.model.values import parse_text_output

SETTINGS = [f"{name}={text}" for name, text in ENVIRONMENT.items()]
PROGRAMS = {
    "its name and arguments": 'echo "$0" $# "$@" "${BASH_SOURCE[@]}" "$_" $- $SHLVL ${FUNCNAME[@]}',
    "nothing of ours in its world": "env | sort | grep -v ^_=; echo ${input-none} ${REPLY-none}; trap",
    "an exit status": "(exit 5)",
    "an exit": "echo a; exit 3; echo b",
    "a command that fails": "false; echo $?",
    "errors end it": "set -e; echo a; false; echo b",
    "unset names end it": "set -u; echo a; echo $surely_unset; echo b",
    "an unknown command": "echo a\nsurely-not-there",
    "a mistake in the text": "echo a\nif true; then\necho b",
    "a return at the top": "return 5; echo after",
    "it is not sourced": "if (return 0 2> /dev/null); then echo sourced; else echo main; fi",
    "an exit trap": "trap 'echo bye $?' EXIT; echo a; exit 7",
    "an exit trap that exits": "trap 'exit 9' EXIT; exit 2",
    "an exit trap after an error": "set -e; trap 'echo bye $? $LINENO' EXIT; false",
    "traps are listed": "trap 'echo a' EXIT INT; trap; trap -p EXIT; trap - EXIT; trap -p; trap -- '' TERM; trap",
    "traps are told in subshells": "trap; echo $(trap -p); trap 'echo a' EXIT INT; (trap -p); echo $(trap)",
    "debug and return traps": "f() { :; }; trap 'echo r' RETURN; declare -ft f; f; trap 'echo d' DEBUG; f",
    "traps that cannot be": "trap 'x' SURELYNOT 2> /dev/null; echo $?",
    "traps of subshells": "(trap 'echo inner' EXIT; echo in); trap 'echo outer' EXIT; (echo again)",
    "signals": "trap 'echo got it' USR1; kill -USR1 $$; echo after; kill -TERM $$",
    "an error trap": "trap 'echo failed $LINENO' ERR; false; true",
    "tracing": "set -x; echo a; trap 'echo t' EXIT; b=1",
    "pipes and descriptors": "ls /proc/self/fd | cat; echo x 3> /dev/null; exec 3< /etc/hostname 4>&1; echo four >&4",
    "becoming another program": "exec echo gone",
    "standard input": "read -r line; echo \"$line\"; cat",
    "a file of options": "set -euo pipefail; shopt -s extglob nullglob; IFS=; echo $(printf 'a b')",
    "functions that are named like ours": "printf() { echo mine; }; printf x; set() { echo set; }; set y; cat() { :; }",
    "jobs": "sleep 0 & wait; echo $?",
}  # fmt: skip


@pytest.fixture
def bash(tmp_path: Path) -> Any:
    def start(code: str, value: Any = NO_INPUT, **more: Any) -> Ended:
        return run("bash", code, value, cwd=tmp_path, **more)

    return start


MENTIONING = {name: f"{code}\n# output" for name, code in PROGRAMS.items() if name != "debug and return traps"}
"""The same when the harness has to wait for an output. DEBUG and RETURN traps then tell of its function `trap`, too."""


@pytest.mark.parametrize("code", [*PROGRAMS.values(), *MENTIONING.values()], ids=[*PROGRAMS, *MENTIONING])
def test_programs_run_as_ever(bash: Any, tmp_path: Path, code: str) -> None:
    ended = bash(code, args=("a", "b c"), stdin="one\ntwo\n")
    native = subprocess.run(
        ["env", "-i", *SETTINGS, interpreter("bash"), str(tmp_path / "main.sh"), "a", "b c"],
        cwd=tmp_path,
        input="one\ntwo\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.exit_code, ended.stdout, ended.stderr) == (native.returncode, native.stdout, native.stderr)
    assert ended.reply == b""


@pytest.mark.parametrize(
    ("code", "output"),
    [
        ("output='{\"a\": [1, 2]}'", {"a": [1, 2]}),
        ("output=text", "text"),
        ("output=5; exit 3", 5),
        ("output=' [1]\n'", [1]),
        ("output=", None),
        ("output=1; unset output", None),
        ("trap 'output=9' EXIT", 9),
        ("output=1; trap 'echo x' EXIT; trap - EXIT", 1),
        ("set -eu; output=2; false", 2),
        ("set -x; output=3", 3),
        ("readonly output=4", 4),
        ("declare -A output=([x]=1)", None),
        ("output=(first second)", "first"),
        ("(output=inner); output=${output-none}", "none"),
        ("output=1; set -o posix", 1),
        ("output=6; PATH=; IFS=; LC_ALL=C", 6),
        ("output=7; printf() { :; }; trap() { :; }", 7),
    ],
)
def test_the_output_is_what_the_variable_holds_at_the_end(bash: Any, code: str, output: Any) -> None:
    assert parse_text_output(bash(code).reply) == output


def test_who_ends_at_once_has_no_output(bash: Any) -> None:
    assert bash("output=1; kill -9 $$").reply == b""
    assert bash("output=1; exec true").reply == b""


@pytest.mark.slow
@settings(max_examples=25)
@given(json_values())
def test_any_json_value_comes_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    ended = run("bash", "output=$input", value, cwd=tmp_path_factory.getbasetemp())
    assert json.loads(ended.reply) == value


def test_ten_mebibytes_go_both_ways(bash: Any) -> None:
    text = "é" * (5 * 1024 * 1024 - 100)
    assert json.loads(bash("output=$input", text).reply) == text


def test_the_channel_is_inherited_by_nobody(bash: Any) -> None:
    ended = bash("ls /proc/self/fd; (ls /proc/self/fd); echo $(ls /proc/self/fd); output=1", 1)
    assert [int(word) for word in ended.stdout.split()] == [0, 1, 2, 3] * 3
    assert ended.reply == b"1"


def test_a_program_that_closes_the_channel_ends_as_ever(bash: Any) -> None:
    ended = bash("output=1; exec 63>&-; exit 7")
    assert (ended.exit_code, ended.stderr, ended.reply) == (7, "", b"")


def test_bash_programs_below_it_are_ordinary_ones(bash: Any) -> None:
    ended = bash("bash -c 'output=2; trap; echo ${input-none}'; output=$input", 1)
    assert (ended.stdout, ended.reply) == ("none\n", b"1")

"""The command line as people use it: real processes, real pipes, real terminals."""

from __future__ import annotations

import base64
import errno
import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import casemate
from casemate.cli.commands import COMMANDS
from casemate.kernel.processes import process_tree

PROGRAM = (sys.executable, "-m", "casemate")
LIMIT_S = 30
Result = subprocess.CompletedProcess[bytes]
Cli = Callable[..., Result]


@pytest.fixture
def cli(slowness: float, tmp_path: Path) -> Cli:
    """Run a command line in a directory of its own and wait for it."""

    def run(*words: str, **options: Any) -> Result:
        environment = {**os.environ, **options.pop("env", {})}
        options = {"stdin": subprocess.DEVNULL, **options} if "input" not in options else options
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        options = {"cwd": tmp_path, "env": environment, "timeout": LIMIT_S * slowness, **options}
        return subprocess.run([*PROGRAM, *words], check=False, **options)

    return run


@pytest.fixture
def started(slowness: float) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start a command line and leave it running; the end of the test is its end."""
    running: list[subprocess.Popen[bytes]] = []

    def start(*words: str, **options: Any) -> subprocess.Popen[bytes]:
        options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        running.append(subprocess.Popen([*PROGRAM, *words], **options))
        return running[-1]

    yield start
    for process in running:
        process.kill()
        process.wait(LIMIT_S * slowness)
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()


def python(code: str, *words: str) -> tuple[str, ...]:
    return ("run", "-c", code, *words)


def ended(result: Result) -> tuple[int, str, str]:
    return result.returncode, result.stdout.decode(), result.stderr.decode()


def living(pid: int) -> list[int]:
    """Descriptors of all processes below this one, for their end to be waited for."""
    found = []
    for child in process_tree(pid)[1:]:
        with suppress(ProcessLookupError):
            found.append(os.pidfd_open(child))
    return found


def wait_for_ends(pidfds: list[int], limit_s: float) -> None:
    """Until every one of these processes has ended; closes the descriptors."""
    deadline_s = time.monotonic() + limit_s
    for pidfd in pidfds:
        ready, _, _ = select.select([pidfd], [], [], max(0, deadline_s - time.monotonic()))
        os.close(pidfd)
        assert ready, "a process of the sandbox is still there"


# Output, status, input ----------------------------------------------------------------------------


def test_a_program_s_streams_and_status_are_the_command_s(cli: Cli) -> None:
    code = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"
    assert ended(cli(*python(code))) == (3, "out\n", "err\n")


def test_output_is_passed_on_byte_for_byte(cli: Cli) -> None:
    data = bytes(range(256)) * 4096
    result = cli("exec", "--", "cat", input=data)
    assert (result.returncode, result.stdout, result.stderr) == (0, data, b"")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "status"),
    [("exit 0", 0), ("exit 255", 255), ("kill -SEGV $$", 139), ("kill -TERM $$", 143), ("exit 124", 124)],
)
def test_the_exit_status_is_the_program_s(cli: Cli, command: str, status: int) -> None:
    words = {139: "casemate: ended by signal 11 (SIGSEGV)\n", 143: "casemate: ended by signal 15 (SIGTERM)\n"}
    assert ended(cli("exec", "--", "sh", "-c", command)) == (status, "", words.get(status, ""))


@pytest.mark.slow
def test_what_cannot_be_executed_ends_as_in_a_shell(cli: Cli, tmp_path: Path) -> None:
    words = "there is no program 'nothing-here' in the sandbox; it finds programs of /usr; a file that was put in is"
    assert ended(cli("exec", "nothing-here")) == (127, "", f"casemate: {words} ./nothing-here\n")
    for command, remedy in (("cd", "sh -c 'cd …'"), ("ls -l", "words of their own"), ("./x", "that were put in")):
        status, _, line = ended(cli("exec", "--", command))
        assert (status, remedy in line) == (127, True)
    (tmp_path / "data").write_text("no program")
    status, _, words = ended(cli("exec", "--file", "data", "/work/data"))
    assert (status, words) == (
        126,
        (
            "casemate: the program '/work/data' may not be executed; "
            "make it executable (chmod +x), or name the program that runs it\n"
        ),
    )


@pytest.mark.slow
def test_code_comes_from_a_file_an_option_or_stdin(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "hello.py").write_bytes(b"\xef\xbb\xbfprint('from a file', __file__)\n")
    assert ended(cli("run", "hello.py")) == (0, "from a file /work/hello.py\n", "")
    assert ended(cli("run", "-c", "print('from an option')")) == (0, "from an option\n", "")
    assert ended(cli("run", "-", input=b"print('from stdin')")) == (0, "from stdin\n", "")
    assert ended(cli("run", "-", input=b"#!/bin/bash\necho by its first line\n")) == (0, "by its first line\n", "")
    assert ended(cli("run", "-", "--runtime", "bash", input=b"echo $0 $#")) == (0, "/code/main.sh 0\n", "")


@pytest.mark.slow
def test_the_language_is_that_of_the_file(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "a.js").write_text("console.log(typeof require)")
    (tmp_path / "script").write_text("#!/usr/bin/env bash\necho $BASH_VERSION | cut -c1")
    (tmp_path / "notes").write_text("hello")
    assert ended(cli("run", "a.js"))[:2] == (0, "function\n")
    assert ended(cli("run", "script"))[0] == 0
    status, out, words = ended(cli("run", "notes"))
    assert (status, out) == (125, "")
    assert words.startswith("casemate: invalid_input: runtime: cannot tell the language of 'notes'\nhint: --runtime ")
    (tmp_path / "tool").write_text("#!/usr/bin/perl -w\n")
    assert (
        "runtime: no runtime is that of 'perl', which 'tool' names in its first line\n" in ended(cli("run", "tool"))[2]
    )


@pytest.mark.slow
def test_our_stdin_is_left_unread_by_a_program_in_an_isolate(cli: Cli) -> None:
    words = ("run", "--runtime", "javascript", "--timeout", "30s", "-c", "console.log(typeof input)")
    reading, writing = os.pipe()
    os.write(writing, b"hi")
    try:
        assert ended(cli(*words, stdin=reading)) == (0, "undefined\n", "")
        assert os.read(reading, 9) == b"hi"
    finally:
        os.close(reading)
        os.close(writing)


@pytest.mark.slow
def test_stdin_goes_to_the_program_unless_it_was_the_code(cli: Cli) -> None:
    code = "import sys; print(sys.stdin.buffer.read())"
    assert ended(cli(*python(code), input=b"a\xffb"))[1] == "b'a\\xffb'\n"
    assert ended(cli("run", "-", input=code.encode()))[1] == "b''\n"
    assert ended(cli(*python(code), preexec_fn=lambda: os.close(0)))[1] == "b''\n"
    assert ended(cli(*python("print(input)"), "--input", "-", input=b"[1]"))[1] == "[1]\n"


@pytest.mark.slow
def test_input_and_output_are_json(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "in.json").write_text('{"n": 2}')
    assert ended(cli(*python("output = {**input, 'ä': None}", "--input", '{"n": 1}'))) == (0, '{"n":1,"ä":null}\n', "")
    assert ended(cli(*python("output = input['n'] + 1", "--input", "@in.json"))) == (0, "3\n", "")
    assert ended(cli(*python("import sys; sys.stdout.write('no newline'); output = 1"))) == (0, "no newline\n1\n", "")
    assert ended(cli(*python("output = 12345678901234567890123"))) == (0, "12345678901234567890123\n", "")
    status, out, words = ended(cli(*python("output = {1, 2}; output = object()")))
    assert (status, out) == (1, "")
    assert words.startswith("casemate: the output is no JSON value: ")


@pytest.mark.slow
def test_arguments_and_variables_reach_the_program(cli: Cli) -> None:
    code = "import os, sys; print(sys.argv[1:], os.environ.get('A'), os.environ.get('B'), os.environ.get('SECRET'))"
    words = (*python(code), "--env", "A=1=2", "--env", "B", "--", "--x", "-", "é")
    assert ended(cli(*words, env={"B": "ours", "SECRET": "x"}))[1] == "['--x', '-', 'é'] 1=2 ours None\n"


# Files --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_files_go_in_and_come_out(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("1,2")
    (tmp_path / "tool").write_text("#!/bin/sh\nmkdir -p deep/er; cp data.csv deep/er/; cat in/data.csv > new.txt")
    (tmp_path / "tool").chmod(0o755)
    words = ("--file", "data.csv", "--file", "data.csv:in/", "--file", "tool:/tmp/run")
    result = cli("exec", *words, "--collect", "deep/**", "--collect", "*.txt", "--out", "results/a", "--", "/tmp/run")
    assert ended(result) == (0, "", "")
    assert (tmp_path / "results/a/deep/er/data.csv").read_text() == "1,2"
    assert (tmp_path / "results/a/new.txt").read_text() == "1,2"


@pytest.mark.slow
def test_collected_files_replace_nothing_unless_told_to(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("ours")
    code = "for name in 'ab': open(f'{name}.txt', 'w').write('theirs')"
    status, out, words = ended(cli(*python("print('never runs')"), "--collect", "a.txt"))
    assert (status, out) == (125, "")
    assert words.startswith("casemate: invalid_input: collect: 'a.txt' exists already\nhint: --force")
    status, _, words = ended(cli(*python(code), "--collect", "*.txt"))
    assert (status, words) == (
        125,
        "casemate: collect: 'a.txt' exists already and was not written; --force replaces it\n",
    )
    assert [(tmp_path / name).read_text() for name in ("a.txt", "b.txt")] == ["ours", "theirs"]
    assert ended(cli(*python(code), "--collect", "*.txt", "--force")) == (0, "", "")
    assert (tmp_path / "a.txt").read_text() == "theirs"


@pytest.mark.slow
def test_collected_files_go_through_no_link_of_ours(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "out" / "file").symlink_to(tmp_path / "elsewhere" / "target")
    code = "import os; os.mkdir('link'); open('link/x', 'w').write('x'); open('file', 'w').write('x')"
    status, _, words = ended(cli(*python(code), "--collect", "**", "--out", "out", "--force"))
    assert status == 125
    assert "'link/x' was not written" in words
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert not (tmp_path / "out" / "file").is_symlink()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "status", "words"),
    [
        ("open('big', 'w').truncate(300 << 20)", 125, "1 left out: too large"),
        ("for n in range(1001): open(f'{n:04}', 'w').close()", 125, "the rest left out: too many files"),
        ("import os; os.symlink('/etc/passwd', 'x'); os.mkfifo('y')", 0, "1 left out: symbolic link"),
        ("import os; os.mkdir('a')", 0, "'**' matched nothing"),
    ],
    ids=["too-large", "too-many", "links", "nothing"],
)
def test_what_is_not_collected_is_said(cli: Cli, tmp_path: Path, code: str, status: int, words: str) -> None:
    result = cli(*python(code, "--collect", "**", "--out", "out", "--disk", "1Gi"))
    assert result.returncode == status
    assert f"casemate: collect: {words}\n" in result.stderr.decode()
    assert len(list(tmp_path.glob("out/*"))) == (1000 if "many" in words else 0)


# Limits -------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.limits
@pytest.mark.parametrize(
    ("code", "words", "status", "line"),
    [
        ("while True: pass", ["--timeout", "300ms"], 124, "time limit of 300ms reached; raise it with --timeout"),
        ("while True: pass", ["--cpu-time", "200ms"], 137, "processor time limit of 200ms reached (used "),
        ("x = bytearray(500_000_000)", ["--memory", "100Mi"], 137, "memory limit of 100Mi reached (peak "),
        (
            "import os, signal\nwhile True: os.fork() or signal.pause()",
            ["--processes", "8"],
            137,
            "process limit of 8 reached",
        ),
        ("f = open('f', 'wb')\nwhile True: f.write(bytes(9999))", ["--disk", "1Mi"], 137, "disk limit of 1Mi reached"),
        (
            "n = 0\nwhile True: open(str(n), 'w').close(); n += 1",
            ["--inodes", "99"],
            137,
            "limit of 99 files reached; raise it with --inodes",
        ),
        ("while True: print('x' * 999)", ["--output-limit", "9Ki"], 137, "output limit of 9Ki reached; raise it with"),
    ],
    ids=["timeout", "cpu", "memory", "processes", "disk", "inodes", "output"],
)
def test_a_limit_that_struck_is_named(cli: Cli, code: str, words: list[str], status: int, line: str) -> None:
    result = cli(*python(code, *words))
    assert result.returncode == status
    last = result.stderr.decode().splitlines()[-1]
    assert last.startswith(f"casemate: {line}")


@pytest.mark.slow
def test_the_line_about_a_limit_starts_a_line(cli: Cli) -> None:
    code = "import sys; sys.stderr.write('half'); sys.stderr.flush()\nwhile True: pass"
    words = ended(cli(*python(code, "--timeout", "500ms")))[2]
    assert words == "half\ncasemate: time limit of 500ms reached; raise it with --timeout\n"


# JSON ---------------------------------------------------------------------------------------------


def test_json_holds_the_whole_result(cli: Cli, tmp_path: Path) -> None:
    code = "import os; os.write(1, b'caf\\xc3\\xa9\\n'); os.write(2, b'\\xff')\n"
    code += "open('a.txt', 'w').write('abc'); output = [1]"
    result = cli(*python(code, "--json", "--collect", "*.txt", "--out", "o"))
    assert (result.returncode, result.stderr) == (0, b"")
    assert result.stdout.count(b"\n") == 1
    found = json.loads(result.stdout)
    assert (found["status"], found["reason"], found["exit_code"], found["output"]) == ("succeeded", "exit", 0, [1])
    assert found["stdout"] == {"text": "café\n", "truncated_bytes": 0}
    assert base64.b64decode(found["stderr"]["base64"]) == b"\xff"
    assert found["files"] == [{"path": "a.txt", "size_bytes": 3, "saved_as": "o/a.txt"}]
    assert "seccomp" in found["isolation"]["layers"]
    assert found["usage"]["wall_s"] > 0
    assert (tmp_path / "o/a.txt").read_text() == "abc"


@pytest.mark.slow
def test_json_of_a_failure_has_the_error_and_the_status(cli: Cli) -> None:
    result = cli(*python("1 / 0", "--json"))
    found = json.loads(result.stdout)
    assert (result.returncode, found["reason"], found["error"]["type"]) == (1, "exception", "ZeroDivisionError")
    assert "ZeroDivisionError" in found["stderr"]["text"]


# Errors of ours and of the caller -----------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["run", "missing.py"], "invalid_input: file: cannot read 'missing.py': No such file or directory"),
        (["run", "-c", "1", "--runtime", "cobol"], "unknown_runtime: runtime: unknown runtime 'cobol'"),
        (["run", "-c", "1", "--memory", "-5"], "invalid_input: limits.memory: '-5' is not a size"),
        (["run", "-c", "1", "--timeout", "soon"], "invalid_input: limits.timeout: 'soon' is not a duration"),
        (["run", "-c", "1", "--processes", "0"], "invalid_input: limits.processes: 0 is outside 1 to 32768"),
        (["run", "-c", "1", "--input", "{a}"], "invalid_input: input: is no valid JSON: "),
        (["run", "-c", "1", "--input", "@none.json"], "invalid_input: input: cannot read 'none.json'"),
        (["run", "-c", "1", "--file", "x:../../etc/x"], "invalid_input: files: '../../etc/x' leaves"),
        (["run", "-c", "1", "--file", ":x"], "invalid_input: file: ':x' names no file"),
        (["run", "-c", "1", "--env", "1A=x"], "invalid_input: env: '1A' is not a variable that can be set"),
        (["run", "-c", "1", "--env", "CASEMATE_NOT_SET"], "invalid_input: env: 'CASEMATE_NOT_SET' is not set here"),
        (["run", "-c", "1", "--collect", "../x"], "invalid_input: collect: '../x' is not a pattern"),
        (["run", "-c", "1", "--require", "moat"], "invalid_input: require: 'moat' is no layer"),
    ],
    ids=lambda value: "_".join(value[-2:])[:40] if isinstance(value, list) else "",
)
def test_an_error_of_ours_is_one_line_that_names_the_field(cli: Cli, words: list[str], line: str) -> None:
    status, out, problem = ended(cli(*words))
    assert (status, out) == (125, "")
    assert problem.startswith(f"casemate: {line}")
    assert len([each for each in problem.splitlines() if not each.startswith("hint: ")]) == 1


@pytest.mark.slow
def test_code_over_its_bound_is_refused(cli: Cli) -> None:
    status, out, problem = ended(cli("run", "-", input=b"#" * 2_000_000))
    assert (status, out) == (125, "")
    assert problem.startswith("casemate: invalid_input: code: 1048577 bytes are over the limit of 1048576")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["run"], "give a FILE, `-` for stdin, or -c CODE"),
        (["run", "a.py", "-c", "1"], "give either FILE or -c CODE, not both"),
        (["run", "a.py", "b"], "unexpected argument 'b'; what the program gets goes after --"),
        (
            ["run", "a.py", "--foo"],
            "unknown option '--foo'; did you mean --force?; what the program gets goes after --",
        ),
        (["run", "--memroy", "1Gi", "a.py"], "unknown option '--memroy'; did you mean --memory?"),
        (["run", "-", "--input", "-"], "the code and the input cannot both come from stdin"),
        (["exec"], "give a command after --"),
        (["rum"], "unknown command 'rum'; did you mean run?"),
        (["completion", "tcsh"], "give one of bash, fish, zsh"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_command_line_is_status_two(cli: Cli, words: list[str], line: str) -> None:
    status, out, problem = ended(cli(*words))
    assert (status, out) == (2, "")
    first, second = problem.splitlines()
    assert first == f"casemate: {line}"
    assert second.startswith("hint: casemate ")
    assert second.endswith("--help")


@pytest.mark.parametrize(
    ("words", "status", "code", "field"),
    [
        (["run", "-c", "1", "--json", "--memory", "plenty"], 125, "invalid_input", "limits.memory"),
        (["run", "-c", "1", "--runtime", "cobol", "--json"], 125, "unknown_runtime", "runtime"),
        (["exec", "--json", "--require", "moat", "--", "true"], 125, "invalid_input", "require"),
        (["run", "--json"], 2, "usage", None),
    ],
)
def test_json_of_an_error_of_ours_is_a_document_too(
    cli: Cli, words: list[str], status: int, code: str, field: str | None
) -> None:
    result = cli(*words)
    error = json.loads(result.stdout)["error"]
    assert (result.returncode, error["code"], error["field"]) == (status, code, field)
    assert error["message"] in result.stderr.decode()
    assert f"hint: {error['hint']}\n" in result.stderr.decode()


def test_a_mistake_of_ours_is_not_the_program_s_status() -> None:
    script = "import sys, casemate.cli.main as m; sys.argv = ['casemate', 'run', '-c', '1']; m.parse = None; m.main()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 125
    assert done.stderr.splitlines()[-1].startswith("casemate: internal: a mistake of Casemate's")


# Pipes, signals, readers --------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("words", [(), ("--json",)])
def test_what_python_printed_stays_when_a_limit_strikes(cli: Cli, words: tuple[str, ...]) -> None:
    result = cli(*python("print('hi')\nwhile True: pass", "--timeout", "1s", *words))
    assert result.returncode == 124
    assert b"hi" in result.stdout


def test_output_is_live_and_stdin_too(started: Callable[..., subprocess.Popen[bytes]]) -> None:
    code = "import sys\nfor line in sys.stdin: print(line.strip()[::-1])"
    process = started(*python(code))
    assert process.stdin is not None
    assert process.stdout is not None
    for word in (b"first", b"second"):
        process.stdin.write(word + b"\n")
        process.stdin.flush()
        assert process.stdout.readline() == word[::-1] + b"\n"
    process.stdin.close()
    assert process.wait(LIMIT_S) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_kills_the_sandbox_at_once(
    started: Callable[..., subprocess.Popen[bytes]], slowness: float, number: int
) -> None:
    script = "trap '' INT TERM HUP; (sleep 600 & sleep 600) & echo ready; sleep 600"
    process = started("exec", "--", "sh", "-c", script)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    pidfds = living(process.pid)
    assert len(pidfds) > 3
    before_s = time.monotonic()
    process.send_signal(number)
    assert process.wait(LIMIT_S * slowness) == -number, "it dies of the signal, so that a shell's loop ends, too"
    assert time.monotonic() - before_s < 2 * slowness
    wait_for_ends(pidfds, LIMIT_S * slowness)
    assert process.stderr is not None
    assert process.stderr.read() == b""


def states(pids: list[int]) -> set[str]:
    return {Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] for pid in pids}


def test_ctrl_z_stops_the_sandbox_too_and_its_clock_goes_on(
    started: Callable[..., subprocess.Popen[bytes]], slowness: float
) -> None:
    script = "while :; do :; done & while :; do :; done & echo ready; wait"
    process = started("exec", "--timeout", "3s", "--", "sh", "-c", script, process_group=0)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    guests = process_tree(process.pid)[-3:]
    process.send_signal(signal.SIGTSTP)
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    deadline_s = time.monotonic() + LIMIT_S * slowness
    while states(guests) != {"T"}:
        assert time.monotonic() < deadline_s, states(guests)
    process.send_signal(signal.SIGCONT)
    assert process.wait(LIMIT_S * slowness) == 124


@pytest.mark.slow
def test_a_signal_that_was_ignored_stays_so(started: Callable[..., subprocess.Popen[bytes]], slowness: float) -> None:
    ignoring = {"preexec_fn": lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)}
    process = started("exec", "--", "sh", "-c", "echo ready; read line; echo $line", **ignoring)
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGHUP)
    process.stdin.write(b"still here\n")
    process.stdin.flush()
    assert process.stdout.readline() == b"still here\n"
    assert process.wait(LIMIT_S * slowness) == 0


def test_a_reader_that_goes_away_ends_the_run(started: Callable[..., subprocess.Popen[bytes]], slowness: float) -> None:
    process = started(*python("while True: print('x' * 99)", "--output-limit", "100Gi"), stdin=subprocess.DEVNULL)
    assert process.stdout is not None
    assert process.stdout.read(10) == b"x" * 10
    process.stdout.close()
    assert process.wait(LIMIT_S * slowness) == 141
    assert process.stderr is not None
    assert process.stderr.read() == b""


@pytest.mark.slow
def test_a_reader_that_sleeps_does_not_stop_the_clock(
    started: Callable[..., subprocess.Popen[bytes]], slowness: float
) -> None:
    code = "import os, time\nos.write(1, b'x' * 300_000)\ntime.sleep(600)"
    process = started(*python(code, "--timeout", "1s"), stdin=subprocess.DEVNULL)
    assert process.stderr is not None
    assert process.stdout is not None
    first = os.read(process.stdout.fileno(), 1)
    wait_for_ends(living(process.pid)[1:], LIMIT_S * slowness)
    assert process.poll() is None
    assert first + process.stdout.read() == b"x" * 300_000
    assert process.wait(LIMIT_S * slowness) == 124


@pytest.mark.slow
def test_closed_and_full_streams_are_survived(cli: Cli) -> None:
    code = "import sys; print('out'); print('err', file=sys.stderr)"
    assert cli(*python(code), stdout=None, preexec_fn=lambda: os.close(1)).stderr == b"err\n"
    assert cli(*python(code), stderr=None, preexec_fn=lambda: os.close(2)).stdout == b"out\n"
    with Path("/dev/full").open("wb") as full:
        for words in (python(code), ("--help",)):
            result = cli(*words, stdout=full)
            assert result.returncode == 125
            assert result.stderr.decode().endswith("casemate: file_transfer: stdout: No space left on device\n")


# Pages --------------------------------------------------------------------------------------------


def test_the_version_and_the_overview(cli: Cli) -> None:
    for word in ("--version", "-v", "version"):
        assert ended(cli(word)) == (0, f"casemate {casemate.__version__}\n", "")
    status, text, _ = ended(cli("--help"))
    assert status == 0
    assert all(f"\n  {name} " in text for name, command in COMMANDS.items() if not command.hidden)
    assert ended(cli()) == (2, text, "")
    assert ended(cli("help")) == (0, text, "")
    assert ended(cli("help", "run")) == ended(cli("run", "--help"))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, command in COMMANDS.items() if not command.hidden])
def test_every_command_has_a_page(cli: Cli, name: str) -> None:
    status, text, words = ended(cli(name, "--help"))
    assert (status, words) == (0, "")
    assert f"Usage: casemate {name} " in text
    assert "\x1b" not in text


@pytest.mark.slow
def test_runtimes_are_listed_with_their_versions(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(
        '[runtimes.nolang]\ninterpreter = ["nolang-1"]\ncommand = ["{interpreter}", "{code}"]\npackages = ["nolang"]\n'
    )
    environment = {"CASEMATE_CONFIG": str(tmp_path / "config.toml")}
    found = {row["name"]: row for row in json.loads(cli("runtimes", "--json", env=environment).stdout)}
    assert {"python", "node", "javascript", "r", "bash", "nolang"} <= set(found)
    assert all(found[name]["available"] and found[name]["version"] for name in ("python", "bash"))
    assert found["python"]["version"].split(".")[:2] == [str(number) for number in sys.version_info[:2]]
    assert not found["nolang"]["available"]
    status, text, _ = ended(cli("runtimes", env=environment))
    assert status == 0
    assert "apt-get install nolang" in " ".join(text.split())


def test_checking_the_syntax_runs_nothing(cli: Cli) -> None:
    status, out, _ = ended(cli("check", "-c", "print(1)", "--runtime", "python"))
    assert (status, out) == (0, "")
    status, out, _ = ended(cli("check", "-c", "x <- (1", "--runtime", "r", "--json"))
    assert (status, json.loads(out)["line"], json.loads(out)["column"]) == (1, 2, None)


def test_a_function_is_called_by_its_name(cli: Cli) -> None:
    words = ["run", "-c", "def f(a, b): return a * b", "--runtime", "python", "--function", "f", "--spread"]
    assert ended(cli(*words, "--input", "[6, 7]"))[:2] == (0, "42\n")
    status, _, err = ended(cli(*words, "--input", "7"))
    assert (status, "must be an array of arguments" in err) == (125, True)


@pytest.mark.slow
def test_the_selftest_holds(cli: Cli) -> None:
    result = cli("selftest", "--json")
    found = json.loads(result.stdout)
    assert [check for check in found["checks"] if check["held"] is not True] == []
    assert (result.returncode, found["held"]) == (0, True)
    assert len(found["checks"]) >= 25
    assert len({check["check"] for check in found["checks"]}) == len(found["checks"])


@pytest.mark.slow
def test_bash_completes_by_asking_us(tmp_path: Path) -> None:
    program = tmp_path / "casemate"
    program.write_text(f'#!/bin/sh\nexec {" ".join(PROGRAM)} "$@"\n')
    program.chmod(0o755)
    script = f"""
        eval "$({program} completion bash)"
        for line in "run --runt" "run --require land" "do"; do
            COMP_WORDS=({program} $line); COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
            _casemate
            echo "${{COMPREPLY[@]}}"
        done
        complete -p casemate
    """
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=LIMIT_S, check=True)
    assert done.stdout.splitlines() == ["--runtime", "landlock", "doctor", "complete -F _casemate casemate"]
    assert done.stderr == ""


def test_a_run_loads_nothing_that_it_does_not_need(cli: Cli) -> None:
    lines = cli(*python("print(1)"), env={"PYTHONPROFILEIMPORTTIME": "1"}).stderr.decode().splitlines()
    loaded = {line.rpartition("|")[2].strip() for line in lines}
    assert "casemate.engine.engine" in loaded
    slow = {"asyncio", "argparse", "inspect", "logging", "subprocess", "shutil", "tempfile", "tomllib", "json"}
    assert loaded & slow == set()


# Terminals ----------------------------------------------------------------------------------------


class Terminal:
    """A command line on a terminal, as a person would use it."""

    def __init__(self, words: tuple[str, ...], limit_s: float, **environment: str) -> None:
        self._limit_s = limit_s
        self.leader, follower = pty.openpty()
        self.resize(30, 100)
        self.before = termios.tcgetattr(follower)
        self.process = subprocess.Popen(
            [*PROGRAM, *words],
            stdin=follower,
            stdout=follower,
            stderr=follower,
            env={**os.environ, "TERM": "xterm-256color", **environment},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - no threads here
        )
        self.follower = follower
        self.shown = b""

    def type(self, text: str) -> None:
        os.write(self.leader, text.encode())

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.leader, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def wait_for(self, text: str) -> str:
        """Everything shown up to this text."""
        deadline_s = time.monotonic() + self._limit_s
        while text.encode() not in self.shown:
            ready, _, _ = select.select([self.leader], [], [], max(0, deadline_s - time.monotonic()))
            assert ready, f"{text!r} did not come: {self.shown!r}"
            self.shown += self._read()
        found, _, self.shown = self.shown.partition(text.encode())
        return found.decode()

    def end(self) -> int:
        """The exit status, with the rest of the output in `shown`."""
        status = self.process.wait(self._limit_s)
        while select.select([self.leader], [], [], 0)[0]:
            self.shown += self._read()
        return status

    def _read(self) -> bytes:
        try:
            return os.read(self.leader, 65_536)
        except OSError as error:
            assert error.errno == errno.EIO
            return b""

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.leader)
        os.close(self.follower)


@pytest.fixture
def terminal(slowness: float) -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def start(*words: str, **environment: str) -> Terminal:
        opened.append(Terminal(words, LIMIT_S * slowness, **environment))
        return opened[-1]

    yield start
    for each in opened:
        each.close()


def test_a_shell_is_a_real_terminal(terminal: Callable[..., Terminal]) -> None:
    shell = terminal("shell", "--env", "PS1=ready>")
    shell.wait_for("ready>")
    shell.type("tty; stty size; id -un\n")
    shown = shell.wait_for("guest\r\n").splitlines()
    assert [line for line in shown[1:] if not line.startswith("\x1b")] == ["/dev/pts/0", "30 100"]
    shell.resize(40, 120)
    os.kill(shell.process.pid, signal.SIGWINCH)
    shell.type("trap 'stty size' WINCH; stty size; kill -WINCH $$\n")
    shell.wait_for("40 120")
    shell.type("sh -c 'echo begun-$((0+1)); exec cat'\n")
    shell.wait_for("begun-1\r\n")
    shell.type("\x03")
    shell.wait_for("^C")
    shell.wait_for("ready>")
    shell.type("exit 7\n")
    assert shell.end() == 7
    assert termios.tcgetattr(shell.follower) == shell.before


@pytest.mark.slow
def test_a_language_s_prompt_can_be_opened(terminal: Callable[..., Terminal]) -> None:
    prompt = terminal("shell", "--runtime", "python", "--memory", "200Mi")
    prompt.wait_for(">>> ")
    prompt.type("import ssl; 6 * 7\n")
    prompt.wait_for("42\r\n>>> ")
    prompt.type("\x04")
    assert prompt.end() == 0


def test_a_jammed_shell_can_be_left(terminal: Callable[..., Terminal]) -> None:
    shell = terminal("shell", "--", "sh", "-c", "trap '' INT HUP TERM; stty -echo; echo ready; exec sleep 600")
    shell.wait_for("ready")
    shell.type("a~.b\n~~.\n~")
    assert shell.process.poll() is None
    shell.type(".")
    assert shell.end() == 130
    assert b"casemate: left; the sandbox is gone" in shell.shown
    assert b"\x1b[0m\x1b[?25h" in shell.shown
    assert termios.tcgetattr(shell.follower) == shell.before


@pytest.mark.slow
def test_what_is_typed_goes_inside_with_its_tildes(terminal: Callable[..., Terminal]) -> None:
    shell = terminal("shell")
    shell.wait_for("[sandbox] /work$ ")
    shell.type("~~/x\recho ~. '~~'\r")
    shell.wait_for("/home/guest/x")
    shell.wait_for("~. ~~\r\n")
    shell.type("exit\r")
    assert shell.end() == 0


@pytest.mark.slow
def test_a_shell_s_background_does_not_hold_the_terminal(terminal: Callable[..., Terminal]) -> None:
    shell = terminal("shell", "--", "sh", "-c", "nohup sleep 600 & echo started; exit 5")
    assert shell.end() == 5
    assert b"started" in shell.shown


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "status", "line"),
    [
        (("--timeout", "1s", "--", "cat"), 124, "casemate: time limit of 1s reached; raise it with --timeout"),
        (("--", "sh", "-c", "kill -SEGV $$"), 139, ""),
        (("--", "nothing-here"), 127, "casemate: there is no program 'nothing-here' in the sandbox; "),
        (("--", "/usr"), 126, "casemate: the program '/usr' may not be executed; "),
    ],
)
def test_a_terminal_is_restored_however_it_ends(
    terminal: Callable[..., Terminal], words: tuple[str, ...], status: int, line: str
) -> None:
    shell = terminal("shell", *words)
    assert shell.end() == status
    assert line in shell.shown.decode()
    assert termios.tcgetattr(shell.follower) == shell.before


@pytest.mark.slow
def test_a_signal_restores_the_terminal(terminal: Callable[..., Terminal]) -> None:
    shell = terminal("shell", "--env", "PS1=ready>")
    shell.wait_for("ready>")
    assert termios.tcgetattr(shell.follower) != shell.before
    shell.process.terminate()
    assert shell.end() == -signal.SIGTERM
    assert termios.tcgetattr(shell.follower) == shell.before


@pytest.mark.slow
def test_without_a_terminal_a_shell_reads_a_pipe(cli: Cli) -> None:
    assert ended(cli("shell", input=b"echo hello; exit 3\n")) == (3, "hello\n", "")
    assert ended(cli("shell", "--runtime", "python", input=b"import ssl; print(6 * 7)\n")) == (0, "42\n", "")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (python("name = input('who? ')"), True),
        (("exec", "--", "bash"), True),
        (("exec", "--", "pwd"), False),
        (python("print(1)"), False),
    ],
    ids=["input", "bash", "pwd", "print"],
)
def test_who_expects_a_terminal_as_stdin_is_told(
    terminal: Callable[..., Terminal], words: tuple[str, ...], said: bool
) -> None:
    run = terminal(*words)
    run.end()
    assert (b"a terminal is not passed on as stdin" in run.shown) is said


@pytest.mark.slow
def test_ctrl_c_on_a_terminal_ends_a_run(terminal: Callable[..., Terminal]) -> None:
    run = terminal("exec", "--", "sh", "-c", "trap '' INT; echo ready; sleep 600")
    run.wait_for("ready")
    run.type("\x03")
    assert run.end() == -signal.SIGINT
    assert run.shown.endswith(b"^C\r\n")


@pytest.mark.slow
def test_colours_are_for_terminals_and_never_with_no_color(terminal: Callable[..., Terminal]) -> None:
    page = terminal("run", "--help")
    assert page.end() == 0
    assert b"\x1b[1m" in page.shown
    for environment in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        plain = terminal("run", "--help", **environment)
        assert plain.end() == 0
        assert b"\x1b" not in plain.shown
        assert b"Usage: casemate run" in plain.shown


@pytest.mark.slow
def test_json_for_a_person_is_indented(terminal: Callable[..., Terminal]) -> None:
    run = terminal(*python("output = 1", "--json"))
    assert run.end() == 0
    assert b'{\r\n  "status": "succeeded",' in run.shown

"""What goes into a run and what comes out of it: stdin, files, variables, live output, a truthful view of itself."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.results import kinds_of

import casemate
from casemate import limits as bound
from casemate.isolation.native import NativeSandbox
from casemate.kernel.processes import process_tree, start_time
from casemate.model.result import Reason
from casemate.model.spec import BASE_ENVIRONMENT

if TYPE_CHECKING:
    from tests.integration.conftest import MakeSandbox, Run

SYSTEM_PYTHON = "/usr/bin/python3"
MIB = 2**20


def text_of(result: casemate.Result) -> str:
    assert result.ok, (result.reason, result.exit_code, result.signal, result.error, result.stderr.text[-400:])
    return result.stdout.text


# stdin --------------------------------------------------------------------------------------------


def test_without_stdin_a_program_reads_nothing(execute: Run) -> None:
    assert text_of(execute("cat")) == ""


@pytest.mark.parametrize("size", [0, 1, 65_536, 3 * MIB])
def test_bytes_as_stdin_arrive_whole(execute: Run, size: int) -> None:
    data = os.urandom(size)
    result = execute("sha256sum", stdin=data)
    expected = subprocess.run(["sha256sum"], input=data, capture_output=True, check=True).stdout
    assert result.stdout.head == expected


def test_text_as_stdin_is_utf_8(execute: Run) -> None:
    assert execute("cat", stdin="ä\n").stdout.head == "ä\n".encode()


def test_an_open_file_as_stdin_is_read_from_where_it_stands(execute: Run, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"skipped" + b"kept" * 50_000)
    with (tmp_path / "data").open("rb", buffering=0) as file:
        file.seek(len(b"skipped"))
        assert execute("wc", "-c", stdin=file).stdout.text.split() == ["200000"]


def test_a_pipe_as_stdin_is_passed_on_while_the_program_runs(execute: Run) -> None:
    """Each line is only written when the answer to the one before has come back."""
    reader, writer = os.pipe()
    said: list[str] = []

    def answer(chunk: casemate.Chunk) -> None:
        said.append(chunk.data.decode())
        if "".join(said).endswith("\n"):
            turn = len(said)
            os.write(writer, f"{turn}\n".encode()) if turn < 5 else os.close(writer)

    os.write(writer, b"0\n")
    result = execute("sh", "-c", "while read -r x; do echo got $x; done", stdin=reader, on_output=answer)
    os.close(reader)
    assert text_of(result) == "".join(f"got {turn}\n" for turn in range(5))


def test_a_program_that_does_not_read_its_stdin_ends_all_the_same(execute: Run) -> None:
    assert text_of(execute("echo", "done", stdin=bytes(MIB))) == "done\n"
    assert text_of(execute("head", "-c", "3", stdin=b"abc" * MIB)) == "abc"


# Files in and out ---------------------------------------------------------------------------------


def test_files_are_there_with_their_contents_and_execute_bits(execute: Run, tmp_path: Path) -> None:
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\necho tool ran\n")
    tool.chmod(0o755)
    files = {"a.bin": b"\0\xff", "deep/er/b.txt": "ä", "bin/tool": tool, "/tmp/t": b"t", "/home/guest/.rc": b"rc"}
    script = "od -An -tx1 a.bin; cat deep/er/b.txt /tmp/t ~/.rc; echo; bin/tool; test -x a.bin || echo data"
    assert text_of(execute("sh", "-c", script, files=files)).split() == ["00", "ff", "ätrc", "tool", "ran", "data"]


def test_the_guest_owns_the_files_it_was_given(execute: Run) -> None:
    script = "stat -c '%U %a' given && echo more >> given && mv given other && rm other"
    assert text_of(execute("sh", "-c", script, files={"given": b"x"})).split() == ["guest", "644"]


def test_a_missing_file_of_ours_is_named_and_nothing_runs(execute: Run, tmp_path: Path) -> None:
    with pytest.raises(casemate.InvalidInput, match="No such file"):
        execute("true", files={"a": tmp_path / "missing"})


SCATTER = """
mkdir -p out/deep .hidden; echo 1 > a.csv; echo 2 > out/b.csv; echo 3 > out/deep/c.csv; echo 4 > out/deep/d.txt
echo 5 > .hidden/e.csv; printf '\\377\\000' > raw.bin; : > empty.csv
ln -s /etc/passwd link.csv; ln a.csv hard.csv; mkfifo pipe.csv; chmod 000 out/deep
"""


@pytest.mark.parametrize(
    ("patterns", "paths"),
    [
        (["*.csv"], ["a.csv", "empty.csv", "hard.csv"]),
        (["**/*.csv"], [".hidden/e.csv", "a.csv", "empty.csv", "hard.csv", "out/b.csv", "out/deep/c.csv"]),
        (["out/**"], ["out/b.csv", "out/deep/c.csv", "out/deep/d.txt"]),
        (["out/*.csv", "/work/raw.bin"], ["out/b.csv", "raw.bin"]),
        (["*.csv", "a.*"], ["a.csv", "empty.csv", "hard.csv"]),
        (["nothing-like-it"], []),
        ([], []),
    ],
    ids=str,
)
def test_globs_collect_regular_files_and_nothing_else(execute: Run, patterns: list[str], paths: list[str]) -> None:
    result = execute("sh", "-c", SCATTER, collect=patterns)
    assert result.ok, result.stderr.text
    assert sorted(file.path for file in result.files) == paths
    if "*.csv" in patterns:
        assert kinds_of(result) == {"not-collected"}
        assert {"symbolic link", "not a regular file"} <= {event.detail.partition(": ")[2] for event in result.events}
    unmatched = [event.detail for event in result.events if event.kind == "nothing-matched"]
    assert unmatched == [repr(pattern) for pattern in patterns if pattern == "nothing-like-it"]


@pytest.mark.parametrize("limit", [0, 10, 1_000_000])
@pytest.mark.parametrize("script", ["yes", "head -c 2000000 /dev/zero; head -c 2000000 /dev/zero >&2"])
def test_the_limit_on_output_is_exact(execute: Run, limit: int, script: str) -> None:
    chunks: list[casemate.Chunk] = []
    result = execute("sh", "-c", script, limits={"output": limit}, on_output=chunks.append)
    assert result.reason is Reason.OUTPUT
    assert sum(len(chunk.data) for chunk in chunks) == limit
    assert result.stdout.total_bytes + result.stderr.total_bytes == limit


def test_what_cannot_be_killed_in_time_costs_the_files_and_not_the_result(
    execute: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("casemate.limits.KILL_SOON_S", 0.0)
    monkeypatch.setattr("casemate.limits.KILL_TIMEOUT_S", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(NativeSandbox, "kill", lambda _: None)
        patch.setattr(NativeSandbox, "_kill_each", lambda _: None)
        result = execute("sh", "-c", "echo said; echo x > file", collect=["*"], limits={"timeout": 5})
    assert (result.reason, result.stdout.text, result.files) == (casemate.Reason.EXIT, "said\n", ())
    assert kinds_of(result) == {"not-collected"}


def test_collected_files_have_their_contents(execute: Run) -> None:
    result = execute("sh", "-c", SCATTER, collect=["**"])
    contents = {file.path: file.data for file in result.files}
    assert contents["raw.bin"] == b"\xff\0"
    assert contents["out/deep/c.csv"] == b"3\n"
    assert contents["empty.csv"] == b""
    assert b"root" not in b"".join(contents.values())


def test_files_are_collected_from_a_run_that_failed(execute: Run) -> None:
    token = casemate.CancelToken()
    script = "echo half > part; echo done; sleep 1000"
    result = execute("sh", "-c", script, collect=["part"], cancel=token, on_output=lambda _: token.cancel())
    assert result.reason is Reason.CANCELLED
    assert [(file.path, file.data) for file in result.files] == [("part", b"half\n")]


def test_nothing_changes_a_collected_file_after_the_end_of_the_program(execute: Run) -> None:
    script = "(while :; do echo more >> log; done) & while [ ! -s log ]; do :; done; echo end"
    result = execute("sh", "-c", script, collect=["log"])
    assert text_of(result) == "end\n"
    assert result.files[0].data.startswith(b"more\n")


def test_a_file_name_that_is_no_text_is_shown_with_escapes(execute: Run) -> None:
    result = execute("sh", "-c", "printf x > \"$(printf 'a\\377b')\"", collect=["*"])
    assert [file.path for file in result.files] == ["a\\xffb"]


# The environment ----------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [{}, {"A": "1", "PATH": "/work:/usr/bin", "EMPTY": "", "_b1": "ä b\n"}])
def test_nothing_of_our_environment_is_inside(
    execute: Run, given: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_THE_HOST", "s3cr3t")
    shown = text_of(execute("env", "-0", env=given))
    assert dict(entry.split("=", 1) for entry in shown.split("\0") if entry) == {**BASE_ENVIRONMENT, **given}


def test_the_caller_s_variables_come_before_the_runtime_s(run: Run) -> None:
    code = "import os; output = os.environ['PYTHONDONTWRITEBYTECODE']"
    assert [run(code).output, run(code, env={"PYTHONDONTWRITEBYTECODE": "2"}).output] == ["1", "2"]


@pytest.mark.parametrize(
    ("language", "name"),
    [("bash", "BASH_ENV"), ("bash", "CASEMATE_INPUT"), ("bash", "CASEMATE_OUTPUT"), ("r", "R_PROFILE")],
)
def test_variables_that_a_harness_stands_on_are_refused(run: Run, language: str, name: str) -> None:
    with pytest.raises(casemate.InvalidInput, match=f"env: {name} belongs to the runtime"):
        run("", language, env={name: "x"})


def test_no_process_inside_shows_our_environment(execute: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_THE_HOST", "s3cr3t")
    shown = execute("sh", "-c", "cat /proc/*/environ /proc/*/cmdline 2>/dev/null | tr '\\0' '\\n'").stdout.text
    assert "s3cr3t" not in shown
    assert "SECRET_OF_THE_HOST" not in shown


def test_a_program_starts_in_the_work_directory_as_the_guest(execute: Run) -> None:
    lines = text_of(execute("sh", "-c", "pwd; id -un; id -u; id -g; hostname; umask; echo ~")).split()
    assert lines == ["/work", "guest", "1000", "1000", "sandbox", "0022", "/home/guest"]


# Truthful views -----------------------------------------------------------------------------------

VIEW = """
import json, os
def table(path):
    rows = (line.partition(":") for line in open(path))
    return {key.strip(): value.split() for key, _, value in rows if value}
stat = os.statvfs("/work")
print(json.dumps({
    "cpu_count": os.cpu_count(), "affinity": len(os.sched_getaffinity(0)),
    "cpuinfo": sum(line.startswith("processor") for line in open("/proc/cpuinfo")),
    "stat": sum(line.startswith("cpu") and line[3].isdigit() for line in open("/proc/stat")),
    "memory": int(table("/proc/meminfo")["MemTotal"][0]) * 1024, "swap": table("/proc/meminfo")["SwapTotal"][0],
    "available": int(table("/proc/meminfo")["MemAvailable"][0]) * 1024,
    "pages": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
    "disk": {path: os.statvfs(path).f_blocks * os.statvfs(path).f_frsize
             for path in ("/work", "/tmp", "/dev/shm", "/home/guest", "/code")},
    "free": stat.f_bavail * stat.f_frsize, "inodes": stat.f_favail,
}))
"""


def view(execute: Run, **limits: Any) -> dict[str, Any]:
    seen: dict[str, Any] = json.loads(text_of(execute(SYSTEM_PYTHON, "-I", "-S", "-c", VIEW, limits=limits)))
    return seen


@pytest.mark.limits
def test_processors_memory_and_disk_look_as_the_limits_say(execute: Run) -> None:
    seen = view(execute, cpu=1, memory="200Mi", disk="10Mi", inodes=500)
    assert seen["cpu_count"] == seen["affinity"] == seen["cpuinfo"] == seen["stat"] == 1
    assert seen["memory"] == seen["available"] == 200 * MIB
    assert seen["swap"] == "0"
    assert set(seen["disk"].values()) == {10 * MIB}
    assert seen["free"] <= 10 * MIB
    assert 490 <= seen["inodes"] <= 500


@pytest.mark.limits
@pytest.mark.parametrize("share", [0.5, 1, 1.5, 1000])
def test_as_many_processors_are_shown_as_the_share_may_spread_over(
    engine: casemate.Engine, execute: Run, share: float
) -> None:
    count = min(max(1, -int(-share // 1)), len(engine.backend.host.cpus))
    seen = view(execute, cpu=share)
    assert [seen[name] for name in ("cpu_count", "affinity", "cpuinfo", "stat")] == [count] * 4


def test_df_and_free_agree(execute: Run) -> None:
    lines = text_of(execute("sh", "-c", "df -B1 --output=size /work | tail -1; free -b", limits={"disk": "5Mi"}))
    assert lines.splitlines()[0].strip() == str(5 * MIB)


def test_nothing_of_the_machine_s_names_is_visible(execute: Run) -> None:
    seen = text_of(execute("cat", "/etc/hostname", "/etc/hosts", "/etc/passwd", "/proc/sys/kernel/hostname"))
    name = os.uname().nodename
    assert name == "sandbox" or name not in seen.split()


# Live output --------------------------------------------------------------------------------------


def test_live_output_carries_its_place_in_its_stream(execute: Run) -> None:
    chunks: list[casemate.Chunk] = []
    script = "for i in 1 2 3 4 5; do echo out $i; echo err $i >&2; done; head -c 200000 /dev/zero"
    result = execute("sh", "-c", script, on_output=chunks.append)
    for name, kept in (("stdout", result.stdout), ("stderr", result.stderr)):
        place = 0
        for chunk in chunks:
            if chunk.stream == name:
                assert chunk.offset == place
                assert 0 < len(chunk.data) <= bound.READ_CHUNK_BYTES
                place += len(chunk.data)
        assert place == kept.total_bytes
        assert b"".join(chunk.data for chunk in chunks if chunk.stream == name) == kept.head + kept.tail


def test_output_comes_while_the_program_runs(execute: Run) -> None:
    token = casemate.CancelToken()
    result = execute("sh", "-c", "echo early; sleep 1000", on_output=lambda _: token.cancel(), cancel=token)
    assert result.stdout.head == b"early\n"


def test_the_head_and_the_tail_are_kept_and_the_rest_is_counted(execute: Run) -> None:
    script = "printf begin; head -c 3000000 /dev/zero | tr '\\0' .; printf end"
    result = execute("sh", "-c", script)
    stream = result.stdout
    assert (len(stream.head), len(stream.tail)) == (bound.CAPTURE_HEAD_BYTES, bound.CAPTURE_TAIL_BYTES)
    assert stream.truncated_bytes == 3_000_008 - bound.CAPTURE_HEAD_BYTES - bound.CAPTURE_TAIL_BYTES
    assert stream.head.startswith(b"begin...")
    assert stream.tail.endswith(b"...end")
    assert f"{stream.truncated_bytes} bytes left out" in stream.text


def test_what_was_written_just_before_the_end_is_there(execute: Run) -> None:
    result = execute("sh", "-c", "head -c 60000 /dev/zero; echo last >&2; kill -9 $$")
    assert result.stdout.total_bytes == 60_000
    assert result.stderr.text == "last\n"


def test_all_that_is_in_the_pipe_after_the_end_is_there(engine: casemate.Engine, execute: Run) -> None:
    """The listener does not return before the program has ended, so that we read no more while it runs."""

    def wait_for_its_end(_: casemate.Chunk) -> None:
        while "python3" in names_of(process_tree(engine.backend.launcher.pid)):
            os.sched_yield()

    code = "import fcntl, os; fcntl.fcntl(1, fcntl.F_SETPIPE_SZ, 2**20); os.write(1, b'x'); os.write(1, bytes(500000))"
    result = execute(SYSTEM_PYTHON, "-I", "-S", "-c", code, on_output=wait_for_its_end)
    assert result.stdout.total_bytes == 500_001


def names_of(pids: Iterable[int]) -> set[str]:
    found = set()
    for pid in pids:
        with suppress(OSError):
            found.add(Path(f"/proc/{pid}/comm").read_text().strip())
    return found


def test_output_of_what_was_left_running_is_not_waited_for(execute: Run) -> None:
    assert text_of(execute("sh", "-c", "(sleep 1000; echo late) & echo now")) == "now\n"


def test_a_stream_is_iterated_to_its_result(engine: casemate.Engine, generous: dict[str, Any]) -> None:
    with casemate.stream("print('a'); print('b'); output = 3", engine=engine, limits=generous) as live:
        seen = b"".join(chunk.data for chunk in live)
        assert (seen, live.result.output) == (b"a\nb\n", 3)
    assert live.result.ok


def test_a_stream_s_result_can_be_asked_for_at_once(engine: casemate.Engine, generous: dict[str, Any]) -> None:
    live = casemate.stream("print('a')", engine=engine, limits=generous)
    assert live.result.stdout.head == b"a\n"


LEFT_EARLY = "import time\nprint('on', flush=True)\ntime.sleep(1000)"


def test_a_closed_stream_kills_the_run(engine: casemate.Engine, settled: Any, generous: dict[str, Any]) -> None:
    live = casemate.stream(LEFT_EARLY, engine=engine, limits=generous)
    assert next(live).data == b"on\n"
    live.close()
    assert settled() == []
    live.close()
    with pytest.raises(casemate.SandboxClosed):
        live.result  # noqa: B018 - asking is the test


def test_leaving_the_block_of_a_stream_kills_the_run(
    engine: casemate.Engine, settled: Any, generous: dict[str, Any]
) -> None:
    with casemate.stream(LEFT_EARLY, engine=engine, limits=generous) as live:
        for _ in live:
            break
    assert settled() == []


def test_a_stream_that_nobody_holds_any_more_kills_the_run(
    engine: casemate.Engine, settled: Any, generous: dict[str, Any]
) -> None:
    for _ in casemate.stream(LEFT_EARLY, engine=engine, limits=generous):
        break
    assert settled() == []


class Refused(Exception):
    """What a listener raises."""


def test_a_listener_that_raises_kills_the_run(execute: Run, settled: Any) -> None:
    def refuse(_: casemate.Chunk) -> None:
        raise Refused

    with pytest.raises(Refused):
        execute("sh", "-c", "echo on; sleep 1000", on_output=refuse)
    assert settled() == []


# Ending it from elsewhere -------------------------------------------------------------------------


def test_a_token_ends_a_run_from_another_thread(execute: Run) -> None:
    token = casemate.CancelToken()
    running = threading.Event()

    def cancel_when_it_runs() -> None:
        running.wait()
        token.cancel()

    canceller = threading.Thread(target=cancel_when_it_runs)
    canceller.start()
    result = execute("sh", "-c", "echo on; sleep 1000", cancel=token, on_output=lambda _: running.set())
    canceller.join()
    assert result.reason is Reason.CANCELLED


def test_one_token_ends_many_runs_at_once(execute: Run) -> None:
    token = casemate.CancelToken()
    all_running = threading.Barrier(5, action=token.cancel)
    with ThreadPoolExecutor(5) as pool:
        command = ("sh", "-c", "echo on; sleep 1000")
        runs = [pool.submit(execute, *command, cancel=token, on_output=lambda _: all_running.wait()) for _ in range(5)]
        assert {run.result().reason for run in runs} == {Reason.CANCELLED}


INTERRUPTED = """
import casemate, os, sys
def tell(chunk):
    children = open(f"/proc/self/task/{os.getpid()}/children").read().split()
    inits = [pid for child in children for pid in open(f"/proc/{child}/task/{child}/children").read().split()]
    print(" ".join(children + inits), flush=True)
casemate.execute(["sh", "-c", "echo on; sleep 1000"], on_output=tell)
"""


def test_ctrl_c_kills_the_sandbox_and_ends_the_program(slowness: float) -> None:
    command = [sys.executable, "-c", INTERRUPTED]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pids = [int(pid) for pid in process.stdout.readline().split()]
        assert len(pids) >= 2
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30 * slowness)
    assert process.returncode == -signal.SIGINT
    assert "KeyboardInterrupt" in errors
    assert [pid for pid in pids if start_time(pid) is not None] == []


# Threads and processes ----------------------------------------------------------------------------


def test_many_threads_run_at_once_and_get_each_their_own(execute: Run) -> None:
    with ThreadPoolExecutor(12) as pool:
        runs = [pool.submit(execute, "sh", "-c", "echo $0; cat", str(n), stdin=f"in {n}") for n in range(40)]
        assert [text_of(run.result()) for run in runs] == [f"{n}\nin {n}" for n in range(40)]


FORKED = """
import casemate, os
sandbox = casemate.Sandbox()
first = sandbox.exec(["echo", "parent"]).stdout.text
if pid := os.fork():
    status = os.waitpid(pid, 0)[1]
    again = sandbox.exec(["echo", "parent again"]).stdout.text
    print(first + again, status, end="")
else:
    text = casemate.execute(["echo", "child"]).stdout.text
    print(text, end="", flush=True)
"""
FORKED_WITH_AN_ENGINE = """
import casemate, os
with casemate.Engine() as engine:
    if pid := os.fork():
        os.waitpid(pid, 0)
        print(casemate.execute(["echo", "parent"], engine=engine).stdout.text, end="")
    else:
        try:
            casemate.execute(["echo", "child"], engine=engine)
        except casemate.SandboxClosed as error:
            print(error.message, flush=True)
"""
OUTLIVED = """
import casemate, os
casemate.execute(["true"])
reader, writer = os.pipe()
if os.fork() == 0:
    os.close(writer)
    os.read(reader, 1)  # ends with the parent, which has to come to its end although we hold all that it holds
    os._exit(0)
print("parent")
"""
WITHOUT_STANDARD_DESCRIPTORS = """
import os
kept = os.dup(1)
for fd in range(3):
    os.close(fd)
import casemate
os.write(kept, casemate.execute(["cat"], stdin=b"here").stdout.head)
"""

LAUNCHER_ON_STANDARD_DESCRIPTORS = """
import os, select
kept = os.dup2(1, 100)
from casemate.isolation.launcher import Launcher
for low in range(3):
    os.closerange(0, 3)
    for number in range(low):
        os.open("/dev/null", os.O_RDONLY)
    launcher = Launcher()
    ended = select.poll()
    ended.register(launcher._channel(), select.POLLIN)
    os.write(kept, b"alive\\n" if os.path.exists(f"/proc/{launcher.pid}") and not ended.poll(100) else b"dead\\n")
    launcher.close()
"""


@pytest.mark.parametrize(
    ("script", "output"),
    [
        ("import casemate; print(casemate.run('print(6 * 7)').stdout.text, end='')", "42\n"),
        (FORKED, "child\nparent\nparent again\n 0"),
        (FORKED_WITH_AN_ENGINE, "this engine belongs to the parent process\nparent\n"),
        (OUTLIVED, "parent\n"),
        (WITHOUT_STANDARD_DESCRIPTORS, "here"),
        (LAUNCHER_ON_STANDARD_DESCRIPTORS, "alive\n" * 3),
    ],
    ids=[
        "nothing to set up",
        "a forked child has an engine of its own",
        "an engine of the parent's serves no child",
        "a child that outlives us",
        "closed descriptors",
        "the launcher on a closed descriptor",
    ],
)
def test_the_default_engine_serves_every_kind_of_process(script: str, output: str, slowness: float) -> None:
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60 * slowness, check=False)
    assert (done.stdout, done.stderr, done.returncode) == (output, "", 0)


def test_what_belongs_to_a_sandbox_is_not_inherited_by_programs_of_ours(make_sandbox: MakeSandbox) -> None:
    before = inheritable_by_fd()
    held: list[dict[int, bool]] = []
    sandbox = make_sandbox()
    sandbox.exec(["sh", "-c", "echo on; cat"], stdin=b"", on_output=lambda _: held.append(inheritable_by_fd()))
    new = {fd: inheritable for fd, inheritable in held[0].items() if fd not in before}
    assert new
    assert not any(new.values())


def inheritable_by_fd() -> dict[int, bool]:
    found = {}
    for fd in [int(path.name) for path in Path("/proc/self/fd").iterdir()]:
        with suppress(OSError):
            found[fd] = os.get_inheritable(fd)
    return found


# Bad input ----------------------------------------------------------------------------------------

BAD_RUNS: list[tuple[str, dict[str, Any]]] = [
    ("runtime", {"runtime": "cobol"}),
    ("runtime", {"runtime": ""}),
    ("code", {"code": None}),
    ("code", {"code": "x" * (bound.CODE_MAX_BYTES + 1)}),
    ("code", {"code": "a\0b"}),
    ("filename", {"filename": "../main.py"}),
    ("input", {"input": {1, 2}}),
    ("input", {"input": float("nan")}),
    ("args", {"args": "one two"}),
    ("args", {"args": ["a\0"]}),
    ("env", {"env": {"A=B": "x"}}),
    ("env", {"env": {"A": 1}}),
    ("files", {"files": {"../a": b""}}),
    ("files", {"files": {"/etc/a": b""}}),
    ("files", {"files": {"a": Path("/nowhere")}}),
    ("files", {"files": {"a": 1}}),
    ("files", {"files": {"a": bytes(2 * MIB)}, "limits": {"disk": "1Mi"}}),
    ("collect", {"collect": ["../*"]}),
    ("collect", {"collect": "*.csv"}),
    ("stdin", {"stdin": 10**6}),
    ("stdin", {"stdin": object()}),
    ("limits.memory", {"limits": {"memory": "much"}}),
    ("limits.memory", {"limits": {"memory": -1}}),
    ("limits.timeout", {"limits": {"timeout": 0}}),
    ("limits.processes", {"limits": {"processes": 0}}),
    ("limits.processes", {"limits": {"processes": 2.5}}),
    ("limits.cpu", {"limits": {"cpu": "nan"}}),
    ("limits.disk", {"limits": {"disk": "1Ki"}}),
    ("limits.ram", {"limits": {"ram": "1Gi"}}),
    ("require", {"require": ["walls"]}),
    ("timeout", {"timeout": 5}),
]


@pytest.mark.parametrize(("field", "options"), BAD_RUNS, ids=lambda value: str(value)[:30])
def test_bad_input_is_named_in_one_line_and_nothing_is_started(field: str, options: dict[str, Any]) -> None:
    with casemate.Engine(warm=False) as own:
        given: dict[str, Any] = {"code": "print(1)", "runtime": "python", **options}
        with pytest.raises(casemate.InvalidInput) as caught:
            casemate.run(given.pop("code"), given.pop("runtime"), engine=own, **given)
        assert caught.value.field == field
        assert len(str(caught.value).splitlines()) == 1
        assert own.backend.launcher.pid == 0


@pytest.mark.parametrize("command", [[], [""], "ls -l", ["a\0"], [1], None, ["x"] * (bound.ARGS_MAX + 1)])
def test_a_bad_command_is_named_and_nothing_is_started(command: Any) -> None:
    with casemate.Engine(warm=False) as own:
        with pytest.raises(casemate.InvalidInput) as caught:
            casemate.execute(command, engine=own)
        assert caught.value.field == "argv"
        assert own.backend.launcher.pid == 0


def test_a_layer_that_is_not_there_is_refused_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CASEMATE_CGROUP", "none")
    with casemate.Engine(warm=False) as own, pytest.raises(casemate.LayerMissing) as caught:
        casemate.execute(["true"], engine=own, require=["cgroup", "seccomp"])
    assert caught.value.layers == (casemate.Layer.CGROUP,)
    assert "doctor" in caught.value.hint or caught.value.hint


def test_every_layer_that_is_in_force_can_be_required(execute: Run) -> None:
    layers = execute("true").isolation.layers
    assert text_of(execute("echo", "on", require=layers)) == "on\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timeout": 5}, r"^timeout: unknown option \(hint: write limits={'timeout': 5}\)$"),
        ({"memory": "1Gi"}, r"hint: write limits={'memory': '1Gi'}\)$"),
        ({"on_ouput": print}, r"^on_ouput: .*did you mean on_output\? known: .*engine, "),
        ({"cancel": "x"}, r"^cancel: must be a CancelToken, not str$"),
        ({"limits": {"timeout": None}}, r"^limits.timeout: .* text such as 5s, not NoneType$"),
        ({"env": {"A": 1}}, r"^env: the value of 'A' must be text, not int$"),
    ],
    ids=["timeout", "memory", "callback", "token", "none", "variable"],
)
def test_a_mistaken_call_is_answered_with_what_was_meant(options: dict[str, Any], message: str) -> None:
    with pytest.raises(casemate.InvalidInput, match=message):
        casemate.run("", **options)


def test_a_command_as_text_is_answered_with_its_words() -> None:
    with pytest.raises(casemate.InvalidInput, match=r"^argv: must be a list \(hint: write argv=\['ls', '-la'\]\)$"):
        casemate.execute("ls -la")


def test_a_file_of_a_sandbox_is_bytes_or_text(make_sandbox: MakeSandbox) -> None:
    with pytest.raises(casemate.InvalidInput, match=r"^data: must be bytes or text, not int$"):
        make_sandbox("bash").files.write("x", 5)  # type: ignore[arg-type]

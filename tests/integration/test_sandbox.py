"""A sandbox that stays: files, many programs in turn and at once, terminals, and an end that is an end."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import casemate
from casemate import limits
from casemate.engine.collect import names_in
from casemate.engine.drive import drive
from casemate.isolation.waiting import Turn
from casemate.kernel.cgroup_types import CgroupUnavailable
from casemate.model.result import Reason
from casemate.model.spec import WRITABLE_DIRECTORIES

if TYPE_CHECKING:
    from tests.integration.conftest import MakeSandbox

MIB = 2**20


def text_of(result: casemate.Result) -> str:
    assert result.ok, (result.reason, result.exit_code, result.signal, result.error, result.stderr.text[-400:])
    return result.stdout.text


# Files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["a", "deep/er/a", "/tmp/a", "/dev/shm/a", "/home/guest/.a", "/code/a", "ä b\n", "-rf"]
)
def test_a_file_that_is_written_can_be_read_seen_and_removed(sandbox: casemate.Sandbox, path: str) -> None:
    files = sandbox.files
    files.write(path, b"\0\xffdata")
    assert files.read(path) == b"\0\xffdata"
    full = os.path.join("/work", path)  # noqa: PTH118 - a path inside
    assert text_of(sandbox.exec(["wc", "-c", full])).split()[0] == "6"
    assert os.path.basename(path) in [entry.name for entry in files.list(os.path.dirname(full))]  # noqa: PTH119, PTH120
    files.remove(path)
    with pytest.raises(casemate.FileTransferError, match="No such file"):
        files.read(path)


def test_writing_again_replaces_the_content_and_the_execute_bit(sandbox: casemate.Sandbox, tmp_path: Path) -> None:
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\necho a tool that is longer\n")
    tool.chmod(0o755)
    sandbox.files.write("tool", "data that was there before, and longer than what comes now. " * 9)
    assert sandbox.run("import subprocess; subprocess.run(['./tool'], check=True)", files={"tool": tool}).ok
    sandbox.files.write("tool", "ä")
    assert sandbox.files.read("tool") == "ä".encode()
    assert sandbox.exec(["./tool"]).reason is Reason.DENIED


def test_large_files_pass_whole_both_ways(sandbox: casemate.Sandbox) -> None:
    data = os.urandom(20 * MIB)
    sandbox.files.write("big", data)
    assert sandbox.files.read("big") == data


def test_directories_are_listed_by_name_with_kind_and_size(sandbox: casemate.Sandbox) -> None:
    sandbox.exec(["sh", "-c", "mkdir d; echo 123 > f; ln -s /etc/passwd l; mkfifo p; : > \"$(printf 'x\\377')\""])
    assert [(entry.name, entry.kind) for entry in sandbox.files.list()] == [
        ("d", "directory"),
        ("f", "file"),
        ("l", "link"),
        ("p", "other"),
        ("x\\xff", "file"),
    ]
    assert {entry.name: entry.size_bytes for entry in sandbox.files.list("/work")}["f"] == 4


def test_directories_are_made_with_their_parents_and_may_be_there(sandbox: casemate.Sandbox) -> None:
    for _ in range(2):
        sandbox.files.make_directory("a/b/c")
    assert sandbox.files.list("a/b")[0].name == "c"
    sandbox.files.remove("a/b/c")
    assert sandbox.files.list("a/b") == ()


@pytest.fixture
def requests_of(sandbox: casemate.Sandbox, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], int]:
    """Return what counts the requests to the sandbox's init."""
    inside = sandbox._session.sandbox
    sent: list[bytes] = []
    send = inside.request

    def request(message: bytes) -> socket.socket:
        sent.append(message)
        return send(message)

    monkeypatch.setattr(inside, "request", request)

    def count(action: Callable[[], object]) -> int:
        sent.clear()
        action()
        return len(sent)

    return count


def test_directories_of_files_are_asked_for_once_each(
    sandbox: casemate.Sandbox, requests_of: Callable[[Callable[[], object]], int]
) -> None:
    files = {f"a/b/c/d/{number}": b"x" for number in range(50)}
    assert requests_of(lambda: sandbox.run("output = 1", files=files)) == 4 + len(files) + 1
    assert requests_of(lambda: sandbox.files.write("a/b/c/d/0", "y")) == 1
    assert requests_of(lambda: sandbox.files.write("e/f/new", "y")) == 1 + 2 + 1
    assert sandbox.files.read("e/f/new") == b"y"


def test_what_cannot_be_done_is_an_error_that_names_the_path(sandbox: casemate.Sandbox) -> None:
    files = sandbox.files
    sandbox.exec(
        ["sh", "-c", "mkdir full; echo > full/f; ln -s /etc/passwd link; ln -s /etc dir; mkfifo pipe; echo > file"]
    )
    attempts: list[tuple[Callable[[], object], str]] = [
        (lambda: files.read("nothing"), "/work/nothing: No such file"),
        (lambda: files.read("full"), "/work/full: not a regular file"),
        (lambda: files.read("pipe"), "/work/pipe: not a regular file"),
        (lambda: files.read("link"), "/work/link: .*symbolic links"),
        (lambda: files.read("dir/passwd"), "symbolic links are not followed"),
        (lambda: files.write("link", b"x"), "symbolic links are not followed"),
        (lambda: files.write("dir/x", b"x"), "/work/dir"),
        (lambda: files.write("file/x", b"x"), "/work/file/x: Not a directory"),
        (lambda: files.write("full", b"x"), "/work/full: Is a directory"),
        (lambda: files.write("pipe", b"x"), "/work/pipe"),
        (lambda: files.list("file"), "/work/file: Not a directory"),
        (lambda: files.list("nothing"), "/work/nothing: No such file"),
        (lambda: files.remove("full"), "/work/full: Directory not empty"),
        (lambda: files.remove("nothing"), "/work/nothing: No such file"),
        (lambda: files.read("file", max_bytes=0), "/work/file: larger than 0 bytes"),
    ]
    for attempt, message in attempts:
        with pytest.raises(casemate.FileTransferError, match=message):
            attempt()
    assert text_of(sandbox.exec(["cat", "/etc/passwd"])).startswith("guest:")


def test_a_link_is_removed_and_not_what_it_leads_to(sandbox: casemate.Sandbox) -> None:
    sandbox.exec(["sh", "-c", "echo kept > target; ln -s target link"])
    sandbox.files.remove("link")
    assert [entry.name for entry in sandbox.files.list()] == ["target"]


def test_a_directory_is_not_made_where_something_else_is(sandbox: casemate.Sandbox) -> None:
    sandbox.files.write("a", b"")
    assert sandbox.exec(["ln", "-s", "/tmp", "link"]).ok
    for path in ("a", "a/b", "a/b/c", "link"):
        with pytest.raises(casemate.FileTransferError, match="Not a directory") as caught:
            sandbox.files.make_directory(path)
        assert caught.value.errno == errno.ENOTDIR


def test_a_directory_that_is_there_is_made_again_without_a_word(sandbox: casemate.Sandbox) -> None:
    sandbox.files.make_directory("a/b")
    sandbox.files.make_directory("a/b")
    assert sandbox.exec(["chmod", "300", "a/b"]).ok
    sandbox.files.make_directory("a/b")
    sandbox.files.write("a/b/c", b"1")
    assert sandbox.files.read("a/b/c") == b"1"


def test_a_directory_that_cannot_be_looked_into_is_an_error_of_ours(sandbox: casemate.Sandbox) -> None:
    assert sandbox.exec(["sh", "-c", "mkdir shut; touch shut/file; chmod 400 shut"]).ok
    if os.geteuid() == 0:
        assert [entry.name for entry in sandbox.files.list("shut")] == ["file"]
        return
    with pytest.raises(casemate.FileTransferError, match="shut: Permission denied"):
        sandbox.files.list("shut")


def test_a_directory_is_not_read_beyond_the_bound(
    sandbox: casemate.Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "COLLECT_ENTRIES_MAX", 2)
    for name in "abcd":
        sandbox.files.write(name, b"")
        (tmp_path / name).touch()
    with pytest.raises(casemate.FileTransferError, match="more than 2 entries"):
        sandbox.files.list()
    with ExitStack() as stack:
        fd = os.open(tmp_path, os.O_RDONLY)
        stack.callback(os.close, fd)
        assert len(drive(names_in(fd, Turn()))) == 3


@pytest.mark.parametrize("path", ["../a", "/etc/a", "", "/work/../etc/a", "/proc/self/environ", "a\0"])
def test_paths_outside_are_refused(sandbox: casemate.Sandbox, path: str) -> None:
    for attempt in (sandbox.files.read, sandbox.files.remove, sandbox.files.list, sandbox.files.make_directory):
        with pytest.raises(casemate.InvalidInput, match=r"^path: "):
            attempt(path)
    with pytest.raises(casemate.InvalidInput, match=r"^path: "):
        sandbox.files.write(path, b"")


@pytest.mark.limits
def test_files_count_against_the_disk_limit(make_sandbox: MakeSandbox) -> None:
    sandbox = make_sandbox(limits={"disk": "1Mi"})
    with pytest.raises(casemate.FileTransferError, match="No space left") as caught:
        sandbox.files.write("big", bytes(2 * MIB))
    assert "disk limit" in caught.value.hint
    sandbox.files.remove("big")
    sandbox.files.write("small", bytes(MIB // 2))


def test_files_are_collected_while_the_sandbox_goes_on(sandbox: casemate.Sandbox) -> None:
    sandbox.exec(["sh", "-c", "mkdir out; echo 1 > out/a.csv; echo 2 > b.csv; ln -s b.csv c.csv"])
    assert [(file.path, file.data) for file in sandbox.files.collect("**/*.csv")] == [
        ("b.csv", b"2\n"),
        ("out/a.csv", b"1\n"),
    ]
    assert sandbox.files.collect() == ()
    assert sandbox.exec(["true"]).ok


# In turn and at once ------------------------------------------------------------------------------


def test_files_and_variables_of_the_system_stay_between_programs(sandbox: casemate.Sandbox) -> None:
    assert text_of(sandbox.run("open('count', 'w').write('1'); print('written')")) == "written\n"
    assert text_of(sandbox.exec(["sh", "-c", "cat count; echo 2 >> count"])) == "1"
    assert sandbox.run("output = open('count').read()").output == "12\n"


def test_each_program_has_its_own_input_arguments_environment_and_directory(sandbox: casemate.Sandbox) -> None:
    sandbox.files.make_directory("sub")
    assert sandbox.run("output = input", input={"n": 1}).output == {"n": 1}
    assert sandbox.run("output = 'input' in globals()").output is False
    assert text_of(sandbox.exec(["sh", "-c", "pwd; echo $X; cat"], cwd="sub", env={"X": "1"}, stdin=b"in")) == (
        "/work/sub\n1\nin"
    )
    assert text_of(sandbox.exec(["sh", "-c", "pwd; echo $X; cat"])) == "/work\n\n"


@pytest.mark.parametrize("cwd", ["nothing", "file", "link"])
def test_a_directory_to_work_in_has_to_be_one(sandbox: casemate.Sandbox, cwd: str) -> None:
    sandbox.exec(["sh", "-c", "echo > file; ln -s /tmp link"])
    with pytest.raises(casemate.InvalidInput, match=r"^cwd: "):
        sandbox.exec(["pwd"], cwd=cwd)
    for directory in WRITABLE_DIRECTORIES:
        assert text_of(sandbox.exec(["pwd"], cwd=directory)) == f"{directory}\n"


def test_many_programs_in_turn_leave_the_sandbox_as_it_was(sandbox: casemate.Sandbox) -> None:
    for number in range(30):
        assert text_of(sandbox.exec(["echo", str(number)])) == f"{number}\n"
    count = text_of(sandbox.exec(["sh", "-c", "ls -d /proc/[0-9]* | wc -l"]))
    assert int(count) <= 5


def test_many_threads_use_one_sandbox_at_once(make_sandbox: MakeSandbox) -> None:
    sandbox = make_sandbox(limits={"processes": 200})

    def use(number: int) -> tuple[str, bytes]:
        sandbox.files.write(f"in/{number}", str(number))
        said = text_of(sandbox.exec(["sh", "-c", f"cat in/{number} - | tee out-{number}"], stdin=f" {number}"))
        return said, sandbox.files.read(f"out-{number}")

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(use, range(32))) == [(f"{n} {n}", f"{n} {n}".encode()) for n in range(32)]
    assert len(sandbox.files.list()) == 33


def test_programs_really_run_beside_one_another(sandbox: casemate.Sandbox) -> None:
    """Each of the two can only end when the other has started."""
    sandbox.exec(["mkfifo", "there", "back"])
    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(sandbox.exec, ["sh", "-c", "echo 1 > there; cat back"])
        two = pool.submit(sandbox.exec, ["sh", "-c", "cat there; echo 2 > back"])
        assert (text_of(one.result()), text_of(two.result())) == ("2\n", "1\n")


def test_background_processes_stay_and_can_be_found_again(sandbox: casemate.Sandbox) -> None:
    script = "(trap 'echo told > answer; exit' USR1; while :; do sleep 0.01; done) > /dev/null 2>&1 & echo $!"
    pid = text_of(sandbox.exec(["sh", "-c", script])).strip()
    assert sandbox.exec(["kill", "-0", pid]).ok
    assert sandbox.exec(["kill", "-USR1", pid]).ok
    assert text_of(sandbox.exec(["sh", "-c", "while ! [ -s answer ]; do :; done; cat answer"])) == "told\n"


def test_what_a_background_process_holds_open_is_not_waited_for(sandbox: casemate.Sandbox) -> None:
    assert text_of(sandbox.exec(["sh", "-c", "sleep 1000 & echo now"])) == "now\n"
    assert sandbox.exec(["pkill", "sleep"]).ok


# Limits of one run and of all ---------------------------------------------------------------------


@pytest.mark.limits
def test_each_run_has_limits_of_its_own_and_the_sandbox_goes_on(sandbox: casemate.Sandbox) -> None:
    sandbox.files.write("kept", b"1")
    timed = sandbox.exec(["sleep", "1000"], limits={"timeout": "100ms"})
    assert timed.reason is Reason.TIMEOUT
    told = sandbox.exec(["sh", "-c", "while :; do echo x; done"], limits={"output": 1000})
    assert told.reason is Reason.OUTPUT
    busy = sandbox.exec(["sh", "-c", "while :; do :; done"], limits={"cpu_time": "100ms"})
    assert busy.reason is Reason.CPU
    assert sandbox.files.read("kept") == b"1"
    assert text_of(sandbox.exec(["sh", "-c", "ps -e -o comm= | grep -c sleep || true"])) == "0\n"


@pytest.mark.limits
def test_a_run_is_not_charged_for_those_before_it(sandbox: casemate.Sandbox) -> None:
    """Several long ones, and then one that does next to nothing."""
    busy = ["sh", "-c", "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done"]
    before_s = 0.0
    for _ in range(3):
        used = sandbox.exec(busy).usage
        before_s += used.cpu_user_s + used.cpu_system_s
    result = sandbox.exec(["true"], limits={"cpu_time": before_s / 2})
    assert result.ok, result.reason
    assert result.usage.cpu_user_s + result.usage.cpu_system_s < before_s / 2


@pytest.mark.limits
def test_a_timeout_takes_the_program_s_children_with_it(sandbox: casemate.Sandbox) -> None:
    result = sandbox.exec(["sh", "-c", "sleep 1000 & sleep 1001 & wait"], limits={"timeout": "200ms"})
    assert result.reason is Reason.TIMEOUT
    assert sandbox.exec(["sh", "-c", "while pgrep sleep; do :; done"]).ok


@pytest.mark.limits
def test_one_program_s_end_does_not_touch_the_other(sandbox: casemate.Sandbox) -> None:
    sandbox.exec(["mkfifo", "go"])
    running = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        command = ["sh", "-c", "echo on; cat go; echo end"]
        patient = pool.submit(sandbox.exec, command, on_output=lambda _: running.set())
        running.wait()
        assert sandbox.exec(["sleep", "1000"], limits={"timeout": "100ms"}).reason is Reason.TIMEOUT
        assert sandbox.exec(["sh", "-c", "echo > go"]).ok
        assert text_of(patient.result()) == "on\n\nend\n"


@pytest.mark.parametrize("key", ["memory", "cpu", "processes", "disk", "inodes", "open_files"])
def test_limits_of_the_sandbox_are_not_a_run_s_to_change(sandbox: casemate.Sandbox, key: str) -> None:
    with pytest.raises(casemate.InvalidInput) as caught:
        sandbox.exec(["true"], limits={key: 100})
    assert caught.value.field == f"limits.{key}"


@pytest.mark.limits
def test_running_out_of_memory_is_told_and_then_the_sandbox_may_have_ended(
    engine: casemate.Engine, make_sandbox: MakeSandbox
) -> None:
    sandbox = make_sandbox(limits={"memory": "64Mi"})
    result = sandbox.run("blocks = []\nwhile True: blocks.append(bytearray(2**20))")
    assert result.reason is Reason.MEMORY
    if isinstance(engine.backend.cgroups, CgroupUnavailable):
        return
    try:
        assert sandbox.exec(["true"]).ok
    except casemate.SandboxClosed:
        sandbox.close()


def test_a_token_ends_one_program_and_leaves_the_sandbox(sandbox: casemate.Sandbox) -> None:
    token = casemate.CancelToken()
    result = sandbox.exec(["sh", "-c", "echo on; sleep 1000"], cancel=token, on_output=lambda _: token.cancel())
    assert result.reason is Reason.CANCELLED
    assert sandbox.exec(["true"]).ok


def test_a_listener_that_raises_ends_its_program_and_leaves_the_sandbox(sandbox: casemate.Sandbox) -> None:
    def refuse(_: casemate.Chunk) -> None:
        raise LookupError

    with pytest.raises(LookupError):
        sandbox.exec(["sh", "-c", "echo on; sleep 1000"], on_output=refuse)
    assert sandbox.exec(["sh", "-c", "while pgrep sleep; do :; done"]).ok


def test_what_a_run_says_of_its_use_is_its_own(sandbox: casemate.Sandbox) -> None:
    busy = sandbox.run("import time\nwhile time.process_time() < 0.2: pass")
    idle = sandbox.exec(["true"])
    assert seconds(busy) >= 0.15
    assert seconds(idle) < seconds(busy)


def seconds(result: casemate.Result) -> float:
    return result.usage.cpu_user_s + result.usage.cpu_system_s


# The end ------------------------------------------------------------------------------------------


def use_after_close(sandbox: casemate.Sandbox) -> list[Callable[[], object]]:
    return [
        lambda: sandbox.exec(["true"]),
        lambda: sandbox.run("1"),
        lambda: sandbox.files.read("a"),
        lambda: sandbox.files.write("a", b""),
        sandbox.files.list,
        lambda: sandbox.files.remove("a"),
        lambda: sandbox.files.make_directory("a"),
        lambda: sandbox.files.collect("*"),
        sandbox.open_pty,
        lambda: sandbox.isolation,
    ]


def test_after_its_end_a_sandbox_says_so(sandbox: casemate.Sandbox, settled: Callable[[], list[int]]) -> None:
    sandbox.exec(["sh", "-c", "sleep 1000 &"])
    sandbox.close()
    assert settled() == []
    sandbox.close()
    for attempt in use_after_close(sandbox):
        with pytest.raises(casemate.SandboxClosed):
            attempt()


def test_leaving_the_block_is_the_end_also_by_an_error(engine: casemate.Engine) -> None:
    with pytest.raises(LookupError), casemate.Sandbox(engine=engine) as sandbox:
        raise LookupError
    with pytest.raises(casemate.SandboxClosed):
        sandbox.exec(["true"])


def test_closing_from_another_thread_ends_what_is_running(make_sandbox: MakeSandbox) -> None:
    for _ in range(5):
        assert ended_by_closing(make_sandbox())


def ended_by_closing(sandbox: casemate.Sandbox) -> bool:
    with ThreadPoolExecutor(1) as pool:

        def close_it(_: casemate.Chunk) -> None:
            pool.submit(sandbox.close)

        try:
            return sandbox.exec(["sh", "-c", "echo on; sleep 1000"], on_output=close_it).reason is Reason.LOST
        except casemate.SandboxClosed:
            return True


def test_closing_from_a_listener_ends_what_is_running(make_sandbox: MakeSandbox) -> None:
    sandbox = make_sandbox()
    result = sandbox.exec(["sh", "-c", "echo on; sleep 1000"], on_output=lambda _: sandbox.close())
    assert result.reason is Reason.LOST
    assert result.stdout.text == "on\n"


def test_closing_while_many_threads_use_it_ends_all_of_them_cleanly(make_sandbox: MakeSandbox) -> None:
    for turn in range(4):
        sandbox = make_sandbox()
        in_the_middle = threading.Barrier(5)

        def use(place: int, *, held: casemate.Sandbox = sandbox, together: threading.Barrier = in_the_middle) -> None:
            uses: list[Callable[[], object]] = [
                lambda: held.exec(["sh", "-c", "echo $PPID"]),
                lambda: held.files.write("deep/er/file", b"1"),
                held.files.list,
                lambda: held.files.collect("**"),
            ]
            together.wait()
            with pytest.raises((casemate.SandboxClosed, casemate.FileTransferError)):
                deque(iter(uses[place], together), maxlen=0)  # again and again, for it never answers that

        with ThreadPoolExecutor(4) as pool:
            users = [pool.submit(use, place) for place in range(4)]
            in_the_middle.wait()
            sandbox.exec(["sh", "-c", f"sleep 0.00{turn}"])
            sandbox.close()
            assert [user.result() for user in users] == [None] * 4


def test_a_guest_cannot_end_its_sandbox_by_killing_all_it_sees(sandbox: casemate.Sandbox) -> None:
    result = sandbox.exec(["sh", "-c", "sleep 1000 & kill -9 1; kill -TERM 1; kill -9 -1; echo still"])
    assert text_of(result) == "still\n"
    assert sandbox.exec(["true"]).ok


def test_sandboxes_do_not_see_one_another(make_sandbox: MakeSandbox) -> None:
    one, two = make_sandbox(), make_sandbox()
    one.files.write("/tmp/mine", b"1")
    one.exec(["sh", "-c", "sleep 1000 &"])
    assert two.files.list("/tmp") == ()
    assert text_of(two.exec(["sh", "-c", "pgrep sleep || echo none"])) == "none\n"


# Terminals ----------------------------------------------------------------------------------------


class Screen:
    """A terminal and all that it has shown so far."""

    def __init__(self, terminal: casemate.Terminal, patience_s: float) -> None:
        self.terminal = terminal
        self.shown = ""
        self._patience_s = patience_s

    def until(self, pattern: str) -> str:
        """Read until the pattern is there; what was matched, and forget what was before."""
        deadline_s = time.monotonic() + self._patience_s
        while not (found := re.search(pattern, self.shown)):
            assert time.monotonic() < deadline_s, f"no {pattern!r} in {self.shown!r}"
            self.shown += self.terminal.read(timeout_s=0.5).decode(errors="replace")
        self.shown = self.shown[found.end() :]
        return found[0]

    def type(self, text: str) -> None:
        self.terminal.write(text.encode())


OpenScreen = Callable[..., Screen]


@pytest.fixture
def open_screen(sandbox: casemate.Sandbox, slowness: float) -> Iterator[OpenScreen]:
    opened: list[casemate.Terminal] = []

    def start(*argv: str, **options: Any) -> Screen:
        opened.append(sandbox.open_pty(argv, **options))
        return Screen(opened[-1], 10 * slowness)

    yield start
    for terminal in opened:
        terminal.close()


def test_a_terminal_has_the_size_it_was_given_and_tells_of_a_new_one(open_screen: OpenScreen) -> None:
    script = "stty size; trap 'stty size; exit 7' WINCH; echo ready; while :; do sleep 0.02; done"
    screen = open_screen("sh", "-c", script, rows=33, columns=101)
    screen.until("33 101\r\n")
    screen.until("ready")
    screen.terminal.resize(50, 132)
    screen.until("50 132\r\n")
    assert screen.terminal.wait() == 7
    assert screen.terminal.wait() == 7


def test_a_program_on_a_terminal_knows_it(open_screen: OpenScreen) -> None:
    screen = open_screen("sh", "-c", "tty; test -t 0 && test -t 1 && test -t 2 && echo all; echo $TERM; ls /dev/pts")
    assert screen.until(r"/dev/pts/\d+") == "/dev/pts/0"
    screen.until("all\r\n")
    screen.until("xterm-256color")


def test_what_is_typed_is_echoed_and_read(open_screen: OpenScreen) -> None:
    screen = open_screen("sh", "-c", "read x; echo got:$x")
    screen.type("hellö\n")
    screen.until("hellö\r\n")
    screen.until("got:hellö\r\n")


def test_ctrl_c_ends_the_foreground_and_not_the_shell(open_screen: OpenScreen) -> None:
    screen = open_screen("sh", "-i", env={"PS1": "> "})
    screen.until("> ")
    screen.type("sh -c 'echo on-$((0+1)); exec sleep 1000'\n")
    screen.until("on-1\r\n")
    screen.type("\x03")
    screen.until("> ")
    screen.type("echo still-$((1+1))\n")
    screen.until("still-2\r\n")
    screen.type("\x04")
    assert screen.terminal.wait() >= 0


def test_the_runtime_s_own_prompt_is_the_default(open_screen: OpenScreen) -> None:
    screen = open_screen()
    screen.until(">>> ")
    screen.type("6 * 7\r")
    screen.until("42\r\n")
    screen.type("exit(3)\r")
    assert screen.terminal.wait() == 3


def test_much_output_and_much_input_pass_a_terminal(open_screen: OpenScreen) -> None:
    screen = open_screen("sh", "-c", "stty raw -echo; echo ready; head -c 200000 | sha256sum")
    screen.until("ready")
    reader: list[str] = []
    waiting = threading.Thread(target=lambda: reader.append(screen.until("[0-9a-f]{64}")))
    waiting.start()
    screen.type("x" * 200_000)
    waiting.join()
    assert reader == [hashlib.sha256(b"x" * 200_000).hexdigest()]


def test_the_end_of_the_program_is_the_end_of_reading(open_screen: OpenScreen) -> None:
    screen = open_screen("echo", "bye")
    screen.until("bye")
    while screen.terminal.read():
        continue
    assert screen.terminal.wait() == 0


def test_reading_gives_up_when_its_time_is_over(open_screen: OpenScreen) -> None:
    assert open_screen("sleep", "1000").terminal.read(timeout_s=0.01) == b""


def test_hanging_up_ends_the_program_and_can_be_repeated(open_screen: OpenScreen, sandbox: casemate.Sandbox) -> None:
    screen = open_screen("sleep", "1000")
    screen.terminal.close()
    screen.terminal.close()
    assert sandbox.exec(["sh", "-c", "while pgrep sleep; do :; done"]).ok
    attempts: list[Callable[[], object]] = [
        screen.terminal.read,
        screen.terminal.wait,
        lambda: screen.terminal.write(b"x"),
        lambda: screen.terminal.resize(1, 1),
    ]
    for attempt in attempts:
        with pytest.raises(casemate.SandboxClosed):
            attempt()


@pytest.mark.parametrize("use", ["read", "write", "wait"])
def test_hanging_up_wakes_whoever_waits_in_another_thread(open_screen: OpenScreen, use: str, slowness: float) -> None:
    """What was its descriptor may be another file of ours by then: nobody looks at it any more."""
    terminal = open_screen("sh", "-c", "stty raw -echo; sleep 1000").terminal
    uses: dict[str, Callable[[], object]] = {
        "read": lambda: [terminal.read() for _ in iter(int, 1)],
        "write": lambda: terminal.write(bytes(2**20)),
        "wait": terminal.wait,
    }
    with ThreadPoolExecutor(1) as pool:
        user = pool.submit(uses[use])
        assert wait_for(lambda: terminal._session._users == 1, 10 * slowness)
        terminal.close()
        with pytest.raises(casemate.SandboxClosed):
            user.result(timeout=10 * slowness)


def wait_for(condition: Callable[[], bool], patience_s: float) -> bool:
    deadline_s = time.monotonic() + patience_s
    while not condition() and time.monotonic() < deadline_s:
        threading.Event().wait(0.001)
    return condition()


def test_many_threads_may_wait_for_one_program(open_screen: OpenScreen, slowness: float) -> None:
    terminal = open_screen("sh", "-c", "read x; exit 3").terminal
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(terminal.wait) for _ in range(4)]
        assert wait_for(lambda: terminal._session._users == 4, 10 * slowness)
        terminal.write(b"\n")
        assert {user.result(timeout=10 * slowness) for user in waiting} == {3}


def test_typing_to_a_program_that_reads_nothing_ends_when_it_does(sandbox: casemate.Sandbox, slowness: float) -> None:
    terminal = sandbox.open_pty(["sh", "-c", "stty raw -echo; echo ready; sleep 0.3"])
    while b"ready" not in terminal.read(timeout_s=10 * slowness):
        pass
    with ThreadPoolExecutor(1) as pool, closing(terminal):
        writing = pool.submit(terminal.write, b"x" * 1_000_000)
        with pytest.raises(casemate.SandboxClosed, match="has ended"):
            writing.result(timeout=10 * slowness)


def test_the_end_of_the_sandbox_is_the_end_of_its_terminals(make_sandbox: MakeSandbox) -> None:
    sandbox = make_sandbox()
    terminal = sandbox.open_pty(["sleep", "1000"])
    sandbox.close()
    with pytest.raises(casemate.SandboxClosed):
        terminal.wait()
    assert terminal.read() == b""
    terminal.close()


def test_a_terminal_for_nothing_is_refused(sandbox: casemate.Sandbox) -> None:
    for rows, columns in ((0, 80), (24, 0), (-1, 80), (24, 10**6)):
        with pytest.raises(casemate.InvalidInput, match=r"^size: "):
            sandbox.open_pty(["true"], rows=rows, columns=columns)
    with pytest.raises(casemate.LaunchError) as caught:
        sandbox.open_pty(["no-such-program"])
    assert caught.value.errno == errno.ENOENT
    with pytest.raises(casemate.InvalidInput, match=r"^argv: "):
        sandbox.open_pty("ls -l")


def test_many_terminals_at_once_are_many_terminals(sandbox: casemate.Sandbox, slowness: float) -> None:
    opened = [sandbox.open_pty(["sh", "-c", f"tty; echo number-{n}-"]) for n in range(8)]
    screens = [Screen(terminal, 10 * slowness) for terminal in opened]
    names = {screen.until(r"/dev/pts/\d+") for screen in screens}
    assert len(names) == 8
    for number, screen in enumerate(screens):
        screen.until(f"number-{number}-")
        screen.terminal.close()


def test_what_is_asked_of_a_closed_engine_says_so() -> None:
    with casemate.Engine() as engine:
        sandbox = casemate.Sandbox("bash", engine=engine)
    for ask in (
        lambda: sandbox.run("true"),
        lambda: sandbox.exec(["true"]),
        lambda: sandbox.files.read("x"),
        sandbox.open_pty,
        lambda: casemate.run("true", "bash", engine=engine),
        lambda: casemate.Sandbox("bash", engine=engine),
    ):
        with pytest.raises(casemate.SandboxClosed, match="the engine is closed"):
            ask()
    sandbox.close()


def test_a_terminal_s_silence_and_its_end_can_be_told_apart(sandbox: casemate.Sandbox) -> None:
    with sandbox.open_pty(["sh", "-c", "read line; kill -KILL $$"]) as terminal:
        assert (terminal.read(0.01), terminal.ended) == (b"", False)
        terminal.write(b"x\n")
        while not terminal.ended:
            terminal.read()
        assert terminal.wait() == -signal.SIGKILL

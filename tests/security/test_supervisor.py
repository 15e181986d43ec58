"""Attacks on what supervises (S1 to S18): the launcher, init, the engine, and what they believe.

S9 (queues) and S15 (package installation) belong to the service and to package sets, S17 to whatever will take
archives: no way in takes one today. S16 is proven for a sandbox that stays; zygotes have it again for themselves.
"""

from __future__ import annotations

import ast
import hashlib
import json
import math
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest
from tests.machine import sandbox_mounts

import casemate
from casemate import (
    CasemateError,
    Engine,
    InvalidInput,
    Layer,
    LayerMissing,
    Reason,
    Result,
    Sandbox,
    SandboxClosed,
    Status,
)
from casemate.isolation.launcher import PROGRAM
from casemate.kernel.cgroup_types import CgroupUnavailable
from casemate.kernel.processes import process_tree
from casemate.model.layers import REQUIRED

Execute = Callable[..., Result]
Answers = Callable[..., "dict[str, str]"]
Open = Callable[..., Sandbox]
Parse = Callable[[Result], "dict[str, str]"]
Apart = Callable[..., subprocess.CompletedProcess[str]]

SOURCES: Final = Path(casemate.__file__).parent
GONE_WITHIN_S: Final = 5.0
POLL_S: Final = 0.002


def eventually(condition: Callable[[], bool], within_s: float) -> bool:
    deadline_s = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(POLL_S)
    return True


def digests(*paths: Path) -> dict[Path, str]:
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


# S1 S2: the sockets and files of the supervisor ---------------------------------------------------


def test_s1_control_socket_is_out_of_reach(ask_python: Answers) -> None:
    answers = ask_python("""
        import socket
        reached = []
        for number in range(0x1000):
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
                try:
                    client.connect(f"\\0{number:05x}")
                    reached.append(number)
                except OSError as error:
                    if error.errno != errno.ECONNREFUSED:
                        reached.append(error)
        say("reached", reached)
        say("listed", open("/proc/net/unix").read().count("\\n"))
        attempt("descriptors of init", os.listdir, "/proc/1/fd")
        attempt("memory of init", os.open, "/proc/1/mem", os.O_RDWR)
        for pid in range(2, 50):
            if os.path.exists(f"/proc/{pid}/fd") and pid != os.getpid():
                say(f"process {pid}", "seen")
    """)
    assert answers == {
        "reached": "[]",
        "listed": "1",
        "descriptors of init": "ENOENT",
        "memory of init": "ENOENT",
    }


def test_s2_programs_of_ours_cannot_be_replaced(engine: Engine, sandbox: Open) -> None:
    code = """
import errno, os
def attempt(path, flags):
    try:
        os.open(path, flags)
        return "OK"
    except OSError as error:
        return errno.errorcode[error.errno]
import sys
own = os.path.realpath("/proc/self/exe")
harness = "/opt/casemate/guest/"
names = ["/proc/1/exe", "/proc/self/exe", own, "/usr/bin/bash", harness + "python.py", harness + "new"]
output = {name: [attempt(name, os.O_RDWR), attempt(name, os.O_WRONLY | os.O_TRUNC | os.O_CREAT)] for name in names}
output["init"] = attempt("/proc/1/exe", os.O_RDONLY)
"""
    files = [PROGRAM, *SOURCES.glob("guest/*"), Path(sys.executable).resolve(), Path("/usr/bin/bash")]
    before = digests(*(path for path in files if path.is_file()))
    result = casemate.run(code, engine=engine)
    assert result.output is not None, result
    answers = dict(result.output)
    assert answers.pop("init") == "ENOENT"
    assert answers.pop("/proc/1/exe") == ["ENOENT", "ENOENT"]
    assert {answer for pair in answers.values() for answer in pair} <= {"ENOENT", "EACCES", "EROFS", "ETXTBSY"}
    assert digests(*before) == before


def test_s2_no_file_of_the_host_runs_in_a_sandbox(engine: Engine) -> None:
    """What init and its children run until their exec is the launcher's: a copy that nobody can change."""
    launcher = Path(f"/proc/{engine.backend.launcher.pid}")
    assert str((launcher / "exe").readlink()) == "/memfd:init (deleted)"
    assert "casemate" not in (launcher / "maps").read_text()
    with pytest.raises(OSError, match=r"busy|not permitted"):
        (launcher / "exe").open("r+b")


NEWBORNS: Final = 60
INIT_TIMEOUT_S: Final = 5.0


def set_probe_free(opened: Sandbox, program: bytes, attack: str) -> None:
    """Start a probe that goes on in the background of a sandbox; returns when it is at work."""
    opened.files.write("probe", program)
    assert opened.exec(["sh", "-c", f"chmod 755 probe && exec ./probe {attack} > armed"]).ok
    assert eventually(lambda: opened.files.read("armed") == b"armed\tOK\n", INIT_TIMEOUT_S)


def test_s1_s2_what_init_forks_cannot_be_looked_into_before_it_is_a_program(
    sandbox: Open, compiled: Callable[[str], bytes]
) -> None:
    opened = sandbox(cpu=2)
    set_probe_free(opened, compiled("newborn"), "look")
    for _ in range(NEWBORNS):
        assert opened.exec(["/bin/true"]).ok
    seen = [line.split() for line in opened.files.read("seen").decode().splitlines()]
    assert any(words[0] != "0" for words in seen), "the probe was too slow to prove anything"
    assert {tuple(words[1:2]) for words in seen} == {("/usr/bin/true",)}, seen
    assert not any(word.startswith("fd/") for words in seen for word in words), seen


# S3: init -----------------------------------------------------------------------------------------


def test_s3_no_signal_of_a_guest_ends_init(sandbox: Open) -> None:
    opened = sandbox()
    code = """
import os, signal
for number in range(1, 65):
    for _ in range(50):
        try:
            os.kill(1, number)
        except OSError as error:
            print(number, error)
print("sent")
"""
    for _ in range(3):
        assert opened.exec(["/usr/bin/python3", "-c", code]).stdout.text == "sent\n"
    assert opened.run("echo alive").stdout.text == "alive\n"


SPOIL_INIT: Final = """
import resource
for number in range(16):
    attempt(f"limit {number}", resource.prlimit, 1, number, (0, 0))
    attempt(f"read {number}", resource.prlimit, 1, number)
attempt("nice", os.setpriority, os.PRIO_PROCESS, 1, 19)
attempt("nice of the group", os.setpriority, os.PRIO_PGRP, 1, 19)
attempt("nice of all", os.setpriority, os.PRIO_USER, 0, 19)
attempt("idle", os.sched_setscheduler, 1, os.SCHED_IDLE, os.sched_param(0))
attempt("parameters", os.sched_setparam, 1, os.sched_param(0))
"""
INHERITED: Final = "ulimit -a; ulimit -Ha; cut -d' ' -f18,19,40,41 /proc/self/stat"


def test_s3_no_guest_takes_limits_or_priority_from_init_and_so_from_later_programs(
    sandbox: Open, answers: Parse, say: str
) -> None:
    opened = sandbox()
    before = opened.exec(["sh", "-c", INHERITED]).stdout.text
    found = answers(opened.exec(["/usr/bin/python3", "-c", say + SPOIL_INIT]))
    assert {answer for what, answer in found.items() if what.startswith("read")} == {"OK"}
    assert {answer for what, answer in found.items() if not what.startswith("read")} == {"EPERM"}
    assert opened.exec(["sh", "-c", INHERITED]).stdout.text == before


LOWER_ONESELF: Final = """
prlimit --pid $$ --nofile=50:60 && ulimit -n && ulimit -Hn
sleep 60 & prlimit --pid $! --nproc=7 && prlimit --pid $! --nproc --noheadings --output=SOFT; renice -n 19 -p $! >&2
cut -d' ' -f19 /proc/$!/stat; kill $!
"""


def test_s3_a_program_may_lower_its_own_limits_and_those_of_its_children(execute: Execute) -> None:
    result = execute(["sh", "-c", LOWER_ONESELF])
    assert result.stdout.text.split() == ["50", "60", "7", "19"], result.stderr.text


def test_s3_nobody_holds_init_up_by_stopping_what_it_forks(
    sandbox: Open, compiled: Callable[[str], bytes], slowness: float
) -> None:
    opened = sandbox(timeout=0.5 * slowness, cpu=2)
    set_probe_free(opened, compiled("newborn"), "stop")
    started_s, caught = time.monotonic(), 0
    for _ in range(NEWBORNS):
        try:
            assert opened.exec(["/bin/true"]).reason in {Reason.EXIT, Reason.TIMEOUT}
        except casemate.LaunchError as error:
            assert error.step == "start of the process"
            caught += 1
            break
    assert caught, "the probe was too slow to prove anything"
    assert time.monotonic() - started_s < NEWBORNS * slowness + 2 * INIT_TIMEOUT_S
    opened.files.write("after", b"init still answers")
    assert opened.files.read("after") == b"init still answers"


def test_s3_killed_init_is_a_lost_run(sandbox: Open) -> None:
    opened = sandbox()
    pid = opened._session.sandbox.pid
    result = opened.exec(["sh", "-c", "echo here; sleep 600"], on_output=lambda _: os.kill(pid, signal.SIGKILL))
    assert (result.status, result.reason) == (Status.FAILED, Reason.LOST)
    assert result.stdout.text == "here\n"
    with pytest.raises(SandboxClosed):
        opened.exec(["true"])


@pytest.mark.limits
def test_s3_out_of_memory_next_to_init(execute: Execute) -> None:
    hog = "import os\nwhile True:\n  os.fork()\n  x = bytearray(8 << 20)\n"
    result = execute(["/usr/bin/python3", "-c", hog], limits={"memory": "48Mi", "processes": 16})
    assert result.status is Status.FAILED
    assert result.reason in {Reason.MEMORY, Reason.EXIT, Reason.SIGNAL, Reason.PROCESSES}
    if not result.isolation.approximate:
        assert result.reason is Reason.MEMORY


# S4 S5: what they believe -------------------------------------------------------------------------

EXECUTES_DATA: Final = {"pickle", "cPickle", "marshal", "shelve", "dill", "yaml", "jsonpickle", "joblib"}


def test_s4_nothing_of_ours_executes_data() -> None:
    """The harness runs code for a living; everything outside the sandbox must not."""
    for path in (path for path in SOURCES.rglob("*.py") if "guest" not in path.relative_to(SOURCES).parts):
        for node in ast.walk(ast.parse(path.read_text())):
            names = {alias.name.split(".")[0] for alias in node.names} if isinstance(node, ast.Import) else set()
            if isinstance(node, ast.ImportFrom):
                names = {(node.module or "").split(".")[0]}
            assert not names & EXECUTES_DATA, path
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in {"eval", "exec", "compile", "__import__"}, path


POISON: Final = {
    "pickle": b"\x80\x04\x95\x1c\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x02id\x94",
    "deep list": b'{"kind":"value","output":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
    "deep object": b'{"kind":"value","output":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
    "many keys": b'{"kind":"value","output":{' + b",".join(b'"%d":1' % n for n in range(100_000)) + b"}}",
    "same key": b'{"kind":"value","kind":"exception","output":1,"output":2}',
    "large number": b'{"kind":"value","output":' + b"9" * 5000 + b"}",
    "large exponent": b'{"kind":"value","output":1e999999}',
    "not a number": b'{"kind":"value","output":NaN}',
    "no text": b'{"kind":"value","output":"\xff\xfe\xed\xa0\x80"}',
    "unknown kind": b'{"kind":"root","output":1}',
    "more fields": b'{"kind":"value","output":1,"status":"succeeded","exit_code":0}',
    "wrong types": b'{"kind":"exception","error":{"type":1,"message":null,"traceback":[]}}',
    "long error": b'{"kind":"exception","error":{"type":"' + b"T" * 10**6 + b'","message":"m","traceback":"t"}}',
    "empty": b"",
    "null": b"null",
    "array": b'["value", 1]',
}

SEND: Final = """
import os, stat, struct, sys
body = open("/work/poison", "rb").read()
frame = struct.pack(">I", len(body)) + body
for fd in range(3, 256):
    try:
        if stat.S_ISFIFO(os.fstat(fd).st_mode):
            at = 0
            while at < len(frame):
                at += os.write(fd, frame[at:])
    except OSError:
        pass
os._exit(0)
"""


@pytest.mark.parametrize("name", POISON)
def test_s4_poisoned_replies(engine: Engine, name: str, slowness: float) -> None:
    result = casemate.run(SEND, files={"poison": POISON[name]}, engine=engine)
    assert (result.reason, result.exit_code) in {(Reason.EXIT, 0), (Reason.VALIDATION, 0)}
    assert result.usage.wall_s < 5 * slowness
    assert type(result.output) in {dict, int, float, str, type(None)}
    assert not isinstance(result.output, float) or math.isfinite(result.output)
    if result.error is not None:
        assert len(result.error.type) <= 200
    for event in result.events:
        assert event.detail.isprintable()


NASTY: Final = "a\n2038-01-19 root: accepted\r\x1b[2J\x1b]0;t\x07\u202e%s%n{0}" + "x" * 10_000


def test_s5_words_of_callers_are_quoted_in_errors(engine: Engine) -> None:
    calls: list[Callable[[], object]] = [
        lambda: casemate.run("1", runtime=NASTY, engine=engine),
        lambda: casemate.run("1", limits={NASTY: 1}, engine=engine),
        lambda: casemate.run("1", limits={"memory": NASTY}, engine=engine),
        lambda: casemate.run("1", files={f"../{NASTY}": b""}, engine=engine),
        lambda: casemate.run("1", env={NASTY: "x"}, engine=engine),
        lambda: casemate.run("1", filename=f"/{NASTY}", engine=engine),
        lambda: casemate.run("1", collect=[f"../{NASTY}"], engine=engine),
        lambda: casemate.run("1", require=[NASTY], engine=engine),
    ]
    for call in calls:
        with pytest.raises(InvalidInput) as caught:
            call()
        assert str(caught.value).isprintable(), repr(str(caught.value))
        assert len(str(caught.value)) < 1000


def test_s5_names_of_a_guest_are_quoted_in_events(execute: Execute) -> None:
    make = """
import os
for name in [b"a\\nroot: accepted", b"\\x1b[2J", b"\\xff\\xfe", b"%s%n", "\\u202etxt".encode(), b"x" * 255]:
    os.symlink(b"/etc/passwd", b"link " + name[:200])
    os.mkfifo(b"fifo " + name[:200])
"""
    result = execute(["/usr/bin/python3", "-c", make], collect=["**"])
    assert result.ok
    assert result.files == ()
    assert result.events
    for event in result.events:
        assert (event.kind + event.detail).isprintable()


# S6 S7: races with collecting and clearing up -----------------------------------------------------

SWAP: Final = """
import os
os.mkdir("/dev/shm/target")
os.chmod("/dev/shm/target", 0)
os.mkdir("real")
with open("real/file", "w") as file:
    file.write("inside")
os.symlink("/dev/shm/target", "link")
print("ready", flush=True)
while True:
    os.rename("real", "shown")
    os.chmod("shown", 0)
    os.rename("shown", "real")
    os.rename("link", "shown")
    os.rename("shown", "link")
"""


def test_s6_rights_are_never_given_through_a_link(sandbox: Open, slowness: float) -> None:
    """Collecting repairs rights that a guest took from its own directories, but never what a link names."""
    opened = sandbox()
    opened.files.write("swap.py", SWAP)
    opened.exec(["sh", "-c", "exec setsid -f /usr/bin/python3 swap.py > said"])
    assert eventually(lambda: opened.files.read("said") == b"ready\n", 10 * slowness)
    mode = ["stat", "-c", "%a", "/dev/shm/target"]
    for _ in range(100):
        found = {file.path: file.data for file in opened.files.collect("shown/*", "link/*", "real/*")}
        assert set(found.values()) <= {b"inside"}
        assert not any(path.startswith("link/") for path in found)
    assert opened.exec(mode).stdout.text == "0\n"


RECREATE: Final = """
import os, sys
home = f"/work/{os.getpid()}"
while True:
    try:
        os.makedirs(home + "/a/b/c", exist_ok=True)
        open(home + "/a/b/c/file", "w").close()
        os.rename(home, home + "-moved")
        os.symlink("/", home)
        os.unlink(home)
        os.rename(home + "-moved", home)
    except OSError:
        pass
"""


def test_s7_files_that_come_back_while_we_clear_up(sandbox: Open, slowness: float) -> None:
    for _ in range(3):
        opened = sandbox()
        opened.files.write("recreate.py", RECREATE)
        opened.exec(["sh", "-c", "for i in 1 2 3 4; do setsid -f /usr/bin/python3 recreate.py; done"])
        started_s = time.monotonic()
        opened.close()
        assert time.monotonic() - started_s < 2 * slowness


def test_s7_files_that_come_back_while_we_collect(python: Execute) -> None:
    script = f"import os\nif os.fork() == 0:\n{textwrap.indent(RECREATE, '    ')}\nopen('kept', 'w').write('kept')\n"
    for _ in range(3):
        result = python(script, collect=["kept"])
        assert [(file.path, file.data) for file in result.files] == [("kept", b"kept")]


# S8: kill -9 --------------------------------------------------------------------------------------

VICTIM: Final = """
import os, threading, casemate
engine = casemate.Engine(warm=False)
sandbox = casemate.Sandbox("bash", engine=engine)
sandbox.run("sleep 600 & setsid -f sleep 600")
run = lambda: casemate.execute(["sh", "-c", "setsid -f sleep 600; echo busy; sleep 600"], engine=engine, on_output=say)
def say(chunk):
    os.write(1, b"busy\\n")
threads = [threading.Thread(target=run) for _ in range(2)]
for thread in threads:
    thread.start()
"""


def groups_of(pid: int, engine: Engine) -> list[Path]:
    root = engine.backend.cgroups
    if isinstance(root, CgroupUnavailable):
        return []
    bases = {Path(path).parent for path in root._directories.paths}  # type: ignore[attr-defined]
    return [path for base in bases for path in base.glob(f"casemate-{pid}-*")]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except (FileNotFoundError, ProcessLookupError):
        return False


def kill_and_reap(engine: Engine, words: int, slowness: float) -> None:
    mounts = sandbox_mounts(engine)
    with subprocess.Popen([sys.executable, "-c", VICTIM], stdout=subprocess.PIPE) as victim:
        assert victim.stdout is not None
        for _ in range(words):
            assert victim.stdout.readline() == b"busy\n"
        inside = [pid for pid in process_tree(victim.pid) if pid != victim.pid]
        victim.kill()
    assert len(inside) >= (2 + 2 * words if words else 0)
    assert eventually(lambda: not any(map(is_running, inside)), GONE_WITHIN_S * slowness)
    with casemate.Engine(warm=False) as after:
        assert groups_of(victim.pid, engine) == []
        assert casemate.execute(["true"], engine=after).ok
    assert sandbox_mounts(engine) == mounts


def test_s8_engine_killed_in_the_middle_of_runs(engine: Engine, slowness: float) -> None:
    for words in (2, 1):
        kill_and_reap(engine, words, slowness)


@pytest.mark.slow
def test_s8_engine_killed_again_and_again(engine: Engine, slowness: float) -> None:
    for number in range(12):
        kill_and_reap(engine, number % 3, slowness)


def test_s8_launcher_killed_in_the_middle_of_a_run(execute: Execute, engine: Engine) -> None:
    """Its engine is told, its sandboxes die with it, and the next run gets another."""
    launcher = engine.backend.launcher.pid
    result = execute(["sh", "-c", "echo here; sleep 600"], on_output=lambda _: os.kill(launcher, signal.SIGKILL))
    assert (result.status, result.reason) == (Status.FAILED, Reason.LOST)
    assert execute(["true"]).ok
    assert engine.backend.launcher.pid not in {0, launcher}


# S10 S11: what the machine has no more of ---------------------------------------------------------

WITHOUT_DESCRIPTORS: Final = """
import os, resource, sys, casemate
from casemate import CasemateError
def count():
    engine.backend.settle()
    return len(os.listdir("/proc/self/fd"))
most = resource.getrlimit(resource.RLIMIT_NOFILE)
with casemate.Engine(warm=False) as engine:
    casemate.run("print(1)", engine=engine)
    before, ends = count(), []
    for room in range(0, 41, int(sys.argv[1])):
        resource.setrlimit(resource.RLIMIT_NOFILE, (before + room, most[1]))
        try:
            result = casemate.run("print(1)", files={"a": b"x"}, collect=["a"], stdin=b"x", engine=engine)
            ends.append(str(result.reason))
        except CasemateError as error:
            ends.append(error.code)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, most)
        assert count() == before, (room, before, os.listdir("/proc/self/fd"))
        assert casemate.execute(["true"], engine=engine).ok
    print(*ends)
"""


def test_s10_engine_without_descriptors(apart: Apart, slowness: float) -> None:
    done = apart(WITHOUT_DESCRIPTORS, "1" if slowness == 1 else "5")
    assert done.returncode == 0, done.stderr
    ends = done.stdout.split()
    assert ends[0] == "no_capacity"
    assert ends[-1] == "exit"
    assert set(ends) <= {"no_capacity", "exit", "launch_failed", "file_transfer"}


WITHOUT_PROCESSES: Final = """
import os, resource, casemate
from casemate import CasemateError
with casemate.Engine(warm=False) as engine:
    most = resource.getrlimit(resource.RLIMIT_NPROC)
    resource.setrlimit(resource.RLIMIT_NPROC, (0, most[1]))
    try:
        print(casemate.execute(["true"], engine=engine).reason)
    except CasemateError as error:
        print(error.code)
    resource.setrlimit(resource.RLIMIT_NPROC, most)
    print(casemate.execute(["true"], engine=engine).reason)
"""


def test_s10_engine_without_processes(apart: Apart) -> None:
    """Root is not counted; anybody else gets a typed error and goes on."""
    done = apart(WITHOUT_PROCESSES)
    assert done.returncode == 0, done.stderr
    first, then = done.stdout.split()
    assert first in ({"exit"} if os.geteuid() == 0 else {"launch_failed", "no_capacity"})
    assert then == "exit"


def test_s10_no_room_on_the_sandbox_disk_for_given_files(execute: Execute) -> None:
    with pytest.raises(CasemateError) as caught:
        execute(["true"], files={f"f{number}": b"x" for number in range(80)}, limits={"inodes": 64})
    assert caught.value.code == "file_transfer"


def test_s11_a_zombie_does_not_keep_a_control_group(sandbox: Open, engine: Engine, slowness: float) -> None:
    if isinstance(engine.backend.cgroups, CgroupUnavailable):
        assert sandbox().isolation.approximate, "without control groups none can be left"
        return
    opened = sandbox()
    group = opened._session.sandbox.cgroup
    assert group is not None
    places = [Path(path) for path in group._driver.directories]  # type: ignore[attr-defined]
    with subprocess.Popen(["sleep", "600"]) as stranger:
        for place in places:
            (place / "cgroup.procs").write_text(str(stranger.pid))
        started_s = time.monotonic()
        opened.close()
        assert time.monotonic() - started_s < 6 * slowness
        assert not any(place.exists() for place in places)
        assert stranger.wait() == -signal.SIGKILL


# S12: machines that lack something ----------------------------------------------------------------


def test_s12_without_control_groups(apart: Apart) -> None:
    script = """
        import casemate
        with casemate.Engine(warm=False) as engine:
            try:
                casemate.execute(["true"], require=["cgroup"], engine=engine)
            except casemate.LayerMissing as error:
                print(*error.layers, bool(error.hint))
            print(engine.backend.launcher.pid)
            result = casemate.execute(["true"], engine=engine)
            print("cgroup" in result.isolation.layers, *result.isolation.approximate)
    """
    done = apart(script, CASEMATE_CGROUP="none")
    assert done.stdout == "cgroup True\n0\nFalse memory cpu cpu_time processes\n", done.stderr


def test_s12_layers_in_force_are_all_that_can_be_required(execute: Execute) -> None:
    layers = execute(["true"]).isolation.layers
    assert set(REQUIRED) <= set(layers)
    for layer in Layer:
        if layer in layers or layer is Layer.EGRESS:  # which stands between a run and its network: here is none
            assert execute(["true"], require=[layer]).ok
        else:
            with pytest.raises(LayerMissing) as caught:
                execute(["true"], require=[layer])
            assert caught.value.layers == (layer,)


IN_A_POOR_PLACE: Final = """
import casemate
try:
    with casemate.Engine(warm=False) as engine:
        print("ran", casemate.execute(["true"], engine=engine).ok)
except casemate.LaunchError as error:
    print(error.code, error.step, error.errno, bool(error.hint))
"""
NAMESPACE_LIMITS: Final = ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup")


@pytest.mark.parametrize("kind", NAMESPACE_LIMITS)
def test_s12_a_machine_that_allows_no_namespaces(apart: Apart, kind: str) -> None:
    """A user namespace of its own, whose limit is zero, is to us as a machine with that sysctl."""
    shell = f'echo 0 > /proc/sys/user/max_{kind}_namespaces && exec "$0" "$@"'
    done = apart(IN_A_POOR_PLACE, before=["unshare", "--user", "--map-root-user", "sh", "-c", shell])
    assert done.returncode == 0, done.stderr
    code, *_, has_hint = done.stdout.split()
    assert code == "launch_failed", done.stdout
    assert has_hint == "True", done.stdout


FORBIDDEN_CALLS: Final = {
    "mount": "launch_failed",
    "unshare": "launch_failed",
    "pivot_root": "launch_failed",
    "seccomp": "launch_failed",
    "clone": "launch_failed",
    "mount_setattr": "launch_failed",
    "capset": "launch_failed",
    "prctl": "launch_failed",
    "setns": "launch_failed",
    "landlock_create_ruleset": "ran",
    "landlock_restrict_self": "launch_failed",
}

UNDER_A_FILTER: Final = """
import ctypes, sys
from casemate.isolation.seccomp import compile_filter, policy_of
from casemate.isolation.syscalls import NUMBERS
name = sys.argv[1]
program = compile_filter(policy_of({NUMBERS[name]: 1}, otherwise=None))
class Filter(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("program", ctypes.c_char_p)]
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(Filter(len(program) // 8, program)), 0, 0) == 0
"""


@pytest.mark.parametrize("name", FORBIDDEN_CALLS)
def test_s12_a_container_that_forbids_a_call(apart: Apart, name: str, engine: Engine) -> None:
    """A wall that cannot be built is an error that names the step, never a sandbox without it."""
    if name.startswith("landlock") and engine.backend.host.landlock_abi == 0:
        assert Layer.LANDLOCK not in casemate.execute(["true"], engine=engine).isolation.layers
        return
    done = apart(UNDER_A_FILTER + IN_A_POOR_PLACE, name)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] == FORBIDDEN_CALLS[name], done.stdout


# S13 S14: environment and arguments ---------------------------------------------------------------

HOSTILE_ENVIRONMENT: Final = {
    "PATH": "/work:/usr/bin:/bin",
    "LD_PRELOAD": "/work/evil.so",
    "LD_LIBRARY_PATH": "/work",
    "LD_AUDIT": "/work/evil.so",
    "PYTHONPATH": "/work",
    "PYTHONSTARTUP": "/work/evil.py",
    "PYTHONHOME": "/work",
    "BASH_ENV": "/work/evil.sh",
    "ENV": "/work/evil.sh",
    "IFS": "/",
    "HOME": "/work",
    "TMPDIR": "/work",
    "GCONV_PATH": "/work",
    "NODE_OPTIONS": "--require /work/evil.js",
    "CASEMATE_CGROUP": "none",
    "CASEMATE_CONFIG": "/work/evil.toml",
    "CASEMATE_OUTPUT": "/work/evil",
}


def test_s13_environment_reaches_only_the_guest(sandbox: Open, execute: Execute, engine: Engine) -> None:
    mine = dict(os.environ)
    opened = sandbox()
    result = opened.exec(["/bin/sh", "-c", "echo $IFS$PATH; env"], env=HOSTILE_ENVIRONMENT)
    assert "BASH_ENV=/work/evil.sh" in result.stdout.text
    assert "evil.so" in result.stderr.text, "the guest's own loader looks for it"
    assert dict(os.environ) == mine
    after = opened.exec(["env"])
    assert "evil" not in after.stdout.text
    assert after.stderr.text == ""
    assert execute(["true"]).isolation.layers == execute(["true"], env=HOSTILE_ENVIRONMENT).isolation.layers
    assert engine.backend.launcher.pid in process_tree(os.getpid())


def test_s13_the_path_is_searched_inside(sandbox: Open) -> None:
    opened = sandbox()
    opened.files.write("casemate-test-tool", "#!/bin/sh\necho from inside\n")
    opened.exec(["chmod", "755", "casemate-test-tool"])
    found = opened.exec(["casemate-test-tool"], env={"PATH": "/work"})
    assert found.stdout.text == "from inside\n"
    assert opened.exec(["casemate-test-tool"]).exit_code == 127


ARGUMENTS: Final = [
    "-c",
    "import os; os._exit(9)",
    "--config=/etc/passwd",
    "@file",
    ";rm -rf /",
    "$(id)",
    "`id`",
    "a b",
    "",
    "--",
    "-",
    "*",
    "\\",
    "'\"",
    "a\nb",
    "\u00e9\u4e2d",
    "-e",
    "--version",
    "--help",
    "--args",
]
PRINT_ARGUMENTS: Final = {
    "python": "import sys, json; print(json.dumps(sys.argv[1:]))",
    "node": "console.log(JSON.stringify(process.argv.slice(2)))",
    "bash": '/usr/bin/python3 -c "import sys, json; print(json.dumps(sys.argv[1:]))" "$@"',
}


@pytest.mark.parametrize("runtime", PRINT_ARGUMENTS)
def test_s14_arguments_arrive_as_they_are(engine: Engine, runtime: str) -> None:
    result = casemate.run(PRINT_ARGUMENTS[runtime], runtime=runtime, args=ARGUMENTS, engine=engine)
    assert result.ok, result
    assert json.loads(result.stdout.text) == ARGUMENTS


def test_s14_arguments_of_r_arrive_as_they_are(engine: Engine) -> None:
    result = casemate.run("cat(commandArgs(TRUE), sep = '|')", runtime="r", args=ARGUMENTS, engine=engine)
    assert result.ok, result
    assert result.stdout.text == "|".join(ARGUMENTS)


def test_s14_commands_go_through_no_shell(execute: Execute) -> None:
    result = execute(["printf", "[%s]", *ARGUMENTS[3:]])
    assert result.stdout.text == "".join(f"[{word}]" for word in ARGUMENTS[3:])
    missing = execute(["echo injected; true"])
    assert (missing.exit_code, missing.stdout.text) == (127, "")


def test_s14_file_names_are_no_options(engine: Engine) -> None:
    for runtime, code in {"python": "print(1)", "bash": "echo 1"}.items():
        result = casemate.run(code, runtime=runtime, filename="-c", engine=engine)
        assert result.stdout.text == "1\n", result


# S16: a run leaves the sandbox's init as it was ---------------------------------------------------

SPOIL: Final = """
import os, resource, signal
for number in set(range(1, 65)) - {signal.SIGKILL, signal.SIGSTOP, 32, 33}:
    signal.signal(number, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
os.umask(0o777)
os.chdir("/")
os.nice(10)
os.setpgid(0, 0) if os.getpid() != os.getsid(0) else None
for name in ["NOFILE", "FSIZE", "NPROC", "DATA", "AS", "CPU", "STACK"]:
    number = getattr(resource, "RLIMIT_" + name)
    resource.setrlimit(number, (min(resource.getrlimit(number)[1], 1 << 28) if name != "NPROC" else 3,) * 2)
"""
STATE: Final = "grep -E '^(Sig|Umask|Seccomp|NoNew|Cap|Cpus_allowed:)' /proc/self/status; ulimit -a; nice; pwd; env"


def test_s16_one_run_does_not_colour_the_next(sandbox: Open) -> None:
    opened = sandbox()
    before = opened.exec(["bash", "-c", STATE])
    assert before.ok
    assert opened.exec(["/usr/bin/python3", "-c", SPOIL]).ok
    assert opened.exec(["bash", "-c", STATE]).stdout.text == before.stdout.text


def test_s16_input_of_one_run_is_not_read_by_the_next(sandbox: Open, tmp_path: Path) -> None:
    opened = sandbox()
    path = tmp_path / "input"
    path.write_bytes(b"first line\nsecond line\n")
    with path.open("rb") as file:
        assert opened.exec(["head", "-n", "1"], stdin=file).stdout.text == "first line\n"
    with path.open("rb") as file:
        assert opened.exec(["cat"], stdin=file).stdout.text == "first line\nsecond line\n"
    assert opened.exec(["cat"]).stdout.text == ""


# S18: clocks --------------------------------------------------------------------------------------


def calls_to(names: set[str]) -> Iterator[Path]:
    for path in SOURCES.rglob("*.py"):
        if "guest" in path.relative_to(SOURCES).parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and ast.unparse(node) in names:
                yield path


TELLS_THE_TIME = {
    "tenancy/keyring.py": "whether a key has expired, which is a time of day",
    "tenancy/tenants.py": "when a key is made, and until when it counts",
    "clock.py": "when things happened, for records; until when a job is leased; whether a schedule is due",
    "tenancy/audit.py": "when somebody did something",
    "tenancy/addresses.py": "whether a signed address has expired",
    "tenancy/vault.py": "when a secret was set",
    "blobs/local.py": "when an object was written",
    "backup/service.py": "when a backup was made",
}
"""What may look at the machine's clock, and for what. No run is waited for or limited by it."""


def test_s18_only_monotonic_clocks_are_read() -> None:
    """A step of the machine's clock cannot be tried here without harm to others; see the next test."""
    found = calls_to({"time.time", "time.time_ns", "datetime.now", "datetime.datetime.now", "time.localtime"})
    assert {str(path.relative_to(SOURCES)) for path in found} == set(TELLS_THE_TIME)


def test_s18_a_step_of_the_clock_changes_no_run(execute: Execute, is_emulated: bool, slowness: float) -> None:
    """Where the machine is ours alone (User Mode Linux, as root) its clock is stepped for real, an hour each way."""
    can_step = is_emulated and os.geteuid() == 0

    def step(seconds: int) -> Callable[[casemate.Chunk], None]:
        def on_output(_: casemate.Chunk) -> None:
            if can_step:
                time.clock_settime(time.CLOCK_REALTIME, time.time() + seconds)

        return on_output

    for seconds in (3600, -3600):
        result = execute(
            ["sh", "-c", "echo here; sleep 0.2"], on_output=step(seconds), limits={"timeout": 5 * slowness}
        )
        assert result.ok, result
        assert 0.2 <= result.usage.wall_s < 5 * slowness
        late = execute(["sh", "-c", "echo here; sleep 600"], on_output=step(seconds), limits={"timeout": 0.5})
        assert late.reason is Reason.TIMEOUT
        assert 0.5 <= late.usage.wall_s < 0.5 + 2 * slowness

"""Attacks on device nodes (F14, F21, F26, X9): what can be done to `/dev/null` and its like, and who notices.

As root every sandbox has nodes of its own. Nobody else can make any, so an ordinary user's sandboxes show the
machine's: then nothing about a node can be changed, while locks on it and watches are seen by all.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NoReturn

import pytest

from casemate import Layer, Result, Sandbox

NODES: Final = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
TERMINAL: Final = "/dev/tty"
NUMBERS: Final = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
REFUSED: Final = {"EROFS", "EPERM", "EACCES"}

Execute = Callable[..., Result]
Answers = Callable[..., "dict[str, str]"]
Parse = Callable[[Result], "dict[str, str]"]
Compiled = Callable[[str], bytes]
Open = Callable[..., Sandbox]


@pytest.fixture
def private_devices(sandbox: Open, not_run: Callable[[str, str], NoReturn]) -> None:
    if Layer.PRIVATE_DEVICES not in sandbox().isolation.layers:
        not_run("F21 F26", "only root can make device nodes, so they are the machine's: see the threat model")


@pytest.fixture
def locked_outside() -> Iterator[None]:
    """Somebody on the machine holds a lock on each of its own nodes."""
    held = [os.open(path, os.O_RDONLY) for path in NODES]
    for fd in held:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    yield
    for fd in held:
        os.close(fd)


LOOK: Final = """
for name in sorted(os.listdir("/dev")):
    status = os.lstat(f"/dev/{name}")
    kind = "device" if stat.S_ISCHR(status.st_mode) else "link" if stat.S_ISLNK(status.st_mode) else "directory"
    number = (os.major(status.st_rdev), os.minor(status.st_rdev)) if kind == "device" else ""
    say(name, f"{kind} {oct(stat.S_IMODE(status.st_mode)) if kind == 'device' else ''} {number}".strip())
"""


def test_f14_the_only_devices_are_the_harmless_ones(ask_python: Answers) -> None:
    found = ask_python("import stat\n" + LOOK)
    devices = {name: text for name, text in found.items() if text.startswith("device")}
    assert devices == {name: f"device 0o666 {number}" for name, number in NUMBERS.items()}
    links = {"ptmx", "fd", "stdin", "stdout", "stderr"}
    assert {name: text for name, text in found.items() if name not in devices} == {
        **dict.fromkeys(links, "link"),
        **dict.fromkeys(("pts", "shm"), "directory"),
    }


USE: Final = """
open("/dev/null", "w").write("x" * 100_000)
say("null", len(open("/dev/null", "rb").read()))
say("zero", open("/dev/zero", "rb").read(3) == bytes(3))
say("random", len({open(f"/dev/{name}", "rb").read(16) for name in ("random", "urandom") for _ in range(4)}))
attempt("full", os.write, os.open("/dev/full", os.O_WRONLY), b"x")
attempt("terminal", os.open, "/dev/tty", os.O_RDWR)
"""


def test_f14_the_devices_do_what_they_are_for(ask_python: Answers) -> None:
    found = ask_python(USE)
    assert found == {"null": "0", "zero": "True", "random": "8", "full": "ENOSPC", "terminal": "ENXIO"}


CHANGE: Final = """
for path in sys.argv[1:]:
    attempt(f"times {path}", os.utime, path)
    attempt(f"old times {path}", os.utime, path, (1, 1))
    attempt(f"mode {path}", os.chmod, path, 0o600)
    attempt(f"owner {path}", os.chown, path, os.getuid(), os.getgid())
    attempt(f"attribute {path}", os.setxattr, path, "user.x", b"x")
    attempt(f"name {path}", os.rename, path, path + "x")
    attempt(f"link {path}", os.link, path, "/dev/linked")
    attempt(f"remove {path}", os.unlink, path)
attempt("new file", os.open, "/dev/new", os.O_CREAT | os.O_WRONLY)
attempt("new link", os.symlink, "/work", "/dev/new")
attempt("new device", os.mknod, "/dev/new", 0o20666, os.makedev(1, 3))
"""


def node_on_the_machine(path: str) -> tuple[int, ...]:
    status = os.lstat(path)
    return (stat.S_IFMT(status.st_mode), status.st_mode, status.st_uid, status.st_gid, status.st_rdev, status.st_nlink)


def test_f14_nothing_about_a_device_node_can_be_changed(ask_python: Answers) -> None:
    before = {path: node_on_the_machine(path) for path in (*NODES, TERMINAL)}
    changed_ns = os.lstat("/dev/full").st_ctime_ns
    found = ask_python(CHANGE, *NODES, TERMINAL)
    attributes = {found.pop(what) for what in list(found) if what.startswith("attribute")}
    assert attributes <= REFUSED | {"EOPNOTSUPP"}
    assert set(found.values()) <= REFUSED | {"EBUSY", "EXDEV"}
    assert {found[f"{what} {path}"] for what in ("times", "old times", "mode") for path in NODES} <= REFUSED
    assert {path: node_on_the_machine(path) for path in before} == before
    assert os.lstat("/dev/full").st_ctime_ns == changed_ns


def test_f21_locks_on_device_nodes_do_not_meet(
    meanwhile: Execute, run_probe: Execute, compiled: Compiled, private_devices: None, locked_outside: None
) -> None:
    second: list[Result] = []
    argv = ["/bin/sh", "-c", 'chmod 755 /code/probe; exec /code/probe hold-locks "$@"', "sh", *NODES]
    first = meanwhile(
        argv, lambda _: second.append(run_probe("files", "lock", *NODES)), files={"/code/probe": compiled("files")}
    )
    assert (first.ok, second[0].ok) == (True, True)
    lines = second[0].stdout.text.splitlines()
    assert first.stdout.text.splitlines() == lines
    assert [line for line in lines if line.startswith("flock")] == [f"flock {path}\tOK" for path in NODES]


WATCH: Final = """
import ctypes, select
libc = ctypes.CDLL(None, use_errno=True)
fd = libc.inotify_init1(os.O_NONBLOCK)
def events():
    return len(os.read(fd, 65536)) if select.select([fd], [], [], 0)[0] else 0
for path in sys.argv[1:]:
    assert libc.inotify_add_watch(fd, path.encode(), 0xFFF) > 0, path
print("watching", flush=True)
sys.stdin.readline()
say("others", events())
open("/dev/null", "w").write("x")
say("own", events() > 0)
"""
DISTURB: Final = "for node; do head -c 1 $node >/dev/null; : <$node; done; echo x >/dev/null; ls /dev"


def test_f26_watches_on_device_nodes_see_nothing_of_others(
    meanwhile: Execute, execute: Execute, private_devices: None, answers: Parse, say: str
) -> None:
    def act(_: str) -> None:
        assert execute(["sh", "-c", DISTURB, "sh", *NODES]).ok
        for path in NODES:
            with Path(path).open("rb") as file:
                file.read(1)

    argv = ["/usr/bin/python3", "-I", "-S", "-c", say + WATCH, *NODES, "/dev"]
    assert answers(meanwhile(argv, act)) == {"others": "0", "own": "True"}


def test_x9_the_result_says_whether_device_nodes_are_shared(
    execute: Execute, ask_python: Answers, locked_outside: None
) -> None:
    """What an ordinary user cannot have is at least not claimed: the layer and the lock say the same."""
    code = (
        "import fcntl\nattempt('lock', fcntl.flock, os.open('/dev/null', os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    )
    is_private = Layer.PRIVATE_DEVICES in execute(["true"]).isolation.layers
    assert ask_python(code) == {"lock": "OK" if is_private else "EAGAIN"}

"""Attacks of one tenant on another (X1 to X12): what one run leaves, holds, uses up or signals, and what others see.

X6, X10 and X11 (ids, tokens and streams of the service) belong to later parts; X12 is with isolates and pools.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import os
import resource
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NoReturn

import pytest

import casemate
from casemate import CancelToken, Engine, FileTransferError, InvalidInput, Layer, Result, Sandbox
from casemate.limits import MIB

Execute = Callable[..., Result]
Answers = Callable[..., "dict[str, str]"]
Parse = Callable[[Result], "dict[str, str]"]
Open = Callable[..., Sandbox]
NotRun = Callable[[str, str], NoReturn]
Apart = Callable[..., subprocess.CompletedProcess[str]]

PYTHON: Final = ["/usr/bin/python3", "-I", "-S", "-c"]
BASE_FILE: Final = "/usr/bin/true"
SAY: Final = """
import errno, os, sys
def say(what, answer):
    print(what, answer, sep="\\t", flush=True)
def attempt(what, call, *args):
    try:
        answer = call(*args)
    except OSError as error:
        say(what, errno.errorcode[error.errno])
        return None
    say(what, "OK")
    return answer
"""
IPC: Final = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = ctypes.c_void_p
CREATE = 0o1000
def ipc(name, *arguments):
    result = getattr(libc, name)(*arguments)
    if result == -1:
        raise OSError(ctypes.get_errno(), "")
    return result
"""

# X1: one after the other --------------------------------------------------------------------------

LEAVE: Final = (
    SAY
    + IPC
    + """
import socket
for path in ["/work/left", "/tmp/left", "/dev/shm/left", "/home/guest/left", "/code/left"]:
    with open(path, "w") as file:
        file.write("SECRET")
segment = attempt("segment", ipc, "shmget", 4711, 4096, CREATE | 0o666)
if segment is not None:
    ctypes.memmove(libc.shmat(segment, None, 0), b"SECRET", 6)
attempt("semaphore", ipc, "semget", 4711, 1, CREATE | 0o666)
queue = attempt("queue", ipc, "msgget", 4711, CREATE | 0o666)
if queue is not None:
    ipc("msgsnd", queue, b"\\1" + bytes(7) + b"SECRET", 6, 0)
attempt("posix queue", ipc, "mq_open", b"/left", os.O_CREAT | os.O_RDWR, 0o666, None)
attempt("keyring", ipc, "syscall", 248, b"user", b"left", b"SECRET", 6, -3)
abstract = socket.socket(socket.AF_UNIX)
attempt("abstract", abstract.bind, "\\0left-by-another")
abstract.listen()
server = socket.create_server(("0.0.0.0", 4711))
for path in ["/var/spool/cron/left", "/etc/cron.d/left", "/usr/local/left", "/var/tmp/left"]:
    attempt(path, open, path, "w")
if os.fork() == 0:
    os.setsid()
    import time
    time.sleep(600)
say("done", "")
"""
)
LOOK: Final = (
    SAY
    + IPC
    + """
import socket
for top in ["/work", "/tmp", "/dev/shm", "/home/guest", "/var/tmp"]:
    say(top, os.listdir(top))
say("scratch", sum(len(files) for _, _, files in os.walk("/run/scratch")))
attempt("segment", ipc, "shmget", 4711, 0, 0)
attempt("semaphore", ipc, "semget", 4711, 0, 0)
attempt("queue", ipc, "msgget", 4711, 0)
for name in ["shm", "sem", "msg"]:
    say(name + " listed", open(f"/proc/sysvipc/{name}").read().count("\\n") - 1)
client = socket.socket(socket.AF_UNIX)
attempt("abstract", client.connect, "\\0left-by-another")
client = socket.socket()
attempt("port", client.connect, ("127.0.0.1", 4711))
say("processes", [name for name in os.listdir("/proc") if name.isdigit() and int(name) not in {os.getpid()}])
for path in ["/usr/local/left", "/etc/cron.d/left", "/var/spool/cron/left"]:
    attempt(path, os.stat, path)
"""
)


@pytest.fixture(scope="session")
def shared_memory(cgroup: str) -> str:
    """Return how System V IPC answers: where no control group counts its memory, it does not exist."""
    return "ENOSYS" if cgroup == "none" else "OK"


def test_x1_nothing_of_an_earlier_run_is_there(execute: Execute, answers: Parse, shared_memory: str) -> None:
    for _ in range(2):
        left = answers(execute([*PYTHON, LEAVE]))
        assert {left[name] for name in ("segment", "semaphore", "queue")} == {shared_memory}
        assert left["abstract"] == "OK"
        assert left["posix queue"] == "EMFILE"
        assert left["keyring"] == "ENOSYS"
        assert {left[name] for name in left if name.startswith(("/var/spool", "/etc", "/usr"))} <= {"ENOENT", "EROFS"}
        found = answers(execute([*PYTHON, LOOK]))
        assert {found.pop(top) for top in ("/work", "/tmp", "/dev/shm", "/home/guest", "/var/tmp")} == {"[]"}
        assert {found.pop(f"{name} listed") for name in ("shm", "sem", "msg")} == {"0"}
        assert {found.pop("scratch")} == {"0"}
        assert {found.pop("abstract"), found.pop("port")} == {"ECONNREFUSED"}
        assert found.pop("processes") == "[]"
        missing = "ENOENT" if shared_memory == "OK" else shared_memory
        assert {found.pop(name) for name in ("segment", "semaphore", "queue")} == {missing}
        assert set(found.values()) == {"ENOENT"}


def test_x1_a_later_sandbox_is_new_also_in_the_kernels_counters(sandbox: Open) -> None:
    """Process ids start anew, so nobody can count how much others ran in between."""
    for _ in range(3):
        assert sandbox().exec([*PYTHON, "import os; print(os.getpid())"]).stdout.text == "2\n"


# X2: at the same time -----------------------------------------------------------------------------

HOLD: Final = (
    SAY
    + IPC
    + """
import fcntl, socket, struct, time
held = open("/usr/bin/true", "rb")
attempt("lock", fcntl.flock, held, fcntl.LOCK_EX | fcntl.LOCK_NB)
ranges = open("/usr/bin/env", "rb")
attempt("record lock", fcntl.lockf, ranges, fcntl.LOCK_SH | fcntl.LOCK_NB)
attempt("segment", ipc, "shmget", 4712, 4096, CREATE | 0o666)
abstract = socket.socket(socket.AF_UNIX)
abstract.bind("\\0held-by-another")
abstract.listen()
server = socket.create_server(("0.0.0.0", 4712))
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("0.0.0.0", 4712))
udp.setblocking(False)
watch = ipc("inotify_init1", os.O_NONBLOCK)
for path in [b"/usr/bin", b"/usr/bin/env", b"/usr/lib", b"/tmp", b"/dev/shm", b"/work", b"/etc", b"/dev"]:
    ipc("inotify_add_watch", watch, path, 0x00000fff)
for path in ["/tmp/held", "/dev/shm/held", "/work/held"]:
    open(path, "w").close()
while True:
    try:
        os.read(watch, 65536)
    except BlockingIOError:
        break
say("ready", os.getpid())
sys.stdin.read()
try:
    events = os.read(watch, 65536)
except BlockingIOError:
    events = b""
at, seen = 0, []
while at < len(events):
    descriptor, mask, _, length = struct.unpack_from("iIII", events, at)
    seen.append((descriptor, hex(mask), events[at + 16:at + 16 + length].rstrip(b"\\0").decode()))
    at += 16 + length
say("events", seen)
server.setblocking(False)
attempt("visitor", server.accept)
attempt("packet", udp.recv, 10)
"""
)
PROBE: Final = (
    SAY
    + IPC
    + """
import fcntl, signal, socket
attempt("lock", fcntl.flock, open("/usr/bin/true", "rb"), fcntl.LOCK_EX | fcntl.LOCK_NB)
attempt("record lock", fcntl.lockf, open("/usr/bin/env", "rb"), fcntl.LOCK_SH | fcntl.LOCK_NB)
attempt("segment", ipc, "shmget", 4712, 0, 0)
attempt("abstract", socket.socket(socket.AF_UNIX).connect, "\\0held-by-another")
attempt("port", socket.socket().connect, ("127.0.0.1", 4712))
attempt("bind", socket.create_server, ("0.0.0.0", 4712))
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", 4712))
say("locks", open("/proc/locks").read())
for path in ["/tmp/held", "/dev/shm/held", "/work/held"]:
    attempt(path, os.stat, path)
    open(path + " too", "w").close()
os.listdir("/usr/bin")
open("/usr/bin/env", "rb").read()
open("/etc/services", "rb").read()
found = []
for pid in range(2, 5000):
    try:
        os.kill(pid, 0)
        found.append(pid)
    except ProcessLookupError:
        pass
say("processes", [pid for pid in found if pid != os.getpid()])
"""
)


def test_x2_two_runs_at_once_do_not_meet(
    meanwhile: Execute, execute: Execute, answers: Parse, shared_memory: str, not_run: NotRun
) -> None:
    if Layer.PRIVATE_BASE not in execute(["true"]).isolation.layers:
        not_run("X2", "this kernel lets no user namespace mount an overlay, so base files are shared")
    neighbours: list[Result] = []
    held = answers(meanwhile([*PYTHON, HOLD], lambda _: neighbours.append(execute([*PYTHON, PROBE]))))
    seen = answers(neighbours[0])
    assert {held["lock"], held["record lock"]} == {"OK"}
    assert held["segment"] == shared_memory
    assert held["events"] == "[]"
    assert {held["visitor"], held["packet"]} == {"EAGAIN"}
    assert {seen[name] for name in ("lock", "record lock", "bind")} == {"OK"}
    assert {seen["abstract"], seen["port"]} == {"ECONNREFUSED"}
    assert seen["segment"] == ("ENOENT" if shared_memory == "OK" else shared_memory)
    assert {seen[name] for name in ("/tmp/held", "/dev/shm/held", "/work/held")} == {"ENOENT"}
    assert {seen["locks"]} == {""}
    assert seen["processes"] == "[]"


# X3: the page cache -------------------------------------------------------------------------------

CHECK: Final = f"""
import hashlib, mmap, sys
with open("{BASE_FILE}", "rb") as file:
    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
print(hashlib.sha256(mapped).hexdigest(), flush=True)
sys.stdin.read()
print(hashlib.sha256(mapped).hexdigest(), hashlib.sha256(open("{BASE_FILE}", "rb").read()).hexdigest())
"""


def test_x3_pages_that_another_tenant_has_mapped(meanwhile: Execute, ask: Answers) -> None:
    before = hashlib.sha256(Path(BASE_FILE).read_bytes()).hexdigest()
    attacks: list[dict[str, str]] = []
    result = meanwhile([*PYTHON, CHECK], lambda _: attacks.append(ask("pages", BASE_FILE)))
    assert attacks[0]["race"] == "over"
    assert result.stdout.text.split() == [before] * 3
    assert hashlib.sha256(Path(BASE_FILE).read_bytes()).hexdigest() == before


# X4 X5: using up what is shared -------------------------------------------------------------------


def user_of(sandbox: Sandbox) -> int:
    status = Path(f"/proc/{sandbox._session.sandbox.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("Uid"))


def test_x4_every_run_is_another_user_of_the_machine(sandbox: Open, engine: Engine, not_run: NotRun) -> None:
    opened = [sandbox() for _ in range(4)]
    if Layer.HOST_UID not in opened[0].isolation.layers:
        assert {user_of(one) for one in opened} == {os.geteuid()}
        not_run("X4", "an ordinary user has no other users to lend")
    with casemate.Engine(warm=False) as other:
        opened += [casemate.Sandbox("bash", engine=other) for _ in range(2)]
        assert len({user_of(one) for one in opened}) == len(opened)
        for one in opened[-2:]:
            one.close()


EXHAUST: Final = {
    "inotify instances": "held = []\nwhile (fd := libc.inotify_init1(0)) >= 0: held.append(fd)",
    "pending signals": """
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGRTMIN})
held = []
while libc.sigqueue(os.getpid(), int(signal.SIGRTMIN), None) == 0: held.append(1)""",
    "processes": """
held = []
while True:
    try:
        pid = os.fork()
    except OSError:
        break
    if pid == 0:
        signal.pause()
    held.append(pid)""",
    "descriptors": "held = []\nwhile (fd := libc.dup(0)) >= 0: held.append(fd)",
    "terminals": "held = []\nwhile (fd := libc.posix_openpt(2)) >= 0: held.append(fd)",
    "pipe pages": """
held = []
import fcntl
while True:
    try:
        fds = os.pipe()
        fcntl.fcntl(fds[0], 1031, 1 << 20)
        held.append(fds)
    except OSError:
        break""",
    "sockets": "held = []\nwhile (fd := libc.socket(1, 1, 0)) >= 0: held.append(fd)",
    "timers": """
held = []
timer = ctypes.c_void_p()
while len(held) < 3000 and libc.timer_create(1, None, ctypes.byref(timer)) == 0: held.append(1)""",
    "locked memory": "held = []\nif libc.mlockall(3) == 0: held.append(1)",
    "message queues": "held = []\nif libc.mq_open(b'/x', 66, 0o600, None) >= 0: held.append(1)",
    "segments": """
held = []
while len(held) < 5000 and (number := libc.shmget(0, 4096, 0o1600)) >= 0: held.append(number)""",
}
TAKE: Final = """
import ctypes, os, signal, sys
libc = ctypes.CDLL(None, use_errno=True)
{how}
print(len(held), flush=True)
sys.stdin.read()
"""
TAKES_NOTHING: Final = {"locked memory", "message queues"}


MOST: Final = {"inotify instances": 32, "terminals": 64, "pending signals": 1024, "processes": 23, "descriptors": 512}
"""What one sandbox may take of that which the whole machine, or the whole user, has only so much of."""


@pytest.mark.limits
@pytest.mark.parametrize("name", EXHAUST)
def test_x4_what_one_run_uses_up_another_still_has(
    meanwhile: Execute, execute: Execute, name: str, shared_memory: str
) -> None:
    """Each takes all that it can get; the second gets as much as the first, and both less than the machine has."""
    argv = [*PYTHON, TAKE.format(how=EXHAUST[name])]
    limits = {"processes": 24, "open_files": 512, "memory": "128Mi"}
    second: list[Result] = []
    first = meanwhile(argv, lambda _: second.append(execute(argv, limits=limits)), limits=limits)
    taken, then = int(first.stdout.text), int(second[0].stdout.text)
    nothing = TAKES_NOTHING if shared_memory == "OK" else TAKES_NOTHING | {"segments"}
    assert (taken == 0) == (name in nothing)
    assert taken <= MOST.get(name, 5000)
    if name == "pipe pages" and Layer.HOST_UID not in first.isolation.layers:
        assert second[0].ok, "one user's share of these is one for all its runs; small pipes there are always"
    else:
        assert then >= taken * 0.9


IN_FLIGHT: Final = """
import array, os, socket
kept, number = [], os.open("/dev/null", os.O_RDONLY)
try:
    while True:
        kept.append(socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM))
        for _ in range(3):
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [number] * 250))]
            kept[-1][0].sendmsg([b"x"], rights, socket.MSG_DONTWAIT)
except OSError as error:
    print(error.errno, flush=True)
import sys
sys.stdin.read()
"""
USE_UP_DESCRIPTORS: Final = """
import os, resource, sys, casemate
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
read_fd, write_fd = os.pipe()
done = []
def act(chunk):
    sandbox.files.write("file", b"")
    done.extend([chunk.data.decode(), casemate.execute(["/bin/true"]).reason, sandbox.exec(["/bin/true"]).reason])
    os.close(write_fd)
with casemate.Sandbox("bash") as sandbox, os.fdopen(read_fd, "rb") as stdin:
    first = casemate.execute(["/usr/bin/python3", "-c", sys.argv[1]], stdin=stdin, on_output=act)
    print(*done, resource.getrlimit(resource.RLIMIT_NOFILE) == (1024, hard))
"""


def test_x4_descriptors_that_one_run_has_in_flight_hold_up_no_other(apart: Apart, not_run: NotRun) -> None:
    """The kernel counts them for the user, whom an ordinary user's runs have in common with their engine."""
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 4096:
        not_run("X4", "the limit on open files cannot be raised here")
    done = apart(USE_UP_DESCRIPTORS, IN_FLIGHT)
    assert done.stdout.split() == [str(errno.ETOOMANYREFS), "exit", "exit", "True"], done


def test_x4_watches_of_one_sandbox_leave_some_for_the_machine(meanwhile: Execute) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    got: list[int] = []
    argv = [*PYTHON, TAKE.format(how=EXHAUST["inotify instances"])]
    meanwhile(argv, lambda _: got.append(libc.inotify_init1(os.O_CLOEXEC)))
    assert got[0] >= 0
    os.close(got[0])


WORK: Final = """
import time
started = time.perf_counter()
total = 0
for number in range(1_500_000):
    total += number * number % 7
blocks = [bytearray(1 << 20) for _ in range(32)]
print(time.perf_counter() - started)
"""
NOISE: Final = """
import os
for _ in range(7):
    if os.fork() == 0:
        break
data = bytearray(4 << 20)
while True:
    with open(f"/work/{os.getpid()}", "wb") as file:
        file.write(data)
    data[:] = bytes(4 << 20)
"""
NOISE_BOUND: Final = 4.0
"""How many times slower a run may become beside one that uses all of its limits."""


@pytest.mark.slow
@pytest.mark.limits
@pytest.mark.alone  # two times are compared
def test_x5_noise_of_a_neighbour(execute: Execute, engine: Engine) -> None:
    def fastest() -> float:
        return min(float(execute([*PYTHON, WORK], limits={"cpu": 1}).stdout.text) for _ in range(5))

    alone_s = fastest()
    token = CancelToken()
    limits = {"cpu": 1, "memory": "128Mi", "disk": "64Mi", "processes": 8, "timeout": 60}
    noisy = threading.Thread(target=lambda: execute([*PYTHON, NOISE], limits=limits, cancel=token))
    noisy.start()
    time.sleep(0.3)
    try:
        beside_s = fastest()
    finally:
        token.cancel()
        noisy.join()
    assert beside_s < NOISE_BOUND * alone_s


# X7 X8: shared directories ------------------------------------------------------------------------

PLANT: Final = (
    SAY
    + """
import site, sysconfig
shared = [path for path in {*sys.path, sysconfig.get_path("purelib"), "/usr/lib/python3/dist-packages", "/usr/lib/R",
          "/usr/local/lib/R/site-library", "/usr/local/lib/python3.11/dist-packages", "/usr/lib/node_modules",
          "/usr/share/nodejs", "/opt/runtime", "/opt/casemate/guest", "/var/cache", "/usr/lib/python3.11/__pycache__"}
          if os.path.isdir(path) and not path.startswith("/work")]
for folder in shared:
    attempt(folder, open, os.path.join(folder, "planted.py"), "w")
home = os.environ["HOME"]
for path in [site.getusersitepackages(), home + "/.cache/pip", home + "/.npm", home + "/.config", home + "/R/library",
             home + "/.local/bin", home + "/.ccache"]:
    os.makedirs(path, exist_ok=True)
    open(os.path.join(path, "planted.py"), "w").write("print('planted')")
for name in [".Rprofile", ".npmrc", ".bashrc", ".profile", ".pythonrc", ".gitconfig"]:
    open(os.path.join(home, name), "w").write("planted")
"""
)


def test_x7_package_directories_and_caches(engine: Engine, answers: Parse) -> None:
    planted = answers(casemate.run(PLANT, engine=engine))
    assert len(planted) >= 3
    assert set(planted.values()) <= {"EROFS", "EACCES"}
    look = (
        "import os\noutput = [n for f in (os.environ['HOME'], '/tmp', '/work') for _, _, ns in os.walk(f) for n in ns]"
    )
    found = casemate.run(look, engine=engine)
    assert found.output in ([], ["main.py"])
    imported = casemate.run("import planted", engine=engine)
    assert imported.error is not None
    assert imported.error.type == "ModuleNotFoundError"


def test_x8_paths_do_not_lead_from_one_sandbox_to_another(sandbox: Open) -> None:
    one, other = sandbox(), sandbox()
    one.files.write("secret.txt", "of one")
    init = one._session.sandbox.pid
    for path in ("../../secret.txt", f"/proc/{init}/root/work/secret.txt", "/run/scratch/0/secret.txt", "a/../../x"):
        with pytest.raises(InvalidInput):
            other.files.read(path)
        with pytest.raises(InvalidInput):
            other.files.write(path, b"")
    links = {"up": "../../..", "proc": f"/proc/{init}/root", "self": "/proc/self/root", "work": "/run/scratch/0"}
    for name, target in links.items():
        assert other.exec(["ln", "-s", target, name]).ok
        for path in (f"{name}/work/secret.txt", f"{name}/secret.txt", name):
            with pytest.raises(FileTransferError):
                other.files.read(path)
            with pytest.raises(FileTransferError):
                other.files.write(path, b"overwritten")
    assert {file.path for file in other.files.collect("**")} == set()
    assert one.files.read("secret.txt") == b"of one"
    with pytest.raises(FileTransferError):
        other.files.read("secret.txt")


# X9: signals between tenants ----------------------------------------------------------------------

READ_ALL: Final = """
import hashlib, json, os, sys
def read(path):
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        return os.read(fd, 65536).decode(errors="replace")
    except OSError:
        return None
    finally:
        os.close(fd)
found = {}
for folder, folders, names in os.walk(sys.argv[1]):
    folders[:] = [name for name in folders if not (folder == "/proc" and name.isdigit())]
    for name in names:
        found[os.path.join(folder, name)] = read(os.path.join(folder, name))
print(json.dumps(found))
"""
BE_LOUD: Final = """
import os, socket, sys
held = [os.open("/dev/null", os.O_RDONLY) for _ in range(400)] + [os.pipe() for _ in range(100)]
held += [socket.socket(socket.AF_UNIX) for _ in range(50)] + [socket.create_server(("", 0)) for _ in range(50)]
terminals = [os.openpty() for _ in range(20)]
for number in range(2000):
    open(f"/work/{number}", "w").close()
    os.path.exists(f"/usr/no-such-{number}")
sum(number * number for number in range(3_000_000))
print("loud", flush=True)
sys.stdin.read()
"""
RANDOM_BY_NATURE: Final = {"/proc/sys/kernel/random/uuid"}


def shown_when_quiet_and_loud(
    opened: Sandbox, meanwhile: Execute, where: str, noise: str
) -> tuple[dict[str, str], dict[str, str]]:
    """What the files of a directory of `/proc` hold before, and while a neighbour makes noise."""
    opened.exec([*PYTHON, READ_ALL, where], limits={"output": 64 * MIB})
    shown: list[dict[str, str]] = []

    def look() -> None:
        result = opened.exec([*PYTHON, READ_ALL, where])
        shown.append(json.loads(result.stdout.head + result.stdout.tail))

    look()
    meanwhile([*PYTHON, noise], lambda _: look(), limits={"open_files": 1024})
    return shown[0], shown[1]


def test_x9_no_file_of_proc_beside_those_of_processes_shows_what_a_neighbour_does(
    sandbox: Open, meanwhile: Execute
) -> None:
    quiet, loud = shown_when_quiet_and_loud(sandbox(cpu=0.5), meanwhile, "/proc", BE_LOUD)
    assert len(quiet) > 200
    changed = {path for path in quiet.keys() | loud.keys() if quiet.get(path) != loud.get(path)}
    assert changed - RANDOM_BY_NATURE <= {"/proc/sys/kernel/ns_last_pid"}, "which is the listener's own"


BE_LOUD_ON_THE_NETWORK: Final = """
import socket, sys
server = socket.create_server(("127.0.0.1", 0))
pairs = [(socket.create_connection(server.getsockname()), server.accept()) for _ in range(20)]
sender = socket.socket(type=socket.SOCK_DGRAM)
for _ in range(2000):
    sender.sendto(bytes(1000), server.getsockname())
for writer, _ in pairs:
    writer.send(bytes(100_000))
print("loud", flush=True)
sys.stdin.read()
"""
COUNTED_FOR_THE_MACHINE: Final = {
    "softnet_stat",
    "sockstat",
    "sockstat6",
    "protocols",
    "rt_cache",
    "arp_cache",
    "ndisc_cache",
}
"""Packets, routes, neighbours and buffers of all network namespaces together; the threat model tells of them."""


def test_x9_of_a_neighbours_network_only_counters_of_the_machine_are_seen(sandbox: Open, meanwhile: Execute) -> None:
    quiet, loud = shown_when_quiet_and_loud(sandbox(), meanwhile, "/proc/thread-self/net/", BE_LOUD_ON_THE_NETWORK)
    assert len(quiet) > 20
    changed = {Path(path).name for path in quiet.keys() | loud.keys() if quiet.get(path) != loud.get(path)}
    assert changed <= COUNTED_FOR_THE_MACHINE

"""Attacks on secrets (I1 to I16): what a program could learn of the machine, its people, its other runs, and us.

I13 as a whole (what a server says when it fails) belongs to the HTTP service, I9 and I10 for forks of one zygote to
the pools; here both are proven for interpreters that start cold.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final, NoReturn

import pytest

import casemate
from casemate import Engine, Result, Sandbox
from casemate.limits import MIB
from casemate.model.spec import BASE_ENVIRONMENT

Execute = Callable[..., Result]
Answers = Callable[..., "dict[str, str]"]
Open = Callable[..., Sandbox]
NotRun = Callable[[str, str], NoReturn]
Apart = Callable[..., subprocess.CompletedProcess[str]]

SECRET: Final = "casemate-host-secret-4711"
RANDOM_RUNS: Final = 6


# I1 I2 I4 I5: who am I, and who else is there -----------------------------------------------------


def test_i1_environment_is_exactly_what_is_intended(execute: Execute, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CASEMATE_TEST_TOKEN", SECRET)
    shown = execute(["env", "-0"], env={"GIVEN": "by the caller"}).stdout.text.split("\0")
    expected = BASE_ENVIRONMENT | {"GIVEN": "by the caller"}
    assert sorted(filter(None, shown)) == sorted(f"{name}={value}" for name, value in expected.items())


ENVIRONMENT_OF_ALL: Final = """
import casemate
LOOK = '''
import glob, sys
for path in sorted(glob.glob("/proc/[0-9]*/environ") + glob.glob("/proc/[0-9]*/cmdline") + ["/proc/self/auxv"]):
    try:
        sys.stdout.buffer.write(open(path, "rb").read() + b"|")
    except OSError as error:
        print(path, error)
'''
with casemate.Engine(warm=False) as engine:
    result = casemate.execute(["/usr/bin/python3", "-I", "-c", LOOK], engine=engine)
    in_harness = casemate.run("import os; output = dict(os.environ)", engine=engine)
    print(result.stdout.text, result.stderr.text, in_harness.output)
    launcher = engine.backend.launcher.pid
    print("launcher:", open(f"/proc/{launcher}/environ").read(), open(f"/proc/{launcher}/cmdline").read())
"""


def test_i1_nothing_of_the_engines_environment_is_anywhere(apart: Apart) -> None:
    done = apart(ENVIRONMENT_OF_ALL, CASEMATE_TEST_TOKEN=SECRET, PYTHONPATH=os.pathsep.join(filter(None, sys.path)))
    assert done.returncode == 0, done.stderr
    assert "LANG=C.UTF-8" in done.stdout
    assert SECRET not in done.stdout
    assert "PYTHONPATH" not in done.stdout
    assert done.stdout.splitlines()[-1] == "launcher:  init\0"


def test_i1_auxiliary_vector_names_only_paths_inside(ask_python: Answers) -> None:
    answers = ask_python("""
        import ctypes
        libc = ctypes.CDLL(None)
        libc.getauxval.restype = ctypes.c_ulong
        EXECFN, PLATFORM, UID, SECURE = 31, 15, 11, 23
        say("program", ctypes.string_at(libc.getauxval(EXECFN)).decode())
        say("uid", libc.getauxval(UID))
        say("secure", libc.getauxval(SECURE))
    """)
    assert answers == {"program": "/usr/bin/python3", "uid": "1000", "secure": "0"}


def test_i2_only_ones_own_processes_are_listed(ask_python: Answers) -> None:
    answers = ask_python("""
        import subprocess
        child = subprocess.Popen(["/bin/sleep", "60"])
        listed = sorted(int(name) for name in os.listdir("/proc") if name.isdigit())
        say("others", [pid for pid in listed if pid not in {os.getpid(), child.pid}])
        say("child", child.pid in listed)
        reachable = []
        for pid in range(2, 5000):
            try:
                os.kill(pid, 0)
                reachable.append(pid)
            except ProcessLookupError:
                pass
        say("reachable", [pid for pid in reachable if pid not in {os.getpid(), child.pid}])
        for name in ["cmdline", "environ", "maps", "cwd", "exe", "root", "status", "mountinfo", "fd"]:
            attempt(f"init {name}", os.stat, f"/proc/1/{name}")
        say("parent", os.getppid())
        child.kill()
    """)
    assert {answers.pop("others"), answers.pop("reachable")} == {"[]"}
    assert answers.pop("child") == "True"
    assert answers.pop("parent") == "1"
    assert set(answers.values()) == {"ENOENT"}


def test_i2_init_has_a_neutral_name_also_for_the_machine(sandbox: Open) -> None:
    init = Path("/proc") / str(sandbox()._session.sandbox.pid)
    assert (init / "comm").read_text() == "init\n"
    if os.geteuid() == 0:
        assert (init / "cmdline").read_bytes() == b"init\0"
        assert (init / "environ").read_bytes() == b""


def test_i4_cgroup_paths(ask_python: Answers) -> None:
    answers = ask_python('say("paths", sorted({line.split(":", 2)[2] for line in open("/proc/self/cgroup")}))')
    assert answers == {"paths": "['/\\n']"}


def test_i5_names_of_the_machine(ask_python: Answers) -> None:
    answers = ask_python("""
        import socket
        say("uname", os.uname().nodename)
        say("hostname", socket.gethostname())
        say("name in etc", open("/etc/hostname").read().strip())
        say("sysctl", open("/proc/sys/kernel/hostname").read().strip())
        say("domain", open("/proc/sys/kernel/domainname").read().strip())
        say("boot id", open("/proc/sys/kernel/random/boot_id").read())
        for path in ["/etc/machine-id", "/var/lib/dbus/machine-id", "/etc/hostid", "/sys/class/dmi/id/product_uuid",
                     "/sys/firmware", "/sys/devices", "/sys/class/net", "/dev/disk", "/dev/vda", "/dev/mem"]:
            attempt(path, os.stat, path)
    """)
    names = {answers.pop(name) for name in ("uname", "hostname", "name in etc", "sysctl")}
    assert names == {"sandbox"}
    assert {answers.pop("domain"), answers.pop("boot id")} == {""}
    assert set(answers.values()) == {"ENOENT"}


# I3 I14: paths of the machine ---------------------------------------------------------------------


def private_paths(tmp_path: Path) -> set[str]:
    """Return paths of this machine that say who runs what here."""
    found = {str(tmp_path), str(Path(casemate.__file__).parent), sys.prefix, sys.base_prefix, str(Path.cwd())}
    found |= {str(Path.home()), os.environ.get("TMPDIR", ""), str(Path(sys.executable).resolve().parent)}
    return {path for path in found if len(path) > 1 and not path.startswith(("/usr", "/tmp/mnt", "/work"))}


PUBLIC_ROOT: Final = re.compile(r"/|/[0-9]|/run/\.(mask|masks|proc/\w+)|/sys|/(null|zero|full|random|urandom|tty)")


@pytest.mark.parametrize("how", ["command", "runtime"])
def test_i3_mountinfo(execute: Execute, engine: Engine, tmp_path: Path, how: str) -> None:
    if how == "command":
        text = execute(["cat", "/proc/self/mountinfo"]).stdout.text
    else:
        text = casemate.run("print(open('/proc/self/mountinfo').read(), end='')", engine=engine).stdout.text
    mounts = [line.split(" ") for line in text.splitlines()]
    assert len(mounts) > 20
    roots = {mount[3] for mount in mounts if mount[3] != mount[4] and f"/etc{mount[3]}" != mount[4]}
    assert {root for root in roots if not PUBLIC_ROOT.fullmatch(root)} == set()
    assert [path for path in private_paths(tmp_path) if path in text] == []
    overlays = [mount[-1] for mount in mounts if mount[-3] == "overlay" and mount[-2] == "base"]
    for options in overlays:
        assert re.fullmatch(r"ro,lowerdir=\.:/(tmp|run|mnt|var)/mnt\b[^/]*", options)


def test_i3_other_files_of_proc_name_no_path_of_the_machine(execute: Execute, tmp_path: Path) -> None:
    files = "mounts mountstats cgroup maps smaps environ cmdline stat status net/unix net/tcp"
    result = execute(["sh", "-c", f"cd /proc/self && cat {files}; readlink exe cwd root fd/*"])
    assert len(result.stdout.text) > 1000
    assert [path for path in private_paths(tmp_path) if path in result.stdout.text] == []


PUBLIC_TOP: Final = {"bin", "code", "dev", "etc", "home", "lib", "lib32", "lib64", "libx32", "mnt", "opt", "proc"} | {
    "run",
    "sbin",
    "tmp",
    "usr",
    "var",
    "work",
}


def test_i14_existing_and_missing_paths_answer_alike(ask_python: Answers, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    there = [str(path) for path in Path("/").iterdir() if path.name not in PUBLIC_TOP]
    there += [
        "/root/.ssh",
        "/run/.etc/passwd",
        "/run/.etc/shadow",
        "/root/.bashrc",
        "/etc/shadow",
        "/etc/gshadow",
        "/etc/sudoers",
        "/etc/fstab",
        "/etc/crontab",
    ]
    there += ["/etc/ssh", "/etc/security", "/etc/ssl/private", "/etc/apt", "/etc/debian_version", "/etc/environment"]
    there += ["/var/log", "/var/lib", "/var/lib/dpkg/status", "/var/spool", "/var/cache", "/var/mail", "/run/lock"]
    there += ["/proc/1/cmdline", f"/proc/{os.getpid()}", "/sys/kernel", "/dev/vda", "/dev/sda", "/dev/kmsg"]
    there += [str(tmp_path), str(tmp_path / "file"), str(Path(casemate.__file__)), str(Path.home() / ".profile")]
    asked = [path for path in there if not path.startswith("/usr")]
    answers = ask_python(
        """
        for path in sys.argv[1:]:
            for question in (os.stat, os.listdir, os.readlink, lambda path: os.open(path, os.O_RDONLY), os.statvfs):
                attempt(f"{path} {id(question)}", question, path)
            attempt(f"{path} write", os.open, path, os.O_WRONLY)
        """,
        *asked,
        *(f"{path}-no-such-path" for path in asked),
    )
    assert {what: answer for what, answer in answers.items() if answer != "ENOENT"} == {}


# I6 I11: the kernel and the load of the machine ---------------------------------------------------


def test_i6_kernel_addresses(ask_python: Answers) -> None:
    answers = ask_python("""
        import re, socket
        listening = [socket.create_server(("127.0.0.1", 0)), socket.socketpair()]
        def read(path):
            with open(path, "rb") as file:
                return file.read()
        for name in ["kallsyms", "kcore", "kmsg", "slabinfo", "timer_list", "sched_debug", "vmallocinfo", "modules",
                     "iomem", "ioports", "kpageflags", "pagetypeinfo", "config.gz", "self/stack"]:
            try:
                say(name, read(f"/proc/{name}") or "empty")
            except OSError as error:
                say(name, errno.errorcode[error.errno])
        say("wchan", read("/proc/self/wchan").decode())
        kernel_half = re.compile(rb"\\bffff[0-9a-f]{12}\\b")
        seen = []
        for folder in ["/proc/self/net", "/proc/self", "/proc"]:
            for name in os.listdir(folder):
                path = os.path.join(folder, name)
                try:
                    if os.path.isfile(path) and not name.endswith("maps") and kernel_half.search(read(path)):
                        seen.append(path)
                except OSError:
                    pass
        say("addresses", seen)
        import ctypes
        buffer = ctypes.create_string_buffer(b"here", 4096)
        with open("/proc/self/pagemap", "rb") as pages:
            pages.seek(ctypes.addressof(buffer) // 4096 * 8)
            entry = int.from_bytes(pages.read(8), "little")
        say("page is there", entry >> 63)
        say("page frame", entry & (1 << 55) - 1)
    """)
    assert answers.pop("wchan") == "0"
    assert answers.pop("addresses") == "[]"
    assert answers.pop("page is there") == "1"
    assert answers.pop("page frame") == "0"
    assert set(answers.values()) <= {"empty", "EACCES", "EPERM", "ENOENT"}


def test_i6_kernel_log(call: Answers, ask_python: Answers) -> None:
    read_all, size_buffer = 3, 10
    answers = call({"read": ("syslog", read_all, "p", 4096), "size": ("syslog", size_buffer, 0, 0)})
    assert set(answers.values()) == {"EPERM"}
    assert ask_python('attempt("kmsg", os.open, "/dev/kmsg", os.O_RDONLY)') == {"kmsg": "ENOENT"}


def test_i11_load_and_counters_of_the_machine(ask_python: Answers) -> None:
    answers = ask_python("""
        for name in ["loadavg", "uptime", "swaps", "diskstats", "interrupts", "softirqs", "vmstat", "zoneinfo",
                     "buddyinfo", "partitions", "locks", "keys", "key-users", "cgroups"]:
            say(name, repr(open(f"/proc/{name}").read()) if os.path.exists(f"/proc/{name}") else "''")
        say("pressure", os.listdir("/proc/pressure") if os.path.exists("/proc/pressure") else [])
        cpus = [line.split() for line in open("/proc/stat") if line.startswith("cpu")]
        say("cpu time", sum(int(word) for words in cpus for word in words[1:]))
        say("interfaces", [line.split(":")[0].strip() for line in open("/proc/net/dev") if ":" in line
                           and line.split(":")[1].split()[0] != "0"])
        for name in ["fs/file-nr", "fs/inode-nr", "fs/inode-state", "fs/dentry-state", "fs/aio-nr", "fs/quota/syncs",
                     "kernel/pty/nr"]:
            say(name, repr(open(f"/proc/sys/{name}").read()) if os.path.exists(f"/proc/sys/{name}") else "''")
    """)
    assert answers.pop("loadavg").startswith("'0.00 0.00 0.00 ")
    assert answers.pop("uptime") == "'1.00 1.00\\n'"
    assert answers.pop("swaps").count("\\n") == 1
    assert answers.pop("cpu time") == "0"
    assert answers.pop("pressure") == "[]"
    assert answers.pop("interfaces") == "[]"
    assert set(answers.values()) == {"''"}


def test_i11_memory_and_processors_agree_with_the_limits(ask_python: Answers) -> None:
    answers = ask_python(
        """
        memory = dict(line.split(":") for line in open("/proc/meminfo"))
        say("memory", memory["MemTotal"].strip())
        say("swap", memory["SwapTotal"].strip())
        say("affinity", len(os.sched_getaffinity(0)))
        say("processors", sum(line.startswith("processor") for line in open("/proc/cpuinfo")))
        say("disk", os.statvfs("/work").f_blocks * os.statvfs("/work").f_frsize)
        """,
        limits={"memory": "96Mi", "disk": "8Mi", "cpu": 0.5},
    )
    assert answers == {
        "memory": f"{96 * 1024} kB",
        "swap": "0 kB",
        "affinity": "1",
        "processors": "1",
        "disk": str(8 * MIB),
    }


# I7 I12 I16: what a process inherits --------------------------------------------------------------

DESCRIPTORS: Final = """
import fcntl, json, os
def is_open(fd):
    try:
        fcntl.fcntl(fd, fcntl.F_GETFD)
        return True
    except OSError:
        return False
print(json.dumps([fd for fd in range(4096) if is_open(fd)]))
"""


@pytest.mark.parametrize("stdin", [None, b"some"])
def test_i7_a_program_has_three_descriptors(python: Execute, stdin: bytes | None) -> None:
    result = python(DESCRIPTORS, stdin=stdin)
    assert json.loads(result.stdout.text) == [0, 1, 2]


def test_i7_descriptors_of_runtimes(engine: Engine, sandbox: Open) -> None:
    """A harness keeps its channel from the programs that it starts."""
    command = f"/usr/bin/python3 -I -c '{DESCRIPTORS}'"
    child = casemate.run(f"import os; os.system({command!r})", engine=engine, input=1)
    assert json.loads(child.stdout.text) == [0, 1, 2]
    assert json.loads(sandbox().exec(["/usr/bin/python3", "-I", "-c", DESCRIPTORS]).stdout.text) == [0, 1, 2]
    shell = casemate.run(command, runtime="bash", engine=engine, input=1)
    assert json.loads(shell.stdout.text) == [0, 1, 2]


def test_i7_descriptors_on_a_terminal(sandbox: Open) -> None:
    with sandbox().open_pty(["/usr/bin/python3", "-I", "-c", DESCRIPTORS]) as terminal:
        said = b""
        while piece := terminal.read():
            said += piece
        assert terminal.wait() == 0
    assert json.loads(said) == [0, 1, 2]


SEARCH: Final = """
needle = bytes(reversed(sys.argv[1].encode()))
found, looked = [], 0
tops = [f"/{name}" for name in os.listdir("/") if name not in {"usr", "bin", "sbin", "lib", "lib64", "lib32", "libx32"}]
for top in tops:
    for folder, folders, names in os.walk(top):
        for name in names:
            path = os.path.join(folder, name)
            try:
                fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
            except OSError:
                continue
            try:
                looked += 1
                if needle in os.read(fd, 1 << 20):
                    found.append(path)
            except OSError:
                pass
            finally:
                os.close(fd)
say("looked", looked > 100)
say("found", found)
"""


def test_i12_expected_answers_are_nowhere(ask_python: Answers, sandbox: Open, tmp_path: Path) -> None:
    """The word to find lies in the engine's memory, on its disk and in another sandbox; the guest gets it reversed."""
    neighbour = sandbox()
    neighbour.files.write("answers.txt", SECRET)
    neighbour.files.write("/dev/shm/answers", SECRET)
    (tmp_path / "answers.txt").write_text(SECRET)
    (tmp_path / "answers.txt").chmod(0o644)
    answers = ask_python(SEARCH, SECRET[::-1])
    assert answers == {"looked": "True", "found": "[]"}


def test_i16_stdin_is_a_pipe_and_nothing_more(python: Execute, tmp_path: Path) -> None:
    path = tmp_path / "cases.txt"
    path.write_text(f"first\n{SECRET}\n")
    with path.open("rb") as file:
        file.seek(len(SECRET) + 7)
        result = python(
            """
            import errno, os, stat
            print(stat.S_ISFIFO(os.fstat(0).st_mode), os.readlink("/proc/self/fd/0").split(":")[0])
            def attempt(call, *arguments):
                try:
                    return call(*arguments)
                except OSError as error:
                    return errno.errorcode[error.errno]
            print(attempt(os.lseek, 0, 0, os.SEEK_SET), attempt(os.pread, 0, 100, 0), attempt(os.ftruncate, 0, 0))
            again = os.open("/proc/self/fd/0", os.O_RDWR)
            print(attempt(os.lseek, again, 0, os.SEEK_SET))
            os.close(again)
            print(os.read(0, 100))
            """,
            stdin=file,
        )
    assert result.stdout.text == "True pipe\nESPIPE ESPIPE EINVAL\nESPIPE\nb''\n"
    assert path.read_text() == f"first\n{SECRET}\n"


# I8: what a run before has left in memory ---------------------------------------------------------

FILL: Final = """
import mmap, os
pattern = b"SECRET--" * 512
memory = mmap.mmap(-1, 16 << 20)
for at in range(0, 16 << 20, len(pattern)):
    memory[at:at + len(pattern)] = pattern
for path in ["/work/file", "/dev/shm/file", "/tmp/file"]:
    with open(path, "wb") as file:
        file.write(pattern * 512)
read, write = os.pipe()
os.write(write, pattern)
print("filled")
"""

LOOK: Final = """
import mmap
memory = mmap.mmap(-1, 24 << 20)
say("memory", memory[:].count(0) == 24 << 20)
for path in ["/work/file", "/dev/shm/file", "/tmp/file"]:
    with open(path, "wb+") as file:
        file.truncate(4 << 20)
        say(path, file.read().count(0) == 4 << 20)
        os.posix_fallocate(file.fileno(), 4 << 20, 4 << 20)
        file.seek(0)
        say(path + " allocated", file.read().count(0) == 8 << 20)
read, write = os.pipe()
os.set_blocking(read, False)
attempt("pipe", os.read, read, 10)
"""


def test_i8_what_the_run_before_left(execute: Execute, ask_python: Answers) -> None:
    for _ in range(3):
        assert execute(["/usr/bin/python3", "-I", "-c", FILL]).stdout.text == "filled\n"
    answers = ask_python(LOOK)
    assert answers.pop("pipe") == "EAGAIN"
    assert set(answers.values()) == {"True"}


def test_i8_shared_memory_starts_empty(ask_python: Answers, cgroup: str) -> None:
    if cgroup == "none":
        libc = "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\nlibc.shmget(1, 1, 0o1600)\n"
        answers = ask_python(libc + 'say("segment", errno.errorcode[ctypes.get_errno()])')
        assert answers == {"segment": "ENOSYS"}, "what no control group counts does not exist"
        return
    script = """
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        libc.shmat.restype = ctypes.c_void_p
        SIZE, CREATE, EXCLUSIVE = 1 << 20, 0o1000, 0o2000
        def segment(flags):
            number = libc.shmget(4711, SIZE, flags | 0o600)
            if number < 0:
                raise OSError(ctypes.get_errno(), "")
            return number
        attempt("left over", segment, 0)
        at = libc.shmat(attempt("new", segment, CREATE | EXCLUSIVE), None, 0)
        say("empty", not any(ctypes.string_at(at, SIZE)))
        ctypes.memset(at, 0x55, SIZE)
        say("listed", open("/proc/sysvipc/shm").read().count("\\n") - 1)
    """
    for _ in range(2):
        assert ask_python(script) == {"left over": "ENOENT", "new": "OK", "empty": "True", "listed": "1"}


# I9 I10: chance -----------------------------------------------------------------------------------

RANDOM: Final = """
import ctypes, os, random, secrets, tempfile, uuid
auxv = ctypes.CDLL(None).getauxval
auxv.restype = ctypes.c_ulong
print(random.random(), os.urandom(8).hex(), uuid.uuid1(), uuid.uuid4(), secrets.token_hex(8), hash("a"),
      tempfile.mktemp(), ctypes.string_at(auxv(25), 16).hex(), open("/proc/sys/kernel/random/uuid").read().strip())
"""


def test_i9_random_numbers_of_python(execute: Execute) -> None:
    runs = [execute(["/usr/bin/python3", "-c", RANDOM]).stdout.text.split() for _ in range(RANDOM_RUNS)]
    for values in zip(*runs, strict=True):
        assert len(set(values)) == RANDOM_RUNS


@pytest.mark.slow
@pytest.mark.parametrize(
    ("runtime", "code"),
    [
        ("node", "console.log(Math.random(), require('crypto').randomUUID())"),
        ("r", "cat(runif(1, 0, 1e9), basename(tempfile()))"),
        ("bash", "echo $RANDOM$RANDOM$RANDOM$SRANDOM $(mktemp -u)"),
    ],
)
def test_i9_random_numbers_of_other_runtimes(engine: Engine, runtime: str, code: str) -> None:
    runs = [casemate.run(code, runtime=runtime, engine=engine).stdout.text.split() for _ in range(3)]
    assert all(len(values) == 2 for values in runs)
    for values in zip(*runs, strict=True):
        assert len(set(values)) == len(runs)


def address_of_libc(maps: str) -> str:
    return next(line.split("-")[0] for line in maps.splitlines() if "libc.so" in line)


def test_i10_addresses_differ_from_run_to_run(execute: Execute, not_run: NotRun) -> None:
    command = ["cat", "/proc/self/maps"]
    outside = {address_of_libc(subprocess.check_output(command, text=True)) for _ in range(RANDOM_RUNS)}
    if len(outside) == 1:
        not_run("I10", "this kernel does not randomise addresses")
    inside = {address_of_libc(execute(command).stdout.text) for _ in range(RANDOM_RUNS)}
    assert len(inside) == RANDOM_RUNS


NOT_RANDOM: Final = """
import casemate
print(casemate.execute(["sh", "-c", "cat /proc/self/personality; grep stack /proc/self/maps"]).stdout.text)
"""


def test_i10_addresses_are_random_where_those_of_the_caller_are_not(apart: Apart) -> None:
    told = [apart(NOT_RANDOM, before=["setarch", "-R"]).stdout.split()[:2] for _ in range(2)]
    assert [words[0] for words in told] == ["00000000", "00000000"]
    assert told[0][1] != told[1][1]


# I13 I15: errors and compilers --------------------------------------------------------------------


def test_i13_errors_of_a_program_name_only_paths_inside(engine: Engine, tmp_path: Path) -> None:
    failing = casemate.run("def f():\n  1 / 0\nf()", engine=engine)
    wrong = casemate.run("this is no program", engine=engine)
    missing = casemate.run("import no_such_module_at_all", engine=engine)
    for result in (failing, wrong, missing):
        assert result.error is not None
        said = f"{result.error.message}{result.error.traceback}{result.stdout.text}{result.stderr.text}"
        assert "main.py" in said
        assert [path for path in private_paths(tmp_path) if path in said] == []


@pytest.mark.slow
def test_i15_compilers_read_nothing_of_the_machine(execute: Execute, tmp_path: Path) -> None:
    secret = tmp_path / "secret.h"
    secret.write_text(f"#error {SECRET}\n")
    secret.chmod(0o644)
    sources = {
        "shadow.c": '#include "/etc/shadow"\n',
        "secret.c": f'#include "{secret}"\n',
        "above.c": f'#include "../../../../../../{str(secret)[1:]}"\n',
        "init.c": '#include "/proc/1/environ"\n',
        "bytes.c": f'__asm__(".incbin \\"{secret}\\"");\n',
        "script.ld": f"INPUT({secret})\n",
        "empty.c": "int main(void) { return 0; }\n",
    }
    script = f"""
        for name in shadow secret above init bytes; do gcc -c $name.c -o $name.o; echo "$name $?"; done
        gcc empty.c script.ld -o empty; echo "script $?"
        gcc -I{secret.parent} -include secret.h -c empty.c; echo "option $?"
        gcc @{secret}; echo "response $?"
    """
    result = execute(["sh", "-c", script], files=dict(sources), limits={"memory": "512Mi"})
    assert result.ok
    ended = dict(line.split() for line in result.stdout.text.splitlines())
    assert ended.keys() == {"shadow", "secret", "above", "init", "bytes", "script", "option", "response"}
    assert set(ended.values()) == {"1"}
    assert result.stderr.text.count("No such file or directory") >= len(ended) - 1
    assert SECRET not in result.stdout.text + result.stderr.text

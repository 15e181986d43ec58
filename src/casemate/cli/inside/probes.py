"""The attacks of `casemate selftest`: runs inside a sandbox, as a hostile program would.

Not a part of the package but a text that is handed to a sandbox: standard library only. Every probe tries
something that must not work; its docstring says what, its result is how it was answered.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import stat
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, TypedDict

CONNECT_TIMEOUT_S: Final = 1.0
AT_FDCWD: Final = -100
PTRACE_ATTACH: Final = 16
CLONE_NEWUSER: Final = 0x10000000
OPEN_TREE_CLONE: Final = 1
BLOCK_DEVICE_MAJOR: Final = 8
STANDARD_FILES: Final = frozenset({"0", "1", "2"})
LISTED_DIRECTORY: Final = "3"
FAMILIES: Final = {"AF_PACKET": 17, "AF_ALG": 38, "AF_VSOCK": 40}
CALLS: Final = {
    "mount": 165,
    "unshare": 272,
    "open_tree": 428,
    "fsopen": 430,
    "ptrace": 101,
    "bpf": 321,
    "perf_event_open": 298,
    "userfaultfd": 323,
    "io_uring_setup": 425,
    "keyctl": 250,
    "add_key": 248,
    "init_module": 175,
    "kexec_load": 246,
    "open_by_handle_at": 304,
    "setns": 308,
    "process_vm_writev": 311,
}
"""System calls by their numbers on x86_64."""

RARE: Final = tuple(CALLS)[5:]


class Facts(TypedDict):
    """What the attacker was told of the machine, to look for it."""

    places: list[str]
    port: int
    abstract: str
    secret: str
    hostname: str
    paths: list[str]


class Breach(Exception):
    """The wall did not hold."""


class NotRun(Exception):
    """This attack cannot be tried here."""


def refused(what: str, attack: Callable[..., object], *arguments: object) -> str:
    """The kernel's answer to an attack that has to fail."""
    try:
        attack(*arguments)
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    raise Breach(f"{what} worked")


def system_call(name: str, *arguments: int | bytes) -> None:
    """One system call by its number. Raises OSError if it is refused."""
    try:
        import ctypes
    except ImportError as error:
        raise NotRun("this Python has no ctypes") from error
    libc = ctypes.CDLL(None, use_errno=True)
    words = [ctypes.c_char_p(word) if isinstance(word, bytes) else ctypes.c_long(word) for word in arguments]
    libc.syscall.restype = ctypes.c_long
    if libc.syscall(ctypes.c_long(CALLS[name]), *words) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def call(name: str, *arguments: int | bytes) -> str:
    """The answer to a system call that has to fail."""
    return refused(name, system_call, name, *arguments)


def answers(found: Iterable[str]) -> str:
    """Several answers as one text."""
    return ", ".join(dict.fromkeys(found))


def host_files(facts: Facts) -> str:
    """Look for homes, secrets, sockets and /sys."""
    places = ["/root", "/etc/shadow", "/sys", "/boot", "/run/docker.sock", "/run/systemd", "/var/lib", *facts["places"]]
    return answers(refused(f"looking at {place}", os.stat, place) for place in places)


def write_base(_: Facts) -> str:
    """Write into /usr, /etc and /."""
    places = ("/usr/bin/.probe", "/etc/.probe", "/.probe")
    return answers(refused(f"writing {place}", Path(place).write_text, "x") for place in places)


def mount(_: Facts) -> str:
    """Mount something."""
    return call("mount", b"none", b"/work", b"tmpfs", 0, b"")


def new_mount(_: Facts) -> str:
    """Mount by the newer system calls."""
    return answers([call("open_tree", AT_FDCWD, b"/usr", OPEN_TREE_CLONE), call("fsopen", b"tmpfs", 0)])


def old_root(_: Facts) -> str:
    """Go to the root directory of process 1."""
    return refused("listing it", os.listdir, "/proc/1/root/")


def device(_: Facts) -> str:
    """Make a disk of the machine's."""
    number = os.makedev(BLOCK_DEVICE_MAJOR, 0)
    return refused("mknod", os.mknod, "/work/disk", stat.S_IFBLK | 0o600, number)


def become_root(_: Facts) -> str:
    """Become root."""
    calls = [refused("setuid", os.setuid, 0), refused("setgid", os.setgid, 0), refused("setgroups", os.setgroups, [0])]
    return answers(calls)


def rights(_: Facts) -> str:
    """Find a capability, or a way to one."""
    lines = Path("/proc/self/status").read_text().splitlines()
    status = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if any(int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")):
        raise Breach("there are capabilities")
    if status["NoNewPrivs"] != "1":
        raise Breach("programs may raise their rights")
    if status["Seccomp"] != "2":
        raise Breach("no filter of system calls")
    return "none"


def processes(_: Facts) -> str:
    """See processes of others."""
    shown = {entry.name for entry in Path("/proc").iterdir() if entry.name.isdigit()}
    others = shown - {"1", str(os.getppid()), str(os.getpid())}
    if others:
        raise Breach(f"{len(others)} are visible")
    return f"{len(shown)} visible"


def kill_init(_: Facts) -> str:
    """Kill process 1."""
    try:
        os.kill(1, signal.SIGKILL)
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, "")
    return "no effect"


def read_init(_: Facts) -> str:
    """Read the memory and the environment of process 1."""
    return answers(refused(name, Path(f"/proc/1/{name}").read_bytes) for name in ("mem", "environ", "maps"))


def connect(address: tuple[str, int] | str, family: int = socket.AF_INET) -> str:
    """The answer to a connection that must not come about."""
    with socket.socket(family, socket.SOCK_STREAM) as connection:
        connection.settimeout(CONNECT_TIMEOUT_S)
        return refused(f"connecting to {address!r}", connection.connect, address)


def internet(_: Facts) -> str:
    """Reach the internet."""
    return answers([connect(("1.1.1.1", 443)), connect(("8.8.8.8", 53))])


def metadata(_: Facts) -> str:
    """Reach a cloud's metadata service."""
    return connect(("169.254.169.254", 80))


def host_port(facts: Facts) -> str:
    """Reach a service of this machine on 127.0.0.1."""
    return connect(("127.0.0.1", facts["port"]))


def host_socket(facts: Facts) -> str:
    """Reach a service of this machine by an abstract socket."""
    return connect(f"\0{facts['abstract']}", socket.AF_UNIX)


def odd_sockets(_: Facts) -> str:
    """Open raw, packet, crypto and hypervisor sockets."""
    found = [refused(name, socket.socket, family, socket.SOCK_RAW) for name, family in FAMILIES.items()]
    raw = refused("raw IP", socket.socket, socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    return answers([*found, raw])


def namespaces(_: Facts) -> str:
    """Make a user namespace, to be root in it."""
    return call("unshare", CLONE_NEWUSER)


def rare_calls(_: Facts) -> str:
    """Call what exploits begin with: bpf, perf, io_uring, keyrings, modules."""
    return answers(call(name, 0, 0, 0, 0, 0) for name in RARE)


def trace_init(_: Facts) -> str:
    """Attach a debugger to process 1."""
    return call("ptrace", PTRACE_ATTACH, 1, 0, 0)


def settings(_: Facts) -> str:
    """Change settings of the kernel."""
    files = ("/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname", "/proc/sysrq-trigger")
    return answers(refused(f"writing {file}", Path(file).write_text, "x") for file in files)


def start_of(path: str) -> bytes:
    """The first bytes of a file that may be endless."""
    with Path(path).open("rb") as file:
        return file.read(64)


def kernel_memory(_: Facts) -> str:
    """Read the kernel's memory, addresses and messages."""
    found = []
    for path in ("/proc/kcore", "/proc/kallsyms", "/proc/kmsg"):
        try:
            data = start_of(path)
        except OSError as error:
            found.append(errno.errorcode.get(error.errno or 0, ""))
            continue
        if data:
            raise Breach(f"{path} can be read")
        found.append("empty")
    return answers(found)


def environment(facts: Facts) -> str:
    """Find variables of the caller's."""
    if any(facts["secret"] in value for value in os.environ.values()):
        raise Breach("one is there")
    return f"{len(os.environ)}, all our own"


def descriptors(_: Facts) -> str:
    """Inherit an open file."""
    listing = subprocess.run(["/bin/ls", "/proc/self/fd"], capture_output=True, text=True, close_fds=False, check=True)
    extra = set(listing.stdout.split()) - STANDARD_FILES - {LISTED_DIRECTORY}
    if extra:
        raise Breach(f"a child has {', '.join(sorted(extra))}")
    return "none"


def machine(facts: Facts) -> str:
    """Learn the machine's name, paths and control group."""
    if os.uname().nodename == facts["hostname"]:
        raise Breach("its name")
    mounts = Path("/proc/self/mountinfo").read_text()
    if any(path in mounts for path in facts["paths"]):
        raise Breach("a path of its")
    if any(not line.endswith(":/") for line in Path("/proc/self/cgroup").read_text().splitlines()):
        raise Breach("the path of the control group")
    return f"is {os.uname().nodename!r}"


PROBES: Final[dict[str, tuple[Callable[[Facts], str], str]]] = {
    "host-files": (host_files, "own-root"),
    "write-base": (write_base, "own-root"),
    "old-root": (old_root, "own-root"),
    "mount": (mount, "seccomp"),
    "new-mount-calls": (new_mount, "seccomp"),
    "device": (device, "user-namespace"),
    "become-root": (become_root, "user-namespace"),
    "rights": (rights, "no-capabilities"),
    "processes": (processes, "pid-namespace"),
    "kill-init": (kill_init, "pid-namespace"),
    "read-init": (read_init, "pid-namespace"),
    "trace-init": (trace_init, "seccomp"),
    "internet": (internet, "network-namespace"),
    "metadata": (metadata, "network-namespace"),
    "host-port": (host_port, "network-namespace"),
    "host-socket": (host_socket, "network-namespace"),
    "odd-sockets": (odd_sockets, "seccomp"),
    "namespaces": (namespaces, "seccomp"),
    "rare-calls": (rare_calls, "seccomp"),
    "settings": (settings, "own-root"),
    "kernel-memory": (kernel_memory, "own-root"),
    "environment": (environment, "own-root"),
    "descriptors": (descriptors, "own-root"),
    "machine": (machine, "uts-namespace"),
}


def tried(name: str, facts: Facts) -> dict[str, Any]:
    """One attack: whether the wall held (None: it could not be tried) and what was the answer."""
    probe, wall = PROBES[name]
    found = {"check": name, "tried": (probe.__doc__ or "").rstrip("."), "wall": wall}
    try:
        return {**found, "held": True, "answer": probe(facts)}
    except Breach as breach:
        return {**found, "held": False, "answer": str(breach)}
    except NotRun as reason:
        return {**found, "held": None, "answer": str(reason)}
    except (OSError, ValueError, KeyError, subprocess.CalledProcessError) as error:
        return {**found, "held": False, "answer": f"the attack itself failed: {error!r}"}


def main(facts: Facts) -> list[dict[str, Any]]:
    """All attacks."""
    return [tried(name, facts) for name in PROBES]

"""Attacks on the kernel (K1 to K22): what is refused, and how, so that programs fall back or fail cleanly."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NoReturn

import msgspec
import pytest

import casemate
from casemate import Engine, Layer, LayerMissing, Result, Sandbox

Execute = Callable[..., Result]
Answers = Callable[..., "dict[str, str]"]
Open = Callable[..., Sandbox]
NotRun = Callable[[str, str], NoReturn]
Apart = Callable[..., subprocess.CompletedProcess[str]]

NAMESPACES: Final = {
    "mount": 0x00020000,
    "cgroup": 0x02000000,
    "uts": 0x04000000,
    "ipc": 0x08000000,
    "user": 0x10000000,
    "pid": 0x20000000,
    "network": 0x40000000,
    "user and network": 0x50000000,
}
SIGCHLD: Final = 17
BASE_FILES: Final = ("/usr/bin/true", "/usr/lib/os-release")


def digest(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


# K1 K2: namespaces --------------------------------------------------------------------------------


def test_k1_unshare(call: Answers) -> None:
    time_namespace = {"time": 0x80}
    answers = call({name: ("unshare", flag) for name, flag in (NAMESPACES | time_namespace).items()})
    assert set(answers.values()) == {"EPERM"}


def test_k1_clone_with_new_namespaces(call: Answers) -> None:
    answers = call({name: ("clone", flag | SIGCHLD) for name, flag in NAMESPACES.items()})
    assert set(answers.values()) == {"EPERM"}


def test_k1_clone3_is_missing_and_the_c_library_falls_back(ask: Answers, ask_python: Answers) -> None:
    assert ask("filters", "fallback") == {"clone3": "ENOSYS", "fork": "OK", "status": "7"}
    answers = ask_python("""
        import subprocess, threading
        thread = threading.Thread(target=say, args=("thread", "ran"))
        thread.start()
        thread.join()
        say("process", subprocess.run(["/bin/echo", "ran"], capture_output=True, check=True).stdout.decode().strip())
        pid = os.posix_spawn("/bin/true", ["true"], {})
        say("spawned", os.waitpid(pid, 0)[1])
    """)
    assert answers == {"thread": "ran", "process": "ran", "spawned": "0"}


def test_k2_setns(call: Answers) -> None:
    kinds = ["cgroup", "ipc", "mnt", "net", "pid", "pid_for_children", "time", "user", "uts"]
    answers = call({kind: ("setns", f"f//proc/self/ns/{kind}", 0) for kind in kinds})
    assert set(answers.values()) == {"EPERM"}


def test_k2_setns_by_process_descriptor(ask_python: Answers) -> None:
    answers = ask_python("""
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        def enter(pid):
            if libc.setns(os.pidfd_open(pid), 0x10000000) < 0:
                raise OSError(ctypes.get_errno(), "")
        attempt("init", enter, 1)
        attempt("self", enter, os.getpid())
        attempt("path of init", os.open, "/proc/1/ns/user", os.O_RDONLY)
    """)
    assert answers == {"init": "EPERM", "self": "EPERM", "path of init": "ENOENT"}


# K3 to K9, K11: whole calls -----------------------------------------------------------------------------


def test_k3_programs_in_the_kernel(call: Answers) -> None:
    answers = call(
        {
            "bpf map": ("bpf", 0, "p", 128),
            "bpf program": ("bpf", 5, "p", 128),
            "perf": ("perf_event_open", "p", 0, -1, -1, 0),
            "userfaultfd": ("userfaultfd", 0),
            "userfaultfd of the user": ("userfaultfd", 1),
            "io_uring": ("io_uring_setup", 8, "p"),
            "aio": ("io_setup", 8, "p"),
        }
    )
    assert answers == {
        "bpf map": "EPERM",
        "bpf program": "EPERM",
        "perf": "EPERM",
        "userfaultfd": "EPERM",
        "userfaultfd of the user": "EPERM",
        "io_uring": "ENOSYS",
        "aio": "ENOSYS",
    }


def test_k4_keyrings(call: Answers) -> None:
    session_keyring, describe, read, join = -3, 6, 11, 1
    answers = call(
        {
            "add": ("add_key", "s/user", "s/name", "p", 8, session_keyring),
            "request": ("request_key", "s/user", "s/name", "s/callout", session_keyring),
            "describe": ("keyctl", describe, session_keyring, "p", 64),
            "read": ("keyctl", read, session_keyring, "p", 64),
            "join": ("keyctl", join, "s/another"),
        }
    )
    assert set(answers.values()) == {"ENOSYS"}


def test_k5_tracing_a_child_of_ones_own(call: Answers) -> None:
    trace_me, attach, seize = 0, 16, 0x4206
    answers = call(
        {
            "trace me": ("ptrace", trace_me, 0, 0, 0),
            "attach": ("ptrace", attach, 1, 0, 0),
            "seize": ("ptrace", seize, 1, 0, 0),
            "read memory": ("process_vm_readv", 1, "p", 1, "p", 1, 0),
            "write memory": ("process_vm_writev", 1, "p", 1, "p", 1, 0),
        }
    )
    assert set(answers.values()) == {"EPERM"}


MACHINE_CALLS: Final = {
    "EPERM": (
        "kexec_load kexec_file_load init_module finit_module delete_module reboot swapon swapoff acct quotactl "
        "quotactl_fd syslog iopl ioperm vhangup settimeofday clock_settime adjtimex clock_adjtime sethostname "
        "setdomainname fanotify_init open_by_handle_at name_to_handle_at pivot_root chroot"
    ),
    "ENOSYS": "nfsservctl modify_ldt uselib vserver create_module query_module lookup_dcookie set_mempolicy mbind",
}


@pytest.mark.parametrize("answer", MACHINE_CALLS)
def test_k6_the_machine(call: Answers, answer: str) -> None:
    names = MACHINE_CALLS[answer].split()
    assert call({name: (name, 0, 0, 0, 0, 0, 0) for name in names}) == dict.fromkeys(names, answer)


def test_k6_reboot_with_its_magic_numbers(call: Answers) -> None:
    magic = (0xFEE1DEAD, 672274793)
    commands = {"restart": 0x01234567, "power off": 0x4321FEDC, "halt": 0xCDEF0123, "kexec": 0x45584543}
    answers = call({name: ("reboot", *magic, command, 0) for name, command in commands.items()})
    assert set(answers.values()) == {"EPERM"}


def test_k7_personality(call: Answers) -> None:
    answers = call(
        {
            "read implies exec": ("personality", 0x0400000),
            "compatible layout": ("personality", 0x0200000),
            "page zero": ("personality", 0x0100000),
            "old name": ("personality", 0x0020000),
            "32 bit": ("personality", 0x0008),
            "query": ("personality", 0xFFFFFFFF),
            "no randomisation": ("personality", 0x0040000),
        }
    )
    allowed = {name for name, answer in answers.items() if answer == "OK"}
    assert allowed == {"query", "no randomisation"}
    assert {answers[name] for name in answers.keys() - allowed} == {"EPERM"}


MOUNT_CALLS: Final = {
    "mount": ("s/tmpfs", "s/work", "s/tmpfs", 0, 0),
    "umount2": ("s/proc", 2),
    "fsopen": ("s/tmpfs", 0),
    "fsconfig": (0, 6, 0, 0, 0),
    "fsmount": (0, 0, 0),
    "fspick": (-100, "s/", 0),
    "open_tree": (-100, "s/", 1),
    "open_tree_attr": (-100, "s/", 1, "p", 32),
    "move_mount": (-100, "s/work", -100, "s/tmp", 0),
    "mount_setattr": (-100, "s/", 0, "p", 32),
}


def test_k8_mount_calls_old_and_new(call: Answers) -> None:
    answers = call({name: (name, *arguments) for name, arguments in MOUNT_CALLS.items()})
    assert answers == dict.fromkeys(MOUNT_CALLS, "EPERM")


def test_k8_lists_of_mounts(call: Answers) -> None:
    answers = call({name: (name, "p", "p", 512, 0) for name in ("statmount", "listmount", "listns")})
    assert set(answers.values()) == {"ENOSYS"}


def test_k9_legacy_entries(ask: Answers, is_emulated: bool) -> None:
    """Without a 32-bit table (User Mode Linux) int 0x80 is one more way to the numbers that the filter knows."""
    answers = ask("legacy")
    assert {answers[name] for name in answers if name.startswith("x32")} == {"ENOSYS"}
    assert answers["vsyscall gettimeofday"] in {"0", "ENOSYS", "SIGSEGV"}
    by_int80 = {name: answer for name, answer in answers.items() if name.startswith("int80")}
    if is_emulated:
        as_64_bit = {
            "getpid": "EBADF",
            "socket": "ENOSYS",
            "socketcall": "1000",
            "execve": "EINVAL",
            "unshare": "EPERM",
        }
        assert by_int80 == {f"int80 {name}": answer for name, answer in as_64_bit.items()}
    else:
        assert set(by_int80.values()) in ({"ENOSYS"}, {"SIGSEGV"})


def test_k11_unknown_system_calls(call: Answers) -> None:
    numbers = (337, 423, 472, 600, 1023, 65536, 0x3FFFFFFF, 0x40000000 + 1000, 0x7FFFFFFF, -1, -2)
    answers = call({str(number): (number, 0) for number in numbers})
    assert set(answers.values()) == {"ENOSYS"}


# K10: terminals -----------------------------------------------------------------------------------

PUSH, CONSOLE, TAKE_CONSOLE, DISCIPLINE, CONTROLLING = 0x5412, 0x541C, 0x541D, 0x5423, 0x540E


def test_k10_typing_for_others_on_a_terminal(sandbox: Open, compiled: Callable[[str], bytes]) -> None:
    opened = sandbox()
    opened.files.write("/code/calls", compiled("calls"))
    assert opened.exec(["chmod", "755", "/code/calls"]).ok
    requests = {"push": PUSH, "push with garbage": 0xBAD << 32 | PUSH, "console": CONSOLE}
    requests |= {"take console": TAKE_CONSOLE, "discipline": DISCIPLINE}
    words = [f"{name}=16:0:{number}:m" for name, number in requests.items()]
    with opened.open_pty(["/code/calls", *words]) as terminal:
        said = b""
        while piece := terminal.read():
            said += piece
        assert terminal.wait() == 0
    lines = dict(line.split("\t") for line in said.decode().split("\r\n") if "\t" in line)
    assert lines == dict.fromkeys(requests, "EPERM")


def test_k10_there_is_no_terminal_to_take(ask_python: Answers) -> None:
    answers = ask_python("""
        import fcntl
        attempt("tty", os.open, "/dev/tty", os.O_RDWR)
        attempt("console", os.open, "/dev/console", os.O_RDWR)
        attempt("tty0", os.open, "/dev/tty0", os.O_RDWR)
        attempt("push", fcntl.ioctl, 0, 0x5412, b"x")
        attempt("controlling", fcntl.ioctl, 0, 0x540E, 1)
        say("terminals", [name for name in os.listdir("/dev/pts") if name != "ptmx"])
    """)
    assert answers == {
        "tty": "ENXIO",
        "console": "ENOENT",
        "tty0": "ENOENT",
        "push": "EPERM",
        "controlling": "ENOTTY",
        "terminals": "[]",
    }


# K12 K13 K20: the walls themselves ----------------------------------------------------------------


def test_k12_prctl_cannot_loosen(call: Answers) -> None:
    ambient_raise = 2
    answers = call(
        {
            "forge what proc says": ("prctl", 35, 1, "p", 0, 0),
            "forge the map": ("prctl", 35, 14, "p", 104, 0),
            "new privileges": ("prctl", 38, 0, 0, 0, 0),
            "keep capabilities": ("prctl", 8, 1, 0, 0, 0),
            "securebits": ("prctl", 28, 0, 0, 0, 0),
            "ambient capability": ("prctl", 47, ambient_raise, 21, 0, 0),
            "speculation": ("prctl", 53, 0, 2, 0, 0),
            "core scheduling": ("prctl", 62, 1, 0, 0, 0),
            "memory merging": ("prctl", 67, 1, 0, 0, 0),
        }
    )
    assert answers == {
        "forge what proc says": "EPERM",
        "forge the map": "EPERM",
        "new privileges": "EINVAL",
        "keep capabilities": "EPERM",
        "securebits": "EPERM",
        "ambient capability": "EPERM",
        "speculation": "EPERM",
        "core scheduling": "EPERM",
        "memory merging": "EPERM",
    }


def test_k12_capabilities_do_not_come_back(ask_python: Answers) -> None:
    answers = ask_python("""
        import ctypes, struct
        libc = ctypes.CDLL(None, use_errno=True)
        def capset(effective, permitted, inheritable):
            header = struct.pack("Ii", 0x20080522, 0)
            data = struct.pack("III", effective, permitted, inheritable) + bytes(12)
            if libc.capset(header, data) < 0:
                raise OSError(ctypes.get_errno(), "")
        attempt("all", capset, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF)
        attempt("inheritable", capset, 0, 0, 1 << 21)
        attempt("none", capset, 0, 0, 0)
    """)
    assert answers == {"all": "EPERM", "inheritable": "EPERM", "none": "OK"}


def test_k12_more_filters_only_tighten(ask: Answers) -> None:
    assert ask("filters", "stacked") == {
        "filters that allow": "OK",
        "then unshare": "EPERM",
        "then socket": "EAFNOSUPPORT",
        "then io_uring": "ENOSYS",
        "filter that refuses": "OK",
        "refused": "ENOTTY",
        "by prctl": "OK",
        "still refused": "ENOTTY",
        "disable": "EINVAL",
        "at last unshare": "EPERM",
        "at last socket": "EAFNOSUPPORT",
        "at last io_uring": "ENOSYS",
    }


def test_k13_a_filter_with_a_listener(ask: Answers) -> None:
    assert ask("filters", "listener") == {
        "listener": "EINVAL",
        "listener and log": "EINVAL",
        "then unshare": "EPERM",
        "then socket": "EAFNOSUPPORT",
        "then io_uring": "ENOSYS",
    }


WALLS: Final = {
    "CapInh": "0000000000000000",
    "CapPrm": "0000000000000000",
    "CapEff": "0000000000000000",
    "CapBnd": "0000000000000000",
    "CapAmb": "0000000000000000",
    "NoNewPrivs": "1",
    "Seccomp": "2",
    "Seccomp_filters": "1",
    "TracerPid": "0",
    "Umask": "0022",
    "Groups": "",
    "SigBlk": "0000000000000000",
    "SigIgn": "0000000000000000",
    "SigCgt": "0000000000000000",
}
OWN_IDS: Final = {"Uid": "1000 1000 1000 1000", "Gid": "1000 1000 1000 1000"}


def fields(status: str) -> dict[str, str]:
    lines = [line.split(":", 1) for line in status.splitlines() if ":" in line]
    return {name: " ".join(value.split()) for name, value in lines}


def walls_of(status: str, names: Iterator[str] | dict[str, str]) -> dict[str, str]:
    found = fields(status)
    return {name: found[name] for name in names if name in found}


def test_k20_filter_integrity_of_a_program(execute: Execute) -> None:
    expected = WALLS | OWN_IDS
    assert walls_of(execute(["cat", "/proc/self/status"]).stdout.text, expected) == expected


def test_k20_filter_integrity_of_children_threads_and_runtimes(sandbox: Open, engine: Engine) -> None:
    expected = {name: WALLS[name] for name in WALLS if not name.startswith(("Sig", "Umask"))} | OWN_IDS
    opened = sandbox()
    shown = [
        opened.exec(["sh", "-c", "(cat /proc/self/status)"]),
        opened.run("cat /proc/thread-self/status"),
        opened.exec(["setsid", "--fork", "--wait", "cat", "/proc/self/status"]),
        casemate.run("print(open('/proc/self/status').read())", engine=engine),
        casemate.run("import os; os.system('cat /proc/self/status')", engine=engine),
    ]
    for result in shown:
        walls = walls_of(result.stdout.text, expected)
        assert int(walls.pop("Seccomp_filters")) >= 1, result  # a zygote's fork has the zygote's filter as well
        assert walls == {name: value for name, value in expected.items() if name != "Seccomp_filters"}, result


def test_k20_filter_integrity_on_a_terminal(sandbox: Open) -> None:
    with sandbox().open_pty(["cat", "/proc/self/status"]) as terminal:
        said = b""
        while piece := terminal.read():
            said += piece
        assert terminal.wait() == 0
    expected = WALLS | OWN_IDS
    assert walls_of(said.decode(), expected) == expected


def test_k20_filter_integrity_of_init_as_the_machine_sees_it(sandbox: Open) -> None:
    expected = {name: WALLS[name] for name in WALLS if not name.startswith(("Sig", "Umask"))}
    status = Path(f"/proc/{sandbox()._session.sandbox.pid}/status").read_text()
    assert walls_of(status, expected) == expected
    uid = fields(status)["Uid"].split()[0]
    assert fields(status)["Uid"].split() == [uid] * 4
    assert fields(status)["Gid"].split() == [fields(status)["Gid"].split()[0]] * 4
    if os.geteuid() == 0:
        assert int(uid) >= 1_900_000_000
    else:
        assert int(uid) == os.geteuid()


@pytest.mark.root
def test_k20_groups_of_the_engine_do_not_come_along(apart: Apart) -> None:
    script = """
        import casemate, os
        assert os.getgroups() == [4, 27]
        with casemate.Engine(warm=False) as engine:
            print(casemate.execute(["id", "-G"], engine=engine).stdout.text, end="")
    """
    done = apart(script, before=["setpriv", "--groups", "4,27"])
    assert done.stdout == "1000\n", done.stderr


# K14: pages of the base ---------------------------------------------------------------------------


@pytest.mark.parametrize("path", BASE_FILES)
def test_k14_pages_of_base_files(ask: Answers, execute: Execute, path: str) -> None:
    path = os.path.realpath(path)
    before, content = digest(path), Path(path).read_bytes()
    answers = ask("pages", path)
    by_reference = ("splice", "vmsplice", "tee", "sendfile", "copy")
    assert {answer for what, answer in answers.items() if what.startswith(by_reference)} == {"EINVAL"}
    assert answers["crypto socket"] == "EAFNOSUPPORT"
    assert answers["zero copy"] == "ENOPROTOOPT"
    assert {answers["open for writing"], answers["truncate"], answers["reopen by descriptor"]} <= {"EROFS", "EACCES"}
    assert {answers["shared writable mapping"], answers["make it writable"], answers["punch a hole"]} == {"EACCES"}
    assert answers["race"] == "over"
    assert digest(path) == before
    assert Path(path).read_bytes() == content
    assert execute(["sha256sum", path]).stdout.text.split()[0] == before


# K15 to K18: what could be mounted or written -----------------------------------------------------


def test_k15_cgroups_cannot_be_mounted(call: Answers) -> None:
    kinds = {"v1": "cgroup", "v2": "cgroup2", "processors": "cpuset"}
    answers = call({name: ("mount", "s/none", "s/work", f"s/{kind}", 0, 0) for name, kind in kinds.items()})
    assert set(answers.values()) == {"EPERM"}


def test_k15_no_cgroup_file_is_there(ask_python: Answers) -> None:
    answers = ask_python("""
        attempt("sys", os.listdir, "/sys")
        say("mounts", [line for line in open("/proc/self/mountinfo") if " - cgroup" in line])
        names = {"release_agent", "cgroup.procs", "tasks", "notify_on_release", "memory.max"}
        tops = ["/work", "/tmp", "/run", "/mnt", "/var", "/opt", "/home", "/dev", "/etc"]
        say("found", [name for top in tops for _, _, files in os.walk(top) for name in files if name in names])
        for name in ["/proc/self/cgroup", "/proc/cgroups"]:
            attempt(name, open, name, "w")
    """)
    assert answers.pop("sys") == "ENOENT"
    assert answers.pop("mounts") == "[]"
    assert answers.pop("found") == "[]"
    assert set(answers.values()) <= {"EACCES", "EROFS"}


def sysctls() -> dict[str, str]:
    names = ["core_pattern", "modprobe", "hostname", "randomize_va_space", "unprivileged_userns_clone", "sysrq"]
    paths = [Path("/proc/sys/kernel") / name for name in names]
    paths += [Path("/proc/sys/vm") / name for name in ("overcommit_memory", "swappiness", "mmap_min_addr")]
    paths += [Path("/proc/sys/net/ipv4/ip_unprivileged_port_start"), Path("/proc/sys/user/max_inotify_instances")]
    return {str(path): path.read_text() for path in paths if path.exists() and os.access(path, os.R_OK)}


def test_k16_sysctls_cannot_be_written(ask_python: Answers) -> None:
    before = sysctls()
    answers = ask_python("""
        def write(path):
            with open(path, "w") as file:
                file.write("1")
        for path in ["/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname", "/proc/sys/vm/drop_caches",
                     "/proc/sys/vm/overcommit_memory", "/proc/sysrq-trigger",
                     "/proc/sys/net/ipv4/ip_unprivileged_port_start", "/proc/sys/user/max_user_namespaces"]:
            attempt(path, write, path)
    """)
    assert answers.pop("/proc/sysrq-trigger") in {"EACCES", "EROFS", "ENOENT"}
    assert set(answers.values()) <= {"EROFS", "EACCES"}
    assert sysctls() == before


def test_k16_no_file_of_proc_but_ones_own_opens_for_writing(ask_python: Answers) -> None:
    answers = ask_python("""
        opened = []
        for folder, folders, names in os.walk("/proc"):
            folders[:] = [name for name in folders if not (folder == "/proc" and name.isdigit())]
            for name in names:
                path = os.path.join(folder, name)
                if os.path.islink(path):
                    continue
                try:
                    os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
                    opened.append(path)
                except OSError:
                    pass
        say("opened", opened)
    """)
    assert answers == {"opened": "[]"}


def test_k17_binfmt_misc(call: Answers, ask_python: Answers) -> None:
    assert call({"mount": ("mount", "s/none", "s/work", "s/binfmt_misc", 0, 0)}) == {"mount": "EPERM"}
    answers = ask_python('attempt("register", open, "/proc/sys/fs/binfmt_misc/register", "w")')
    assert answers["register"] in {"ENOENT", "EROFS", "EACCES"}


def test_k18_overlay_and_fuse(call: Answers, ask_python: Answers) -> None:
    options = "s/lowerdir=/usr,upperdir=/tmp,workdir=/work"
    answers = call(
        {
            "overlay": ("mount", "s/overlay", "s/mnt", "s/overlay", 0, options),
            "overlay with setuid": ("mount", "s/overlay", "s/mnt", "s/overlay", 0xC0ED0000, options),
            "fuse": ("mount", "s/fuse", "s/work", "s/fuse", 0, "s/fd=3,rootmode=40000,user_id=0,group_id=0"),
            "fuse by context": ("fsopen", "s/fuse", 0),
            "overlay by context": ("fsopen", "s/overlay", 0),
        }
    )
    assert set(answers.values()) == {"EPERM"}
    assert ask_python('attempt("device", os.open, "/dev/fuse", os.O_RDWR)') == {"device": "ENOENT"}


def test_k19_descriptors_and_memory_of_init(ask_python: Answers) -> None:
    answers = ask_python("""
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        def call(number, *arguments):
            if libc.syscall(number, *arguments) < 0:
                raise OSError(ctypes.get_errno(), "")
        init = os.pidfd_open(1)
        for fd in range(16):
            attempt(f"pidfd_getfd {fd}", call, 438, init, fd, 0)
        attempt("kcmp", call, 312, 1, os.getpid(), 2, 0, 0)
        attempt("process_madvise", call, 440, init, None, 0, 20, 0)
        attempt("process_mrelease", call, 448, init, 0)
        for name in ["mem", "fd", "root", "environ", "maps", "exe", "cwd", "auxv", "stack"]:
            attempt(name, os.stat, f"/proc/1/{name}")
    """)
    of_proc = {answers.pop(name) for name in ("mem", "fd", "root", "environ", "maps", "exe", "cwd", "auxv", "stack")}
    assert of_proc == {"ENOENT"}
    assert set(answers.values()) == {"EPERM"}


# K21: random calls --------------------------------------------------------------------------------


class KernelLog:
    """What the kernel says from now on, where this user may read it."""

    # "traps: NAME[PID] general protection fault" tells of a program's own fault, not of the kernel's.
    TROUBLE: Final = re.compile(
        r"BUG:|WARNING:|Oops|(?<!\] )general protection fault|kernel panic|KASAN|UBSAN|refcount_t|RIP: 0010"
    )

    def __init__(self) -> None:
        try:
            self._fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            self._fd = -1
        else:
            os.lseek(self._fd, 0, os.SEEK_END)

    def trouble(self) -> list[str]:
        lines = []
        while self._fd >= 0:
            try:
                lines.append(os.read(self._fd, 16384).decode(errors="replace"))
            except BrokenPipeError:
                continue
            except BlockingIOError:
                os.close(self._fd)
                self._fd = -1
        return [line for line in lines if self.TROUBLE.search(line)]


def fuzz(run_probe: Execute, seed: int, seconds: int, slowness: float) -> None:
    log = KernelLog()
    limits = {"timeout": 30 + seconds + 5 * slowness, "disk": "16Mi", "memory": "256Mi", "processes": 32}
    result = run_probe("fuzz", str(seed), str(seconds), limits=limits)
    trouble = log.trouble()
    assert result.ok, result
    calls = int(result.stdout.text.split("calls\t")[1])
    assert calls > 5000 * seconds / slowness
    assert not trouble


def test_k21_random_system_calls(run_probe: Execute, slowness: float) -> None:
    fuzz(run_probe, seed=int.from_bytes(os.urandom(4)), seconds=2, slowness=slowness)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_k21_random_system_calls_for_longer(run_probe: Execute, slowness: float, seed: int) -> None:
    fuzz(run_probe, seed=seed, seconds=4, slowness=slowness)


# K22: Landlock ------------------------------------------------------------------------------------


def test_k22_a_ruleset_of_ones_own(ask: Answers, execute: Execute, not_run: NotRun) -> None:
    if Layer.LANDLOCK not in execute(["/bin/true"]).isolation.layers:
        not_run("K22", "this kernel has no Landlock")
    assert ask("filters", "ruleset") == {
        "version": "OK",
        "before": "OK",
        "ruleset": "OK",
        "restrict": "OK",
        "after": "EACCES",
        "then unshare": "EPERM",
        "then socket": "EAFNOSUPPORT",
        "then io_uring": "ENOSYS",
    }


def test_k22_without_landlock_the_result_says_so(engine: Engine) -> None:
    """The facts of a kernel without Landlock, on this one: it is refused where required, and never listed."""
    with casemate.Engine(warm=False) as without:
        backend = without.backend
        backend._host = msgspec.structs.replace(backend.host, landlock_abi=0)
        result = casemate.execute(["/bin/true"], engine=without)
        assert result.ok
        assert Layer.LANDLOCK not in result.isolation.layers
        with pytest.raises(LayerMissing) as caught:
            casemate.execute(["/bin/true"], engine=without, require=["landlock"])
        assert caught.value.layers == ("landlock",)
    if engine.backend.host.landlock_abi > 0:
        assert Layer.LANDLOCK in casemate.execute(["/bin/true"], engine=engine, require=["landlock"]).isolation.layers

"""Attacks on files (F1 to F31): what is not shown, what cannot be changed, what is never followed on the way out."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NoReturn

import msgspec
import pytest

import casemate
from casemate import FileTransferError, InvalidInput, Layer, Reason, Result, Sandbox
from casemate.limits import COLLECT_DEPTH_MAX, MIB

BASE_FILE: Final = "/usr/bin/true"
MARKER: Final = "casemate-host-secret"
REFUSED_WRITE: Final = {"EROFS", "EACCES", "EPERM"}

Execute = Callable[..., Result]
Answers = Callable[..., "dict[str, str]"]
Open = Callable[..., Sandbox]
Compiled = Callable[[str], bytes]
Parse = Callable[[Result], "dict[str, str]"]


@pytest.fixture(scope="module", autouse=True)
def compiled_before(compiled: Compiled) -> None:
    """The time that a test takes is not that of the compiler."""
    compiled("files")


class HostFile(msgspec.Struct, frozen=True):
    """Everything of a file of the machine that an attack could have changed."""

    digest: str
    mode: int
    owner: int
    links: int
    modified_ns: int
    changed_ns: int


def host_file(path: str | Path) -> HostFile:
    status = Path(path).lstat()
    return HostFile(
        digest=hashlib.sha256(Path(path).read_bytes()).hexdigest(),
        mode=status.st_mode,
        owner=status.st_uid,
        links=status.st_nlink,
        modified_ns=status.st_mtime_ns,
        changed_ns=status.st_ctime_ns,
    )


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """Return a file of the machine that everybody outside may read."""
    path = tmp_path / "secret.txt"
    path.write_text(MARKER)
    path.chmod(0o644)
    return path


def sh(execute: Execute, script: str, **options: object) -> Result:
    return execute(["/bin/sh", "-c", script], **options)


def left_out(result: Result) -> str:
    return " ".join(event.detail for event in result.events if event.kind == "not-collected")


# F1 F2: reading ------------------------------------------------------------------------------------

LOOK: Final = """
for path in sys.argv[1:]:
    attempt(path, os.listdir if path.endswith("/") else open, path)
"""


def test_f1_shadow_and_homes_do_not_exist(ask_python: Answers) -> None:
    home = str(Path.home())
    paths = ["/etc/shadow", "/etc/gshadow", "/etc/sudoers", "/root", "/root/.ssh/id_ed25519", f"{home}/.ssh", home]
    found = ask_python(LOOK, *paths)
    assert {path: found[path] for path in paths} == dict.fromkeys(paths, "ENOENT")


def test_f1_the_only_home_is_the_guests_own_and_it_is_empty(execute: Execute) -> None:
    result = sh(execute, "ls -A /home; ls -A ~ ~/.ssh 2>/dev/null; echo ~")
    assert result.stdout.text.split() == ["guest", "/home/guest:", "/home/guest"]


def test_f1_accounts_are_the_sandboxs_own(execute: Execute) -> None:
    result = sh(execute, "cut -d: -f1 /etc/passwd; id -un; getent passwd root || echo no root")
    assert result.stdout.text.split("\n") == ["guest", "nobody", "guest", "no root", ""]


def test_f2_secrets_configuration_and_sockets_of_the_host_do_not_exist(ask_python: Answers, secret: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    with listener:
        listener.bind(str(secret.with_name("s")))
        found_here = [str(path) for pattern in ("*", "*/*") for path in Path("/run").glob(pattern)]
        paths = [str(secret), str(secret.with_name("s")), "/run/secrets/", "/var/run/docker.sock", "/etc/casemate"]
        paths += ["/etc/environment", "/etc/ssh", "/etc/machine-id", "/etc/krb5.keytab", "/var/lib", "/srv", "/sys"]
        paths += ["/boot", "/media", "/.dockerenv", *found_here[:100]]
        found = ask_python(LOOK, *paths)
    assert {path: found[path] for path in paths} == dict.fromkeys(paths, "ENOENT")


def test_f2_only_listed_parts_of_etc_are_there(execute: Execute, engine: casemate.Engine) -> None:
    shown = set(sh(execute, "ls -A /etc").stdout.text.split())
    ours = {"passwd", "group", "hosts", "hostname", "resolv.conf", "nsswitch.conf", "mtab", "timezone", "localtime"}
    assert shown <= ours | {path.split("/")[2] for path in engine.backend.host.etc}


def test_f2_no_readable_file_outside_the_base_holds_a_secret_of_the_host(execute: Execute, secret: Path) -> None:
    where = "/etc /run /home /tmp /var /mnt /opt /code /work /dev/shm /proc/self/environ /proc/self/mountinfo"
    result = sh(execute, f"grep -rlsF -e '{secret.parent}' -e '{MARKER}' --devices=skip {where}")
    assert (result.stdout.text, result.exit_code) == ("", 1)


# F3 F4 F5 F6 F7: the base and the root --------------------------------------------------------------

WRITE: Final = """
import pathlib
for directory in ("/", "/usr", "/usr/bin", "/bin", "/lib", "/etc", "/etc/ssl/certs", "/dev", "/proc", "/run", "/home"):
    attempt(f"create {directory}", open, f"{directory}/attack", "w")
    attempt(f"mkdir {directory}", os.mkdir, f"{directory}/attack-directory")
    attempt(f"symlink {directory}", os.symlink, "/work", f"{directory}/attack-link")
for path in ("/usr/bin/true", "/etc/passwd", "/etc/ld.so.cache", "/bin/sh", "/proc/cpuinfo"):
    attempt(f"open {path}", open, path, "r+b")
    attempt(f"append {path}", open, path, "ab")
    attempt(f"truncate {path}", os.truncate, path, 0)
    attempt(f"unlink {path}", os.unlink, path)
    attempt(f"rename {path}", os.rename, path, path + ".old")
    attempt(f"chmod {path}", os.chmod, path, 0o4777)
    attempt(f"utime {path}", os.utime, path)
"""


def test_f3_nothing_of_the_base_can_be_changed(ask_python: Answers) -> None:
    folders = ["/", "/usr/bin", "/etc"]
    before = [host_file(BASE_FILE), *(sorted(Path(folder).iterdir()) for folder in folders)]
    answers = ask_python(WRITE)
    assert len(answers) == 11 * 3 + 5 * 7
    # In /proc a name that the kernel does not know cannot be made, whatever the rights.
    unknown = {what for what, answer in answers.items() if answer == "ENOENT"}
    assert unknown <= {"create /proc", "mkdir /proc", "symlink /proc", "rename /proc/cpuinfo"}
    assert {answers[what] for what in answers.keys() - unknown} <= REFUSED_WRITE
    assert before == [host_file(BASE_FILE), *(sorted(Path(folder).iterdir()) for folder in folders)]


def test_f4_remounting_is_refused(ask: Answers) -> None:
    assert set(ask("files", "remount").values()) == {"EPERM"}


def test_f5_mounting_is_refused(ask: Answers) -> None:
    assert set(ask("files", "mount").values()) == {"EPERM"}


def test_f6_the_root_cannot_be_left(ask: Answers) -> None:
    answers = ask("files", "change-root")
    assert answers == {
        "chroot": "EPERM",
        "pivot_root": "EPERM",
        "fchdir": "OK",
        "climb": "inside",
        "climb by fd": "inside",
        "own root": "inside",
        "umount old root": "EPERM",
    }


PIVOT: Final = """
for name in ("/oldroot", "/.old", "/old", "/.pivot_root", "/put_old", "/host", "/rootfs", "/mnt/root"):
    attempt(name, os.stat, name)
for name in ("root", "cwd", "exe", "fd", "ns/mnt", "mem", "environ", "map_files"):
    attempt(f"init {name}", os.readlink if name in ("root", "cwd", "exe", "ns/mnt") else os.stat, f"/proc/1/{name}")
mounts = [line.split() for line in open("/proc/self/mountinfo")]
ids = {words[0] for words in mounts}
say("outermost", sum(words[1] not in ids for words in mounts))
say("outermost type", [words for words in mounts if words[1] not in ids][0][8])
say("entries", " ".join(sorted(os.listdir("/"))))
"""


def test_f7_the_old_root_is_nowhere(ask_python: Answers) -> None:
    answers = ask_python(PIVOT)
    entries = answers.pop("entries").split()
    assert answers.pop("outermost") == "1"
    assert answers.pop("outermost type") == "tmpfs"
    assert {answer for what, answer in answers.items() if what.startswith("/")} == {"ENOENT"}
    assert {answer for what, answer in answers.items() if what.startswith("init")} <= {"ENOENT", "EACCES", "EPERM"}
    base = {"usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"}
    ours = {"code", "dev", "etc", "home", "mnt", "opt", "proc", "run", "tmp", "var", "work"}
    assert set(entries) - base == ours


# F8 F29: files on the way in -----------------------------------------------------------------------

BAD_PATHS: Final = (
    "../../etc/x",
    "/abs",
    "a/../../b",
    "",
    ".",
    "..",
    "a\0b",
    "x" * 300,
    "d/" * 3000 + "x",
    "/usr/bin/x",
    "/proc/self/mem",
    "/dev/null",
    "/run/scratch/0/x",
    "/work",
    "/work/..",
    "directory/",
    "/work/../etc/passwd",
    "/tmp/../root/x",
)


@pytest.mark.parametrize("path", BAD_PATHS, ids=lambda path: repr(path[:24]))
def test_f8_an_input_file_that_leaves_the_sandbox_is_refused_and_nothing_starts(
    execute: Execute, path: str, engine: casemate.Engine
) -> None:
    turns = repr(engine.backend._names)
    with pytest.raises(InvalidInput) as caught:
        execute(["/bin/true"], files={path: b"x"})
    assert caught.value.field == "files"
    assert repr(engine.backend._names) == turns, "a sandbox was started"


@pytest.mark.parametrize("path", BAD_PATHS, ids=lambda path: repr(path[:24]))
def test_f8_the_files_of_a_sandbox_that_stays_have_the_same_rule(sandbox: Open, path: str) -> None:
    files = sandbox().files
    calls: list[Callable[[str], object]] = [lambda name: files.write(name, b"x"), files.remove]
    if path not in {".", "/work", "directory/"}:
        calls += [files.read, files.list, files.make_directory]
    for call in calls:
        with pytest.raises(InvalidInput):
            call(path)


@pytest.mark.parametrize("pattern", ["../*", "/etc/*", "a/../../*", "", "/", "*\0"])
def test_f8_a_glob_that_leaves_the_work_directory_is_refused(execute: Execute, pattern: str) -> None:
    with pytest.raises(InvalidInput):
        execute(["/bin/true"], collect=[pattern])


def test_f29_the_hosts_input_file_stays_as_it_is(execute: Execute, secret: Path) -> None:
    before = host_file(secret)
    script = (
        "echo changed > in.txt; rm in.txt; ln -s /etc/passwd in.txt; chmod 777 .; mv in.txt moved; echo new > in.txt"
    )
    result = sh(execute, f"grep -q {MARKER} in.txt && {script}", files={"in.txt": secret}, collect=["*"])
    assert result.ok
    assert [file.data for file in result.files] == [b"new\n"]
    assert host_file(secret) == before


# F9 F10 F11 F13 F15 F16 F17: what is never followed on the way out -----------------------------------


def test_f9_symbolic_links_are_not_followed(execute: Execute, secret: Path) -> None:
    targets = [str(secret), "/etc/passwd", "../../../../../../etc/passwd", ".", "loop", "missing", f"../..{secret}"]
    script = (
        "n=0; for t in " + " ".join(targets) + "; do ln -s $t $n.txt; n=$((n+1)); done; ln -s loop loop; echo x >own"
    )
    result = sh(execute, script, collect=["**"])
    assert [(file.path, file.data) for file in result.files] == [("own", b"x\n")]
    assert left_out(result) == f"{len(targets) + 1} left out: symbolic link"


def test_f9_a_sandbox_that_stays_reads_and_writes_through_no_link(
    sandbox: Open, secret: Path, execute: Execute
) -> None:
    before = host_file(secret)
    place = sandbox()
    place.exec(["/bin/ln", "-s", str(secret), "link"])
    place.exec(["/bin/ln", "-s", "/etc/passwd", "own"])
    assert [(info.name, info.kind) for info in place.files.list()] == [("link", "link"), ("own", "link")]
    for name in ("link", "own"):
        with pytest.raises(FileTransferError):
            place.files.read(name)
        with pytest.raises(FileTransferError):
            place.files.write(name, b"attack")
    place.files.remove("link")
    assert host_file(secret) == before


def test_f10_linked_directories_are_not_followed(execute: Execute, secret: Path) -> None:
    script = f"ln -s {secret.parent} host; ln -s /etc etc; ln -s / root; ln -s . self; mkdir d; echo x >d/own"
    result = sh(execute, script, collect=["**", "host/*", "etc/passwd", "root/etc/passwd", "self/d/own"])
    assert [(file.path, file.data) for file in result.files] == [("d/own", b"x\n")]
    assert left_out(result) == "4 left out: symbolic link"


def test_f10_a_sandbox_that_stays_follows_no_linked_directory(sandbox: Open, secret: Path) -> None:
    place = sandbox()
    place.exec(["/bin/ln", "-s", str(secret.parent), "host"])
    place.exec(["/bin/ln", "-s", "/etc", "etc"])
    for path in (f"host/{secret.name}", "etc/passwd"):
        with pytest.raises(FileTransferError):
            place.files.read(path)
        with pytest.raises(FileTransferError):
            place.files.write(path, b"attack")
        with pytest.raises(FileTransferError):
            place.files.remove(path)
    with pytest.raises(FileTransferError):
        place.files.list("host")
    with pytest.raises(FileTransferError):
        place.files.make_directory("host/new")
    assert list(secret.parent.iterdir()) == [secret]


RACE_TRIES: Final = 10_000
DEEP: Final = 2_000


def start_swapping(place: Sandbox, program: bytes, secret: Path) -> None:
    place.files.write("/code/probe", program)
    script = f"""
        chmod 755 /code/probe; mkdir d; echo inside > d/{secret.name}; echo inside > a.txt
        ln -s {secret} link; ln -s {secret.parent} linked
        /code/probe swap > /tmp/said &
        until [ -s /tmp/said ]; do :; done
    """
    result = place.exec(["/bin/sh", "-c", script])
    assert result.ok, result.stderr.text


def test_f11_exchanging_a_file_and_a_link_never_shows_the_host(
    sandbox: Open, compiled: Compiled, secret: Path, slowness: float
) -> None:
    place = sandbox(timeout=100 * slowness)
    start_swapping(place, compiled("files"), secret)
    taken = refused = 0
    while taken + refused < RACE_TRIES / slowness or not (taken and refused):
        found = place.files.collect("a.txt", f"d/{secret.name}")
        assert {file.data for file in found} <= {b"inside\n"}
        taken += len(found)
        refused += 2 - len(found)


def test_f11_reading_one_file_during_the_exchange_never_shows_the_host(
    sandbox: Open, compiled: Compiled, secret: Path, slowness: float
) -> None:
    place = sandbox(timeout=100 * slowness)
    start_swapping(place, compiled("files"), secret)
    taken = refused = 0
    while taken + refused < RACE_TRIES / slowness / 10 or not (taken and refused):
        for path in ("a.txt", f"d/{secret.name}"):
            try:
                assert place.files.read(path) == b"inside\n"
                taken += 1
            except FileTransferError:
                refused += 1


def test_f13_a_fifo_does_not_hold_up_the_collector(execute: Execute, slowness: float) -> None:
    started_s = time.monotonic()
    result = sh(execute, "mkfifo out.txt; mkdir d; mkfifo d/out.txt", collect=["**"])
    assert result.ok
    assert result.files == ()
    assert left_out(result) == "2 left out: not a regular file"
    assert time.monotonic() - started_s < 5 * slowness


def test_f13_a_sandbox_that_stays_neither_reads_nor_writes_a_fifo(sandbox: Open) -> None:
    place = sandbox()
    place.exec(
        ["/bin/sh", "-c", "mkfifo lonely kept; (exec 3<>kept; sleep 600) & while ! ls -l /proc/$!/fd/3; do :; done"]
    )
    for name in ("lonely", "kept"):
        with pytest.raises(FileTransferError):
            place.files.read(name)
        with pytest.raises(FileTransferError):
            place.files.write(name, b"attack")


def test_f14_devices_cannot_be_made(ask: Answers) -> None:
    answers = ask("files", "device-nodes")
    assert answers.pop("open whiteout") == "EACCES"
    assert set(answers.values()) == {"EPERM"}


def test_f15_a_socket_is_not_collected(python: Execute) -> None:
    result = python("import socket; socket.socket(socket.AF_UNIX).bind('/work/out.txt')", collect=["*"])
    assert result.ok
    assert result.files == ()
    assert left_out(result) == "1 left out: not a regular file"


def test_f16_links_into_proc_are_not_followed(execute: Execute, sandbox: Open) -> None:
    targets = ["/proc/self/root/etc/hostname", "/proc/1/environ", "/proc/self/fd/3", "/proc/self/cwd", "/dev/stdin"]
    targets += [f"/proc/{os.getpid()}/environ", f"/proc/{os.getpid()}/fd/0", "/proc/self/exe", "/dev/fd/1"]
    script = "n=0; for t in " + " ".join(targets) + "; do ln -s $t $n.txt; n=$((n+1)); done"
    result = sh(execute, script, collect=["**", "*/*"])
    assert result.ok
    assert result.files == ()
    assert left_out(result) == f"{len(targets)} left out: symbolic link"
    place = sandbox()
    place.exec(["/bin/sh", "-c", script])
    for number in range(len(targets)):
        with pytest.raises(FileTransferError):
            place.files.read(f"{number}.txt")


@pytest.mark.limits
def test_f17_a_file_of_a_pebibyte_is_the_disk_limit(execute: Execute) -> None:
    result = execute(["/usr/bin/truncate", "--size=1P", "huge"], collect=["*"])
    assert (result.reason, result.signal) == (Reason.DISK, signal.SIGXFSZ)
    assert [len(file.data) for file in result.files] == [0]


@pytest.mark.limits
def test_f17_a_sparse_file_counts_by_its_apparent_size(execute: Execute, slowness: float) -> None:
    started_s = time.monotonic()
    result = sh(execute, "truncate -s 900M huge; echo x >small; stat -c %b huge", limits={"disk": "1Gi"}, collect=["*"])
    assert result.stdout.text == "0\n"
    assert [file.path for file in result.files] == ["small"]
    assert left_out(result) == "1 left out: too large"
    assert time.monotonic() - started_s < 5 * slowness


def test_f17_a_sandbox_that_stays_reads_no_more_than_asked(sandbox: Open) -> None:
    place = sandbox(disk="1Gi")
    place.exec(["/bin/sh", "-c", "truncate -s 900M huge"])
    with pytest.raises(FileTransferError):
        place.files.read("huge")


# F18 F19 F20: filling -------------------------------------------------------------------------------


@pytest.mark.limits
def test_f18_empty_files_end_at_the_inode_limit_and_go_quickly(
    run_probe: Execute, answers: Parse, slowness: float
) -> None:
    started_s = time.monotonic()
    result = run_probe("files", "many-files", "1000000", limits={"inodes": 10_000})
    after_s = time.monotonic() - started_s - result.usage.wall_s
    found = answers(result)
    assert found["then"] == "ENOSPC"
    assert 9_900 < int(found["made"]) <= 10_000
    assert after_s < 2 * slowness


@pytest.mark.limits
def test_f18_a_program_that_fails_for_want_of_inodes_has_the_reason_disk(execute: Execute) -> None:
    result = sh(execute, "n=0; while : > $n; do n=$((n+1)); done", limits={"inodes": 64})
    assert (result.reason, result.exit_code) == (Reason.DISK, 2)


@pytest.mark.limits
@pytest.mark.slow
def test_f18_inodes_are_memory_too(run_probe: Execute, cgroup: str, not_run: Callable[[str, str], NoReturn]) -> None:
    if cgroup == "none":
        not_run("F18", "without a control group nothing counts the kernel's memory for inodes")
    result = run_probe("files", "many-files", "1000000", limits={"inodes": 1_000_000, "memory": "32Mi"})
    assert result.reason is Reason.MEMORY


@pytest.mark.parametrize(("length", "why"), [(1, "directory too deep"), (255, "directory: File name too long")])
def test_f19_a_deep_tree_is_collected_to_a_depth_and_removed(
    run_probe: Execute, answers: Parse, slowness: float, length: int, why: str
) -> None:
    depth = int(DEEP / slowness)
    files = {"/work/top.txt": b"x"}
    argv = ["deep-tree", str(depth), str(length)]
    started_s = time.monotonic()
    result = run_probe("files", *argv, collect=["**", "**/bottom.txt"], files=files)
    after_s = time.monotonic() - started_s - result.usage.wall_s
    assert answers(result) == {"depth": str(depth)}
    assert [file.path for file in result.files] == ["top.txt"]
    assert left_out(result) == f"1 left out: {why}"
    assert depth > COLLECT_DEPTH_MAX
    assert after_s < 2 * slowness


@pytest.mark.slow
def test_f19_ten_thousand_directories_with_long_names_are_removed_in_time(
    run_probe: Execute, answers: Parse, slowness: float
) -> None:
    started_s = time.monotonic()
    result = run_probe("files", "deep-tree", "10000", "255", limits={"timeout": 60 * slowness})
    assert answers(result) == {"depth": "10000"}
    assert time.monotonic() - started_s - result.usage.wall_s < 2 * slowness


FILL: Final = """
total = 0
for directory in ("/work", "/tmp", "/dev/shm", "/home/guest", "/code"):
    error = 0
    for number in range(1000):
        try:
            with open(f"{directory}/fill{number}", "wb", buffering=0) as file:
                total += file.write(bytes(65536))
        except OSError as refused:
            error = refused.errno
            break
    say(directory, errno.errorcode.get(error, "OK"))
say("total", total)
"""


@pytest.mark.limits
def test_f20_all_writable_directories_share_one_quota(python: Execute, cgroup: str, answers: Parse, say: str) -> None:
    result = python(say + FILL, limits={"disk": "8Mi"})
    found = answers(result)
    assert int(found.pop("total")) == 8 * MIB
    assert set(found.values()) == {"ENOSPC"}
    if cgroup != "none":
        assert result.usage.memory_peak_bytes is not None
        assert result.usage.memory_peak_bytes > 8 * MIB, "the files are charged as memory"
    assert result.usage.disk_bytes == 8 * MIB


@pytest.mark.limits
def test_f20_a_full_disk_is_the_reason_and_nobody_elses(execute: Execute, sandbox: Open) -> None:
    neighbour = sandbox(disk="1Mi")
    result = execute(["/bin/dd", "if=/dev/zero", "of=full", "bs=64k"], limits={"disk": "1Mi"})
    assert result.reason is Reason.DISK
    neighbour.files.write("mine", bytes(512 * 1024))
    assert neighbour.exec(["/bin/cp", "mine", "/tmp/copy"]).ok


# F12 F21 F26 F31: the base is nobody's channel -------------------------------------------------------


def test_f12_base_files_cannot_be_linked_or_owned(ask: Answers) -> None:
    before = host_file(BASE_FILE)
    answers = ask("files", "links", BASE_FILE)
    assert answers.pop("link") == "EXDEV"
    assert answers.pop("link by fd") == "EXDEV"
    assert answers.pop("link empty path") in {"ENOENT", "EXDEV"}
    assert answers.pop("rename") in {"EXDEV", "EROFS"}
    assert set(answers.values()) <= REFUSED_WRITE, answers
    assert host_file(BASE_FILE) == before


@pytest.fixture
def private_base(sandbox: Open, not_run: Callable[[str, str], NoReturn]) -> None:
    if Layer.PRIVATE_BASE not in sandbox().isolation.layers:
        not_run("F21 F26", "this kernel mounts no overlay in a user namespace, so the base is shared")


SHARED: Final = ("/usr/bin/true", "/usr/bin", "/etc/ld.so.cache", "/etc/ssl/certs", "/etc/services", "/etc/passwd")


def test_f21_locks_of_two_sandboxes_do_not_meet(
    meanwhile: Execute, run_probe: Execute, compiled: Compiled, private_base: None
) -> None:
    second: list[Result] = []
    argv = ["/bin/sh", "-c", 'chmod 755 /code/probe; exec /code/probe hold-locks "$@"', "sh", *SHARED]
    first = meanwhile(
        argv, lambda _: second.append(run_probe("files", "lock", *SHARED)), files={"/code/probe": compiled("files")}
    )
    assert first.ok
    assert second[0].ok
    lines = second[0].stdout.text.splitlines()
    assert first.stdout.text.splitlines() == lines
    assert [line for line in lines if line.startswith("flock")] == [f"flock {path}\tOK" for path in SHARED]
    assert [line for line in lines if line.startswith("lease")] == [f"lease {path}\tEPERM" for path in SHARED]


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
open("/usr/bin/true", "rb").read(1)
say("own", events() > 0)
"""


def test_f26_fanotify_is_refused(ask: Answers) -> None:
    assert set(ask("files", "watch-mounts").values()) == {"EPERM"}


def test_f26_inotify_sees_nothing_of_others(
    meanwhile: Execute, execute: Execute, private_base: None, answers: Parse, say: str
) -> None:
    def act(_: str) -> None:
        folders = "/usr/bin /usr/lib /etc/ssl/certs"
        assert sh(execute, f"/usr/bin/true; cat /etc/services /etc/ld.so.cache >/dev/null; ls {folders}").ok
        for path in (BASE_FILE, *SHARED[2:]):
            if Path(path).is_file():
                Path(path).read_bytes()

    argv = ["/usr/bin/python3", "-I", "-S", "-c", say + WATCH, "/usr/bin/true", "/usr/bin", "/usr/lib", *SHARED[2:]]
    assert answers(meanwhile(argv, act)) == {"others": "0", "own": "True"}


def test_f31_a_mapped_base_file_cannot_be_written(ask: Answers) -> None:
    before = host_file(BASE_FILE)
    answers = ask("files", "map-base", BASE_FILE)
    assert answers.pop("open for writing") in REFUSED_WRITE
    assert answers.pop("truncate") in REFUSED_WRITE
    assert answers == {
        "map shared": "EACCES",
        "make writable": "EACCES",
        "own memory": "OK",
        "write shared page": "EIO",
        "write private page": "OK",
        "private page": "changed",
        "read": "OK",
        "file": "unchanged",
    }
    assert host_file(BASE_FILE) == before


# F22 F23 F25 F27 F30: rights -------------------------------------------------------------------------

SETUID: Final = """
import shutil
shutil.copy("/usr/bin/id", "/work/id")
attempt("set bits", os.chmod, "/work/id", 0o6755)
say("own id", os.popen("/work/id -u; /work/id -G").read().split())
for name in ("su", "mount", "passwd", "newgrp", "chsh"):
    path = f"/usr/bin/{name}"
    if not os.path.exists(path):
        continue
    if os.fork() == 0:
        os.dup2(os.open("/dev/null", os.O_RDWR), 0)
        os.dup2(0, 1)
        os.dup2(0, 2)
        os.execv(path, [name, "--version"])
    os.wait()
    say(f"{name} owner", os.stat(path).st_uid)
for directory in ("/usr", "/work", "/tmp", "/etc/ssl/certs", "/dev/shm"):
    say(f"nosuid {directory}", bool(os.statvfs(directory).f_flag & os.ST_NOSUID))
"""


def test_f22_a_setuid_file_gains_nothing(ask_python: Answers) -> None:
    answers = ask_python(SETUID)
    assert answers.pop("set bits") == "OK"
    assert answers.pop("own id") == "['1000', '1000']"
    assert {value for what, value in answers.items() if what.startswith("nosuid")} == {"True"}
    assert {value for what, value in answers.items() if what.endswith("owner")} <= {"65534"}, "root does not exist here"


RUN_ALL: Final = """
import stat, subprocess
WORDS = ("SECURE", "UID", "EUID", "GID", "EGID")
for folder in ("/usr/bin", "/usr/sbin"):
    for name in sorted(os.listdir(folder)) if not os.path.islink(folder) else []:
        path = f"{folder}/{name}"
        status = os.lstat(path)
        if not stat.S_ISREG(status.st_mode) or not status.st_mode & 0o6000 or not os.access(path, os.X_OK):
            continue
        if open(path, "rb").read(4) != b"\\x7fELF":
            continue
        started = subprocess.Popen([path, "--help"], env={"LD_SHOW_AUXV": "1"}, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        words = {}
        while len(words) < 5 and (line := started.stdout.readline()).startswith(b"AT_"):
            what, value = line.decode().split(None, 1)
            if what.removeprefix("AT_").rstrip(":") in WORDS:
                words[what.removeprefix("AT_").rstrip(":")] = value.strip()
        started.kill()
        started.wait()
        say(name, [words.get(word) for word in WORDS])
say("end", "OK")
"""


def test_f22_every_setuid_and_setgid_program_of_the_base_starts_with_the_rights_of_the_guest(
    ask_python: Answers,
) -> None:
    """The dynamic linker prints what the kernel has told it, and would not if the program had gained anything."""
    found = ask_python(RUN_ALL)
    assert found.pop("end") == "OK"
    assert set(found.values()) <= {"['0', '1000', '1000', '1000', '1000']"}


@pytest.mark.slow
def test_f22_no_setuid_file_belongs_to_an_id_of_the_sandbox(execute: Execute) -> None:
    result = sh(execute, r"find / -perm /6000 -type f \( -uid 1000 -o -gid 1000 \) 2>/dev/null")
    assert result.stdout.text == ""


def test_f23_f27_no_privileged_attribute_can_be_set(ask: Answers) -> None:
    answers = ask("files", "attributes")
    assert answers.pop("base") in {"EROFS", "EACCES", "EPERM"}
    for what in ("immutable", "append only", "xattr immutable"):
        assert answers.pop(what) in {"EPERM", "ENOTTY", "EOPNOTSUPP"}
    assert answers.pop("trusted") in {"EPERM", "EOPNOTSUPP"}
    assert answers == {"other": "EPERM", "capability": "EPERM", "fcapability": "EPERM"}


def test_f25_files_cannot_be_opened_by_handle(ask: Answers) -> None:
    assert ask("files", "handles", BASE_FILE) == {"name": "EPERM", "open": "EPERM"}


def test_f30_what_a_program_has_written_may_run_and_is_as_confined(run_probe: Execute, execute: Execute) -> None:
    script = r"""
        cp /usr/bin/grep ./own && chmod 755 own && ./own -E '^(NoNewPrivs|Seccomp|CapEff|CapBnd):' /proc/self/status
        printf '#!/bin/sh\necho script $(id -u)\n' > s && chmod 755 s && ./s
        cp s /dev/shm/s && /dev/shm/s
    """
    result = sh(execute, script)
    assert result.stdout.text.split() == [
        *("CapEff:", "0" * 16, "CapBnd:", "0" * 16, "NoNewPrivs:", "1", "Seccomp:", "2"),
        *("script", "1000", "script", "1000"),
    ]


# F24 F28: names and modes ----------------------------------------------------------------------------

ODD_NAMES: Final = {
    b"new\nline": "new\nline",
    b"\xff\xfe": "\\xff\\xfe",
    "\u202etxt.exe".encode(): "\u202etxt.exe",
    b"n" * 255: "n" * 255,
    b"-rf": "-rf",
    b"\x1b[31m": "\x1b[31m",
    b" ": " ",
    "日本".encode(): "日本",
    b"a;rm -rf $HOME`x`": "a;rm -rf $HOME`x`",
    b"\xed\xa0\x80": "\\xed\\xa0\\x80",
}


def test_f24_odd_names_come_back_and_make_valid_json(python: Execute) -> None:
    names = [name.hex() for name in ODD_NAMES]
    result = python(
        "import sys\nfor n in sys.argv[1:]: open(b'/work/' + bytes.fromhex(n), 'w').write(n)", *names, collect=["**"]
    )
    assert {file.path: bytes.fromhex(file.data.decode()) for file in result.files} == {
        shown: raw for raw, shown in ODD_NAMES.items()
    }
    paths = [file["path"] for file in json.loads(msgspec.json.encode(result))["files"]]
    assert sorted(paths) == sorted(ODD_NAMES.values())


def test_f24_odd_names_can_be_listed_in_a_sandbox_that_stays(sandbox: Open) -> None:
    place = sandbox()
    place.exec(["/usr/bin/python3", "-c", "open(b'/work/a\\xff\\n', 'w'); open('/work/-x', 'w')"])
    assert [info.name for info in place.files.list()] == ["-x", "a\\xff\n"]


def test_f24_names_that_would_look_the_same_stay_apart(python: Execute, sandbox: Open) -> None:
    names = [b"\xff", b"\\xff", b"\\x5cxff"]
    write = "import sys\nfor n in sys.argv[1:]: open(b'/work/' + bytes.fromhex(n), 'w').write(n)"
    arguments = [name.hex() for name in names]
    result = python(write, *arguments, collect=["**"])
    shown = {file.path: bytes.fromhex(file.data.decode()) for file in result.files}
    assert shown == {"\\xff": b"\xff", "\\x5cxff": b"\\xff", "\\x5cx5cxff": b"\\x5cxff"}
    place = sandbox()
    place.exec(["/usr/bin/python3", "-c", write, *arguments])
    assert {info.name for info in place.files.list()} == {file.path for file in place.files.collect("*")} == set(shown)


def test_f28_files_without_any_right_are_collected_and_removed(execute: Execute) -> None:
    script = """
        mkdir -p a/b/c r/x x/r; echo deep >a/b/c/f; echo top >g; echo 1 >r/x/f; echo 2 >x/r/f
        chmod 000 a/b/c/f g a/b/c a/b a; chmod 444 r/x; chmod 400 r; chmod 111 x/r; chmod 100 x; chmod 000 .
    """
    result = sh(execute, script, collect=["**"])
    found = {file.path: file.data for file in result.files}
    assert found == {"g": b"top\n", "a/b/c/f": b"deep\n", "r/x/f": b"1\n", "x/r/f": b"2\n"}
    assert left_out(result) == ""


def test_f28_a_tree_without_rights_is_no_obstacle_to_the_end(run_probe: Execute, execute: Execute) -> None:
    assert sh(execute, "mkdir -p x/y/z; chmod 000 x/y; chmod 000 x; chmod 000 /tmp /home/guest /dev/shm /code").ok


def test_f27_an_attempt_at_immutable_files_leaves_nothing(execute: Execute) -> None:
    result = sh(execute, "touch f; chattr +i f; chattr +a f; lsattr f; rm f")
    assert result.ok
    assert stat.S_ISREG(Path(BASE_FILE).stat().st_mode)

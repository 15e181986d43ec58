"""Attacks on memory (M1 to M15): whatever shape it has, it counts, and the end of it is this run's end alone."""

from __future__ import annotations

import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NoReturn

import pytest
from tests.results import kinds_of

import casemate
from casemate import Reason, Result, Sandbox, SandboxClosed, Status
from casemate.limits import MIB

LIMIT: Final = "32Mi"
LIMIT_BYTES: Final = 32 * MIB
BEYOND_MIB: Final = "512"
REFUSED: Final = 3
"""The exit status of a probe whose allocation was refused."""

TIMEOUT_S: Final = 10
PIPES_MAX_BYTES: Final = 80 * MIB
"""Where nothing counts it: what the kernel gives one user by default, and two pages for each further pipe."""

Execute = Callable[..., Result]
Answers = Callable[..., "dict[str, str]"]
Open = Callable[..., Sandbox]
Parse = Callable[[Result], "dict[str, str]"]
NotRun = Callable[[str, str], NoReturn]
Apart = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module", autouse=True)
def compiled_before(compiled: Callable[[str], bytes]) -> None:
    """The time that a test takes is not that of the compiler."""
    compiled("memory")


def is_over(result: Result) -> bool:
    return (result.status, result.reason) == (Status.FAILED, Reason.MEMORY)


# M1 M2 M3 M12 M15: pages ------------------------------------------------------------------------------


@pytest.mark.limits
@pytest.mark.parametrize("attack", ["heap", "shared"])
def test_m1_memory_beyond_the_limit_is_the_reason_within_a_second(
    run_probe: Execute, cgroup: str, slowness: float, attack: str
) -> None:
    result = run_probe("memory", attack, BEYOND_MIB, limits={"memory": LIMIT})
    if cgroup == "none" and attack == "heap":
        # The kernel refuses to give what is over the limit; the program decides what that means.
        assert (result.exit_code, result.stdout.text) == (REFUSED, "heap\tENOMEM\n")
    else:
        assert is_over(result), result
    assert result.usage.wall_s < 1 + slowness / 2
    if cgroup != "none":
        assert "memory-limit" in kinds_of(result)
        assert result.usage.memory_peak_bytes is not None
        assert LIMIT_BYTES * 0.9 < result.usage.memory_peak_bytes <= LIMIT_BYTES


@pytest.mark.limits
def test_m1_memory_of_the_program_itself_is_no_different(run_probe: Execute, cgroup: str, slowness: float) -> None:
    result = run_probe("oom_static", limits={"memory": LIMIT})
    if cgroup == "none":
        assert (result.status, result.stdout.text) == (Status.FAILED, ""), "it cannot even be loaded"
        assert result.signal in {signal.SIGKILL, signal.SIGSEGV} or result.exit_code
    else:
        assert is_over(result)
    assert result.usage.wall_s < 1 + slowness / 2


@pytest.mark.limits
def test_m1_below_the_limit_nothing_happens(run_probe: Execute, answers: Parse) -> None:
    result = run_probe("memory", "heap", "16", limits={"memory": LIMIT})
    assert answers(result) == {"heap": "OK"}
    assert "memory-limit" not in kinds_of(result)


@pytest.mark.limits
def test_m1_a_sandbox_that_stays_ends_with_its_memory_and_says_so(
    sandbox: Open, compiled: Callable[[str], bytes]
) -> None:
    place = sandbox(memory=LIMIT)
    place.files.write("/code/probe", compiled("memory"))
    place.exec(["/bin/chmod", "755", "/code/probe"])
    assert is_over(place.exec(["/code/probe", "shared", BEYOND_MIB]))
    with pytest.raises(SandboxClosed, match="memory limit was reached in an earlier run"):
        place.exec(["true"])
    with pytest.raises(SandboxClosed):
        place.files.read("/code/probe")


@pytest.mark.limits
def test_m1_no_process_of_a_sandbox_that_stays_outlives_its_memory(
    sandbox: Open, compiled: Callable[[str], bytes], slowness: float
) -> None:
    place = sandbox(memory=LIMIT)
    place.files.write("/code/probe", compiled("memory"))
    place.exec(["/bin/chmod", "755", "/code/probe"])
    place.exec(["sh", "-c", "sleep 600 >/dev/null 2>&1 &"])
    inner = place._session.sandbox
    assert is_over(place.exec(["/code/probe", "shared", BEYOND_MIB]))
    assert select.select([inner.pidfd], [], [], 10 * slowness)[0]


@pytest.mark.limits
def test_m2_a_child_that_dies_of_memory_is_the_reason_though_its_parent_ends_well(run_probe: Execute) -> None:
    result = run_probe("memory", "child", BEYOND_MIB, limits={"memory": LIMIT})
    assert is_over(result)


@pytest.mark.limits
def test_m3_what_is_only_reserved_is_not_used(run_probe: Execute, answers: Parse) -> None:
    result = run_probe("memory", "reserve", "100", limits={"memory": LIMIT})
    found = answers(result)
    assert found.pop("still") == "OK"
    assert set(found.values()) <= {"OK", "ENOMEM"}
    assert result.reason is Reason.EXIT


@pytest.mark.limits
def test_m12_copies_of_a_heap_count(run_probe: Execute) -> None:
    assert is_over(run_probe("memory", "copy-on-write", "20", "10", "write", limits={"memory": LIMIT}))


@pytest.mark.limits
def test_m12_a_heap_that_all_only_read_counts_once(run_probe: Execute, answers: Parse) -> None:
    result = run_probe("memory", "copy-on-write", "20", "10", "read", limits={"memory": LIMIT})
    assert answers(result) == {"children": "OK"}


@pytest.mark.limits
def test_m15_many_small_processes_end_together(run_probe: Execute, slowness: float) -> None:
    result = run_probe("memory", "together", "16", "8", limits={"memory": LIMIT, "timeout": 10 * slowness})
    assert is_over(result)
    assert "together" not in result.stdout.text, "the whole run ends, not one process after the other"
    assert result.usage.wall_s < 3 * slowness


# M4 M5 M6 M7 M10 M11: memory that is not the program's own ----------------------------------------------


@pytest.mark.limits
@pytest.mark.parametrize("path", ["/dev/shm/full", "/tmp/full", "/work/full"])
def test_m4_files_are_memory(run_probe: Execute, path: str) -> None:
    assert is_over(run_probe("memory", "fill", path, BEYOND_MIB, limits={"memory": LIMIT, "disk": "1Gi"}))


@pytest.mark.limits
def test_m4_the_disk_limit_is_reached_first_where_it_is_lower(run_probe: Execute) -> None:
    result = run_probe("memory", "fill", "/tmp/full", BEYOND_MIB, limits={"memory": LIMIT, "disk": "8Mi"})
    assert result.reason is Reason.DISK


def segment_table() -> str:
    """All segments of the host but those of others, who come and go."""
    lines = [Path(f"/proc/sysvipc/{kind}").read_text().splitlines() for kind in ("shm", "sem", "msg")]
    return "\n".join(line for table in lines for line in table if " 4711 " in line)


def test_m5_segments_queues_and_memory_files_are_destroyed_with_the_run(ask: Answers, cgroup: str) -> None:
    made = ask("memory", "segments", "1")
    assert made.pop("mq_open") in {"EMFILE", "OK"}
    # Without a control group there is nothing that nobody outside could count.
    assert set(made.values()) == {"ENOSYS" if cgroup == "none" else "OK"}
    assert segment_table() == ""
    found = ask("memory", "look-for-segments")
    assert set(found.values()) <= ({"ENOENT", "ENOSYS"} if cgroup == "none" else {"ENOENT"})


HIDDEN: Final = (("small-segments", "40", "8"), ("memory-files", "4", "50"), ("memory-files", "100", "2"))


@pytest.mark.limits
@pytest.mark.parametrize("words", HIDDEN, ids=" ".join)
def test_m5_segments_and_memory_files_that_nobody_maps_count(
    run_probe: Execute, cgroup: str, words: tuple[str, ...]
) -> None:
    result = run_probe("memory", *words, limits={"memory": LIMIT, "disk": "256Mi"})
    if cgroup == "none":
        assert (result.exit_code, result.stdout.text.split()[1:]) == (REFUSED, ["ENOSYS"])
    else:
        assert is_over(result)


READ_BASE: Final = """
import os, sys
room = int(sys.argv[1]) * 1024 * 1024
for directory, _, names in os.walk("/usr/lib"):
    for name in names:
        path = f"{directory}/{name}"
        if room > 0 and os.path.isfile(path) and not os.path.islink(path) and os.access(path, os.R_OK):
            with open(path, "rb", buffering=0) as file:
                while room > 0 and (block := file.read(1 << 20)):
                    room -= len(block)
print("read", room <= 0)
"""


@pytest.mark.limits
@pytest.mark.slow
def test_m6_reading_far_more_than_the_limit_is_no_use_of_memory(
    python: Execute, sandbox: Open, slowness: float
) -> None:
    place = sandbox(memory="32Mi")
    place.exec(["/bin/true"])
    result = python(READ_BASE, "1024", limits={"memory": "32Mi", "timeout": 60 * slowness})
    assert (result.reason, result.stdout.text) == (Reason.EXIT, "read True\n")
    started_s = time.monotonic()
    assert place.exec(["/bin/true"]).ok
    assert time.monotonic() - started_s < 2 * slowness, "the neighbour's latency"


@pytest.mark.limits
def test_m7_there_is_no_swap_for_a_run(sandbox: Open, cgroup: str, not_run: NotRun) -> None:
    if cgroup == "none":
        not_run("M7", "without a control group nothing keeps a run out of the machine's swap")
    group = sandbox(memory=LIMIT)._session.sandbox.cgroup
    assert group is not None
    directories = [Path(path) for path in group._driver.directories]  # type: ignore[attr-defined]
    limits = {"memory.swap.max": "0", "memory.memsw.limit_in_bytes": str(LIMIT_BYTES), "memory.swappiness": "0"}
    found = {
        name: path.read_text().strip()
        for name in limits
        for directory in directories
        if (path := directory / name).exists()
    }
    assert found
    assert found.items() <= limits.items()


KINDS: Final = (
    "pipe",
    "socket",
    "epoll",
    "event",
    "timer file",
    "inotify",
    "timer",
    "segment",
    "semaphores",
    "mapping",
)


@pytest.mark.limits
@pytest.mark.parametrize("kind", KINDS)
def test_m10_kernel_objects_end_at_a_limit_of_the_run(
    run_probe: Execute, answers: Parse, sandbox: Open, kind: str, slowness: float
) -> None:
    result = run_probe("memory", "exhaust", kind, limits={"memory": LIMIT, "open_files": 256, "timeout": 10 * slowness})
    if not is_over(result):
        found = answers(result)
        assert found["then"] in {"EMFILE", "ENOMEM", "EAGAIN", "ENOSPC", "ENOSYS"}
        assert int(found["made"]) < 100_000
    assert sandbox().exec(["/usr/bin/python3", "-c", "import os; os.pipe(); os.eventfd(0)"]).ok


@pytest.mark.limits
@pytest.mark.alone  # counted for the user, who may be the one of all runs
def test_m11_pipes_are_bounded(run_probe: Execute, answers: Parse, cgroup: str) -> None:
    result = run_probe("memory", "large-pipes", limits={"memory": LIMIT, "open_files": 1024})
    if is_over(result):
        return
    found = answers(result)
    assert found["then"] in {"EMFILE", "ENFILE"}
    assert int(found["made"]) <= 512
    assert int(found["held"]) <= PIPES_MAX_BYTES


@pytest.mark.limits
@pytest.mark.alone  # counted for the user, who may be the one of all runs
def test_m11_descriptors_in_flight_are_bounded(run_probe: Execute, answers: Parse) -> None:
    result = run_probe("memory", "flying-descriptors", limits={"memory": LIMIT, "open_files": 256})
    if is_over(result):
        return
    found = answers(result)
    assert found["then"] in {"ETOOMANYREFS", "EMFILE"}
    assert int(found["sent"]) < 1000


FILL_SOCKETS: Final = """
import socket
socket.setdefaulttimeout(1)
kept = []
def tcp(server=socket.create_server(("127.0.0.1", 0))):
    writer = socket.create_connection(server.getsockname())
    kept.extend([writer, server.accept()[0]])
    writer.setblocking(False)
    held = 0
    try:
        while True:
            held += writer.send(bytes(65536))
    except BlockingIOError:
        return held
def all_that_can_be_had(held=0):
    try:
        for _ in range(60):
            held += tcp()
    except TimeoutError:
        pass
    return held
def udp(writer=socket.socket(type=socket.SOCK_DGRAM)):
    reader = socket.socket(type=socket.SOCK_DGRAM)
    kept.append(reader)
    reader.bind(("127.0.0.1", 0))
    reader.setblocking(False)
    writer.setblocking(False)
    try:
        for _ in range(400):
            writer.sendto(bytes(32000), reader.getsockname())
    except BlockingIOError:
        pass
    return reader
def drained(reader, held=0):
    try:
        while True:
            held += len(reader.recv(65536))
    except BlockingIOError:
        return held
print("tcp", all_that_can_be_had(), sep="\\t", flush=True)
kept.clear()
print("udp", sum([drained(reader) for reader in [udp() for _ in range(300)]]), sep="\\t", flush=True)
"""


@pytest.mark.limits
def test_m11_buffers_of_sockets_are_limited(python: Execute, answers: Parse, cgroup: str, not_run: NotRun) -> None:
    """Version 1 counts them apart. Version 2 does so with everything else: there senders may wait for room for ever."""
    if cgroup == "none":
        not_run("M11", "without a control group nothing counts what sockets hold")
    result = python(FILL_SOCKETS, limits={"memory": "64Mi", "timeout": TIMEOUT_S})
    if cgroup == "v2" and not result.ok:
        assert result.reason in {Reason.MEMORY, Reason.TIMEOUT}
    else:
        assert max(map(int, answers(result).values())) < 24 * MIB, result.stdout.text


# M8 M9 M13 M14: rights -----------------------------------------------------------------------------------


@pytest.mark.limits
def test_m8_memory_cannot_be_locked(ask: Answers) -> None:
    found = ask("memory", "lock")
    assert found.pop("raise") == "EPERM"
    assert found.pop("map locked") in {"EAGAIN", "EPERM"}
    assert found.pop("huge pages") in {"ENOMEM", "EINVAL"}
    assert found.pop("shm lock") in {"EPERM", "EINVAL"}, "EINVAL: no segment to lock"
    assert set(found.values()) == {"EPERM"}


def test_m9_an_endless_recursion_in_c_is_a_signal(run_probe: Execute) -> None:
    result = run_probe("memory", "stack")
    assert (result.status, result.reason, result.signal) == (Status.FAILED, Reason.SIGNAL, signal.SIGSEGV)


def test_m9_an_endless_recursion_in_python_is_an_exception(python: Execute) -> None:
    result = python("f = lambda: f()\nf()")
    assert (result.reason, result.exit_code) == (Reason.EXIT, 1)
    assert "RecursionError" in result.stderr.text


def test_m9_an_endless_recursion_in_node_is_an_exception(execute: Execute) -> None:
    node = shutil.which("node", path="/usr/bin:/usr/local/bin")
    assert node, "node is one of the built-in runtimes"
    result = execute([node, "-e", "function f() { f() } f()"], limits={"memory": "1Gi"})
    assert (result.reason, result.exit_code) == (Reason.EXIT, 1)
    assert "RangeError" in result.stderr.text


def test_m13_page_faults_cannot_be_held_up(ask: Answers) -> None:
    assert ask("memory", "stall-faults") == {
        "userfaultfd": "EPERM",
        "user mode only": "EPERM",
        "device": "ENOENT",
        "fuse": "ENOENT",
    }


@pytest.mark.limits
def test_m13_restless_memory_does_not_hold_up_the_end(run_probe: Execute, slowness: float) -> None:
    started_s = time.monotonic()
    result = run_probe("memory", "restless", limits={"timeout": 1 + slowness / 10, "memory": "1Gi", "cpu": 2})
    assert result.reason is Reason.TIMEOUT
    assert time.monotonic() - started_s < 4 * slowness


def test_m14_nobody_can_hide_from_the_out_of_memory_killer(ask: Answers) -> None:
    found = ask("memory", "oom-scores")
    assert found.pop("1000") == "OK"
    assert found.pop("init") in {"EACCES", "ENOENT", "EPERM"}
    assert set(found.values()) <= {"EACCES", "EINVAL"}


PROTECTED: Final = """
import os, sys
from pathlib import Path
import casemate, casemate.engine.run
score = Path("/proc/self/oom_score_adj")
try:
    score.write_text("-500")
except PermissionError:
    sys.exit("this user may not lower a score")
if uid := int(sys.argv[1]):
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
guest = "for n in -1000 -500 -1 0 499; do echo $n > $0 && echo went to $n; done 2>/dev/null; cat $0"
try:
    print(casemate.execute(["sh", "-c", guest, "/proc/self/oom_score_adj"]).stdout.text)
except casemate.LaunchError as error:
    print("refused", error)
"""


@pytest.mark.root
@pytest.mark.parametrize(("uid", "outcome"), [(0, "500"), (61234, "refused")])
def test_m14_protection_of_the_engine_is_not_passed_on(apart: Apart, not_run: NotRun, uid: int, outcome: str) -> None:
    """Root can set how low a guest may go; an ordinary user cannot, so that a protected engine of his starts none."""
    done = apart(PROTECTED, str(uid))
    if "may not lower" in done.stderr:
        not_run("M14", done.stderr.strip())
    assert done.stdout.split()[:1] == [outcome], done
    assert uid == 0 or "OOMScoreAdjust" in done.stdout, done


@pytest.mark.limits
def test_m14_the_neighbours_live_through_it(run_probe: Execute, sandbox: Open, engine: casemate.Engine) -> None:
    neighbour = sandbox()
    launcher = engine.backend.launcher.pid
    assert is_over(run_probe("memory", "shared", BEYOND_MIB, limits={"memory": LIMIT}))
    assert neighbour.exec(["/bin/true"]).ok
    assert engine.backend.launcher.pid == launcher

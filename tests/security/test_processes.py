"""Attacks by and on processes (P1 to P20): numbers, signals, identities, and that nobody outlives the run."""

from __future__ import annotations

import math
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest
from tests.results import kinds_of

import casemate
from casemate import CasemateError, InvalidInput, Reason, Result, Sandbox, SandboxClosed, Status
from casemate.kernel.processes import process_tree, start_time
from casemate.limits import ARGV_TOTAL_MAX_BYTES, ENV_TOTAL_MAX_BYTES, PENDING_SIGNALS_MAX

PROCESSES: Final = 20

Execute = Callable[..., Result]
Answers = Callable[..., "dict[str, str]"]
Open = Callable[..., Sandbox]
Compiled = Callable[[str], bytes]
Parse = Callable[[Result], "dict[str, str]"]


@pytest.fixture(scope="module", autouse=True)
def compiled_before(compiled: Compiled) -> None:
    """The time that a test takes is not that of the compiler."""
    compiled("processes")


@pytest.fixture
def bomb_s(slowness: float) -> float:
    """Return how long a bomb may work: enough to reach its limit, here as there."""
    return 0.5 * math.sqrt(slowness)


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """Start a process of the host, of our own user, that an attack must not reach."""
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        assert process.poll() is None, "somebody killed a process of the host"
        process.kill()


# P1 P2 P3 P9 P18: too many ---------------------------------------------------------------------------


@pytest.mark.limits
@pytest.mark.parametrize("bomb", ["fork-bomb", "thread-bomb"])
def test_p1_p2_a_bomb_is_held_at_the_limit_and_killed_at_the_timeout(
    run_probe: Execute, slowness: float, bomb_s: float, bomb: str
) -> None:
    limits = {"processes": PROCESSES, "timeout": bomb_s}
    started_s = time.monotonic()
    result = run_probe("processes", bomb, limits=limits)
    took_s = time.monotonic() - started_s
    assert (result.status, result.reason) == (Status.FAILED, Reason.TIMEOUT)
    assert "process-limit" in kinds_of(result)
    assert result.usage.processes_peak is None or 1 < result.usage.processes_peak <= PROCESSES
    assert took_s < bomb_s + 15 * slowness


@pytest.mark.limits
@pytest.mark.parametrize("attack", ["count-children", "count-threads"])
def test_p1_p2_exactly_the_limit_is_possible(run_probe: Execute, answers: Parse, cgroup: str, attack: str) -> None:
    result = run_probe("processes", attack, limits={"processes": PROCESSES})
    assert answers(result) == {"then": "EAGAIN", "made": str(PROCESSES - 1)}
    if cgroup != "none":
        assert "process-limit" in kinds_of(result)


FORK_AND_FAIL: Final = """
import os, signal, sys
try:
    while True:
        if os.fork() == 0:
            signal.pause()
except BlockingIOError:
    # Without a control group somebody outside has to see how many we are.
    signal.sigtimedwait([], float(sys.argv[1]))
    raise
"""


@pytest.mark.limits
def test_p1_a_program_that_fails_for_want_of_processes_has_that_reason(
    python: Execute, cgroup: str, slowness: float
) -> None:
    result = python(FORK_AND_FAIL, str(1.0 * slowness if cgroup == "none" else 0), limits={"processes": 4})
    assert (result.status, result.reason, result.exit_code) == (Status.FAILED, Reason.PROCESSES, 1)
    assert "BlockingIOError" in result.stderr.text


@pytest.mark.limits
def test_p1_a_bomb_does_not_hold_up_a_neighbour(
    sandbox: Open, compiled: Compiled, execute: Execute, slowness: float
) -> None:
    place = sandbox(processes=PROCESSES)
    place.files.write("/code/probe", compiled("processes"))
    place.exec(["/bin/sh", "-c", "chmod 755 /code/probe; /code/probe fork-bomb >/dev/null 2>&1 &"])
    started_s = time.monotonic()
    assert execute(["/bin/true"]).ok
    assert time.monotonic() - started_s < 5 * slowness


@pytest.mark.limits
def test_p3_the_processor_time_of_dead_children_counts(run_probe: Execute, slowness: float) -> None:
    result = run_probe("processes", "vfork-storm", limits={"cpu_time": 0.3, "timeout": 10 * slowness})
    assert (result.status, result.reason) == (Status.FAILED, Reason.CPU)
    assert 0.25 < result.usage.cpu_user_s + result.usage.cpu_system_s < 1 + 0.5 * slowness


@pytest.mark.limits
def test_p9_zombies_count_until_they_are_taken(run_probe: Execute, answers: Parse) -> None:
    found = answers(run_probe("processes", "farm-zombies", limits={"processes": PROCESSES}))
    assert found == {"then": "EAGAIN", "made": str(PROCESSES - 1)}


@pytest.mark.limits
def test_p9_init_takes_every_orphan(ask: Answers, slowness: float) -> None:
    wanted = str(int(10_000 / slowness**1.5))
    found = ask("processes", "leave-orphans", wanted, limits={"processes": PROCESSES, "timeout": 30 * slowness})
    assert found == {"left": wanted}


@pytest.mark.limits
def test_p18_queued_signals_are_bounded(ask: Answers) -> None:
    found = ask("processes", "signal-storm")
    assert found.pop("then") == "EAGAIN"
    assert 0 < int(found.pop("sent")) <= PENDING_SIGNALS_MAX
    assert found == {"init": "OK"}, "init ignores it, which costs nothing"


# P4 P5 P6 P10 P16: nobody outlives the run -----------------------------------------------------------


def test_p4_a_daemon_neither_delays_the_result_nor_survives(
    run_probe: Execute, answers: Parse, slowness: float
) -> None:
    result = run_probe("processes", "daemonize")
    assert answers(result) == {"daemon": "OK"}
    assert result.usage.wall_s < 3 * slowness


def test_p4_in_a_sandbox_that_stays_a_daemon_lives_until_it_is_closed(engine: casemate.Engine) -> None:
    with casemate.Sandbox("bash", engine=engine) as place:
        place.exec(["/bin/sh", "-c", "setsid sleep 600 & echo $! > pid"])
        assert place.exec(["/bin/sh", "-c", "kill -0 $(cat pid)"]).ok
        inside = process_tree(place._session.sandbox.pid)
        assert len(inside) > 1
    assert not [pid for pid in inside if start_time(pid) is not None]  # init may still wait for being collected


@pytest.mark.parametrize("stream", ["1", "2"])
def test_p5_an_orphan_that_holds_the_output_does_not_hold_up_the_end(
    execute: Execute, slowness: float, stream: str
) -> None:
    result = execute(["/bin/sh", "-c", f"sleep 600 >&{stream} & echo said >&{stream}; exit 3"])
    assert (result.reason, result.exit_code) == (Reason.EXIT, 3)
    assert (result.stdout.text, result.stderr.text) in {("said\n", ""), ("", "said\n")}
    assert result.usage.wall_s < 3 * slowness


@pytest.mark.limits
def test_p6_who_ignores_every_signal_and_stops_is_killed(run_probe: Execute, slowness: float, bomb_s: float) -> None:
    started_s = time.monotonic()
    result = run_probe("processes", "stop-everybody", limits={"timeout": bomb_s})
    assert (result.status, result.reason) == (Status.FAILED, Reason.TIMEOUT)
    assert result.stdout.text == "stopping\tOK\n"
    assert bomb_s <= time.monotonic() - started_s < bomb_s + 3 * slowness


@pytest.mark.limits
def test_p10_ending_just_at_the_limit_never_hits_another_process(
    execute: Execute, bystander: subprocess.Popen[bytes], slowness: float
) -> None:
    chance = random.Random(10)
    reasons = set()
    for _ in range(max(10, int(60 / slowness))):
        limit_s = chance.uniform(0.001, 0.02) * slowness
        result = execute(["/bin/sh", "-c", "sleep 0.003 & sleep 0.004"], limits={"timeout": limit_s})
        assert result.reason in {Reason.EXIT, Reason.TIMEOUT}, result
        assert result.ok is (result.reason is Reason.EXIT)
        reasons.add(result.reason)
    assert bystander.poll() is None


def test_p16_a_subreaper_keeps_nobody(run_probe: Execute, answers: Parse, slowness: float) -> None:
    result = run_probe("processes", "become-subreaper")
    assert answers(result) == {"subreaper": "OK", "no parent death signal": "OK"}
    assert result.usage.wall_s < 3 * slowness


# P7 P8 P11 P12: reaching others ----------------------------------------------------------------------


def test_p7_killing_everybody_reaches_nobody_outside_and_not_init(
    ask: Answers, sandbox: Open, bystander: subprocess.Popen[bytes], engine: casemate.Engine
) -> None:
    neighbour = sandbox()
    launcher = engine.backend.launcher.pid
    found = ask("processes", "kill-everybody")
    assert found.pop("still") == "OK"
    assert found.pop("everybody") == "OK"
    assert found.pop("group of init") in {"OK", "EPERM", "ESRCH"}
    assert set(found.values()) <= {"OK", "EPERM"}, "init ignores what it is sent"
    assert neighbour.exec(["/bin/true"]).ok
    assert engine.backend.launcher.pid == launcher
    assert bystander.poll() is None


def test_p7_the_loss_of_init_is_the_end_of_the_run_and_is_said(sandbox: Open, slowness: float) -> None:
    place = sandbox()
    init = place._session.sandbox.pid

    def kill(_: casemate.Chunk) -> None:
        os.kill(init, signal.SIGKILL)

    started_s = time.monotonic()
    result = place.exec(["/bin/sh", "-c", "echo started; sleep 600"], on_output=kill)
    assert (result.status, result.reason) == (Status.FAILED, Reason.LOST)
    assert result.stdout.text == "started\n"
    assert time.monotonic() - started_s < 5 * slowness
    with pytest.raises(SandboxClosed):
        place.exec(["/bin/true"])


def test_p8_numbers_of_host_processes_mean_nothing_inside(
    ask: Answers, bystander: subprocess.Popen[bytes], engine: casemate.Engine
) -> None:
    pids = [bystander.pid, os.getpid(), os.getppid(), engine.backend.launcher.pid]
    numbers = [str(pid) for pid in pids if pid > 100]
    assert ask("processes", "kill-numbers", *numbers) == dict.fromkeys(numbers, "ESRCH")


def test_p11_p12_no_process_can_be_traced_read_or_written(ask: Answers, engine: casemate.Engine) -> None:
    pids = ["1", "2", str(os.getpid()), str(engine.backend.launcher.pid)]
    assert set(ask("processes", "reach-others", *pids).values()) == {"EPERM"}
    assert set(ask("processes", "reach-child").values()) == {"EPERM"}


MEMORY: Final = """
for name in ("mem", "fd/0", "fd", "root/etc/passwd", "environ", "exe", "maps", "syscall", "auxv", "oom_score_adj"):
    attempt(name, os.open, f"/proc/1/{name}", os.O_RDONLY)
attempt("write", os.open, "/proc/1/mem", os.O_RDWR)
"""


def test_p11_p12_init_cannot_be_read_through_proc(ask_python: Answers) -> None:
    assert set(ask_python(MEMORY).values()) <= {"ENOENT", "EACCES", "EPERM"}


# P13 P14 P15 P17 P20: rights -------------------------------------------------------------------------


def test_p13_priority_and_processors_cannot_be_raised(ask: Answers) -> None:
    found = ask("processes", "priorities")
    assert found.pop("after") == "as before"
    assert found.pop("idle") == "OK", "one may always step back"
    assert set(found.values()) <= {"EPERM", "EACCES"}
    assert found["processors"] == "EPERM"


CONFINED: Final = {"unshare": "EPERM", "ptrace": "EPERM", "no new privileges": "1", "seccomp": "2"}


@pytest.mark.limits
def test_p14_a_program_in_memory_is_as_confined_or_there_is_none(ask: Answers, cgroup: str) -> None:
    found = ask("processes", "exec-memory", "/code/probe", "confinement")
    assert found == ({"memory file": "ENOSYS"} if cgroup == "none" else CONFINED)


def test_p14_a_program_whose_file_is_gone_is_as_confined(ask: Answers) -> None:
    assert ask("processes", "exec-deleted", "/code/probe", "confinement") == CONFINED


HANDLER: Final = "#!/bin/sh\nexec /bin/cat > {seen}\n"
CORE_PATTERN: Final = Path("/proc/sys/kernel/core_pattern")


@pytest.fixture
def core_handler(is_emulated: bool, tmp_path: Path) -> Iterator[Path]:
    """Where the whole kernel is ours, let it start a program for every core; return what that would write."""
    seen, before = tmp_path / "core", CORE_PATTERN.read_text()
    if not is_emulated or os.geteuid() != 0:
        yield seen
        return
    handler = tmp_path / "handler"
    handler.write_text(HANDLER.format(seen=seen))
    handler.chmod(0o755)
    CORE_PATTERN.write_text(f"|{handler}")
    yield seen
    CORE_PATTERN.write_text(before)


def test_p15_no_core_is_written_or_given_to_the_hosts_handler(run_probe: Execute, core_handler: Path) -> None:
    result = run_probe("processes", "dump-core", collect=["**"])
    assert (result.reason, result.signal) == (Reason.SIGNAL, signal.SIGABRT)
    found = dict(line.split("\t") for line in result.stdout.text.splitlines())
    assert found.pop("unlimited") == "OK", "said, but not done"
    assert found.pop("limit") == "1", "what stops even a handler"
    assert found == dict.fromkeys(("SEGV", "ABRT", "QUIT", "BUS"), "no core")
    assert result.files == ()
    assert not core_handler.exists()
    assert not [path for path in Path.cwd().iterdir() if path.name.startswith("core")]


def test_p17_arguments_of_any_size_are_a_clean_error(ask: Answers, execute: Execute) -> None:
    assert ask("processes", "exec-sizes", limits={"memory": "256Mi"}) == {
        "long word": "E2BIG",
        "many words": "E2BIG",
        "large environment": "E2BIG",
        "no program": "ENOENT",
        "directory": "EACCES",
        "no words": "0",
    }
    for argv, environment in ((["/bin/true", "x" * 1_000_000], {}), (["/bin/true"], {"A": "x" * 1_000_000})):
        with pytest.raises(InvalidInput):
            execute(argv, env=environment)
    for argv in ([], [""], ["/bin/true", "a\0b"]):
        with pytest.raises(CasemateError):
            execute(argv)


def test_p17_the_largest_command_that_is_accepted_runs(execute: Execute) -> None:
    words = ["x" * 1000] * (ARGV_TOTAL_MAX_BYTES // 1000 - 1)
    value = "y" * (ENV_TOTAL_MAX_BYTES - 1000)
    result = execute(["/bin/sh", "-c", 'echo $# ${#1} "${A}"', "sh", *words], env={"A": value})
    assert result.stdout.text.split() == [str(len(words)), "1000", value]


def test_p20_no_other_identity_can_be_taken(ask: Answers, slowness: float) -> None:
    assert ask("processes", "change-ids", str(int(70_000 / slowness))) == {
        "taken": "0",
        "root": "EINVAL",
        "root group": "EINVAL",
        "groups": "EPERM",
        "no groups": "EPERM",
        "own": "OK",
        "user": "1000",
    }


def test_p20_outside_no_process_of_the_sandbox_is_root(sandbox: Open) -> None:
    place = sandbox()
    place.exec(["/bin/sh", "-c", "sleep 600 & sleep 600 &"])
    tree = process_tree(place._session.sandbox.pid)
    assert len(tree) >= 3
    for pid in tree:
        fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        ids = {*fields["Uid"].split(), *fields["Gid"].split(), *fields["Groups"].split()}
        assert len(ids) == 1
        assert "0" not in ids
        assert {fields[name].strip() for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb", "CapInh")} == {"0" * 16}


# P19: exit statuses ----------------------------------------------------------------------------------


def test_p19_every_exit_status_is_reported_exactly(sandbox: Open, slowness: float) -> None:
    place = sandbox()
    for code in range(0, 256, 1 if slowness == 1 else 15):
        result = place.exec(["/bin/sh", "-c", f"exit {code}"])
        assert (result.exit_code, result.signal, result.reason) == (code, None, Reason.EXIT)
        assert result.status is (Status.FAILED if code else Status.SUCCEEDED)


IGNORED: Final = {signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH}
STOPPING: Final = {signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}
SIGNALS: Final = [*range(1, 32), 32, 33, 34, 50, 64]
OF_LIMITS: Final = {signal.SIGXCPU: Reason.CPU, signal.SIGXFSZ: Reason.DISK}


def test_p19_every_deadly_signal_is_reported_exactly(sandbox: Open, compiled: Compiled) -> None:
    place = sandbox()
    place.files.write("/code/probe", compiled("processes"))
    place.exec(["/bin/chmod", "755", "/code/probe"])
    for number in SIGNALS:
        if number in STOPPING:
            continue
        result = place.exec(["/code/probe", "die", str(number)])
        if number in IGNORED:
            assert (result.exit_code, result.signal) == (0, None)
            continue
        reason = OF_LIMITS.get(number, Reason.SIGNAL)
        assert (result.exit_code, result.signal, result.reason) == (None, number, reason)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("exit-from-thread", "91"), 91),
        (("exit-from-thread", "0"), 0),
        (("exit-in-exit",), 77),
        (("lose-first-thread",), 42),
    ],
)
def test_p19_unusual_ends_are_reported_exactly(run_probe: Execute, words: tuple[str, ...], code: int) -> None:
    result = run_probe("processes", *words)
    assert (result.exit_code, result.signal, result.reason) == (code, None, Reason.EXIT)


def test_p19_an_exit_status_that_looks_like_a_signal_is_none(execute: Execute) -> None:
    result = execute(["/bin/sh", "-c", "kill -9 $$ & wait; exit 137"])
    assert (result.exit_code, result.signal) in {(None, 9), (137, None)}
    result = execute(["/bin/sh", "-c", "sh -c 'kill -9 $$'; exit $?"])
    assert (result.exit_code, result.signal, result.reason) == (137, None, Reason.EXIT)

"""The execution contract: every reason of a Result, caused for real, in every language where it can be."""

from __future__ import annotations

import functools
import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec

import msgspec
import pytest
from tests.integration.programs import PROGRAMS
from tests.networks import lacks_egress
from tests.results import kinds_of

import casemate
from casemate.kernel.cgroup_types import CgroupUnavailable
from casemate.model.layers import REQUIRED
from casemate.model.result import Reason, Status

if TYPE_CHECKING:
    from tests.integration.conftest import MakeSandbox, Run

SLOW_TO_START = {"node", "r"}
LANGUAGES = [
    pytest.param(name, marks=pytest.mark.slow) if name in SLOW_TO_START else pytest.param(name) for name in PROGRAMS
]
ALIASES = {
    "py": "python",
    "python3": "python",
    "javascript": "node",
    "js": "node",
    "R": "r",
    "sh": "bash",
    "shell": "bash",
}


def having(program: str) -> list[Any]:
    return [parameter for parameter in LANGUAGES if program in PROGRAMS[str(parameter.values[0])]]


@pytest.fixture(scope="session")
def by_cgroup(engine: casemate.Engine) -> bool:
    return not isinstance(engine.backend.cgroups, CgroupUnavailable)


CAUSED: set[Reason] = set()
"""The reasons that `causes` vouches for."""

_seen: list[Reason] = []
P = ParamSpec("P")


def causes(reason: Reason) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """Say that a test ends a run with this reason, and fail it if it does not."""
    CAUSED.add(reason)

    def decorate(test: Callable[P, None]) -> Callable[P, None]:
        @functools.wraps(test)
        def checked(*args: P.args, **options: P.kwargs) -> None:
            _seen.clear()
            test(*args, **options)
            assert reason in _seen

        return checked

    return decorate


def failed(result: casemate.Result, reason: Reason) -> casemate.Result:
    told = (result.reason, result.exit_code, result.signal, result.error, result.events, result.stderr.text[-400:])
    _seen.append(result.reason)
    assert result.reason is reason, told
    assert result.status is Status.FAILED
    assert not result.ok
    return result


def succeeded(result: casemate.Result) -> casemate.Result:
    told = (result.reason, result.exit_code, result.signal, result.error, result.events, result.stderr.text[-400:])
    assert result.ok, told
    assert (result.reason, result.status, result.exit_code) == (Reason.EXIT, Status.SUCCEEDED, 0)
    return result


# What a program means, the same in every language -------------------------------------------------


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_plain_program_just_prints(run: Run, language: str) -> None:
    result = succeeded(run(PROGRAMS[language]["hello"], language))
    assert (result.stdout.head, result.stderr.head) == (b"hello\n", b"")
    assert (result.output, result.error, result.signal, result.files) == (None, None, None, ())


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("value", [None, True, [1, 2.5, "ä\n\\"], {"k": {"deep": [None]}}], ids=repr)
def test_the_input_is_there_and_the_output_comes_back(run: Run, language: str, value: object) -> None:
    result = succeeded(run(PROGRAMS[language]["echo"], language, input=value))
    assert result.output == {"got": value}


@pytest.mark.parametrize("language", having("main"))
def test_main_gets_the_input_and_returns_the_output(run: Run, language: str) -> None:
    assert succeeded(run(PROGRAMS[language]["main"], language, input={"a": 41})).output == 42


@pytest.mark.parametrize("language", LANGUAGES)
def test_arguments_arrive_as_they_were_given(run: Run, language: str) -> None:
    result = succeeded(run(PROGRAMS[language]["arguments"], language, args=["-x", "two words", "--"]))
    assert "-x" in result.stdout.text
    assert "two words" in result.stdout.text


@pytest.mark.parametrize("language", LANGUAGES)
def test_printing_what_reads_like_our_protocol_changes_nothing(run: Run, language: str) -> None:
    result = succeeded(run(PROGRAMS[language]["forge"], language))
    assert result.output == "real"
    assert "forged" in result.stdout.text


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) for name in ALIASES])
def test_a_runtime_is_found_by_its_other_names(run: Run, name: str) -> None:
    assert succeeded(run(PROGRAMS[ALIASES[name]]["hello"], name)).stdout.text == "hello\n"


# Reasons ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", LANGUAGES)
@causes(Reason.EXIT)
def test_exit_with_another_status_is_exit(run: Run, language: str) -> None:
    result = failed(run(PROGRAMS[language]["exit"], language), Reason.EXIT)
    assert (result.exit_code, result.signal, result.error) == (3, None, None)


@pytest.mark.parametrize("language", LANGUAGES)
@causes(Reason.SIGNAL)
def test_a_signal_of_its_own_is_signal(run: Run, language: str) -> None:
    result = failed(run(PROGRAMS[language]["signal"], language), Reason.SIGNAL)
    assert (result.exit_code, result.signal) == (None, signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGTERM, signal.SIGABRT, signal.SIGUSR1])
def test_the_signal_is_told_by_its_number(execute: Run, number: signal.Signals) -> None:
    assert failed(execute("sh", "-c", f"kill -{number.value} $$"), Reason.SIGNAL).signal == number


@pytest.mark.parametrize("language", having("exception"))
@causes(Reason.EXCEPTION)
def test_an_uncaught_error_is_exception(run: Run, language: str) -> None:
    result = failed(run(PROGRAMS[language]["exception"], language), Reason.EXCEPTION)
    assert result.exit_code == 1
    assert result.error is not None
    assert result.error.type
    assert "no" in result.error.message
    assert "f" in result.error.traceback
    assert "no" in result.stderr.text


@pytest.mark.parametrize("language", LANGUAGES)
@causes(Reason.VALIDATION)
def test_an_output_that_is_no_json_value_is_validation(run: Run, language: str) -> None:
    result = failed(run(PROGRAMS[language]["invalid"], language), Reason.VALIDATION)
    assert result.output is None
    assert result.error is not None or result.events


@pytest.mark.limits
@pytest.mark.parametrize("language", LANGUAGES)
@causes(Reason.TIMEOUT)
def test_more_than_the_wall_time_is_timeout(run: Run, language: str) -> None:
    result = failed(run(PROGRAMS[language]["sleep"], language, limits={"timeout": "300ms"}), Reason.TIMEOUT)
    assert (result.exit_code, result.signal) == (None, None)
    assert result.usage.wall_s >= 0.3


@pytest.mark.limits
@pytest.mark.parametrize("language", LANGUAGES)
@causes(Reason.CPU)
def test_more_than_the_processor_time_is_cpu(run: Run, language: str) -> None:
    result = failed(run(PROGRAMS[language]["loop"], language, limits={"cpu_time": "300ms"}), Reason.CPU)
    assert result.usage.cpu_user_s + result.usage.cpu_system_s >= 0.3


@pytest.mark.limits
@pytest.mark.parametrize("language", LANGUAGES)
@causes(Reason.MEMORY)
def test_more_than_the_memory_is_memory(run: Run, language: str, by_cgroup: bool) -> None:
    result = run(PROGRAMS[language]["memory"], language, limits={"memory": "128Mi"})
    failed(result, Reason.MEMORY)
    if by_cgroup:
        assert "memory-limit" in kinds_of(result)
        assert (result.usage.memory_peak_bytes or 0) > 64 * 2**20


@pytest.mark.slow
@pytest.mark.limits
@pytest.mark.parametrize(
    ("language", "code"),
    [
        ("python", "x = bytearray(2**30)"),
        ("node", "const all = []; for (;;) all.push(new Array(1e6).fill(1))"),
        ("node", "Buffer.alloc(2**30).fill(1)"),
        ("r", "x <- rep(1, 2e8)"),
        ("r", "x <- NULL; repeat x <- list(x)"),
        ("bash", "all=(); while :; do all+=({1..100000}); done"),
        ("bash", "head -c 1000000000 /dev/zero | tail"),
    ],
)
def test_memory_that_is_refused_is_memory_in_whatever_way_it_is_asked_for(run: Run, language: str, code: str) -> None:
    failed(run(code, language, limits={"memory": "128Mi"}), Reason.MEMORY)


@pytest.mark.limits
@pytest.mark.parametrize("language", LANGUAGES)
@causes(Reason.OUTPUT)
def test_more_than_the_output_is_output(run: Run, language: str) -> None:
    result = failed(run(PROGRAMS[language]["output"], language, limits={"output": "100Ki"}), Reason.OUTPUT)
    assert result.stdout.total_bytes == 100 * 1024


@pytest.mark.limits
@pytest.mark.parametrize("language", LANGUAGES)
@causes(Reason.DISK)
def test_more_than_the_disk_is_disk(run: Run, language: str) -> None:
    result = failed(run(PROGRAMS[language]["disk"], language, limits={"disk": "1Mi"}), Reason.DISK)
    assert 0 < (result.usage.disk_bytes or 0) <= 2**20


@pytest.mark.limits
def test_more_files_than_inodes_is_disk(execute: Run) -> None:
    failed(execute("sh", "-c", "i=0; while : > f$i; do i=$((i+1)); done; exit 1", limits={"inodes": 64}), Reason.DISK)


@pytest.mark.limits
@causes(Reason.PROCESSES)
def test_more_than_the_processes_is_processes(execute: Run) -> None:
    script = "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 1000 & done; wait"
    result = failed(execute("sh", "-c", script, limits={"processes": 5}), Reason.PROCESSES)
    assert "process-limit" in kinds_of(result)
    assert (result.usage.processes_peak or 0) <= 6


@pytest.mark.limits
def test_more_open_files_than_allowed_is_the_program_s_own_error(run: Run) -> None:
    code = "files = []\nwhile True: files.append(open('/dev/null'))"
    result = failed(run(code, limits={"open_files": 64}), Reason.EXCEPTION)
    assert result.error is not None
    assert "Too many open files" in result.error.message


@causes(Reason.DENIED)
def test_a_program_that_may_not_be_executed_is_denied(execute: Run) -> None:
    for path in ("/etc/passwd", "/work", "/usr/lib/os-release"):
        result = failed(execute(path), Reason.DENIED)
        assert result.exit_code == 126
        assert result.error is not None
        assert result.error.type == "NotExecutable"


def test_a_program_that_is_not_there_ends_as_a_shell_would_say_it(execute: Run) -> None:
    for command in ("no-such-program", "/work/nothing", "./nothing"):
        result = failed(execute(command), Reason.EXIT)
        assert result.exit_code == 127
        assert result.error is not None
        assert result.error.type == "CommandNotFound"


@causes(Reason.CANCELLED)
def test_a_token_that_is_used_while_the_program_runs_is_cancelled(execute: Run) -> None:
    token = casemate.CancelToken()
    result = execute("sh", "-c", "echo on; sleep 1000", cancel=token, on_output=lambda _: token.cancel())
    failed(result, Reason.CANCELLED)
    assert result.stdout.text == "on\n"
    assert (result.exit_code, result.signal) == (None, None)


def test_a_token_that_was_used_before_is_cancelled_at_once(execute: Run) -> None:
    token = casemate.CancelToken()
    token.cancel()
    token.cancel()
    result = failed(execute("echo", "on", cancel=token), Reason.CANCELLED)
    assert (result.stdout.text, result.isolation.layers) == ("", ())


def test_a_token_that_is_used_after_the_end_changes_nothing(execute: Run) -> None:
    token = casemate.CancelToken()
    succeeded(execute("true", cancel=token))
    token.cancel()


def test_a_sandbox_whose_launcher_dies_is_lost_and_the_next_run_works(generous: dict[str, Any]) -> None:
    with casemate.Engine(warm=False) as own:
        started = threading.Event()

        def kill_it(_: casemate.Chunk) -> None:
            if not started.is_set():
                os.kill(own.backend.launcher.pid, signal.SIGKILL)
            started.set()

        command = ["sh", "-c", "echo on; sleep 1000"]
        result = casemate.execute(command, engine=own, on_output=kill_it, limits=generous)
        assert failed(result, Reason.LOST).stdout.text == "on\n"
        succeeded(casemate.execute(["true"], engine=own, limits=generous))


@causes(Reason.LOST)
def test_a_sandbox_whose_first_process_dies_is_lost(make_sandbox: MakeSandbox) -> None:
    sandbox = make_sandbox()
    first = sandbox._session.sandbox.pid
    command = ["sh", "-c", "echo on; sleep 1000"]
    failed(sandbox.exec(command, on_output=lambda _: os.kill(first, signal.SIGKILL)), Reason.LOST)
    with pytest.raises(casemate.SandboxClosed):
        sandbox.exec(["true"])


def test_the_engine_s_end_is_the_end_of_what_runs_in_it(generous: dict[str, Any]) -> None:
    own = casemate.Engine(warm=False)
    command = ["sh", "-c", "echo on; sleep 1000"]
    closing: list[threading.Thread] = []

    def close_it(_: casemate.Chunk) -> None:
        closing.append(threading.Thread(target=own.close))
        closing[-1].start()

    failed(casemate.execute(command, engine=own, on_output=close_it, limits=generous), Reason.LOST)
    for thread in closing:
        thread.join()
    with pytest.raises(casemate.CasemateError):
        casemate.execute(["true"], engine=own)


def broken_connection() -> socket.socket:
    """Return our end of a connection that the other side has reset."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    theirs.close()
    return ours


def internal_problems(result: casemate.Result) -> list[str]:
    return [event.detail for event in result.events if event.kind == "internal"]


@causes(Reason.INTERNAL)
def test_a_program_whose_input_breaks_off_is_ended_and_its_result_says_why(execute: Run) -> None:
    with broken_connection() as stdin:
        result = failed(execute("sh", "-c", "echo on; cat; echo all of it", stdin=stdin), Reason.INTERNAL)
    assert (result.stdout.text, result.exit_code) in {("on\n", None), ("", None)}
    assert internal_problems(result) == ["standard input cannot be read: Connection reset by peer"]


def test_an_input_that_breaks_off_does_not_end_a_sandbox_that_stays(make_sandbox: MakeSandbox) -> None:
    sandbox = make_sandbox()
    with broken_connection() as stdin:
        failed(sandbox.exec(["sleep", "1000"], stdin=stdin.fileno()), Reason.INTERNAL)
    succeeded(sandbox.exec(["true"]))


# The kernel's word before the guest's -------------------------------------------------------------


@pytest.mark.limits
def test_a_limit_explains_more_than_the_error_it_led_to(run: Run) -> None:
    code = "open('/work/big', 'wb').write(bytes(2**24))"
    result = failed(run(code, limits={"disk": "1Mi"}), Reason.DISK)
    assert result.error is not None or result.signal is not None


def test_an_error_that_the_program_handles_is_none(run: Run) -> None:
    code = "try:\n    open('/work/big', 'wb').write(bytes(2**24))\nexcept OSError:\n    output = 'full'"
    result = run("import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n" + code, limits={"disk": "1Mi"})
    assert succeeded(result).output == "full"


def test_a_program_cannot_claim_to_have_succeeded(run: Run) -> None:
    code = "output = 'fine'\nimport atexit, os; atexit.register(os._exit, 7)"
    assert failed(run(code), Reason.EXIT).exit_code == 7


# What every Result says ---------------------------------------------------------------------------


TAKES_LEAVE = """
import os, subprocess, sys, time
subprocess.Popen(["sleep", "1000"])
print("printed")
sys.stdout.flush()
os.write(63, b"\\0\\0\\0\\x0f{\\"kind\\":\\"none\\"}\\xff\\xff\\xff" + bytes([STATUS]))
time.sleep(1000)
"""


@pytest.mark.parametrize("status", [0, 9])
def test_a_program_that_takes_its_leave_itself_has_ended_with_all_that_it_started(
    run: Run, by_cgroup: bool, status: int
) -> None:
    """It could have ended with this status as well; without control groups it has to."""
    limits = {} if by_cgroup else {"timeout": 1.0}
    result = run(TAKES_LEAVE.replace("STATUS", str(status)), limits=limits)
    assert result.stdout.text == "printed\n"
    expected = (Reason.EXIT, status) if by_cgroup else (Reason.TIMEOUT, None)
    assert (result.reason, result.exit_code) == expected


def test_a_result_tells_the_layers_that_were_in_force(execute: Run, by_cgroup: bool) -> None:
    isolation = execute("true").isolation
    assert isolation.backend == "native"
    assert isolation.layers[: len(REQUIRED)] == REQUIRED
    assert (casemate.Layer.CGROUP in isolation.layers) == by_cgroup
    assert bool(isolation.approximate) != by_cgroup


def test_a_run_with_a_network_has_the_layer_or_is_refused_by_its_name() -> None:
    with casemate.Engine(warm=False) as engine:
        try:
            result = casemate.execute(["true"], network=[], engine=engine)
        except casemate.LayerMissing as missing:
            assert missing.layers == (casemate.Layer.EGRESS,)
            assert lacks_egress(engine)
        else:
            assert casemate.Layer.EGRESS in result.isolation.layers
        assert casemate.Layer.EGRESS not in casemate.execute(["true"], engine=engine).isolation.layers


def test_a_result_tells_what_was_used(run: Run) -> None:
    code = "import time\nblock = bytearray(40 * 2**20)\nopen('/work/f', 'wb').write(bytes(2**20))\n"
    usage = succeeded(run(code + "while time.process_time() < 0.1: pass")).usage
    assert usage.wall_s > 0
    assert usage.cpu_user_s + usage.cpu_system_s >= 0.1
    assert (usage.memory_peak_bytes or 0) >= 40 * 2**20
    assert (usage.processes_peak or 0) >= 1
    assert usage.disk_bytes is not None
    assert 2**20 <= usage.disk_bytes < 2**21


@pytest.mark.parametrize(
    ("language", "code"),
    [
        ("bash", "echo ${EPOCHREALTIME/,/.}; sleep 0.05; echo ${EPOCHREALTIME/,/.}"),
        ("python", "import time; print(time.time()); time.sleep(0.05); print(time.time())"),
    ],
)
def test_the_time_of_a_program_is_all_of_its_life_and_no_more_than_the_call_took(
    run: Run, language: str, code: str
) -> None:
    started_s = time.perf_counter()
    result = succeeded(run(code, language))
    call_s = time.perf_counter() - started_s
    first_s, last_s = map(float, result.stdout.text.split())
    assert last_s - first_s <= result.usage.wall_s <= call_s


def test_a_result_can_be_written_as_json(run: Run) -> None:
    result = run("print('x'); output = {'big': 2**100}", collect=["*"], files={"a": b"\xff"})
    read = msgspec.json.decode(msgspec.json.encode(result))
    assert (read["status"], read["reason"], read["output"]) == ("succeeded", "exit", {"big": 2**100})


def test_every_reason_is_caused_above() -> None:
    assert set(Reason) == CAUSED

"""Attacks on processor time and on clocks (C1 to C14): the sum counts, and time passes whatever a program does."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NoReturn

import pytest

import casemate
from casemate import InvalidInput, Reason, Result, Sandbox, Status
from casemate.config import Config
from casemate.limits import VALUE_MAX_BYTES
from casemate.model.runtime import Channel, Runtime

CPU_S: Final = 0.4
BURN_S: Final = 1.0
SLEEP_S: Final = 1.0
BURN_TOLERANCE: Final = 0.05
"""The share by which a report of processor time may differ from what the program itself has counted."""

START_S: Final = 0.05
"""What starting the program costs beside what it counts itself; stretched on a slow machine."""

LATE_S: Final = 1.0
"""By how much one end may be late where others use the processors; C12 measures how exact ends are."""

MEASUREMENTS: Final = 3
"""Of as many the one counts that others on this machine have disturbed least."""

SLEEP_TOLERANCE_S: Final = 0.02
SHARE_MIN: Final = 0.5
"""What a modest sandbox gets at least, of what a greedy one on the same processor gets. Fair is as much."""

Execute = Callable[..., Result]
Answers = Callable[..., "dict[str, str]"]
Open = Callable[..., Sandbox]
Parse = Callable[[Result], "dict[str, str]"]
NotRun = Callable[[str, str], NoReturn]


@pytest.fixture(scope="module", autouse=True)
def compiled_before(compiled: Callable[[str], bytes]) -> None:
    """The time that a test takes is not that of the compiler."""
    compiled("cpu")


def cpu_s(result: Result) -> float:
    return result.usage.cpu_user_s + result.usage.cpu_system_s


def wall_s(result: Result) -> float:
    return result.usage.wall_s


@pytest.fixture
def short_s(slowness: float) -> float:
    """Return a time that is long enough for a program to start, here as there."""
    return 0.6 * (1 + slowness / 10)


# C1 C3 C4 C5: processor time ------------------------------------------------------------------------------

BURNERS: Final = (("forever",), ("threads", "4"), ("workers",), ("orphan-workers",), ("ignore-warnings",))


@pytest.mark.limits
@pytest.mark.parametrize("words", BURNERS, ids=" ".join)
def test_c1_c3_c4_c5_processor_time_ends_at_its_limit(
    run_probe: Execute, slowness: float, words: tuple[str, ...]
) -> None:
    limits = {"cpu_time": CPU_S, "cpu": 2, "timeout": 10 * slowness}
    result = run_probe("cpu", *words, limits=limits)
    assert (result.status, result.reason) == (Status.FAILED, Reason.CPU)
    assert CPU_S * 0.95 <= cpu_s(result) < CPU_S + 0.3 * slowness
    assert result.usage.wall_s < CPU_S + 3 * slowness


@pytest.mark.limits
def test_c3_children_whose_books_are_thrown_away_count_too(run_probe: Execute, slowness: float, cgroup: str) -> None:
    limits = {"cpu_time": CPU_S, "timeout": 3 * slowness}
    result = run_probe("cpu", "forgotten-workers", limits=limits)
    if cgroup == "none":
        # Nothing sums them there, and the result says so; the time on the wall holds.
        assert result.reason in {Reason.CPU, Reason.TIMEOUT}
        assert "cpu_time" in result.isolation.approximate
    else:
        assert result.reason is Reason.CPU
        assert cpu_s(result) < CPU_S + 0.3 * slowness


@pytest.mark.limits
@pytest.mark.parametrize("threads", ["1", "4"])
def test_c4_a_share_of_a_processor_holds_for_all_threads_together(
    run_probe: Execute, slowness: float, threads: str
) -> None:
    wall_s = 1.0 * (1 + slowness / 10)
    result = run_probe("cpu", "threads", threads, limits={"cpu": 0.25, "timeout": wall_s})
    assert result.reason is Reason.TIMEOUT
    assert cpu_s(result) < 0.25 * wall_s + 0.15


# C2 C8 C9 C10 C11 C12: time on the wall ---------------------------------------------------------------------


@pytest.mark.limits
@pytest.mark.parametrize("how", ["sleep", "pause", "select", "poll", "stop"])
def test_c2_waiting_ends_at_the_timeout(run_probe: Execute, slowness: float, short_s: float, how: str) -> None:
    result = run_probe("cpu", "sleep-long", how, limits={"timeout": short_s})
    assert (result.status, result.reason) == (Status.FAILED, Reason.TIMEOUT)
    assert short_s <= result.usage.wall_s < short_s + LATE_S * slowness
    assert cpu_s(result) < START_S * slowness


def test_c8_clocks_cannot_be_changed(ask: Answers) -> None:
    before = time.time() - time.monotonic()
    found = ask("cpu", "set-clocks")
    assert found.pop("offsets") in {"ENOENT", "EACCES", "EPERM"}
    assert found.pop("device") == "ENOENT"
    assert set(found.values()) == {"EPERM"}
    assert abs(time.time() - time.monotonic() - before) < 1


@pytest.mark.limits
def test_c9_timers_that_are_always_due_are_the_programs_own_cost(
    run_probe: Execute, execute: Execute, slowness: float, short_s: float
) -> None:
    started: list[float] = []

    def neighbour(_: casemate.Chunk) -> None:
        began_s = time.monotonic()
        assert execute(["/bin/true"]).ok
        started.append(time.monotonic() - began_s)

    result = run_probe("cpu", "timer-storm", limits={"timeout": 2 * short_s}, on_output=neighbour)
    assert (result.reason, result.stdout.text) == (Reason.TIMEOUT, "storm\tOK\n")
    assert cpu_s(result) < 2 * short_s * 1.2 + 0.1
    assert started[0] < 2 * slowness


@pytest.mark.limits
def test_c10_a_stopped_program_meets_its_timeout(run_probe: Execute, slowness: float, short_s: float) -> None:
    later_ms = str(int(60_000 * slowness))
    result = run_probe("cpu", "stop-the-clock", later_ms, limits={"timeout": short_s})
    assert (result.reason, result.stdout.text) == (Reason.TIMEOUT, "stopping\tOK\n")
    assert result.usage.wall_s < short_s + LATE_S * slowness


def test_c10_a_program_may_stop_and_go_on_in_time(ask: Answers) -> None:
    assert ask("cpu", "stop-the-clock", "50") == {"stopping": "OK", "going on": "OK"}


@pytest.mark.limits
def test_c11_a_process_in_uninterruptible_sleep_is_killed_and_reported(
    run_probe: Execute, slowness: float, short_s: float
) -> None:
    started_s = time.monotonic()
    result = run_probe("cpu", "stuck", limits={"timeout": short_s})
    assert (result.reason, result.stdout.text) == (Reason.TIMEOUT, "stuck\tOK\n")
    assert time.monotonic() - started_s < short_s + 2 * slowness


@pytest.mark.limits
def test_c12_reported_processor_time_is_accurate(run_probe: Execute, answers: Parse, slowness: float) -> None:
    """Within 5 % of what the program counted itself, and what it takes to start it (50 ms on a machine of our day)."""
    result = run_probe("cpu", "burn", str(BURN_S))
    own_s = int(answers(result)["burnt"]) / 1e6
    assert own_s >= BURN_S
    assert own_s * (1 - BURN_TOLERANCE) <= cpu_s(result) <= own_s * (1 + BURN_TOLERANCE) + START_S * slowness
    assert result.usage.wall_s >= own_s * (1 - BURN_TOLERANCE)


@pytest.mark.limits
def test_c12_reported_time_on_the_wall_is_accurate(execute: Execute, slowness: float) -> None:
    """Within 20 ms, and what it takes to start the program (50 ms on a machine of our day)."""
    results = [execute(["/bin/sleep", str(SLEEP_S)]) for _ in range(MEASUREMENTS)]
    assert min(map(wall_s, results)) >= SLEEP_S
    assert min(map(wall_s, results)) < SLEEP_S + SLEEP_TOLERANCE_S + START_S * slowness
    assert min(map(cpu_s, results)) < START_S * slowness


@pytest.mark.limits
def test_c12_no_more_time_is_reported_than_the_caller_has_waited(execute: Execute) -> None:
    started_s = time.monotonic()
    result = execute(["/bin/sleep", "0.1"])
    assert 0.1 <= wall_s(result) <= time.monotonic() - started_s


@pytest.mark.limits
def test_c12_a_timeout_is_in_time(execute: Execute, slowness: float) -> None:
    results = [execute(["/bin/sleep", "600"], limits={"timeout": 0.5}) for _ in range(MEASUREMENTS)]
    assert {result.reason for result in results} == {Reason.TIMEOUT}
    assert 0.5 <= min(map(wall_s, results)) < 0.5 + 0.05 * slowness


# C6: compilers ------------------------------------------------------------------------------------------------

BOMBS: Final = {
    "templates": (
        "a.cc",
        "template<int N> struct A { A<N + 1> a; A<N + 2> b; }; A<0> a;",
        "-ftemplate-depth=100000000",
    ),
    "random": ("a.c", '#include "/dev/urandom"', ""),
    "zero": ("a.c", '#include "/dev/zero"', ""),
    "terminal": ("a.c", '#include "/dev/tty"', ""),
    "array": ("a.c", "char a[4L << 30] = {1}; int main(void) { return a[0]; }", ""),
    "macros": (
        "a.c",
        "\n".join(["#define A0 x", *(f"#define A{n} A{n - 1} A{n - 1}" for n in range(1, 40)), "A39"]),
        "",
    ),
    "itself": ("a.c", '#include "a.c"\n#include "a.c"', "-fmax-include-depth=1000000"),
    "constants": (
        "a.cc",
        "constexpr long f(long n) { return n < 2 ? n : f(n - 1) + f(n - 2); }\nstatic_assert(f(90));",
        "-fconstexpr-ops-limit=9223372036854775807",
    ),
}


@pytest.mark.limits
@pytest.mark.slow
@pytest.mark.parametrize("bomb", BOMBS)
def test_c6_a_compiler_is_limited_like_any_program(execute: Execute, slowness: float, bomb: str) -> None:
    name, source, option = BOMBS[bomb]
    limits = {"cpu_time": 1.5 * slowness, "timeout": 4 * slowness, "memory": "96Mi", "disk": "16Mi", "output": "64Ki"}
    compiler = "/usr/bin/g++" if name.endswith("cc") else "/usr/bin/gcc"
    command = [compiler, *option.split(), "-o", "/tmp/a", name]
    started_s = time.monotonic()
    result = execute(command, files={name: source}, limits=limits)
    assert result.status is Status.FAILED
    assert result.reason in {Reason.EXIT, Reason.CPU, Reason.TIMEOUT, Reason.MEMORY, Reason.DISK, Reason.OUTPUT}, result
    assert time.monotonic() - started_s < 7 * slowness
    peak = result.usage.memory_peak_bytes
    assert peak is None or peak < 200 * 1024 * 1024


# C7: what we parse ourselves ----------------------------------------------------------------------------------

RAW: Final = "import json, os, struct; n, = struct.unpack('>I', os.read(3, 4)); exec(json.loads(os.read(3, n))['code'])"


@pytest.fixture(scope="module")
def raw_engine() -> Iterator[casemate.Engine]:
    """Return an engine with a runtime that has no harness: its program writes the reply itself."""
    command = ("{interpreter}", "-I", "-S", "-c", RAW)
    raw = Runtime(interpreter=("/usr/bin/python3",), command=command, channel=Channel.FRAMES)
    text = Runtime(interpreter=("/usr/bin/python3",), command=("{interpreter}", "-I", "{code}"), channel=Channel.TEXT)
    with casemate.Engine(Config(runtimes={"raw": raw, "text": text}), warm=False) as opened:
        casemate.execute(["/bin/true"], engine=opened)
        yield opened


WRITE: Final = """
import os, struct
def write(data):
    while data:
        data = data[os.write(4, data):]
def reply(body):
    write(struct.pack(">I", len(body)) + body)
"""
DEEP: Final = "b'[' * 1_000_000 + b']' * 1_000_000"
KEYS: Final = "b'{' + b','.join(b'\"%d\":0' % n for n in range(200_000)) + b'}'"
DIGITS: Final = "b'9' * 5_000_000"
WORD: Final = "b'\"' + b'\\\\u0041' * 1_000_000 + b'\"'"
EXPONENT: Final = "b'1e999999999'"
LISTS: Final = "b'[' + b'[],' * 2_000_000 + b'0]'"


@pytest.mark.parametrize(
    "value", [DEEP, KEYS, DIGITS, WORD, EXPONENT, LISTS], ids=["deep", "keys", "digits", "word", "exponent", "lists"]
)
@pytest.mark.parametrize("runtime", ["raw", "text"])
def test_c7_a_reply_that_is_hard_to_parse_is_parsed_or_refused_quickly(
    raw_engine: casemate.Engine, value: str, runtime: str, slowness: float
) -> None:
    body = f'b\'{{"kind":"value","output":\' + {value} + b\'}}\''
    code = WRITE + (f"reply({body})" if runtime == "raw" else f"write({value})")
    started_s = time.monotonic()
    result = casemate.run(code, runtime, engine=raw_engine, limits={"timeout": 20 * slowness})
    assert result.reason is Reason.EXIT, (result.reason, result.stderr.text)
    assert time.monotonic() - started_s - result.usage.wall_s < 2 * slowness


HEADS: Final = {
    "endless": "write(b'\\xff\\xff\\xff\\xff' + b'[' * 1000)",
    "short": "write(struct.pack('>I', 100) + b'{}')",
    "long": 'reply(b\'{"kind":"none"}\'); reply(b\'{"kind":"none"}\')',
    "nothing": "write(b'\\0')",
    "empty": "reply(b''); reply(b'')",
    "kind": 'reply(b\'{"kind":"admin","output":1}\')',
    "fields": 'reply(b\'{"kind":"value","output":1,"status":"succeeded"}\')',
    "twice": 'reply(b\'{"kind":"none","kind":"value","output":1}\')',
    "text": "reply(b'\\xff\\xfe')",
    "nan": 'reply(b\'{"kind":"value","output":NaN}\')',
    "surrogate": 'reply(b\'{"kind":"value","output":"\\\\ud800"}\')',
    "list": "reply(b'[]')",
    "pickle": "import pickle; reply(pickle.dumps(print))",
}


@pytest.mark.parametrize("head", HEADS)
def test_c7_what_is_no_reply_costs_the_output_and_nothing_else(raw_engine: casemate.Engine, head: str) -> None:
    result = casemate.run(WRITE + HEADS[head] + "\nprint('printed')", "raw", engine=raw_engine)
    assert (result.reason, result.output, result.error) == (Reason.EXIT, None, None)
    assert [event.kind for event in result.events] == ["bad-reply"]
    assert result.stdout.text == "printed\n"


def test_c7_a_reply_without_end_is_cut(raw_engine: casemate.Engine, slowness: float) -> None:
    """What is over the bound of a reply counts as output, so that it ends before the time does."""
    code = WRITE + f"write(struct.pack('>I', {VALUE_MAX_BYTES}))\nwhile True: write(b' ' * (1 << 20))"
    result = casemate.run(code, "raw", engine=raw_engine, limits={"timeout": 30 * slowness})
    assert (result.reason, result.output) == (Reason.OUTPUT, None)


def test_c7_a_reply_that_is_a_little_too_long_is_told_so(raw_engine: casemate.Engine, slowness: float) -> None:
    code = WRITE + f"write(struct.pack('>I', {VALUE_MAX_BYTES}))\nfor _ in range(12): write(b' ' * (1 << 20))"
    result = casemate.run(code, "raw", engine=raw_engine, limits={"timeout": 10 * slowness})
    assert (result.reason, result.output) == (Reason.VALIDATION, None)


def deep(levels: int) -> Any:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


BAD_INPUTS: Final = {
    "deep": deep(100_000),
    "not a number": float("nan"),
    "infinite": [float("inf")],
    "a set": {1},
    "bytes": b"x",
    "an object": object(),
    "a lone surrogate": "\ud800",
    "large": "x" * 11_000_000,
}


@pytest.mark.parametrize("name", BAD_INPUTS)
def test_c7_an_input_that_is_no_json_is_refused_quickly(engine: casemate.Engine, name: str, slowness: float) -> None:
    started_s = time.monotonic()
    with pytest.raises(InvalidInput) as caught:
        casemate.run("1", "python", engine=engine, input=BAD_INPUTS[name])
    assert caught.value.field == "input"
    assert time.monotonic() - started_s < 1 * slowness


# C13: code that others would run ------------------------------------------------------------------------------

HIT: Final = f"casemate-hit-{os.getpid()}"
EVIL: Final = r"""
#include <fcntl.h>
#include <unistd.h>
__attribute__((constructor)) static void hit(void) {
    int fd = open(HIT, O_CREAT | O_WRONLY | O_APPEND, 0644);
    if (write(fd, "x", 1) < 0)
        _exit(99);
    close(fd);
}
"""
POISON: Final = {
    "LD_PRELOAD": "/work/evil.so",
    "LD_LIBRARY_PATH": "/work",
    "LD_AUDIT": "/work/evil.so",
    "BASH_ENV": "/work/evil.sh",
    "ENV": "/work/evil.sh",
    "PYTHONPATH": "/work",
    "PYTHONSTARTUP": "/work/sitecustomize.py",
    "PYTHONHOME": "/nowhere",
    "NODE_OPTIONS": "--require /work/evil.js",
    "R_PROFILE_USER": "/work/.Rprofile",
    "PERL5OPT": "-MEvil",
    "PATH": "/work:/usr/bin:/bin",
    "IFS": "x",
    "HOME": "/work",
}


@pytest.fixture(scope="module")
def evil_library(tmp_path_factory: pytest.TempPathFactory, slowness: float) -> bytes:
    folder = tmp_path_factory.mktemp("evil")
    (folder / "evil.c").write_text(EVIL)
    command = ["cc", "-shared", "-fPIC", f'-DHIT="/tmp/{HIT}"', "-o", "evil.so", "evil.c"]
    subprocess.run(command, cwd=folder, check=True, timeout=20 * slowness)
    return (folder / "evil.so").read_bytes()


def untouched() -> bool:
    return not Path(f"/tmp/{HIT}").exists() and not Path(f"/work/{HIT}").exists()


def test_c13_a_poisoned_environment_is_the_guests_alone(
    execute: Execute, evil_library: bytes, engine: casemate.Engine
) -> None:
    launcher = engine.backend.launcher.pid
    ours = Path(f"/proc/{launcher}/environ").read_bytes()
    files = {"evil.so": evil_library, "evil.sh": f"echo x >> /tmp/{HIT}", "cat": "#!/bin/sh\necho shadowed"}
    script = f"chmod 755 cat; wc -c < /tmp/{HIT}; IFS=' '; cat; tr '\\0' '\\n' < /proc/1/environ | wc -c"
    result = execute(["/bin/sh", "-c", script], env=POISON, files=files)
    seen = result.stdout.text.split()
    assert int(seen[0]) >= 1, "the guest did it to itself"
    assert seen[1] == "shadowed"
    assert untouched()
    assert Path(f"/proc/{launcher}/environ").read_bytes() == ours == b""
    assert execute(["/bin/sh", "-c", f"cat /tmp/{HIT}"]).exit_code == 1, "the next run is not touched"


def test_c13_in_a_sandbox_that_stays_an_environment_is_for_one_run(sandbox: Open, evil_library: bytes) -> None:
    place = sandbox()
    place.files.write("evil.so", evil_library)
    hits = ["/bin/sh", "-c", f"touch /tmp/{HIT}; wc -c < /tmp/{HIT}"]
    first = int(place.exec(hits, env={"LD_PRELOAD": "/work/evil.so"}).stdout.text)
    assert first >= 1
    second = place.exec(hits).stdout.text
    assert int(place.exec(hits).stdout.text) == int(second), "programs without that environment are not touched"
    assert untouched()


HIDDEN: Final = {
    "sitecustomize.py": f"open('/tmp/{HIT}', 'w')",
    "usercustomize.py": f"open('/tmp/{HIT}', 'w')",
    "evil.pth": f"import os; os.open('/tmp/{HIT}', 65)",
    "pyvenv.cfg": "home = /work",
    "json.py": "raise SystemExit(9)",
    "struct.py": "raise SystemExit(9)",
    ".Rprofile": "stop('evil')",
    ".Renviron": "R_LIBS=/work",
    "package.json": '{"type": "module"}',
    ".npmrc": "node-options=--require /work/evil.js",
    ".bashrc": "exit 9",
    ".profile": "exit 9",
}
PROGRAMS: Final = {"python": "print('ok')", "node": "console.log('ok')", "r": "cat('ok\\n')", "bash": "echo ok"}


@pytest.mark.parametrize("runtime", PROGRAMS)
def test_c13_files_that_other_programs_would_run_are_not_run(
    engine: casemate.Engine, default_limits: dict[str, Any], runtime: str
) -> None:
    places = ("/work", "/home/guest", "/code", "/tmp")
    files = {f"{place}/{name}": text for place in places for name, text in HIDDEN.items()}
    result = casemate.run(PROGRAMS[runtime], runtime, engine=engine, files=files, limits=default_limits)
    assert (result.reason, result.exit_code, result.stdout.text) == (Reason.EXIT, 0, "ok\n"), result.stderr.text
    assert untouched()


# C14: neighbours ----------------------------------------------------------------------------------------------


@pytest.fixture
def greedy(engine: casemate.Engine, sandbox: Open, compiled: Callable[[str], bytes], slowness: float) -> list[Sandbox]:
    """Start a sandbox on every processor that wants all of it with eight threads."""
    places = [sandbox(timeout=60 * slowness) for _ in engine.backend.host.cpus]
    for place in places:
        place.files.write("/code/probe", compiled("cpu"))
        script = "chmod 755 /code/probe; /code/probe threads 8 > /tmp/said & until [ -s /tmp/said ]; do :; done"
        assert place.exec(["/bin/sh", "-c", script]).ok
    return places


def taken_s(place: Sandbox) -> float:
    group = place._session.sandbox.cgroup
    counters = group.counters() if group else None
    return counters.cpu_user_s + counters.cpu_system_s if counters else 0.0


@pytest.mark.limits
def test_c14_a_neighbour_gets_its_share_beside_many_greedy_threads(
    greedy: list[Sandbox], run_probe: Execute, cgroup: str, slowness: float
) -> None:
    before_s = [taken_s(place) for place in greedy]
    result = run_probe("cpu", "forever", limits={"timeout": 1.0 * (1 + slowness / 10)})
    theirs_s = [taken_s(place) - before for place, before in zip(greedy, before_s, strict=True)]
    assert result.reason is Reason.TIMEOUT
    if cgroup == "none":
        assert cpu_s(result) > 0, "there each thread counts alone"
        assert "cpu" in result.isolation.approximate
    else:
        assert cpu_s(result) > SHARE_MIN * min(theirs_s), "one thread is one of two sandboxes there, not one of nine"

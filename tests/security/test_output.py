"""Attacks on output and protocol (O1 to O16): floods, lies about the verdict, and requests that make no sense.

What needs the HTTP service (bodies of O15, the browser side of O5, disconnected clients of O16) belongs to it.
"""

from __future__ import annotations

import asyncio
import json
import math
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

import casemate
from casemate import AsyncSandbox, CancelToken, Engine, InvalidInput, Limits, Reason, Result, Sandbox, Status
from casemate.limits import CAPTURE_HEAD_BYTES, CAPTURE_TAIL_BYTES, KIB, MIB

Execute = Callable[..., Result]
Answers = Callable[..., "dict[str, str]"]
Open = Callable[..., Sandbox]
Apart = Callable[..., subprocess.CompletedProcess[str]]

FLOOD_GROWTH_MAX_KIB: Final = 32 * 1024
PIPE_BYTES: Final = 60_000


# O1 O3: how much ----------------------------------------------------------------------------------

FLOOD: Final = """
import sys, casemate
def peak_kib():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
size, limit = sys.argv[1:3]
with casemate.Engine(warm=False) as engine:
    casemate.run("print(1)", engine=engine)
    before = peak_kib()
    shell = f"head -c {size} /dev/zero & head -c {size} /dev/zero >&2; wait"
    limits = {"timeout": float(sys.argv[3]), "output": limit, "cpu": 2}
    result = casemate.execute(["sh", "-c", shell], limits=limits, engine=engine)
    for stream in (result.stdout, result.stderr):
        assert len(stream.head) + len(stream.tail) + stream.truncated_bytes == stream.total_bytes
    print(result.reason, result.stdout.total_bytes, result.stderr.total_bytes, peak_kib() - before)
"""


def flood(apart: Apart, size: int, limit: str, timeout_s: float) -> tuple[str, int, int]:
    done = apart(FLOOD, str(size), limit, str(timeout_s), within_s=timeout_s + 30)
    assert done.returncode == 0, done.stderr
    reason, stdout, stderr, growth_kib = done.stdout.split()
    assert int(growth_kib) <= FLOOD_GROWTH_MAX_KIB
    return reason, int(stdout), int(stderr)


def test_o1_flood_is_cut_and_counted(apart: Apart, slowness: float) -> None:
    assert flood(apart, 48 * MIB, "100Gi", 10 * slowness) == ("exit", 48 * MIB, 48 * MIB)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_o1_flood_of_10_gb_costs_no_memory(apart: Apart) -> None:
    assert flood(apart, 5_000_000_000, "100Gi", 240) == ("exit", 5_000_000_000, 5_000_000_000)


@pytest.mark.limits
def test_o1_flood_meets_the_limit(apart: Apart, slowness: float) -> None:
    reason, stdout, stderr = flood(apart, 5_000_000_000, "8Mi", 10 * slowness)
    assert reason == "output"
    assert stdout + stderr == 8 * MIB


@pytest.mark.limits
def test_o1_flood_without_end(execute: Execute) -> None:
    result = execute(["yes", "x" * 1000], limits={"output": "1Mi"})
    assert (result.status, result.reason) == (Status.FAILED, Reason.OUTPUT)
    assert result.stdout.total_bytes == MIB
    assert result.stdout.text.startswith("x" * 1000 + "\n")


@pytest.mark.limits
@pytest.mark.parametrize("limit", [0, 1, 1000, 300_000])
def test_o3_exactly_the_limit_and_one_byte_more(execute: Execute, limit: int) -> None:
    exact = execute(["head", "-c", str(limit), "/dev/zero"], limits={"output": limit})
    assert (exact.reason, exact.stdout.total_bytes) == (Reason.EXIT, limit)
    over = execute(["head", "-c", str(limit + 1), "/dev/zero"], limits={"output": limit})
    assert (over.reason, over.stdout.total_bytes) == (Reason.OUTPUT, limit)
    assert over.status is Status.FAILED


@pytest.mark.limits
def test_o3_both_streams_count_together(execute: Execute) -> None:
    command = ["sh", "-c", "head -c 600 /dev/zero; head -c 500 /dev/zero >&2"]
    assert execute(command, limits={"output": 1100}).reason is Reason.EXIT
    assert execute(command, limits={"output": 1099}).reason is Reason.OUTPUT


# O2 O14: what was said before the end -------------------------------------------------------------


@pytest.mark.limits
def test_o2_slow_drip(python: Execute, slowness: float) -> None:
    drip = """
        import sys, time
        for number in range(1000):
            sys.stdout.write(str(number % 10))
            sys.stdout.flush()
            time.sleep(0.05)
    """
    timeout_s = 0.6 * max(1.0, slowness / 4)
    result = python(drip, limits={"timeout": timeout_s})
    assert result.reason is Reason.TIMEOUT
    assert result.stdout.text == ("0123456789" * 100)[: result.stdout.total_bytes]
    assert 3 <= result.stdout.total_bytes <= timeout_s / 0.05 + 1
    assert timeout_s <= result.usage.wall_s < timeout_s + 0.5 * slowness


def last_words(how: str) -> str:
    return f"""
        import os, signal, time
        os.write(1, b"o" * {PIPE_BYTES})
        os.write(2, b"e" * {PIPE_BYTES})
        {how}
    """


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", Reason.SIGNAL),
        ("os._exit(5)", Reason.EXIT),
        ("os.abort()", Reason.SIGNAL),
    ],
)
def test_o14_output_before_the_end(python: Execute, how: str, reason: Reason) -> None:
    result = python(last_words(how))
    assert result.reason is reason
    assert result.stdout.text == "o" * PIPE_BYTES
    assert result.stderr.text == "e" * PIPE_BYTES


@pytest.mark.limits
def test_o14_output_before_the_timeout(python: Execute, slowness: float) -> None:
    result = python(last_words("time.sleep(600)"), limits={"timeout": 0.4 * max(1.0, slowness / 5)})
    assert result.reason is Reason.TIMEOUT
    assert (result.stdout.total_bytes, result.stderr.total_bytes) == (PIPE_BYTES, PIPE_BYTES)


def test_o14_output_in_the_pipe_when_we_kill(execute: Execute) -> None:
    """Nobody reads while the callback runs: what the pipe holds then is still drained after the kill."""
    token = CancelToken()
    shell = f"echo first; head -c {PIPE_BYTES} /dev/zero; exec sleep 600"
    result = execute(["sh", "-c", shell], on_output=lambda _: token.cancel(), cancel=token)
    assert result.reason is Reason.CANCELLED
    assert result.stdout.text.startswith("first\n")


# O4 O5 O12: whatever bytes ------------------------------------------------------------------------


def as_json(result: Result) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(msgspec.json.encode(result))
    return parsed


def test_o4_every_byte_comes_out_as_it_went_in(execute: Execute) -> None:
    data = bytes(range(256)) * 1000
    result = execute(["cat"], stdin=data)
    assert result.stdout.head + result.stdout.tail == data
    assert as_json(result)["stdout"]["truncated_bytes"] == 0


def test_o4_head_and_tail_are_exact(execute: Execute) -> None:
    data = b"".join(number.to_bytes(4) for number in range(500_000))
    stream = execute(["cat"], stdin=data, limits={"output": "8Mi"}).stdout
    assert stream.head == data[:CAPTURE_HEAD_BYTES]
    assert stream.tail == data[-CAPTURE_TAIL_BYTES:]
    assert stream.truncated_bytes == len(data) - CAPTURE_HEAD_BYTES - CAPTURE_TAIL_BYTES


def test_o4_characters_cut_in_the_middle(execute: Execute) -> None:
    data = b"." + "\u20ac".encode() * 500_000
    result = execute(["cat"], stdin=data, limits={"output": "8Mi"})
    assert result.stdout.truncated_bytes > 0
    assert "\ufffd" in result.stdout.text
    assert f"{result.stdout.truncated_bytes} bytes left out" in result.stdout.text
    assert as_json(result)["status"] == "succeeded"


@pytest.mark.parametrize("text", [b"\xed\xa0\x80", b"\xff\xfe", b"\xc3", b"\x00\x00", b"\xf4\x90\x80\x80"])
def test_o4_what_is_no_text(execute: Execute, text: bytes) -> None:
    result = execute(["cat"], stdin=text)
    assert result.stdout.head == text
    json.dumps(result.stdout.text, ensure_ascii=False).encode()
    as_json(result)


@pytest.mark.parametrize("value", ["'\\ud800'", "'\\x00'", "{'\\udfff': 1}", "['\\ud83d', '\\ude00']", "'\\ufffe'"])
def test_o4_strange_text_as_an_output_value(engine: Engine, value: str) -> None:
    result = casemate.run(f"output = {value}", engine=engine)
    as_json(result)
    assert result.reason in {Reason.EXIT, Reason.VALIDATION}
    assert (result.output is None) == (result.reason is Reason.VALIDATION)


DATA_ONLY: Final = {
    "terminal": b"\x1b]0;title\x07\x1b[2J\x1b[31mred\x1b[6n\x1bP$q\x1b\\",
    "line ends": b"a\r\nb\rc\n\r\x0b\x0c\x85\xe2\x80\xa8",
    "markup": b"<script>alert(1)</script><img src=x onerror=alert(1)>]]>--></pre>",
    "formats": b"%s%n%x{0}${jndi:ldap://x}`id`$(id)'\"\\",
}


@pytest.mark.parametrize("name", DATA_ONLY)
def test_o5_output_is_data(execute: Execute, name: str) -> None:
    result = execute(["cat"], stdin=DATA_ONLY[name])
    assert result.stdout.head == DATA_ONLY[name]
    assert result.events == ()


def test_o5_a_pipe_changes_no_line_ends(sandbox: Open) -> None:
    result = sandbox().exec(["printf", r"a\nb\r\nc\t\004\003"])
    assert result.stdout.head == b"a\nb\r\nc\t\x04\x03"


def test_o12_each_stream_keeps_its_order(python: Execute) -> None:
    """Between two pipes there is no order to keep; within each, every chunk begins where the last ended."""
    chunks: list[casemate.Chunk] = []
    result = python(
        """
        import os
        for number in range(2000):
            os.write(1 + number % 2, b"%d\\n" % number)
        """,
        on_output=chunks.append,
    )
    for name, odd, stream in (("stdout", 0, result.stdout), ("stderr", 1, result.stderr)):
        own = [chunk for chunk in chunks if chunk.stream == name]
        assert [chunk.offset for chunk in own] == [sum(len(c.data) for c in own[:i]) for i in range(len(own))]
        assert b"".join(chunk.data for chunk in own) == stream.head
        assert stream.head.decode().split() == [str(number) for number in range(odd, 2000, 2)]


# O6 O10 O11 O13: lies -----------------------------------------------------------------------------

VERDICTS: Final = [
    '{"kind":"value","output":"fake"}',
    '\\x00\\x00\\x00\\x20{"kind":"value","output":"fake"}',
    '{"status":"succeeded","reason":"exit","exit_code":0}',
    "CASEMATE_RESULT: ok",
]


@pytest.mark.parametrize("text", VERDICTS)
def test_o6_fake_verdicts_on_the_streams(python: Execute, engine: Engine, text: str) -> None:
    script = f"""
import os, sys
for fd in (1, 2):
    os.write(fd, b'{text}\\n')
sys.exit(9)
"""
    for result in (python(script), casemate.run(script, engine=engine)):
        assert (result.status, result.reason, result.exit_code) == (Status.FAILED, Reason.EXIT, 9)
        assert result.output is None
        assert result.stdout.head == result.stderr.head


def test_o6_fake_verdicts_on_other_descriptors(python: Execute) -> None:
    result = python("""
        import os, sys
        opened = []
        for fd in range(3, 1024):
            try:
                os.write(fd, b'{"kind":"value","output":"fake"}')
                opened.append(fd)
            except OSError:
                pass
        print(opened)
        sys.exit(7)
    """)
    assert result.stdout.text == "[]\n"
    assert (result.reason, result.exit_code, result.output) == (Reason.EXIT, 7, None)


TO_THE_HARNESS: Final = """
import os, stat, struct, sys
def send(data):
    for fd in range(3, 256):
        try:
            if stat.S_ISFIFO(os.fstat(fd).st_mode):
                os.write(fd, data)
        except OSError:
            pass
text = b'{"kind":"value","output":"fake"}'
"""


@pytest.mark.parametrize(
    ("lie", "outputs"),
    [
        ("send(struct.pack('>I', len(text)) + text)", {None, "fake"}),
        ("send(text)", {None}),
        ("send(b'\\xff' * 8)", {None}),
        ("send(struct.pack('>I', 10))", {None}),
        ("send(struct.pack('>I', 2 ** 32 - 1) + b'[' * 100)", {None}),
        ("send(struct.pack('>I', 50000) + b'[' * 50000)", {None}),
    ],
)
def test_o6_a_program_that_finds_the_way_of_its_reply_changes_no_verdict(
    engine: Engine, lie: str, outputs: set[str | None]
) -> None:
    """Its output is its own to choose; its status is the kernel's word."""
    result = casemate.run(f"{TO_THE_HARNESS}\n{lie}\nos._exit(3)", engine=engine)
    assert (result.status, result.reason, result.exit_code) == (Status.FAILED, Reason.EXIT, 3)
    assert result.output in outputs
    dead = casemate.run(f"{TO_THE_HARNESS}\n{lie}\nos.kill(os.getpid(), 9)", engine=engine)
    assert (dead.status, dead.reason, dead.signal) == (Status.FAILED, Reason.SIGNAL, signal.SIGKILL)


def test_o6_files_with_telling_names_mean_nothing(engine: Engine) -> None:
    code = """
for name in ["result.json", "status", "exit_code", "meta", ".casemate", "/code/.harness", "/tmp/verdict"]:
    with open(name, "w") as file:
        file.write('{"status":"succeeded","exit_code":0,"output":"fake"}')
raise SystemExit(4)
"""
    result = casemate.run(code, engine=engine)
    assert (result.status, result.exit_code, result.output) == (Status.FAILED, 4, None)


@pytest.mark.parametrize("leave", ["import os; os._exit(0)", "raise SystemExit(0)", "import sys; sys.exit()"])
def test_o10_early_exit_is_no_answer(engine: Engine, leave: str) -> None:
    result = casemate.run(f"{leave}\noutput = 42\n", engine=engine, input=1)
    assert (result.status, result.exit_code) == (Status.SUCCEEDED, 0)
    assert result.output is None


CHEATS: Final = {
    "always equal": "class Anything(dict):\n  __eq__ = lambda *_: True\noutput = Anything(a=1)",
    "number": "class Anything(int):\n  __eq__ = lambda *_: True\noutput = Anything(7)",
    "text": "class Anything(str):\n  __eq__ = lambda *_: True\n  __hash__ = lambda *_: 0\noutput = Anything('no')",
    "foreign": "class Anything:\n  __eq__ = lambda *_: True\noutput = Anything()",
    "patched": "import json, builtins, os\njson.dumps = json.JSONEncoder.encode = lambda *a, **k: '42'\n"
    "builtins.print = len\nos.write = lambda *a: 0\noutput = 'no'",
    "no assertions": "import sys, unittest, atexit\nbuiltins = __builtins__\nsys.stdout = sys.stderr = None\n"
    "unittest.TestCase = object\natexit.register(lambda: 42)\noutput = 'no'",
}


@pytest.mark.parametrize("name", CHEATS)
def test_o11_expected_values_are_compared_outside(engine: Engine, name: str) -> None:
    """Whatever the guest replaces inside, what arrives here is plain data of ours."""
    result = casemate.run(CHEATS[name], engine=engine)
    assert type(result.output) in {dict, int, str, type(None)}
    if name != "patched":
        assert result.output != 42
    assert result.output != "the expected answer"


@pytest.mark.parametrize("code", [124, 125, 126, 127, 128, 130, 137, 139, 143, 255])
def test_o13_exit_codes_that_look_like_ours(execute: Execute, code: int) -> None:
    result = execute(["sh", "-c", f"exit {code}"])
    assert (result.status, result.reason) == (Status.FAILED, Reason.EXIT)
    assert (result.exit_code, result.signal) == (code, None)
    assert result.error is None


# O7 O8 O9: the three descriptors ------------------------------------------------------------------


def test_o7_closed_stdio_does_not_end_the_run(python: Execute) -> None:
    result = python("""
        import os, time
        for fd in (0, 1, 2):
            os.close(fd)
        time.sleep(0.3)
        os._exit(6)
    """)
    assert (result.reason, result.exit_code) == (Reason.EXIT, 6)
    assert result.usage.wall_s >= 0.3


def test_o7_reopened_stdio(python: Execute) -> None:
    result = python("""
        import os
        os.write(os.open("/dev/stdout", os.O_WRONLY), b"by path\\n")
        os.write(os.open("/proc/self/fd/2", os.O_WRONLY), b"by proc\\n")
        for fd in (0, 1, 2):
            os.close(fd)
        for _ in range(3):
            os.open("/dev/null", os.O_RDWR)
        print("into the void")
    """)
    assert (result.reason, result.exit_code) == (Reason.EXIT, 0)
    assert (result.stdout.text, result.stderr.text) == ("by path\n", "by proc\n")


def test_o7_a_program_that_reads_its_own_output(python: Execute) -> None:
    """A pipe can be opened at its other end; what a program takes back, it has not said."""
    result = python("""
        import os
        again = os.open("/proc/self/fd/1", os.O_RDONLY | os.O_NONBLOCK)
        for number in range(100):
            os.write(1, b"x" * 1000)
            try:
                os.read(again, 100000)
            except BlockingIOError:
                pass
    """)
    assert result.ok
    assert result.stdout.total_bytes <= 100_000


@pytest.mark.parametrize("command", [["true"], ["sh", "-c", "exec 0<&-; sleep 0.2"], ["sleep", "0.2"]])
def test_o8_a_gigabyte_that_nobody_reads(execute: Execute, tmp_path: Path, command: list[str]) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(10**9)
    with path.open("rb") as file:
        assert execute(command, stdin=file).ok
        assert file.tell() < MIB
    assert execute(command, stdin=bytes(16 * MIB)).ok


def test_o9_a_program_that_stops_reading(execute: Execute) -> None:
    result = execute(["sh", "-c", "head -c 5; exec 0<&-; sleep 0.1; echo done"], stdin=b"first" + bytes(4 * MIB))
    assert result.stdout.text == "firstdone\n"


def test_o9_input_that_ends_early_or_never(execute: Execute, slowness: float) -> None:
    assert execute(["cat"], stdin=b"").stdout.text == ""
    assert execute(["cat"]).stdout.text == ""
    with subprocess.Popen(["sleep", "60"], stdout=subprocess.PIPE) as silent:
        result = execute(["cat"], stdin=silent.stdout, limits={"timeout": 0.2 * max(1.0, slowness / 5)})
        silent.kill()
    assert result.reason is Reason.TIMEOUT


def test_o9_terminal_questions_to_a_pipe(ask_python: Answers) -> None:
    answers = ask_python(
        """
        import fcntl, termios
        for fd in (0, 1, 2):
            say(f"terminal {fd}", os.isatty(fd))
            for name in ("TCGETS", "TIOCGWINSZ", "TIOCGPGRP", "TIOCSCTTY", "TIOCNOTTY"):
                attempt(f"{name} {fd}", fcntl.ioctl, fd, getattr(termios, name), bytes(64))
        """,
        stdin=b"x",
    )
    assert {answers.pop(f"terminal {fd}") for fd in range(3)} == {"False"}
    assert set(answers.values()) == {"ENOTTY"}


# O15: requests that make no sense -----------------------------------------------------------------

CIRCLE: Final[list[Any]] = []
CIRCLE.append(CIRCLE)


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


BAD_LIMITS: Final[list[tuple[str, Any]]] = [
    ("memory", -1),
    ("memory", True),
    ("memory", 1.5),
    ("memory", "lots"),
    ("memory", "1e9"),
    ("memory", 10**30),
    ("memory", "9" * 400),
    ("memory", "\u0661Gi"),
    ("memory", None),
    ("memory", []),
    ("memory", 0),
    ("timeout", -0.1),
    ("timeout", math.nan),
    ("timeout", math.inf),
    ("timeout", 0),
    ("timeout", 1e308),
    ("timeout", "5 parsecs"),
    ("timeout", "-5s"),
    ("timeout", False),
    ("cpu_time", math.nan),
    ("cpu_time", -1),
    ("cpu", 0),
    ("cpu", math.nan),
    ("cpu", "0x1"),
    ("processes", 0),
    ("processes", 1.5),
    ("processes", 10**9),
    ("processes", True),
    ("disk", -5),
    ("disk", 1),
    ("inodes", 0.5),
    ("inodes", -1),
    ("open_files", 0),
    ("open_files", 2**64),
    ("output", -1),
    ("output", 2**80),
    ("m\u00e9mory", 1),
    ("__class__", 1),
    ("", 1),
]


@pytest.fixture
def idle() -> Iterator[Engine]:
    """An engine that has started nothing, and must not."""
    with Engine(warm=False) as engine:
        yield engine
        assert engine.backend.launcher.pid == 0


def refused(field: str, call: Callable[..., object], *args: object, **options: object) -> None:
    started_s = time.monotonic()
    with pytest.raises(InvalidInput) as caught:
        call(*args, **options)
    assert caught.value.field == field
    assert len(str(caught.value)) < 2000
    assert "\n" not in str(caught.value)
    assert time.monotonic() - started_s < 30


@pytest.mark.parametrize("name", dict.fromkeys(name for name, _ in BAD_LIMITS))
def test_o15_limits(idle: Engine, name: str) -> None:
    for limits in [{name: value} for tried, value in BAD_LIMITS if tried == name]:
        refused(f"limits.{name}", casemate.execute, ["true"], limits=limits, engine=idle)
        refused(f"limits.{name}", casemate.run, "1", limits=limits, engine=idle)
        refused(f"limits.{name}", Sandbox, limits=limits, engine=idle)


def test_o15_limits_as_a_value(idle: Engine) -> None:
    values: dict[str, Any] = {"wall_s": math.nan, "cpus": math.inf, "memory_bytes": -1, "processes": 0}
    for name, value in values.items():
        with pytest.raises(InvalidInput):
            Limits(**{name: value})


BAD_REQUESTS: Final[list[tuple[str, dict[str, Any]]]] = [
    ("code", {"code": "#" * (1024 * KIB + 1)}),
    ("code", {"code": b"print(1)"}),
    ("code", {"code": None}),
    ("code", {"code": "a\0b"}),
    ("code", {"code": "'\ud800'"}),
    ("runtime", {"runtime": "cobol"}),
    ("runtime", {"runtime": "../python"}),
    ("runtime", {"runtime": ""}),
    ("input", {"input": math.nan}),
    ("input", {"input": {1, 2}}),
    ("input", {"input": object()}),
    ("input", {"input": CIRCLE}),
    ("input", {"input": nested(100_000)}),
    ("input", {"input": "x" * (10 * MIB)}),
    ("input", {"input": b"bytes"}),
    ("input", {"input": "\ud800"}),
    ("filename", {"filename": "../main.py"}),
    ("filename", {"filename": ""}),
    ("filename", {"filename": "a\0b"}),
    ("filename", {"filename": "x" * 300}),
    ("args", {"args": ["a\0b"]}),
    ("args", {"args": ["x"] * 5000}),
    ("args", {"args": ["x" * (1024 * KIB)]}),
    ("args", {"args": [1]}),
    ("args", {"args": "text"}),
    ("env", {"env": {"": "x"}}),
    ("env", {"env": {"A=B": "x"}}),
    ("env", {"env": {"A": "x\0y"}}),
    ("env", {"env": {"A": 1}}),
    ("env", {"env": {1: "x"}}),
    ("env", {"env": {f"A{number}": "" for number in range(5000)}}),
    ("env", {"env": {"A": "x" * MIB}}),
    ("files", {"files": {"../x": b""}}),
    ("files", {"files": {"/etc/passwd": b""}}),
    ("files", {"files": {"a/../../b": b""}}),
    ("files", {"files": {"": b""}}),
    ("files", {"files": {".": b""}}),
    ("files", {"files": {"a\0b": b""}}),
    ("files", {"files": {"x" * 300: b""}}),
    ("files", {"files": {"d/": b""}}),
    ("files", {"files": {"a": b"", "./a": b""}}),
    ("files", {"files": {"a": 1}}),
    ("files", {"files": {"a": Path("/no/such/file")}}),
    ("files", {"files": {"a": Path("/")}}),
    ("files", {"files": {f"f{number}": b"" for number in range(100_000)}}),
    ("files", {"files": {"a": bytes(2 * MIB)}, "limits": {"disk": "1Mi"}}),
    ("collect", {"collect": ["../*"]}),
    ("collect", {"collect": ["/etc/*"]}),
    ("collect", {"collect": [""]}),
    ("collect", {"collect": ["a\0"]}),
    ("stdin", {"stdin": object()}),
    ("stdin", {"stdin": True}),
    ("stdin", {"stdin": -1}),
    ("require", {"require": ["magic"]}),
    ("require", {"require": "landlock"}),
]


@pytest.mark.parametrize("field", dict.fromkeys(field for field, _ in BAD_REQUESTS))
def test_o15_requests(idle: Engine, field: str) -> None:
    for options in [options for tried, options in BAD_REQUESTS if tried == field]:
        refused(field, casemate.run, **{"code": "1", **options}, engine=idle)


BAD_COMMANDS: Final[list[Any]] = [[], [""], ["a\0b"], ["x"] * 5000, ["x" * MIB], [1], "ls", None]


def test_o15_commands(idle: Engine) -> None:
    for argv in BAD_COMMANDS:
        refused("argv", casemate.execute, argv, engine=idle)


def test_o15_requests_to_a_sandbox(sandbox: Open) -> None:
    opened = sandbox()
    refused("code", opened.run, "x" * (1024 * KIB + 1))
    refused("input", opened.run, "true", input=math.nan)
    refused("files", opened.run, "true", files={"../x": b""})
    refused("limits.memory", opened.run, "true", limits={"memory": "1Gi"})
    refused("limits.timeout", opened.run, "true", limits={"timeout": -1})
    refused("argv", opened.exec, [])
    refused("cwd", opened.exec, ["true"], cwd="../..")
    refused("path", opened.files.read, "../../etc/passwd")
    refused("path", opened.files.write, "/usr/bin/x", b"")
    refused("path", opened.files.write, "a\0b", b"")
    refused("path", opened.files.list, "/proc")
    refused("path", opened.files.remove, "/work")
    assert opened.run("echo still here").stdout.text == "still here\n"


# O16: the caller goes away ------------------------------------------------------------------------


def test_o16_a_stream_that_is_closed_ends_the_run(engine: Engine) -> None:
    with casemate.stream("import time\nprint('here', flush=True)\ntime.sleep(600)", engine=engine) as stream:
        assert next(stream).data == b"here\n"


def test_o16_a_callback_that_raises_ends_the_run(execute: Execute) -> None:
    class Gone(Exception):
        pass

    def on_output(_: casemate.Chunk) -> None:
        raise Gone

    with pytest.raises(Gone):
        execute(["sh", "-c", "echo here; sleep 600"], on_output=on_output)


async def cancel_when_it_speaks(running: asyncio.Task[Result], said: asyncio.Event) -> None:
    waiting = asyncio.create_task(said.wait())
    await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    assert not running.done(), running
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


def test_o16_a_cancelled_task_ends_the_run(engine: Engine) -> None:
    async def scenario() -> None:
        said = asyncio.Event()
        running = asyncio.create_task(
            casemate.aexecute(["sh", "-c", "echo here; sleep 600"], on_output=lambda _: said.set(), engine=engine)
        )
        await cancel_when_it_speaks(running, said)

    asyncio.run(scenario())


def test_o16_a_cancelled_run_in_a_sandbox_leaves_the_sandbox(engine: Engine) -> None:
    async def scenario() -> None:
        async with AsyncSandbox("bash", engine=engine) as sandbox:
            said = asyncio.Event()
            running = asyncio.create_task(sandbox.run("echo here; sleep 600", on_output=lambda _: said.set()))
            await cancel_when_it_speaks(running, said)
            assert (await sandbox.run("echo again")).stdout.text == "again\n"

    asyncio.run(scenario())


def test_o16_a_token_ends_the_run_from_another_thread(execute: Execute) -> None:
    token = CancelToken()
    timer = threading.Timer(0.2, token.cancel)
    timer.start()
    result = execute(["sleep", "600"], cancel=token)
    timer.join()
    assert (result.status, result.reason) == (Status.FAILED, Reason.CANCELLED)

"""What every attack shares: one engine, probes in C and Python, and the check that nothing is left over afterwards.

Every test is named after its case in the list of attacks and runs inside real sandboxes. It passes in every mode:
as root and as an ordinary user, with control groups of version 1 and 2 and without any.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NoReturn

import msgspec
import pytest
from tests.machine import sandbox_mounts
from tests.warm import open_engine

import casemate
from casemate.isolation.syscalls import NUMBERS
from casemate.kernel.cgroup_types import CgroupUnavailable
from casemate.kernel.processes import process_tree

PROBES: Final = Path(__file__).parent / "probes"
SYSTEM_PYTHON: Final = "/usr/bin/python3"
TIMEOUT_S: Final = 10.0
SETTLE_S: Final = 3.0
POLL_S: Final = 0.005
COMPILE_TIMEOUT_S: Final = 20.0
PROCESS_TIMEOUT_S: Final = 60.0
ANSWER: Final = "\t"
"""Between the words of a line that a probe says: what was tried, and what the kernel answered."""

NOTHING: Final[Mapping[str, object]] = MappingProxyType({})

Execute = Callable[..., casemate.Result]
Answers = Callable[..., "dict[str, str]"]


# Reporting ----------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def not_run() -> Callable[[str, str], NoReturn]:
    """Return what reports a case as not run, for a facility that this machine truly lacks."""

    def report(case: str, reason: str) -> NoReturn:
        pytest.skip(f"{case} not run: {reason}")

    return report


# Running ------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def engine() -> Iterator[casemate.Engine]:
    with open_engine() as opened:
        casemate.execute(["/bin/true"], engine=opened)
        yield opened


@pytest.fixture(scope="session")
def cgroup(engine: casemate.Engine) -> str:
    """Return what holds the limits here: `v1`, `v2` or `none`."""
    root = engine.backend.cgroups
    return "none" if isinstance(root, CgroupUnavailable) else root.version


@pytest.fixture(scope="session")
def default_limits(slowness: float) -> dict[str, Any]:
    """Return what every run gets here; the time is what a slow machine needs."""
    return {"timeout": TIMEOUT_S * slowness}


@pytest.fixture(scope="session")
def execute(engine: casemate.Engine, default_limits: dict[str, Any]) -> Execute:
    """Run a program of the base in a sandbox of its own."""

    def start(argv: list[str], *, limits: Mapping[str, object] = NOTHING, **options: object) -> casemate.Result:
        wanted = {**default_limits, **limits}
        # A union of options is no longer the typed dictionary that the signature asks for.
        call: Execute = casemate.execute
        return call(argv, engine=engine, limits=wanted, **options)

    return start


@pytest.fixture(scope="session")
def python(execute: Execute) -> Execute:
    """Run a script in the base's own Python, without a harness, in a sandbox of its own."""

    def start(code: str, *args: str, **options: object) -> casemate.Result:
        return execute([SYSTEM_PYTHON, "-I", "-S", "-c", textwrap.dedent(code), *args], **options)

    return start


@pytest.fixture(scope="session")
def ask_python(python: Execute) -> Answers:
    """Run a script that prints one `what TAB answer` a line and ends well; returns the answers."""

    def ask(code: str, *args: str, **options: object) -> dict[str, str]:
        return answers_of(python(SAY + textwrap.dedent(code), *args, **options))

    return ask


SAY: Final = """
import errno, os, sys
def say(what, answer):
    print(what, answer, sep="\\t", flush=True)
def attempt(what, call, *args, **options):
    try:
        answer = call(*args, **options)
    except OSError as error:
        say(what, errno.errorcode.get(error.errno, str(error.errno)))
        return None
    say(what, "OK")
    return answer
"""


@pytest.fixture(scope="session")
def say() -> str:
    """Return the Python that a script needs to say its answers."""
    return SAY


@pytest.fixture
def sandbox(engine: casemate.Engine, default_limits: dict[str, Any]) -> Iterator[Callable[..., casemate.Sandbox]]:
    """Make sandboxes that stay until the test ends."""
    with ExitStack() as opened:

        def make(**limits: object) -> casemate.Sandbox:
            return opened.enter_context(casemate.Sandbox("bash", engine=engine, limits={**default_limits, **limits}))

        yield make


# Probes in C --------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory, slowness: float) -> Callable[[str], bytes]:
    """Compile `probes/NAME.c` to one static program, once a session; returns its bytes."""
    folder = tmp_path_factory.mktemp("probes")
    programs: dict[str, bytes] = {}

    def build(name: str) -> bytes:
        if name not in programs:
            target = folder / name
            flags = ["-std=gnu11", "-O1", "-static", "-pthread", "-Wall", "-Wextra", "-Werror", f"-I{PROBES}"]
            source = str(PROBES / f"{name}.c")
            subprocess.run(["cc", *flags, "-o", str(target), source], check=True, timeout=COMPILE_TIMEOUT_S * slowness)
            programs[name] = target.read_bytes()
        return programs[name]

    return build


@pytest.fixture(scope="session")
def run_probe(execute: Execute, compiled: Callable[[str], bytes]) -> Execute:
    """Run `probes/NAME.c` with arguments in a sandbox of its own."""

    def start(name: str, *args: str, files: Mapping[str, object] = NOTHING, **options: object) -> casemate.Result:
        program = "/code/probe"
        argv = ["/bin/sh", "-c", f'chmod 755 {program} && exec {program} "$@"', "probe", *args]
        return execute(argv, files={**files, program: compiled(name)}, **options)

    return start


@pytest.fixture(scope="session")
def ask(run_probe: Execute) -> Answers:
    """Run a probe that ends well, in a sandbox of its own; returns its answers by what was tried."""

    def ask_one(name: str, *args: str, **options: object) -> dict[str, str]:
        return answers_of(run_probe(name, *args, **options))

    return ask_one


def answers_of(result: casemate.Result) -> dict[str, str]:
    assert result.ok, (result.reason, result.exit_code, result.signal, result.stdout.text, result.stderr.text)
    lines = [line.split(ANSWER, 1) for line in result.stdout.text.splitlines() if ANSWER in line]
    assert lines, (result.stdout.text, result.stderr.text)
    return {words[0]: words[1] for words in lines}


@pytest.fixture(scope="session")
def answers() -> Callable[[casemate.Result], dict[str, str]]:
    """Return what parses the answers out of a Result that ended well."""
    return answers_of


# System calls, neighbours and other engines -------------------------------------------------------


@pytest.fixture(scope="session")
def call(ask: Answers) -> Callable[[Mapping[str, tuple[Any, ...]]], dict[str, str]]:
    """Make system calls, `{what: (name or number, *arguments)}`, in one sandbox; arguments as in probes/calls.c."""

    def make(calls: Mapping[str, tuple[Any, ...]], **options: object) -> dict[str, str]:
        words = []
        for what, (name, *arguments) in calls.items():
            number = NUMBERS[name] if isinstance(name, str) else name
            words.append(f"{what}=" + ":".join(map(str, (number, *arguments))))
        return ask("calls", *words, **options)

    return make


@pytest.fixture(scope="session")
def meanwhile(execute: Execute) -> Execute:
    """Run a program; at its first output do something out here, and then end its standard input."""

    def start(argv: list[str], act: Callable[[str], object], **options: object) -> casemate.Result:
        read_fd, write_fd = os.pipe()
        with os.fdopen(read_fd, "rb") as stdin, os.fdopen(write_fd, "wb") as held:

            def on_output(chunk: casemate.Chunk) -> None:
                if not held.closed:
                    act(chunk.data.decode())
                    held.close()

            return execute(argv, stdin=stdin, on_output=on_output, **options)

    return start


@pytest.fixture(scope="session")
def apart(slowness: float) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a script that uses Casemate in a process of its own; `before` are words in front of the command."""

    def start(
        code: str, *args: str, before: Iterable[str] = (), within_s: float = PROCESS_TIMEOUT_S, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*before, sys.executable, "-c", textwrap.dedent(code), *args],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=within_s * slowness,
            check=False,
        )

    return start


@pytest.fixture(scope="session")
def is_emulated() -> bool:
    """Return whether this is User Mode Linux, whose processor has no 32-bit entry of its own."""
    return "User Mode Linux" in Path("/proc/cpuinfo").read_text()


# Nothing is left over -----------------------------------------------------------------------------


class Footprint(msgspec.Struct, frozen=True):
    """What this process holds of the machine; the same before and after every attack."""

    processes: tuple[str, ...]
    descriptors: tuple[str, ...]
    mounts: tuple[str, ...]
    groups: tuple[str, ...]


def _processes() -> tuple[str, ...]:
    names = []
    for pid in process_tree(os.getpid()):
        with suppress(OSError):
            names.append(Path(f"/proc/{pid}/comm").read_text().strip())
    return tuple(sorted(names))


def _descriptors() -> tuple[str, ...]:
    found = []
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            target = str(link.readlink())
            if target != f"/proc/{os.getpid()}/fd":
                found.append(target.partition("[")[0])
    return tuple(sorted(found))


def _groups(engine: casemate.Engine) -> tuple[str, ...]:
    root = engine.backend.cgroups
    if isinstance(root, CgroupUnavailable):
        return ()
    bases = {Path(path).parent for path in root._directories.paths}  # type: ignore[attr-defined]
    ours = [folder for base in bases for folder in base.glob(f"casemate-{os.getpid()}-*")]
    # Unlike Path.rglob this passes over what another engine of ours is just removing.
    return tuple(sorted(directory for folder in ours for directory, _, _ in os.walk(folder)))


def _footprint(engine: casemate.Engine) -> Footprint:
    engine.rest()
    return Footprint(_processes(), _descriptors(), sandbox_mounts(engine), _groups(engine))


def _changes(before: Footprint, after: Footprint) -> dict[str, list[str]]:
    """What came and what went, by kind. Processes may go: one that was dying before may still have been there."""
    kinds = Footprint.__struct_fields__
    was, now = ({name: Counter(getattr(each, name)) for name in kinds} for each in (before, after))
    found = {f"more {name}": now[name] - was[name] for name in kinds}
    found |= {f"fewer {name}": was[name] - now[name] for name in kinds if name != "processes"}
    return {name: sorted(counted.elements()) for name, counted in found.items() if counted}


@pytest.fixture(scope="module", autouse=True)
def no_garbage_of_others() -> None:
    """Descriptors of earlier files' objects in cycles would be closed at any moment later."""
    gc.collect()


@pytest.fixture(autouse=True)
def nothing_left_over(
    engine: casemate.Engine, execute: Execute, slowness: float, request: pytest.FixtureRequest
) -> Iterator[None]:
    """After every attack the machine is as before it, and the next run works."""
    for name in request.fixturenames:
        if name.endswith("_engine"):  # what the attack before had there is still being released
            request.getfixturevalue(name).backend.settle()
    before = _footprint(engine)
    yield
    result = execute(["/bin/true"])
    assert result.ok, result
    deadline_s = time.monotonic() + SETTLE_S * slowness
    while (changes := _changes(before, _footprint(engine))) and time.monotonic() < deadline_s:
        time.sleep(POLL_S)
    assert changes == {}

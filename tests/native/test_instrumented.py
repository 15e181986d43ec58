"""The whole launcher under the sanitizers and under valgrind, while it really builds and serves sandboxes.

The sanitized launcher makes every system call for real, filter and all. Valgrind does not know some of
the calls; `valgrind_kernel.c` says what happens to those. Programs of the guest run without instruments.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from tests.native.instruments import Instrument
from tests.native.plans import real_plans, real_requests
from tests.networks import lacks_egress

import casemate
from casemate.engine.program import GUEST_MOUNT
from casemate.engine.run import find_runtime
from casemate.isolation.launcher import Launcher
from casemate.isolation.rootfs import private_directories
from casemate.model.result import Reason


@pytest.fixture(params=["sanitizers", "valgrind"])
def build(request: pytest.FixtureRequest) -> Path:
    name = "sanitized_build" if request.param == "sanitizers" else "valgrind_build"
    built: Path = request.getfixturevalue(name)
    return built


def instrument(build: Path, name: str, directory: Path) -> Instrument:
    return Instrument(directory, build / name, valgrind=not build.name.startswith("sanitized"))


@pytest.fixture
def engine(build: Path, tmp_path: Path) -> Iterator[casemate.Engine]:
    """An engine whose launcher is instrumented; there must be no report at its end."""
    instrumented = instrument(build, "launcher", tmp_path)
    with casemate.Engine(warm=False) as opened:
        opened.backend._launcher.close()
        opened.backend._launcher = Launcher(instrumented.program, copy=False)
        if build.name.startswith("valgrind"):
            mounts = (GUEST_MOUNT, *find_runtime(opened, "python")[1].mounts)
            shared = private_directories(opened.backend.host, mounts)
            opened.backend._host = msgspec.structs.replace(
                opened.backend.host, overlay_refused=shared, device_nodes=False, watched=()
            )
        yield opened
    assert instrumented.reports == ""


def test_instruments_report_a_planted_mistake(build: Path, tmp_path: Path) -> None:
    canary = instrument(build, "canary", tmp_path)
    assert canary.run().returncode != 0
    assert "canary.c" in canary.reports


def test_parsers_read_nothing_uninitialised(build: Path, tmp_path: Path) -> None:
    parsers = instrument(build, "parsers", tmp_path)
    records = [(0, fds, plan) for plan, fds in real_plans()] + [(1, 1, request) for request in real_requests()]
    records += [(kind, fds, data[: len(data) // 2]) for kind, fds, data in records]
    done = parsers.run(b"".join(struct.pack("<III", kind, fds, len(data)) + data for kind, fds, data in records))
    assert (done.returncode, parsers.reports) == (0, "")


def test_runs_with_files_input_and_output(engine: casemate.Engine) -> None:
    result = casemate.run(
        "import pathlib; pathlib.Path('b/c').mkdir(parents=True); pathlib.Path('b/c/d').write_text(input)\noutput = 1",
        input="text",
        files={"a/file": b"content"},
        collect=["**/*"],
        engine=engine,
    )
    assert (result.output, sorted(file.path for file in result.files)) == (1, ["a/file", "b/c/d"])


def test_a_network_of_its_own(engine: casemate.Engine) -> None:
    if lacks_egress(engine):
        pytest.skip("layer egress: this kernel has no nf_tables with tproxy")
    code = """
import socket
try:
    socket.create_connection(("10.0.0.1", 80)).recv(1)
except OSError:
    output = 1
"""
    result = casemate.run(code, network=[], engine=engine)
    assert (result.output, [flow.host for flow in result.flows]) == (1, ["10.0.0.1"])


def test_every_ending_of_a_run(engine: casemate.Engine) -> None:
    def reason(*argv: str, **limits: str | int) -> Reason:
        return casemate.execute(argv, limits=limits, engine=engine).reason

    assert reason("true") is Reason.EXIT
    assert reason("/no/such/program") is Reason.EXIT
    assert reason("/etc/passwd") is Reason.DENIED
    assert reason("sh", "-c", "kill -9 $$") is Reason.SIGNAL
    assert reason("sleep", "100", timeout="100ms") is Reason.TIMEOUT
    assert reason("yes", output="64Ki") is Reason.OUTPUT


def test_a_sandbox_with_many_programs_terminals_and_orphans(engine: casemate.Engine) -> None:
    with casemate.Sandbox("bash", engine=engine) as sandbox:
        threads = [threading.Thread(target=sandbox.exec, args=(["sh", "-c", "true & true"],)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        sandbox.files.write("deep/in/a/file", "x")
        assert [info.name for info in sandbox.files.list("deep/in/a")] == ["file"]
        with pytest.raises(casemate.FileTransferError):
            sandbox.files.read("nothing")
        with sandbox.open_pty(["sh", "-c", "stty size; read line; echo got $line"], rows=33, columns=44) as terminal:
            terminal.write(b"it\n")
            assert terminal.wait() == 0
        assert sandbox.exec(["sleep", "60"], limits={"timeout": "50ms"}).reason is Reason.TIMEOUT
        assert sandbox.exec(["cat"], stdin=b"x" * 300_000).stdout.total_bytes == 300_000


def test_starts_that_fail(engine: casemate.Engine) -> None:
    facts = engine.backend._host
    engine.backend._host = msgspec.structs.replace(facts, staging="/proc/no/such/directory")
    with pytest.raises(casemate.LaunchError):
        casemate.execute(["true"], engine=engine)
    engine.backend._host = facts
    assert casemate.execute(["true"], engine=engine).ok


def test_plans_that_make_no_sense(engine: casemate.Engine) -> None:
    assert casemate.execute(["true"], engine=engine).ok
    for plan, _ in real_plans():
        engine.backend.launcher.send(plan[:-1], [0])
        engine.backend.launcher.send(plan, [])
    assert casemate.execute(["true"], engine=engine).ok

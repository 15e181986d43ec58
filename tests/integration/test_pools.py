"""`casemate pools` and an engine in another process: what it tells, and that it tells nobody else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pytest

import casemate
from casemate.pool.published import places

LIMIT_S: Final = 60.0
SERVICE: Final = """
import sys, casemate
with casemate.Engine() as engine:
    engine.keep_ready("python", 2, limits={"timeout": "60s"})
    casemate.run("output = 1", engine=engine, limits={"timeout": "60s"})
    engine.keep_ready("python", 2, limits={"timeout": "60s"})
    print("ready", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def service(slowness: float) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process whose engine has two sandboxes ready, and has run one program."""
    with subprocess.Popen([sys.executable, "-c", SERVICE], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield process
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)
            process.kill()


@pytest.fixture
def pools(slowness: float) -> Callable[..., subprocess.CompletedProcess[str]]:
    def ask(*words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "casemate", "pools", *words]
        return subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=LIMIT_S * slowness, **options
        )

    return ask


def told_by(process: subprocess.Popen[bytes], answer: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    """What one engine said; those of other tests are no matter of ours."""
    return [engine for engine in json.loads(answer.stdout)["engines"] if engine["pid"] == process.pid]


def left_of(process: subprocess.Popen[bytes]) -> list[Path]:
    return [path for place in places(os.geteuid()) for path in place.glob(f"{process.pid}-*")]


def test_an_engine_of_another_process_tells_what_it_keeps_ready(
    service: subprocess.Popen[bytes], pools: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    (engine,) = told_by(service, pools("--json"))
    assert " -c " in engine["program"]
    (pool,) = engine["pools"]
    assert pool["memory_bytes"] > 0
    expected = {"label": "python", "ready": 2, "starting": 0, "busy": 0, "hits": 1, "misses": 0, "problem": ""}
    assert {key: pool[key] for key in expected} == expected


def test_people_get_a_table(
    service: subprocess.Popen[bytes], pools: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    lines = pools().stdout.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith(f"process {service.pid}  "))
    assert lines[at + 1].split() == ["KIND", "READY", "STARTING", "BUSY", "HITS", "MISSES", "MEMORY", "PROBLEM"]
    assert lines[at + 2].split()[:-1] == ["python", "2", "0", "0", "1", "0"]


def test_an_engine_that_is_stopped_is_named_and_holds_nobody_up(
    service: subprocess.Popen[bytes], pools: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    service.send_signal(signal.SIGSTOP)
    answer = pools("--json")
    assert answer.returncode == 1
    (engine,) = told_by(service, answer)
    assert (engine["pools"], engine["problem"]) == ([], "does not answer: timed out")
    assert f"casemate: process {service.pid}: does not answer" in pools().stderr


def test_a_closed_engine_leaves_nothing_and_a_killed_one_nothing_for_long(
    service: subprocess.Popen[bytes], pools: Callable[..., subprocess.CompletedProcess[str]], slowness: float
) -> None:
    assert len(left_of(service)) == 1
    service.kill()
    service.wait(LIMIT_S * slowness)
    assert told_by(service, pools("--json")) == []
    assert left_of(service) == []


def test_an_engine_that_ends_tells_nothing_more(
    service: subprocess.Popen[bytes], pools: Callable[..., subprocess.CompletedProcess[str]], slowness: float
) -> None:
    assert service.stdin is not None
    service.stdin.close()
    assert service.wait(LIMIT_S * slowness) == 0
    assert left_of(service) == []
    assert told_by(service, pools("--json")) == []


@pytest.mark.root
def test_another_user_learns_nothing(service: subprocess.Popen[bytes]) -> None:
    (path,) = left_of(service)
    code = f"""
import os, socket
os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    socket.socket(socket.AF_UNIX).connect({str(path)!r})
except PermissionError:
    print("refused")
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "refused\n"


def test_nothing_is_told_of_engines_that_make_nothing_ahead(
    pools: Callable[..., subprocess.CompletedProcess[str]], generous: dict[str, Any]
) -> None:
    def ours() -> int:
        """Engines of earlier tests in this process may tell of theirs."""
        return [each["pid"] for each in json.loads(pools("--json").stdout)["engines"]].count(os.getpid())

    before = ours()
    with casemate.Engine(warm=False) as engine:
        assert casemate.run("output = 1", engine=engine, limits=generous).ok
        assert ours() == before


def test_an_engine_without_a_place_to_tell_from_runs_as_ever(
    monkeypatch: pytest.MonkeyPatch, generous: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("casemate.pool.published.places", lambda _: (Path(os.devnull, "place"),))
    with casemate.Engine() as engine:
        engine.keep_ready("python", 1, limits=generous)
        assert casemate.run("output = 1", engine=engine, limits=generous).output == 1
        assert engine.pools()[0].hits == 1
    assert [record.message for record in caplog.records if "cannot ask this engine" in record.message]

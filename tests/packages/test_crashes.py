"""Builders that meet, and builders that die: a set is there whole or not at all, and nothing stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.packages.making import wheel

import casemate
from casemate.config import DATA_VARIABLE

TIMEOUT_S = 60.0
PHASES = ("resolving", "installing", "importing", "publishing")
BUILDER = """
import sys, casemate
def say(phase):
    print(phase, flush=True)
    if phase == sys.argv[2]:
        sys.stdin.read()
sets = casemate.Sets()
for name in sys.argv[3:]:
    print(sets.build(name, ["tiny"], preload=["tiny"], source=sys.argv[1], progress=say).digest)
"""


def builder(store: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", BUILDER, *arguments],
        env={**os.environ, DATA_VARIABLE: str(store)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("phase", PHASES)
def test_killing_a_builder_leaves_litter_that_the_next_one_removes(
    sets: casemate.Sets, folder: Path, store: Path, phase: str
) -> None:
    wheel(folder, "tiny", "1", {"tiny.py": ""})
    process = builder(store, str(folder), phase, "ours")
    assert process.stdout is not None
    while process.stdout.readline().strip() != phase:
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=TIMEOUT_S)
    assert sets.list() == ()
    assert len(list((store / "building").iterdir())) == 1
    made = sets.build("ours", ["tiny"], source=str(folder))
    assert list((store / "building").iterdir()) == []
    assert [path.name for path in (store / "sets").iterdir()] == [made.digest]


@pytest.mark.slow
def test_killing_a_builder_at_any_moment_leaves_a_whole_set_or_none(
    sets: casemate.Sets, folder: Path, store: Path, slowness: float
) -> None:
    wheel(folder, "tiny", "1", {"tiny.py": ""})
    for hundredths in range(0, 300, 20):
        process = builder(store, str(folder), "", "ours")
        try:
            process.wait(hundredths / 100 * slowness)
        except subprocess.TimeoutExpired:
            process.kill()
        process.communicate(timeout=TIMEOUT_S)
        for found in sets.list():
            sets.get(found.name, check=True)
            sets.remove(found.name)
        sets.sweep()
        for place in ("building", "sets", "names"):
            assert list((store / place).iterdir()) == []


def test_builders_of_one_name_in_many_processes(sets: casemate.Sets, folder: Path, store: Path) -> None:
    wheel(folder, "tiny", "1", {"tiny.py": ""})
    processes = [builder(store, str(folder), "", "ours") for _ in range(4)]
    ends = [(process.communicate(timeout=TIMEOUT_S), process.returncode) for process in processes]
    digests = {said.splitlines()[-1] for (said, _), status in ends if status == 0}
    assert len(digests) == 1
    assert all("exists" in errors for (_, errors), status in ends if status != 0)
    assert {found.digest for found in sets.list()} == digests
    sets.sweep()
    assert list((store / "building").iterdir()) == []


def test_builders_of_many_names_in_many_threads(sets: casemate.Sets, folder: Path, engine: casemate.Engine) -> None:
    names = ["one", "two", "three", "four"]
    for name in names:
        wheel(folder, name, "1", {f"{name}.py": ""})
    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(lambda name: sets.build(name, [name], source=str(folder)), names))
    assert [found.name for found in sets.list()] == sorted(names)
    for name in names:
        result = casemate.run(f"import {name}", name, engine=engine)
        assert result.ok, result.stderr.text


def test_runs_while_a_set_is_updated_have_the_old_or_the_new_one(
    sets: casemate.Sets, folder: Path, engine: casemate.Engine
) -> None:
    code = "import tiny; output = tiny.version"
    wheel(folder, "tiny", "1", {"tiny.py": "version = 1"})
    sets.build("ours", ["tiny"], source=str(folder))
    with ThreadPoolExecutor(1) as pool:
        for version in (2, 3):
            wheel(folder, "tiny", str(version), {"tiny.py": f"version = {version}"})
            update = pool.submit(sets.update, "ours")
            while not update.done():
                assert casemate.run(code, "ours", engine=engine).output in {version - 1, version}
            update.result()
            assert casemate.run(code, "ours", engine=engine).output == version

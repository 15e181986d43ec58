"""`casemate runtimes` with package sets, as a user types it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.packages.making import wheel

from casemate.config import DATA_VARIABLE

TIMEOUT_S = 60.0

Casemate = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def casemate(store: Path) -> Casemate:
    """Run the command line; both streams are text, and colours are off."""

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "casemate", *words],
            env={**os.environ, DATA_VARIABLE: str(store), "NO_COLOR": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )

    return run


@pytest.fixture
def built(casemate: Casemate, folder: Path) -> str:
    """A set named `ours` with the package `tiny`."""
    wheel(folder, "tiny", "1.0", {"tiny.py": "value = 42\n"})
    done = casemate("runtimes", "build", "ours", "--with", "tiny>=1,<2", "--preload", "tiny", "--from", str(folder))
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == [
        f"casemate: {phase}" for phase in ("resolving", "installing", "importing", "publishing")
    ]
    return done.stdout


def test_a_set_is_built_shown_listed_used_and_removed(casemate: Casemate, built: str) -> None:
    assert built.startswith("ours ")
    assert ": 1 package, " in built
    shown = json.loads(casemate("runtimes", "show", "ours", "--json", "--check").stdout)
    assert shown["manifest"]["packages"] == ["tiny>=1,<2"]
    assert shown["digest"].startswith(built.split()[1].rstrip(":"))
    page = casemate("runtimes", "show", "ours").stdout
    assert "reached   nothing" in page
    listed = json.loads(casemate("runtimes", "--json").stdout)
    assert [row["interpreter"] for row in listed if row["name"] == "ours"] == ["python: tiny 1.0"]
    used = casemate("run", "--runtime", "ours", "-c", "import tiny; output = tiny.value")
    assert used.stdout == "42\n"
    updated = casemate("runtimes", "update", "ours", "--json")
    assert json.loads(updated.stdout)["digest"] == shown["digest"]
    assert casemate("runtimes", "remove", "ours").returncode == 0
    gone = casemate("run", "--runtime", "ours", "-c", "1")
    assert "unknown runtime 'ours'" in gone.stderr


def test_a_damaged_set_is_listed_with_what_to_do(casemate: Casemate, built: str, store: Path) -> None:
    assert built
    (manifest,) = store.glob("sets/*/set.json")
    manifest.write_text("{}")
    row = next(row for row in json.loads(casemate("runtimes", "--json").stdout) if row["name"] == "ours")
    assert (row["available"], row["install"]) == (False, "casemate runtimes update ours")
    used = casemate("run", "--runtime", "ours", "-c", "1")
    assert used.stderr.startswith("casemate: set_damaged: ")
    assert used.returncode == 125
    assert casemate("runtimes", "update", "ours").returncode == 0
    assert casemate("run", "--runtime", "ours", "-c", "import tiny").returncode == 0


def test_a_set_whose_files_were_changed_is_not_listed_as_available(casemate: Casemate, built: str, store: Path) -> None:
    assert built
    (module,) = store.glob("sets/*/tree/tiny.py")
    module.chmod(0o644)
    module.write_text("value = 43\n")
    row = next(row for row in json.loads(casemate("runtimes", "--json").stdout) if row["name"] == "ours")
    assert (row["available"], row["install"]) == (False, "casemate runtimes update ours")
    assert "`casemate runtimes update ours`" in casemate("run", "--runtime", "ours", "-c", "1").stderr


def test_a_failure_as_json_has_what_the_installer_said(casemate: Casemate, folder: Path) -> None:
    wheel(folder, "tiny", "1.0", {"tiny.py": ""})
    done = casemate("runtimes", "build", "ours", "--with", "tiny==9", "--from", str(folder), "--json")
    error = json.loads(done.stdout)["error"]
    assert error["code"] == "build_failed"
    assert "No matching distribution found for tiny==9" in error["log"]
    other = json.loads(casemate("runtimes", "show", "ours", "--json").stdout)["error"]
    assert "log" not in other


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["destroy", "x"], "unknown action 'destroy'; there are list, show, build, update, remove"),
        (["build", "x"], "`build` needs --with PACKAGES"),
        (["show"], "`show` needs the NAME of a package set"),
        (["list", "x"], "unexpected argument 'x'"),
        (["remove", "x", "--with", "y"], "--with means nothing to `remove`"),
        (["show", "x", "y"], "unexpected argument 'y'"),
    ],
)
def test_wrong_command_lines(casemate: Casemate, words: list[str], said: str) -> None:
    done = casemate("runtimes", *words)
    assert done.returncode == 2
    assert said in done.stderr


def test_what_the_installer_says_is_passed_on_when_it_fails(casemate: Casemate, folder: Path) -> None:
    wheel(folder, "tiny", "1.0", {"tiny.py": ""})
    done = casemate("runtimes", "build", "ours", "--with", "tiny==9", "--from", str(folder))
    assert done.returncode == 125
    assert "casemate: | ERROR: No matching distribution found for tiny==9" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("casemate: build_failed: resolving")


def test_names_and_actions_are_completed(casemate: Casemate, built: str) -> None:
    assert built
    assert casemate("complete", "--", "runtimes", "bu").stdout.splitlines() == [":words", "build"]
    assert casemate("complete", "--", "runtimes", "show", "").stdout.splitlines() == [":words", "ours"]
    assert "ours" in casemate("complete", "--", "run", "--runtime", "").stdout.splitlines()


def test_a_plain_run_loads_nothing_of_sets_or_of_the_way_out(store: Path) -> None:
    code = (
        "import sys; from casemate.cli.main import run; run(['run', '-c', 'print(1)', '--runtime', 'python']); "
        "print([name for name in sys.modules if name.startswith(('casemate.sets', 'casemate.egress', "
        "'casemate.runtimes.sets', 'casemate.model.packages', 'casemate.kernel.syncfs'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, DATA_VARIABLE: str(store)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=True,
    )
    assert done.stdout == "1\n[]\n"

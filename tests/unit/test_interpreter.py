"""Interpreters are found on this machine, wherever they are, with what has to be mounted so that they run inside."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from casemate.errors import RuntimeUnavailable
from casemate.model.runtime import Runtime
from casemate.model.spec import RUNTIME_DIRECTORY, Mount
from casemate.runtimes import interpreter
from casemate.runtimes.interpreter import BASE_PREFIXES, find_interpreter


@pytest.fixture(autouse=True)
def nothing_remembered() -> Iterator[None]:
    interpreter._located.cache_clear()
    yield
    interpreter._located.cache_clear()


def found(*candidates: str, **more: Any) -> interpreter.Interpreter:
    return find_interpreter("tool", Runtime(interpreter=candidates, command=("{interpreter}",), **more))


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A program of its own prefix, as a language is that somebody has installed below a home."""
    program = tmp_path / "prefix" / "bin" / "tool"
    program.parent.mkdir(parents=True)
    shutil.copy("/bin/true", program)
    return program


def test_what_lies_in_the_base_is_the_same_inside_and_needs_no_mount() -> None:
    assert found("sh").path == shutil.which("sh")
    assert found("/bin/sh") == interpreter.Interpreter(host_path="/bin/sh", path="/bin/sh")


def test_what_lies_elsewhere_brings_its_whole_prefix(elsewhere: Path) -> None:
    inside = found(str(elsewhere))
    assert inside.path == f"{RUNTIME_DIRECTORY}/bin/tool"
    assert inside.mounts == (Mount(str(elsewhere.parents[1]), RUNTIME_DIRECTORY),)


def test_a_link_to_somewhere_else_brings_what_it_leads_to(elsewhere: Path, tmp_path: Path) -> None:
    link = tmp_path / "bin" / "other"
    link.parent.mkdir()
    link.symlink_to(elsewhere)
    assert found(str(link)).mounts == (Mount(str(elsewhere.parents[1]), RUNTIME_DIRECTORY),)


def test_candidates_are_searched_on_the_path_in_their_order(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(elsewhere.parent), prepend=os.pathsep)
    assert found("surely-not-there", "tool", "sh").host_path == str(elsewhere)


def test_the_engine_s_own_interpreter_is_never_its_virtual_environment_s() -> None:
    own = found("engine")
    real = Path(sys.base_prefix).resolve()
    assert Path(own.host_path).parents[1] == real
    outside = not str(real).startswith(BASE_PREFIXES) and str(real) != "/usr"
    assert bool(own.mounts) == outside


@pytest.mark.parametrize("kind", ["script", "not in a bin directory", "not executable", "missing", "directory"])
def test_what_would_not_run_inside_is_not_taken(kind: str, elsewhere: Path, tmp_path: Path) -> None:
    if kind == "script":
        elsewhere.write_text("#!/bin/sh\nexec /somewhere/tool\n")
    elif kind == "not in a bin directory":
        elsewhere = Path(shutil.copy(elsewhere, tmp_path / "tool"))
    elif kind == "not executable":
        elsewhere.chmod(0o644)
    elif kind == "missing":
        elsewhere.unlink()
    else:
        elsewhere = elsewhere.parent
    with pytest.raises(RuntimeUnavailable):
        found(str(elsewhere))


def test_what_is_missing_is_named_with_what_to_install() -> None:
    with pytest.raises(RuntimeUnavailable) as caught:
        found("surely-not-there", "nor-this", packages=("some-package", "another"))
    assert caught.value.message.startswith("tool: none of surely-not-there, nor-this")
    assert caught.value.hint == "apt-get install some-package another"


def test_further_paths_are_mounted_where_they_are_if_they_are_there() -> None:
    assert found("sh", paths=("/etc/ssl", "/nowhere")).mounts == (Mount("/etc/ssl", "/etc/ssl"),)


@pytest.mark.parametrize("place", ["bin", ".local/bin"])
def test_a_home_is_never_mounted_for_a_program_in_it(
    place: str, elsewhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    program = home / place / "tool"
    program.parent.mkdir(parents=True)
    shutil.copy(elsewhere, program)
    monkeypatch.setenv("HOME", str(home))
    with pytest.raises(RuntimeUnavailable):
        found(str(program))
    link = tmp_path / "linked" / "bin" / "tool"
    link.parent.mkdir(parents=True)
    link.symlink_to(program)
    with pytest.raises(RuntimeUnavailable):
        found(str(link))


@pytest.mark.root
@pytest.mark.parametrize("closed", ["prefix", "program"])
def test_what_another_user_may_not_read_is_not_taken(closed: str, elsewhere: Path) -> None:
    (elsewhere if closed == "program" else elsewhere.parents[1]).chmod(0o700)
    with pytest.raises(RuntimeUnavailable):
        found(str(elsewhere))


def test_what_is_there_and_passed_over_is_named_with_the_reason(tmp_path: Path) -> None:
    shim = tmp_path / "shims" / "tool"
    shim.parent.mkdir()
    shim.write_text("#!/bin/sh\nexec tool-1.2\n")
    shim.chmod(0o755)
    with pytest.raises(RuntimeUnavailable) as caught:
        found(str(shim), "surely-not-there")
    assert caught.value.message == (
        f"tool: no interpreter that a sandbox can use: {shim} is a script, which may lead anywhere: "
        "name the program that it starts by its path"
    )

"""Where a program looks for its libraries."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.model.runtime import Runtime
from casemate.runtimes.elf import MAGIC, run_path
from casemate.runtimes.interpreter import find_interpreter

SOURCE = "int main(void) { return 0; }\n"


def built(folder: Path, *flags: str) -> Path:
    program = folder / "prefix" / "bin" / "program"
    program.parent.mkdir(parents=True)
    command = ["gcc", "-x", "c", "-", "-o", str(program), *flags]
    subprocess.run(command, input=SOURCE, text=True, check=True)
    return program


@pytest.mark.parametrize("kind", ["--enable-new-dtags", "--disable-new-dtags"])
def test_the_run_path_is_what_the_linker_wrote(tmp_path: Path, kind: str) -> None:
    program = built(tmp_path, f"-Wl,{kind},-rpath,/opt/one:/opt/two")
    assert run_path(program.read_bytes()) == ("/opt/one", "/opt/two")


def test_most_programs_have_none(tmp_path: Path) -> None:
    assert run_path(built(tmp_path).read_bytes()) == ()
    assert run_path(b"#!/bin/sh\n") == ()
    assert run_path(b"") == ()


@given(st.binary(max_size=300))
def test_any_bytes_are_read(data: bytes) -> None:
    assert run_path(MAGIC + data) == () or data
    assert run_path(data) == () or data.startswith(MAGIC)


def test_an_interpreter_is_told_where_its_own_libraries_are_inside(tmp_path: Path) -> None:
    program = built(tmp_path, f"-Wl,-rpath,{tmp_path}/prefix/lib:/usr/lib/other:$ORIGIN/../lib")
    found = find_interpreter("own", Runtime(interpreter=(str(program),), command=()))
    assert found.environment == {"LD_LIBRARY_PATH": "/opt/runtime/lib"}
    assert found.path == "/opt/runtime/bin/program"


def test_an_interpreter_of_the_base_needs_no_variables() -> None:
    assert shutil.which("bash")
    assert find_interpreter("bash", Runtime(interpreter=("bash",), command=())).environment == {}

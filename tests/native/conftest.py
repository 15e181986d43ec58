"""Builds of the launcher's own sources with instruments in them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
NATIVE = HERE.parents[1] / "native"
STRICT = ("-std=c11", "-Wall", "-Wextra", "-Werror", "-g", f"-I{NATIVE}")
SANITIZERS = ("-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer")
WRAPPED = ("syscall", "setrlimit", "setdomainname", "ioctl")
FOR_VALGRIND = ("-O1", *(f"-Wl,--wrap={name}" for name in WRAPPED))


def compile_program(target: Path, flags: tuple[str, ...], sources: list[Path]) -> None:
    command = [shutil.which("gcc") or "cc", *STRICT, *flags, "-o", str(target), *map(str, sources)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr


@pytest.fixture(scope="session")
def sanitized_build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with `parsers`, `launcher` and `canary`, all with the address and undefined-behaviour sanitizers."""
    directory = tmp_path_factory.mktemp("sanitized")
    compile_program(directory / "parsers", SANITIZERS, [HERE / "parsers.c", NATIVE / "plan.c", NATIVE / "wire.c"])
    compile_program(directory / "launcher", SANITIZERS, sorted(NATIVE.glob("*.c")))
    compile_program(directory / "canary", SANITIZERS, [HERE / "canary.c"])
    return directory


@pytest.fixture(scope="session")
def valgrind_build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with `launcher`, `canary` and `parsers` for valgrind: dynamic, with symbols, hardly optimised."""
    directory = tmp_path_factory.mktemp("valgrind")
    launcher = [*sorted(NATIVE.glob("*.c")), HERE / "valgrind_kernel.c"]
    compile_program(directory / "launcher", FOR_VALGRIND, launcher)
    compile_program(directory / "parsers", ("-O1",), [HERE / "parsers.c", NATIVE / "plan.c", NATIVE / "wire.c"])
    compile_program(directory / "canary", ("-O0",), [HERE / "canary.c"])
    return directory

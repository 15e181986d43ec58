"""Finding a runtime's interpreter on this machine and what has to be mounted so that it runs inside."""

from __future__ import annotations

import os
import sys
from functools import cache
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Final

import msgspec

from casemate.errors import RuntimeUnavailable
from casemate.model.runtime import Library, Runtime
from casemate.model.spec import ADDON_DIRECTORY, RUNTIME_DIRECTORY, Mount
from casemate.runtimes.bytecode import keep_bytecode
from casemate.runtimes.elf import run_path

ENGINE: Final = "engine"
"""Among a runtime's candidates: the interpreter that runs the engine."""

BASE_PREFIXES: Final = ("/usr/", "/bin/", "/sbin/", "/lib/", "/lib64/")
"""What every sandbox sees anyway."""

ELF_MAGIC: Final = b"\x7fELF"
PACKAGE: Final = Path(__file__).parent.parent
ADDON_BUILT: Final = "built"
"""The directory, within a runtime's addon, that building makes; without it the runtime is not there."""

ADDON_HINT: Final = "python3 -m casemate.runtimes.addon"
_FOR_OTHERS: Final = 0o005
LIBRARY_VARIABLE: Final = "LD_LIBRARY_PATH"


class Interpreter(msgspec.Struct, frozen=True, kw_only=True):
    """Where the interpreter is, outside and inside, and the mounts and variables that it needs there."""

    host_path: str
    path: str
    mounts: tuple[Mount, ...] = ()
    environment: dict[str, str] = {}


def find_interpreter(name: str, runtime: Runtime) -> Interpreter:
    """The first candidate that works. Raises RuntimeUnavailable with what to install."""
    for candidate in runtime.interpreter:
        found = _located(candidate)
        if found is not None:
            extra = tuple(Mount(path, path) for path in runtime.paths if Path(path).is_dir())
            mounts = found.mounts + extra + _addon(name, runtime.addon)
            return _with_library(msgspec.structs.replace(found, mounts=mounts), runtime.library)
    hint = "apt-get install " + " ".join(runtime.packages) if runtime.packages else ""
    passed_over = [text for candidate in runtime.interpreter if (text := _obstacle(candidate))]
    problem = f"{name}: none of {', '.join(runtime.interpreter)} is on this machine"
    if passed_over:
        problem = f"{name}: no interpreter that a sandbox can use: " + "; ".join(passed_over)
    raise RuntimeUnavailable(problem, hint=hint)


def _obstacle(candidate: str) -> str:
    """Why a candidate that is there was passed over; empty if it is not there."""
    path = candidate if candidate.startswith("/") else "" if candidate == ENGINE else _on_path(candidate)
    if not path or not Path(path).is_file():
        return ""
    real = Path(path).resolve()
    if not os.access(path, os.X_OK):
        return f"{path} may not be executed"
    if not _is_program(real):
        return f"{path} is a script, which may lead anywhere: name the program that it starts by its path"
    if _is_private(real.parent.parent):
        return f"{path} would show a whole home to the sandbox"
    if real.parent.name != "bin":
        return f"{path} lies in no directory of the name bin, so what belongs to it cannot be told"
    return f"{path} may not be read by other users, as whom it would run"


def _with_library(found: Interpreter, library: Library | None) -> Interpreter:
    if library is None:
        return found
    mounts = (*found.mounts, Mount(library.source, library.target))
    return msgspec.structs.replace(found, mounts=mounts, environment={**found.environment, **library.environment})


@cache
def _addon(name: str, addon: str) -> tuple[Mount, ...]:
    """Where an addon is mounted from. Raises RuntimeUnavailable where it has not been built."""
    if not addon:
        return ()
    directory = PACKAGE / addon / ADDON_BUILT
    if not directory.is_dir():
        raise RuntimeUnavailable(f"{name}: its part in {addon} is not built", hint=ADDON_HINT)
    return (Mount(str(directory), ADDON_DIRECTORY),)


@cache
def _located(candidate: str) -> Interpreter | None:
    if candidate == ENGINE:
        return _engine_interpreter()
    path = candidate if candidate.startswith("/") else _on_path(candidate)
    return _from_path(path) if path else None


def _on_path(name: str) -> str | None:
    """As `shutil.which`, whose module takes longer to import than all of this."""
    for directory in os.environ.get("PATH", os.defpath).split(":"):
        path = f"{directory or '.'}/{name}"
        if os.access(path, os.X_OK) and Path(path).is_file():
            return path
    return None


def _from_path(path: str) -> Interpreter | None:
    """Below /usr a path is the same inside; elsewhere the directory above its `bin` is mounted.

    A script below /usr starts inside as it does here; elsewhere it may be a shim that leads anywhere.
    """
    if not os.access(path, os.X_OK):
        return None
    if path.startswith(BASE_PREFIXES) and os.path.realpath(path).startswith(BASE_PREFIXES):
        return Interpreter(host_path=path, path=path)
    real = Path(path).resolve()
    prefix = real.parent.parent
    if real.parent.name != "bin" or not _is_program(real) or _is_private(prefix) or not _is_readable(real, prefix):
        return None
    return Interpreter(
        host_path=path,
        path=f"{RUNTIME_DIRECTORY}/bin/{real.name}",
        mounts=(Mount(str(prefix), RUNTIME_DIRECTORY),),
        environment=_library_variables(real, prefix),
    )


def _is_private(prefix: Path) -> bool:
    """Whether mounting it would show a whole home or more, as it would for `~/bin` and `~/.local/bin`."""
    homes = (Path(os.path.expanduser("~")), Path("/root"))  # noqa: PTH111  (it takes any text without an error)
    others = Path("/home") in {prefix, prefix.parent} or prefix.name == ".local"
    return others or any(home.is_relative_to(prefix) for home in homes)


def _is_readable(program: Path, prefix: Path) -> bool:
    """Whether a guest may read it, too: to an engine that is root it is another user."""
    return os.geteuid() != 0 or all(path.stat().st_mode & _FOR_OTHERS == _FOR_OTHERS for path in (program, prefix))


def _is_program(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(ELF_MAGIC)) == ELF_MAGIC


def _library_variables(program: Path, prefix: Path) -> dict[str, str]:
    """A program that names its libraries by their full path here has to be told where they are inside."""
    with program.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
        directories = [Path(directory) for directory in run_path(data)]
    inside = [Path(RUNTIME_DIRECTORY) / path.relative_to(prefix) for path in directories if path.is_relative_to(prefix)]
    return {LIBRARY_VARIABLE: ":".join(map(str, inside))} if inside else {}


def _engine_interpreter() -> Interpreter | None:
    """Never the engine's virtual environment: its packages are the engine's, not the guest's."""
    prefix = Path(sys.base_prefix).resolve()
    path = prefix / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    keep_bytecode()
    return _from_path(str(path)) if path.exists() else None

"""The two sides of the comparison: a program run by the bare interpreter, and the same in a sandbox."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

import casemate
from casemate.model.result import Stream
from casemate.model.runtime import Channel, Runtime
from casemate.model.spec import BASE_ENVIRONMENT, CODE_DIRECTORY, HOME_DIRECTORY, WORK_DIRECTORY
from casemate.runtimes.interpreter import Interpreter, find_interpreter

if TYPE_CHECKING:
    from tests.differential.catalogue import Program

TIMEOUT_S: Final = 30.0
OPTIONS: Final[Mapping[str, tuple[str, ...]]] = {"r": ("--vanilla",)}
"""What the bare interpreter is started with: as much of the machine's own settings is left out as in the sandbox."""

SETTINGS: Final[Mapping[str, Mapping[str, str]]] = {"python": {"PYTHONDONTWRITEBYTECODE": "1"}}
"""What a program can see of how its runtime is declared."""

SCRIPT_PROGRAMS: Final[Mapping[str, str]] = {"R": "Rscript"}
"""What runs a file, beside an interpreter that does not do so itself."""

VARYING: Final = (
    (re.compile(r"\b0x[0-9a-f]{6,}"), "0x…"),
    (re.compile(r"(?<=\(node:)\d+(?=\))"), "…"),
)
"""What differs between any two runs: addresses in memory, and the process id in warnings of Node."""


class Ending(msgspec.Struct, frozen=True):
    """What can be seen of a program from outside."""

    exit_code: int | None
    signal: int | None
    stdout: str
    stderr: str


def in_sandbox(engine: casemate.Engine, program: Program, slowness: float) -> Ending:
    result = casemate.run(
        program.code,
        program.language,
        engine=engine,
        filename=program.filename,
        args=program.args,
        env=program.env,
        stdin=program.stdin,
        files=program.files,
        limits={"timeout": TIMEOUT_S * slowness},
    )
    return Ending(result.exit_code, result.signal, _text(_kept(result.stdout)), _text(_kept(result.stderr)))


def natively(engine: casemate.Engine, program: Program, slowness: float) -> Ending:
    """Run it below a directory that stands for the sandbox's root; paths are then told as from inside."""
    runtime = engine.runtimes.get(program.language)
    interpreter = find_interpreter(program.language, runtime)
    settings = {**interpreter.environment, **SETTINGS.get(program.language, {})}
    with tempfile.TemporaryDirectory(prefix="native-") as name:
        root = Path(name)
        code = _place(root, program, runtime)
        done = subprocess.run(
            [_command(interpreter), *OPTIONS.get(program.language, ()), code, *program.args],
            cwd=_inside(root, WORK_DIRECTORY),
            env={**BASE_ENVIRONMENT, "HOME": f"{root}{HOME_DIRECTORY}", **program.env, **settings},
            input=(program.stdin or "").encode(),
            capture_output=True,
            start_new_session=True,
            timeout=TIMEOUT_S * slowness,
            check=False,
        )
        stdout, stderr = (_as_inside(data, root, interpreter) for data in (done.stdout, done.stderr))
    ended = done.returncode
    return Ending(ended if ended >= 0 else None, -ended if ended < 0 else None, _text(stdout), _text(stderr))


def _command(interpreter: Interpreter) -> str:
    path = Path(interpreter.host_path)
    return str(path.with_name(SCRIPT_PROGRAMS.get(path.name, path.name)))


def _place(root: Path, program: Program, runtime: Runtime) -> str:
    """Write the program and its files; its path as the interpreter is given it."""
    for directory in (WORK_DIRECTORY, CODE_DIRECTORY, HOME_DIRECTORY):
        _inside(root, directory).mkdir(parents=True)
    for name, content in program.files.items():
        path = _inside(root, WORK_DIRECTORY) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode())
    filename = program.filename or runtime.filename
    # With a harness the code has a name in the working directory, without one it is a file beside it.
    directory = WORK_DIRECTORY if runtime.channel is Channel.FRAMES else CODE_DIRECTORY
    path = _inside(root, directory) / filename
    path.write_bytes(program.code.encode())
    return filename if directory == WORK_DIRECTORY else str(path)


def _inside(root: Path, path: str) -> Path:
    return root / path.lstrip("/")


def _as_inside(data: bytes, root: Path, interpreter: Interpreter) -> bytes:
    for mount in interpreter.mounts:
        data = data.replace(mount.source.encode() + b"/", mount.target.encode() + b"/")
    return data.replace(str(root).encode() + b"/", b"/")


def _kept(stream: Stream) -> bytes:
    if stream.truncated_bytes:
        raise ValueError(f"{stream.truncated_bytes} bytes of output were not kept: nothing to compare")
    return stream.head + stream.tail


def _text(data: bytes) -> str:
    text = data.decode(errors="backslashreplace")
    for pattern, replacement in VARYING:
        text = pattern.sub(replacement, text)
    return text

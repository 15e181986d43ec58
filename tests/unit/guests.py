"""Starts a harness natively: the real interpreter with pipes on descriptors 3 and 4, and no sandbox around it."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import msgspec
from hypothesis import strategies as st

from casemate.model.runtime import Channel
from casemate.model.spec import GUEST_DIRECTORY
from casemate.model.values import FRAME_HEAD, READY_FRAME, frame, split_farewell
from casemate.runtimes.bytecode import GUEST_FILES
from casemate.runtimes.interpreter import find_interpreter
from casemate.runtimes.registry import builtin_runtimes

NO_INPUT: Final = object()
ENVIRONMENT: Final = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8"}
HIGH_FD: Final = 30
ON_3_AND_4: Final = 'eval "exec 3<&$0 4>&$1 $0<&- $1>&-"; shift; exec "$@"'
"""A shell puts the descriptors where they belong: a fork with code of ours in between would not be safe here."""


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """How a program ended, and all that came on descriptor 4."""

    exit_code: int
    stdout: str
    stderr: str
    reply: bytes

    @property
    def message(self) -> dict[str, Any]:
        """The one frame, which is all that has come."""
        assert FRAME_HEAD.unpack_from(self.reply) == (len(self.reply) - FRAME_HEAD.size,)
        message: dict[str, Any] = json.loads(self.reply[FRAME_HEAD.size :])
        return message

    @property
    def output(self) -> Any:
        """The value of the reply, which has one."""
        assert self.message["kind"] == "value", self.message
        return self.message["output"]

    @property
    def error(self) -> dict[str, str]:
        """The error of the reply, whichever kind it has."""
        error: dict[str, str] = self.message["error"]
        return error


def run(
    language: str,
    code: str,
    value: Any = NO_INPUT,
    *,
    cwd: Path,
    args: tuple[str, ...] = (),
    filename: str | None = None,
    stdin: str = "",
    env: Mapping[str, str] | None = None,
) -> Ended:
    """Run a program with its harness, in a directory of the test's."""
    runtime = builtin_runtimes()[language]
    filename = filename or runtime.filename
    words = {"{interpreter}": interpreter(language), "{guest}": str(GUEST_FILES), "{code}": str(cwd / filename)}
    command = [_filled(word, words) for word in runtime.command]
    variables = {**runtime.environment, **runtime.harness_environment}
    settings = {key: text.replace(GUEST_DIRECTORY, str(GUEST_FILES)) for key, text in variables.items()}
    if runtime.channel is Channel.TEXT:
        (cwd / filename).write_text(code)
        command += args
        request = b"" if value is NO_INPUT else json.dumps(value).encode()
    else:
        given = {"has_input": value is not NO_INPUT, "input": None if value is NO_INPUT else value}
        request = frame({"code": code, "filename": filename, "args": args, "env": {}, "live": False, **given})
    return _start(command, request, cwd, {**ENVIRONMENT, **settings, **(env or {})}, stdin)


def interpreter(language: str) -> str:
    return find_interpreter(language, builtin_runtimes()[language]).host_path


def _filled(word: str, words: dict[str, str]) -> str:
    for name, value in words.items():
        word = word.replace(name, value)
    return word


def _start(command: list[str], request: bytes, cwd: Path, environment: dict[str, str], stdin: str) -> Ended:
    (from_us, to_guest), (from_guest, to_us) = _pipe(), _pipe()
    settings = [f"{name}={text}" for name, text in environment.items()]
    process = subprocess.Popen(
        ["bash", "-c", ON_3_AND_4, str(from_us), str(to_us), "env", "-i", *settings, *command],
        pass_fds=(from_us, to_us),
        cwd=cwd,
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    os.close(from_us)
    os.close(to_us)
    with ThreadPoolExecutor(2) as pool:
        pool.submit(_feed, to_guest, request)
        reply = pool.submit(_drain, from_guest)
        stdout, stderr = process.communicate(stdin.encode())
    frames, farewell = split_farewell(reply.result())
    assert farewell in {None, process.returncode}, "it took its leave with another status"
    return Ended(
        exit_code=process.returncode,
        stdout=stdout.decode(errors="surrogateescape"),
        stderr=stderr.decode(errors="surrogateescape"),
        reply=frames.removeprefix(READY_FRAME),
    )


def _pipe() -> tuple[int, int]:
    """Both ends, out of the way of 3 and 4."""
    ends = os.pipe()
    high = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, HIGH_FD) for end in ends)
    for end in ends:
        os.close(end)
    return high[0], high[1]


def _feed(fd: int, data: bytes) -> None:
    try:
        with open(fd, "wb") as file:
            file.write(data)
    except BrokenPipeError:
        pass  # it has ended without reading all


def _drain(fd: int) -> bytes:
    with open(fd, "rb") as file:
        return file.read()


def json_values(*, texts: st.SearchStrategy[str] | None = None, keys: st.SearchStrategy[str] | None = None) -> Any:
    """Whatever JSON can say and a double can hold."""
    text = texts if texts is not None else st.text(st.characters(exclude_categories=["Cs"]))
    whole = st.integers(-(2**53) + 1, 2**53 - 1)
    number = st.floats(allow_nan=False, allow_infinity=False).filter(lambda x: x == 0 or 1e-280 < abs(x) < 1e280)
    leaf = st.none() | st.booleans() | whole | number | text
    return st.recursive(
        leaf,
        lambda inner: (
            st.lists(inner, max_size=5) | st.dictionaries(keys if keys is not None else text, inner, max_size=5)
        ),
        max_leaves=30,
    )


def as_doubles(value: Any) -> Any:
    """The value as a language sees it in which all numbers are doubles."""
    if isinstance(value, list):
        return [as_doubles(each) for each in value]
    if isinstance(value, dict):
        return {key: as_doubles(each) for key, each in value.items()}
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value

"""From a runtime's declaration and a caller's code to a command, files and a channel."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Final

import msgspec

from casemate import limits
from casemate.engine.request import InputFile
from casemate.engine.stdin import BytesOrFd
from casemate.errors import InvalidInput, SandboxClosed
from casemate.isolation.nursery import ZYGOTE_LIBRARY
from casemate.model.debug import Debug
from casemate.model.result import JsonValue
from casemate.model.runtime import Channel, Runtime
from casemate.model.spec import (
    ADDON_DIRECTORY,
    BASE_ENVIRONMENT,
    CODE_DIRECTORY,
    GUEST_DIRECTORY,
    HARNESS_NAME,
    WORK_DIRECTORY,
    Mount,
)
from casemate.model.values import encode_input, frame
from casemate.runtimes.interpreter import Interpreter

STREAMS: Final = ("stdout", "stderr")
GUEST_MOUNT: Final = Mount(str(Path(__file__).parent.parent / "guest"), GUEST_DIRECTORY)
HARNESS_FILE: Final = f"{CODE_DIRECTORY}/{HARNESS_NAME}"
INPUT_VARIABLE: Final = "CASEMATE_INPUT"
NOTHING: Final[Mapping[str, Any]] = {}
PLACED: Final = frozenset({Channel.TEXT, Channel.NONE})
"""Channels that do not carry the program: it is a file, and its arguments are those of the command."""

_PLACEHOLDER: Final = re.compile(r"\{\w+\}")
OUTPUT_VARIABLE: Final = "CASEMATE_OUTPUT"


class _Unset:
    """No input at all, which is not the same as the input `None`."""

    def __repr__(self) -> str:
        return "NO_INPUT"


NO_INPUT: Final = _Unset()


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """What to start. `request` is written to descriptor 3 and whatever comes on 4 is the reply.

    `socket`: instead, 3 is one end of a socket. `forked`: it is a fork of the zygote that made the sandbox.
    """

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    cwd: str
    stdin: BytesOrFd | None = None
    request: bytes | None = None
    socket: bool = False
    forked: bool = False

    @property
    def pipes(self) -> int:
        """How many of them lead to the process."""
        return len(STREAMS) + (self.stdin is not None) + 2 * (self.request is not None) + self.socket


class NeverBegan(SandboxClosed):
    """What was ready had ended before all of its request was read: nothing of the program has run."""


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """What the engine needs to know to run code: pure data.

    `placed_names` are the files of the work directory that the harness makes out of the code while it runs;
    `extra` are the caller's own variables. `zygote` is the command of a process of whom interpreters can be forks.
    """

    command: Command
    files: tuple[InputFile, ...]
    channel: Channel
    extra: dict[str, str] = {}
    memory_errors: tuple[str, ...] = ()
    placed_code: bytes = b""
    placed_names: tuple[str, ...] = ()
    zygote: tuple[str, ...] = ()
    debug: Debug | None = None


def check_input(value: JsonValue) -> bytes | None:
    """An input as JSON text, None where there is none. Raises InvalidInput for what JSON cannot hold."""
    if value is NO_INPUT:
        return None
    try:
        encoded = encode_input(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput("input", f"is no JSON value: {error}") from error
    if len(encoded) > limits.INPUT_MAX_BYTES:
        raise InvalidInput("input", f"{len(encoded)} bytes are over the limit of {limits.INPUT_MAX_BYTES}")
    return encoded


def owned_variables(runtime: Runtime, interpreter: Interpreter) -> frozenset[str]:
    """The variables without which the interpreter, its harness or the channel would not be what they are."""
    channel = {INPUT_VARIABLE, OUTPUT_VARIABLE} if runtime.channel is Channel.TEXT else set()
    return frozenset(channel.union(interpreter.environment, runtime.harness_environment))


def make_program(
    runtime: Runtime,
    interpreter: Interpreter,
    *,
    code: str,
    filename: str,
    arguments: tuple[str, ...],
    environment: dict[str, str],
    value: bytes | None,
    stdin: BytesOrFd | None,
    live: bool = False,
    heap_bytes: int = 0,
    asked: Mapping[str, Any] = NOTHING,
    debug: Debug | None = None,
) -> Program:
    """The command that runs this code with this input, and its files. Raises InvalidInput.

    `live`: lines come when they are printed. `asked`: what else the harness is asked, see `Ability`.
    """
    if runtime.channel is Channel.NONE and value is not None:
        raise InvalidInput("input", "this runtime takes none", hint='its declaration has `channel = "none"`')
    path = f"{CODE_DIRECTORY}/{filename}"
    given = {**BASE_ENVIRONMENT, **runtime.environment}
    extra = {name: text for name, text in environment.items() if given.get(name) != text}
    words = _words(interpreter, path)
    argv = tuple(_filled(word, words) for word in runtime.command)
    return Program(
        command=Command(
            argv=(*argv, *arguments) if runtime.channel in PLACED else argv,
            environment={
                **environment,
                **_channel_variables(runtime, value),
                **interpreter.environment,
                **runtime.harness_environment,
            },
            cwd=WORK_DIRECTORY,
            stdin=stdin,
            request=_isolate_request(code, filename, value, heap_bytes, asked)
            if runtime.channel is Channel.ISOLATE
            else _request(runtime.channel, code, filename, arguments, value, extra, live=live, asked=asked),
        ),
        files=_files(runtime, path, code),
        channel=runtime.channel,
        extra=extra,
        memory_errors=runtime.memory_errors,
        placed_code=code.encode(),
        placed_names=_placed_names(runtime, filename),
        zygote=tuple(_filled(word, words) for word in runtime.zygote),
        debug=debug,
    )


def _words(interpreter: Interpreter, path: str) -> dict[str, str]:
    """What stands for the words in braces of a declaration."""
    return {
        "{interpreter}": interpreter.path,
        "{code}": path,
        "{guest}": GUEST_DIRECTORY,
        "{harness}": HARNESS_FILE,
        "{addon}": ADDON_DIRECTORY,
        "{zygote}": ZYGOTE_LIBRARY,
    }


def _files(runtime: Runtime, path: str, code: str) -> tuple[InputFile, ...]:
    """What has to be placed before the command can start."""
    harness = [InputFile(PurePosixPath(HARNESS_FILE), runtime.harness.encode())] if runtime.harness else []
    program = [InputFile(PurePosixPath(path), code.encode())] if runtime.channel in PLACED else []
    return (*harness, *program)


def _placed_names(runtime: Runtime, filename: str) -> tuple[str, ...]:
    if runtime.channel is not Channel.FRAMES:
        return ()
    return (filename, *(PurePosixPath(filename).stem + ending for ending in runtime.copies))


def filled_command(argv: tuple[str, ...], interpreter: Interpreter) -> tuple[str, ...]:
    """A command of a declaration for a harness that takes its code later."""
    words = {
        "{interpreter}": interpreter.path,
        "{guest}": GUEST_DIRECTORY,
        "{harness}": HARNESS_FILE,
        "{addon}": ADDON_DIRECTORY,
        "{zygote}": ZYGOTE_LIBRARY,
    }
    return tuple(_filled(word, words) for word in argv)


def _filled(word: str, words: dict[str, str]) -> str:
    """In one pass, so that a file name which reads like a placeholder stays a file name."""
    return _PLACEHOLDER.sub(lambda found: words.get(found[0], found[0]), word)


def _channel_variables(runtime: Runtime, value: bytes | None) -> dict[str, str]:
    if runtime.channel is not Channel.TEXT:
        return {}
    given = {INPUT_VARIABLE: "/dev/fd/3"} if value is not None else {}
    return {**given, OUTPUT_VARIABLE: "/dev/fd/4"}


def _request(  # noqa: PLR0917 - the parts of one message
    channel: Channel,
    code: str,
    filename: str,
    arguments: tuple[str, ...],
    value: bytes | None,
    extra: dict[str, str],
    *,
    live: bool,
    asked: Mapping[str, Any],
) -> bytes | None:
    if channel is Channel.NONE:
        return None
    if channel is Channel.TEXT:
        return value or b""
    request = {
        "code": code,
        "filename": filename,
        "args": list(arguments),
        "env": extra,
        "live": live,
        "has_input": value is not None,
        **asked,
    }
    return frame({**request, "input": msgspec.Raw(value or b"null")})


def _isolate_request(code: str, filename: str, value: bytes | None, heap_bytes: int, asked: Mapping[str, Any]) -> bytes:
    """Two frames: the worker passes the input on as the text that it is."""
    head = {"code": code, "filename": filename, "has_input": value is not None, "heap_mib": heap_bytes // limits.MIB}
    return frame({**head, **asked}) + frame(msgspec.Raw(value or b"null"))

"""What a caller asks of one run, checked before anything is started."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final, TypeAlias, TypedDict

import msgspec

from casemate import limits as bound
from casemate.engine.cancel import CancelToken
from casemate.engine.paths import check_pattern, encoded_name, new_file_path
from casemate.engine.stdin import BytesOrFd
from casemate.errors import InvalidInput
from casemate.model.debug import RECORDED, Debug, DebugLike, check_debug
from casemate.model.layers import Layer
from casemate.model.network import NetworkPolicy
from casemate.model.resources import LIMIT_NAMES, Limits
from casemate.model.result import JsonValue
from casemate.model.runtime import Runtime
from casemate.model.spec import BASE_ENVIRONMENT, RESERVED_NAMES
from casemate.model.units import format_bytes

FileSource: TypeAlias = bytes | str | Path
StdinLike: TypeAlias = bytes | str | int | IO[Any] | None
LimitsLike: TypeAlias = Limits | Mapping[str, Any] | None
NetworkLike: TypeAlias = NetworkPolicy | Mapping[str, Any] | Iterable[str] | None
EMPTY: Final[Mapping[str, str]] = {}
PARAMETERS: Final = ("cancel", "engine", "on_output")
"""What is no option of a run but may stand beside them, unless one is asynchronous or of a sandbox that has them."""

ISOLATE_OPTIONS: Final = frozenset(
    {"filename", "input", "limits", "require", "fresh", "tenant", "function", "spread", "values", "globals", "debug"}
)
_ENV_NAME: Final = r"[A-Za-z_][A-Za-z0-9_]*"


class ProgramOptions(TypedDict, total=False):
    """What any code may be given."""

    filename: str | None
    input: JsonValue
    args: Iterable[str]
    env: Mapping[str, str] | None
    stdin: StdinLike


class SessionCommandOptions(TypedDict, total=False):
    """What a program in a sandbox that stays may be given."""

    env: Mapping[str, str] | None
    stdin: StdinLike
    limits: Mapping[str, Any] | None
    cwd: str


class SessionCodeOptions(ProgramOptions, total=False):
    """What code in a sandbox that stays may be given."""

    limits: Mapping[str, Any] | None
    files: Mapping[str, FileSource] | None


class CommandOptions(TypedDict, total=False):
    """What a program in a sandbox of its own may be given."""

    env: Mapping[str, str] | None
    files: Mapping[str, FileSource] | None
    collect: Iterable[str]
    stdin: StdinLike
    limits: LimitsLike
    require: Iterable[Layer | str]
    fresh: bool
    network: NetworkLike


class CodeOptions(ProgramOptions, total=False):
    """What code in a sandbox of its own may be given."""

    files: Mapping[str, FileSource] | None
    collect: Iterable[str]
    limits: LimitsLike
    require: Iterable[Layer | str]
    fresh: bool
    network: NetworkLike
    tenant: str
    function: str
    spread: bool
    values: str
    globals: Iterable[str] | None
    debug: DebugLike


class InputFile(msgspec.Struct, frozen=True):
    """A file to be placed in the sandbox: an absolute path inside and its content."""

    path: PurePosixPath
    data: bytes
    executable: bool = False


def check_options(options: Mapping[str, Any], known: frozenset[str]) -> None:
    """Refuse a misspelt option by its name: one that is ignored may be a limit that does not hold."""
    for name in options:
        if name not in known:
            raise InvalidInput(name[:80], "unknown option", hint=_option_hint(name, options[name], known))


def _option_hint(name: str, value: object, known: frozenset[str]) -> str:
    from difflib import get_close_matches  # only a mistake pays for it

    if name in LIMIT_NAMES:
        return f"write limits={{{name!r}: {str(value)[:40] if isinstance(value, int | float) else repr(value)[:40]}}}"
    close = get_close_matches(name, (*known, *LIMIT_NAMES, *PARAMETERS), n=1)
    meant = f"did you mean {close[0]}? " if close else ""
    return f"{meant}known: " + ", ".join(sorted({*known, *PARAMETERS}))


def check_cancel(cancel: CancelToken | None) -> None:
    """Raise InvalidInput for what is no token."""
    if cancel is not None and not isinstance(cancel, CancelToken):
        raise InvalidInput("cancel", f"must be a CancelToken, not {type(cancel).__name__}")


def check_limits(base: Limits, wanted: LimitsLike) -> Limits:
    """Limits as a value, from a mapping as people write it, or the defaults."""
    if wanted is None or isinstance(wanted, Limits):
        return base if wanted is None else wanted
    return base.replacing(checked_mapping(wanted, "limits"))


def check_flag(value: object, *, field: str) -> bool:
    """A yes or a no, and nothing that merely counts as one."""
    if not isinstance(value, bool):
        raise InvalidInput(field, "must be True or False")
    return value


def check_recording(wanted: DebugLike, runtime: Runtime) -> Debug | None:
    """What is to be recorded, as far as the runtime's harness can; what it cannot is refused."""
    asked = check_debug(wanted)
    for name in RECORDED if asked is not None else ():
        if getattr(asked, name) and name not in runtime.debug:
            can = ", ".join(("stack", *runtime.debug))
            raise InvalidInput(f"debug.{name}", "this runtime records none", hint=f"it can record: {can}")
    return asked


def debug_wish(debug: Debug | None) -> dict[str, JsonValue]:
    """What the harness itself has to record; the stack of an error it tells in any case."""
    wanted = {name: getattr(debug, name, False) for name in RECORDED}
    return {"debug": wanted} if any(wanted.values()) else {}


def check_tenant(name: str) -> str:
    """Whose execution this is. Empty is the engine's own."""
    if len(encoded_text(name, field="tenant")) > bound.TENANT_MAX_BYTES:
        raise InvalidInput("tenant", f"is longer than {bound.TENANT_MAX_BYTES} bytes")
    return name


def check_isolate(options: CodeOptions, wanted: Limits, instead: str) -> None:
    """What a program in an isolate cannot have is refused: ignoring it would be a surprise."""
    hint = f"use the runtime {instead}" if instead else "use a runtime with a sandbox for each run"
    for name, value in options.items():
        if name not in ISOLATE_OPTIONS and value not in (None, (), [], {}):
            raise InvalidInput(name, "a program in an isolate has none", hint=hint)
    least, most = bound.ISOLATE_HEAP_MIN_BYTES, bound.ISOLATE_HEAP_MAX_BYTES
    if not least <= wanted.memory_bytes <= most:
        given, *bounds = map(format_bytes, (wanted.memory_bytes, least, most))
        raise InvalidInput("limits.memory", f"{given} is outside {' to '.join(bounds)} for isolates", hint=hint)


def check_layers(names: Iterable[Layer | str]) -> frozenset[Layer]:
    """Layers by name. Raises InvalidInput for a name that is none."""
    wanted = _items(names, "require")
    unknown = [name for name in wanted if name not in tuple(Layer)]
    if unknown:
        raise InvalidInput("require", f"{str(unknown[0])[:80]!r} is no layer", hint="known: " + ", ".join(Layer))
    return frozenset(Layer(name) for name in wanted)


def check_code(code: str) -> str:
    """Source text within its bound."""
    size_bytes = len(encoded_text(code, field="code"))
    if size_bytes > bound.CODE_MAX_BYTES:
        raise InvalidInput("code", f"{size_bytes} bytes are over the limit of {bound.CODE_MAX_BYTES}")
    if "\0" in code:
        raise InvalidInput("code", "holds a NUL character")
    return code


def check_file_name(name: str) -> str:
    """The name that the code's file has inside and in tracebacks."""
    size_bytes = len(encoded_text(name, field="filename"))
    if name in RESERVED_NAMES or "/" in name or "\0" in name or size_bytes > bound.FILE_NAME_MAX_BYTES:
        raise InvalidInput("filename", f"{name[:80]!r} is not a file name")
    return name


def check_arguments(arguments: Iterable[str], *, field: str) -> tuple[str, ...]:
    """Words for a command line."""
    words = _items(arguments, field)
    total_bytes = sum(_word_bytes(word, field) for word in words)
    if len(words) > bound.ARGS_MAX or total_bytes > bound.ARGV_TOTAL_MAX_BYTES:
        raise InvalidInput(field, f"more than {bound.ARGS_MAX} words or {bound.ARGV_TOTAL_MAX_BYTES} bytes")
    return words


def check_environment(
    extra: Mapping[str, Any] | None, *, defaults: Mapping[str, str] = EMPTY, owned: frozenset[str] = frozenset()
) -> dict[str, str]:
    """The base environment, the runtime's defaults over it, and over both what the caller sets.

    Nothing of the host's own environment, and none of the variables that are `owned`.
    """
    environment = {**BASE_ENVIRONMENT, **defaults}
    for name, value in checked_mapping(extra, "env").items():
        if not isinstance(name, str) or not re.fullmatch(_ENV_NAME, name):
            raise InvalidInput("env", f"{str(name)[:80]!r} is not a variable that can be set")
        if name in owned:
            raise InvalidInput("env", f"{name} belongs to the runtime and cannot be set")
        if not isinstance(value, str):
            raise InvalidInput("env", f"the value of {name[:80]!r} must be text, not {type(value).__name__}")
        environment[name] = value
    total = sum(len(name) + _word_bytes(value, "env") for name, value in environment.items())
    if len(environment) > bound.ENV_MAX or total > bound.ENV_TOTAL_MAX_BYTES:
        raise InvalidInput("env", f"more than {bound.ENV_MAX} variables or {bound.ENV_TOTAL_MAX_BYTES} bytes")
    return environment


def check_files(files: Mapping[str, FileSource] | None, disk_bytes: int) -> tuple[InputFile, ...]:
    """Files to place: `{path inside: bytes, text, or Path of ours}`."""
    found = []
    room = disk_bytes
    named = checked_mapping(files, "files")
    if len(named) > bound.FILES_MAX:
        raise InvalidInput("files", f"more than {bound.FILES_MAX}")
    for name, source in named.items():
        path = new_file_path(name, field="files")
        data, executable = _content(source, room)
        room -= len(data)
        if room < 0:
            raise InvalidInput("files", f"{name[:80]!r} and the others are larger than the disk limit")
        found.append(InputFile(path, data, executable))
    if len({file.path for file in found}) < len(found):
        raise InvalidInput("files", "two files have the same path")
    return tuple(found)


def _content(source: FileSource, room: int) -> tuple[bytes, bool]:
    if isinstance(source, bytes | str):
        return encoded_text(source, field="files") if isinstance(source, str) else source, False
    if not isinstance(source, Path):
        raise InvalidInput("files", f"a file is bytes, text or a Path, not {type(source).__name__}")
    try:
        return _file_content(source, room)
    except (OSError, ValueError) as error:
        problem = error.strerror if isinstance(error, OSError) else str(error)
        raise InvalidInput("files", f"cannot read {str(source)[:200]!r}: {problem}") from error


def _file_content(source: Path, room: int) -> tuple[bytes, bool]:
    """Opened without blocking: a named pipe would have us wait for somebody to write."""
    fd = os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(fd).st_mode
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "not a regular file")
        with open(fd, "rb", closefd=False) as file:
            return file.read(room + 1), bool(mode & 0o111)
    finally:
        os.close(fd)


def check_patterns(patterns: Iterable[str]) -> tuple[str, ...]:
    """Globs of files to collect."""
    found = _items(patterns, "collect")
    for pattern in found:
        check_pattern(pattern, field="collect")
    return found


def check_stdin(stdin: StdinLike) -> BytesOrFd | None:
    """Bytes, text, a descriptor, or a file object with one. A descriptor must be one that can be read."""
    if stdin is None or isinstance(stdin, bytes):
        return stdin
    if isinstance(stdin, str):
        return encoded_text(stdin, field="stdin")
    if isinstance(stdin, int) and not isinstance(stdin, bool) and stdin >= 0:
        return _readable(stdin)
    try:
        return _readable(stdin.fileno())  # type: ignore[union-attr]  # whatever else it is answers below
    except (AttributeError, OSError, ValueError) as error:
        raise InvalidInput("stdin", "must be bytes, text, a descriptor or an open file") from error


def _readable(fd: int) -> int:
    try:
        mode, flags = os.fstat(fd).st_mode, fcntl.fcntl(fd, fcntl.F_GETFL)
    except OSError as error:
        raise InvalidInput("stdin", f"descriptor {fd} is not open") from error
    if stat.S_ISDIR(mode) or flags & os.O_ACCMODE == os.O_WRONLY:
        raise InvalidInput("stdin", f"descriptor {fd} cannot be read")
    return fd


def encoded_text(text: object, *, field: str) -> bytes:
    """Text as UTF-8. Raises InvalidInput for what is no text, or holds half of a surrogate pair."""
    if not isinstance(text, str):
        raise InvalidInput(field, f"must be text, not {type(text).__name__}")
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(field, "is no valid Unicode text") from error


def _word_bytes(word: object, field: str) -> int:
    if not isinstance(word, str) or "\0" in word:
        raise InvalidInput(field, "a word holds a NUL character" if isinstance(word, str) else "a word is not text")
    return len(encoded_name(word, field=field))


def _items(values: object, field: str) -> tuple[Any, ...]:
    """A text is iterable too, and never meant so."""
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        words = repr(values.split())[:80] if isinstance(values, str) else "[…]"
        raise InvalidInput(field, "must be a list", hint=f"write {field}={words}")
    return tuple(values)


def checked_mapping(values: object, field: str) -> Mapping[Any, Any]:
    """A mapping; nothing is an empty one."""
    if values is None:
        return {}
    if not isinstance(values, Mapping):
        raise InvalidInput(field, "must be a mapping", hint=f"write {field}={{…}}")
    return values

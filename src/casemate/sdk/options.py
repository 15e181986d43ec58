"""What a client may ask of one execution: the options of `casemate.run`, and what only a service has.

Pure, but for files that are given by their path.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias, TypedDict, get_type_hints

from casemate.errors import InvalidInput
from casemate.model.layers import Layer
from casemate.model.resources import ATTRIBUTES, LIMIT_NAMES, Limits
from casemate.model.result import JsonValue
from casemate.sdk.requests import EVENTS, Request, check_key, encode, path

FileSource: TypeAlias = bytes | str | Path


class ExecutionOptions(TypedDict, total=False):
    """What any code may be given. `priority` to `patterns` are the service's own."""

    input: JsonValue
    args: Iterable[str]
    env: Mapping[str, str] | None
    stdin: bytes | str | None
    files: Mapping[str, FileSource] | None
    collect: Iterable[str]
    limits: Limits | Mapping[str, Any] | None
    require: Iterable[Layer | str]
    filename: str | None
    fresh: bool
    function: str
    spread: bool
    values: str
    globals: Iterable[str] | None
    debug: Mapping[str, bool] | None
    priority: int
    labels: Mapping[str, str] | None
    check: bool
    sanitize: bool
    patterns: bool


_KNOWN: Final = frozenset(get_type_hints(ExecutionOptions))


def execution_request(
    code: str, runtime: str, options: ExecutionOptions, *, idempotency_key: str | None = None
) -> Request:
    """Have code executed and be told how it goes on. Raises InvalidInput."""
    body: dict[str, Any] = {"code": code, "runtime": runtime}
    for name, value in options.items():
        if name not in _KNOWN:
            raise InvalidInput(name[:80], "unknown option", hint="known: " + ", ".join(sorted(_KNOWN)))
        if value is not None or name == "input":
            body[name] = _WRITERS[name](value) if name in _WRITERS else value
    key = check_key(idempotency_key) if idempotency_key is not None else ""
    return Request(
        method="POST", path=path("executions"), body=encode("body", body), accept=EVENTS, idempotency_key=key
    )


def _stdin(value: object) -> object:
    if not isinstance(value, bytes | str):
        raise InvalidInput("stdin", f"must be bytes or text, not {type(value).__name__}")
    return _data(value, "stdin")


def _files(files: object) -> dict[str, object]:
    if not isinstance(files, Mapping):
        raise InvalidInput("files", f"must be a mapping, not {type(files).__name__}")
    return {place: _data(source, f"files.{place}"[:80]) for place, source in files.items()}


def _data(source: object, field: str) -> object:
    """Text as it is, bytes in base64."""
    if isinstance(source, Path):
        try:
            source = source.read_bytes()
        except OSError as error:
            raise InvalidInput(field, f"cannot be read: {error.strerror}") from error
    if isinstance(source, str):
        return source
    if not isinstance(source, bytes):
        raise InvalidInput(field, f"must be bytes, text or a Path, not {type(source).__name__}")
    return {"base64": binascii.b2a_base64(source, newline=False).decode("ascii")}


def limits_document(limits: Limits | Mapping[str, Any]) -> dict[str, Any]:
    """Limits by the names that people write."""
    if not isinstance(limits, Limits):
        return dict(limits)
    found = {name: getattr(limits, ATTRIBUTES[name]) for name in LIMIT_NAMES}
    return {name: value for name, value in found.items() if value is not None}


_WRITERS: Final[dict[str, Callable[[Any], object]]] = {
    "args": list,
    "collect": list,
    "require": lambda layers: [str(layer) for layer in layers],
    "env": dict,
    "debug": dict,
    "labels": dict,
    "stdin": _stdin,
    "files": _files,
    "limits": limits_document,
}

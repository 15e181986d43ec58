"""What the commands that speak with a service have in common: the client, and how values are shown."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from casemate import service_limits as bound
from casemate.cli.arguments import Parsed, UsageError
from casemate.cli.messages import printable, show, show_json
from casemate.cli.options import read_file
from casemate.cli.style import style_for, table
from casemate.errors import InvalidInput
from casemate.model.document import result_document
from casemate.model.service import Execution

if TYPE_CHECKING:
    from casemate.sdk.client import Client


def client_of(parsed: Parsed) -> Client:
    """A client for the service and key that the options or the environment name."""
    from casemate.sdk.client import Client

    gc.enable()
    return Client(parsed.one("url"), _key(parsed))


def _key(parsed: Parsed) -> str | None:
    path = parsed.one("key-file")
    if path is None:
        return None
    data = read_file(path, bound.SDK_KEY_FILE_MAX_BYTES, field="key-file")
    try:
        return data.decode("ascii").strip()
    except UnicodeDecodeError as error:
        raise InvalidInput("key-file", f"{path[:200]!r} holds no key") from error


def number_of(text: str | None, name: str, command: str) -> int | None:
    """A whole number, if there is one. Raises UsageError."""
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal()):
        raise UsageError(command, f"{name} must be a whole number, not {text!r}")
    return int(text)


def limit_of(parsed: Parsed, command: str, default: int | None = None) -> int | None:
    """How many of a list are wanted. Raises UsageError."""
    found = number_of(parsed.one("limit"), "--limit", command)
    return default if found is None else found


def labels_of(parsed: Parsed) -> dict[str, str] | None:
    """The labels that were given as NAME=VALUE."""
    found = {}
    for word in parsed.all("label"):
        name, equals, value = word.partition("=")
        if not (name and equals):
            raise InvalidInput("label", f"{word[:80]!r} is not NAME=VALUE")
        found[name] = value
    return found or None


def document(value: object) -> Any:  # noqa: ANN401 - any JSON value
    """A value of the service's as JSON knows it."""
    if isinstance(value, Execution):
        shown = msgspec.to_builtins(msgspec.structs.replace(value, result=None))
        return shown | {"result": None if value.result is None else result_document(value.result)}
    return msgspec.to_builtins(value)


def show_rows(parsed: Parsed, values: Iterable[Any], columns: Mapping[str, Any]) -> None:
    """Values as a table, or with `--json` as an array. `columns` says what is in each."""
    found = list(values)
    if parsed.flag("json"):
        show_json([document(value) for value in found])
        return
    rows = [[text_of(cell(value)) for cell in columns.values()] for value in found]
    show(table(style_for(sys.stdout), list(columns), rows))


def show_value(parsed: Parsed, value: object, line: str) -> None:
    """A line about a value, or with `--json` the value."""
    if parsed.flag("json"):
        show_json(document(value))
    else:
        show([line])


def show_facts(parsed: Parsed, value: object, facts: Mapping[str, Any]) -> None:
    """What is known of one thing, a line for each fact."""
    if parsed.flag("json"):
        show_json(document(value))
        return
    style = style_for(sys.stdout)
    width = max(map(len, facts)) + 1
    show(f"{style.paint(name.ljust(width), 'cyan')} {text_of(fact)}" for name, fact in facts.items())


def text_of(value: object) -> str:
    """For people, on one line of a terminal whoever wrote it."""
    if value is None or value == "":
        return "-"
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, Mapping):
        return ", ".join(printable(f"{name}={each}") for name, each in value.items()) or "-"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(printable(str(each)) for each in value) or "-"
    return printable(str(value))

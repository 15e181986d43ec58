"""`casemate fn`: functions in a service."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from casemate import service_limits as bound
from casemate.cli import options
from casemate.cli.arguments import Parsed
from casemate.cli.messages import printable, say, show, show_json
from casemate.cli.service import client_of, labels_of, limit_of, number_of, show_rows, show_value, text_of
from casemate.cli.style import style_for, table
from casemate.config import data_directory, load_config
from casemate.errors import InvalidInput
from casemate.model.service import Function, FunctionVersion, Invocation
from casemate.runtimes.registry import DEFAULT_RUNTIME, Registry

DEFAULT_ALIAS = "live"


def publish(parsed: Parsed) -> int:
    """A new version."""
    name, path = parsed.words
    code = code_of(path)
    with client_of(parsed) as client:
        made = client.functions.publish(
            name,
            code,
            parsed.one("runtime") or language_of(path, code),
            limits=options.limits_of(parsed) or None,
            description=parsed.one("description"),
            labels=labels_of(parsed),
            input_schema=_json(parsed, "input-schema"),
            output_schema=_json(parsed, "output-schema"),
            function=parsed.one("function"),
            spread=parsed.flag("spread") or None,
            macros=parsed.flag("macros") or None,
            normalise=parsed.flag("normalise") or None,
            alias=None if parsed.flag("no-alias") else parsed.one("alias") or DEFAULT_ALIAS,
        )
    names = f" ({', '.join(map(printable, made.aliases))})" if made.aliases else ""
    show_value(parsed, made, f"{printable(made.function)} version {made.version}{names}")
    return 0


def code_of(path: str) -> str:
    """The text of a file, or of stdin."""
    if path == options.STDIN:
        data = sys.stdin.buffer.read(bound.CODE_MAX_BYTES + 1)
    else:
        data = options.read_file(path, bound.CODE_MAX_BYTES, field="file")
    try:
        return data.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise InvalidInput("code", f"is no UTF-8 text (byte {error.start})") from error


def language_of(path: str, code: str) -> str:
    """The runtime of a file, as `casemate run` guesses it."""
    from casemate.cli.language import guess_runtime, require_runtime

    config = load_config()
    registry = Registry(config.runtimes, lambda: data_directory(config))
    if path == options.STDIN:
        return guess_runtime(registry, "", code) or DEFAULT_RUNTIME
    return require_runtime(registry, path, code)


def _json(parsed: Parsed, key: str) -> Any:  # noqa: ANN401 - any JSON value
    text = parsed.one(key)
    return None if text is None else options.input_of(text)


def list_functions(parsed: Parsed) -> int:
    """A line for each."""
    with client_of(parsed) as client:
        found = client.functions.list(limit=limit_of(parsed, "fn list"))
        show_rows(
            parsed,
            found,
            {
                "NAME": lambda each: each.name,
                "RUNTIME": lambda each: each.runtime,
                "LATEST": lambda each: each.latest,
                "ALIASES": lambda each: each.aliases,
                "CHANGED": lambda each: each.updated_at,
                "DESCRIPTION": lambda each: each.description,
            },
        )
    return 0


def show_function(parsed: Parsed) -> int:
    """All of a function, or one version."""
    (name,) = parsed.words
    number = number_of(parsed.one("version"), "--version", "fn show")
    with client_of(parsed) as client:
        if number is None and not parsed.flag("source"):
            function = client.functions.get(name)
            _show_function(parsed, function, list(client.functions.versions(name)))
            return 0
        if number is None:
            number = client.functions.get(name).latest or 1
        version = client.functions.version(name, number)
    if parsed.flag("json"):
        show_json(version)
    elif parsed.flag("source"):
        show([version.code.removesuffix("\n")])
    else:
        show([*_facts(version), "", version.code.removesuffix("\n")])
    return 0


def _show_function(parsed: Parsed, function: Function, versions: list[FunctionVersion]) -> None:
    if parsed.flag("json"):
        show_json({**msgspec.to_builtins(function), "versions": versions})
        return
    style = style_for(sys.stdout)
    rows = [
        [str(each.version), text_of(each.runtime), text_of(each.created_at), text_of(each.aliases)] for each in versions
    ]
    show(
        [
            f"{style.paint(printable(function.name), 'bold')}: {text_of(function.description)}",
            "",
            *table(style, ("VERSION", "RUNTIME", "PUBLISHED", "ALIASES"), rows),
        ]
    )


def _facts(version: FunctionVersion) -> Iterator[str]:
    style = style_for(sys.stdout)
    for name in ("function", "version", "runtime", "digest", "description", "limits", "labels", "aliases"):
        yield f"{style.paint(name.ljust(11), 'cyan')} {text_of(getattr(version, name))}"


def invoke(parsed: Parsed) -> int:
    """One call; 0 if it succeeded."""
    (name,) = parsed.words
    with client_of(parsed) as client:
        answer = client.functions.invoke(
            name,
            options.input_of(parsed.one("data") or "null"),
            context=_json(parsed, "context"),
            timeout=parsed.one("timeout"),
            version=number_of(parsed.one("version"), "--version", "fn invoke"),
            alias=parsed.one("alias"),
        )
    if parsed.flag("json"):
        show_json(answer)
    else:
        sys.stderr.write(answer.stdout + answer.stderr)
        if answer.success:
            show([msgspec.json.encode(answer.output).decode()])
        elif reason_of(answer) not in answer.stderr:
            say(reason_of(answer))
    return 0 if answer.success else 1


def reason_of(answer: Invocation) -> str:
    """Why a call has no output, in one line."""
    if answer.error is None:
        return f"it failed: {answer.reason}"
    return printable(f"{answer.error.type}: {answer.error.message}")


def batch(parsed: Parsed) -> int:
    """A call for each line; 0 if all succeeded."""
    name, path = parsed.words
    stream = _opened(path)
    with stream, client_of(parsed) as client:
        answers = client.functions.stream(
            name,
            items_of(stream, plain=parsed.flag("plain")),
            timeout=parsed.one("timeout"),
            version=number_of(parsed.one("version"), "--version", "fn batch"),
            alias=parsed.one("alias"),
        )
        return _show_answers(answers)


def _show_answers(answers: Iterator[Invocation]) -> int:
    from casemate.sdk.items import telling

    failed = done = 0
    with telling(sys.stderr.isatty() and not sys.stdout.isatty(), None) as tell:
        for done, answer in enumerate(answers, 1):
            failed += not answer.success
            show([msgspec.json.encode(_line(answer)).decode()])
            tell(done)
    if failed:
        say(f"{failed} of {done} items failed")
    return 1 if failed else 0


def _line(answer: Invocation) -> dict[str, Any]:
    end = {"output": answer.output} if answer.success else {"error": answer.error}
    warnings = {"warnings": answer.warnings} if answer.warnings else {}
    return {"id": answer.id, "success": answer.success, **end, "reason": answer.reason, **warnings}


def _opened(path: str) -> BinaryIO:
    if path == options.STDIN:
        return sys.stdin.buffer
    try:
        return Path(path).open("rb")
    except (OSError, ValueError) as error:
        raise InvalidInput("file", f"cannot read {path[:200]!r}: {getattr(error, 'strerror', error)}") from error


def items_of(stream: BinaryIO, *, plain: bool) -> Iterator[dict[str, Any]]:
    """The items of a file of JSON lines, as they are needed. Raises InvalidInput, naming the line."""
    number = 0
    while line := stream.readline(bound.INPUT_MAX_BYTES + 1):
        number += 1
        if len(line) > bound.INPUT_MAX_BYTES:
            raise InvalidInput(f"line {number}", f"is over the limit of {bound.INPUT_MAX_BYTES} bytes")
        if not line.strip():
            continue
        try:
            value = msgspec.json.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidInput(f"line {number}", f"is no valid JSON: {error}") from error
        if plain:
            yield {"id": str(number), "data": value}
        elif isinstance(value, dict):
            yield value
        else:
            raise InvalidInput(f"line {number}", "is no object", hint="--plain takes each line as the data itself")


def alias(parsed: Parsed) -> int:
    """Move it."""
    name, which, version = parsed.words
    number = number_of(version, "VERSION", "fn alias")
    with client_of(parsed) as client:
        moved = client.functions.alias(name, which, number or 0)
    show_value(parsed, moved, f"{printable(which)} is version {moved.version}")
    return 0


def rollback(parsed: Parsed) -> int:
    """Move it back."""
    name, which = (*parsed.words, DEFAULT_ALIAS)[:2]
    with client_of(parsed) as client:
        moved = client.functions.rollback(name, which)
    show_value(parsed, moved, f"{printable(which)} is version {moved.version}")
    return 0


def logs(parsed: Parsed) -> int:
    """The youngest lines, oldest first."""
    (name,) = parsed.words
    limit = limit_of(parsed, "fn logs", bound.PAGE_MAX_COUNT)
    with client_of(parsed) as client:
        version = number_of(parsed.one("version"), "--version", "fn logs")
        found = list(client.functions.logs(name, version=version, since=parsed.one("since"), limit=limit))
    if parsed.flag("json"):
        show_json(found)
        return 0
    for line in reversed(found):
        start = f"{text_of(line.at)} v{text_of(line.version)} {text_of(line.item_id)} {line.stream}"
        show(f"{printable(start)}: {printable(text)}" for text in line.text.splitlines())
    return 0


def diff(parsed: Parsed) -> int:
    """As a unified diff."""
    name, *numbers = parsed.words
    older, newer = (number_of(text, "a version", "fn diff") or 0 for text in numbers)
    with client_of(parsed) as client:
        found = client.functions.diff(name, older, newer)
    if parsed.flag("json"):
        show_json(found)
        return 0
    for field, values in found.changed.items():
        show([f"# {printable(field)}: {printable(msgspec.json.encode(values).decode())}"])
    show(found.code.splitlines())
    return 0


def delete(parsed: Parsed) -> int:
    """Remove it."""
    (name,) = parsed.words
    with client_of(parsed) as client:
        client.functions.delete(name)
    say(f"{printable(name)} is gone")
    return 0

"""What the runners' endpoint is sent and answers: an event with a script and items, and an envelope of results.

Other systems read the texts of the errors. They are those that such runners have always had, by language where the
languages' runners differ.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import msgspec

from casemate import service_limits as limits
from casemate.errors import InvalidInput
from casemate.model.function import Item, ItemResult, Source
from casemate.model.result import JsonValue, Reason

ENCODING: Final = "gzip+base64"
GZIP_WINDOW_BITS: Final = 31
MISSING_SCRIPT: Final = "Missing 'script' field"
SCRIPT_TOO_LONG: Final = "Script exceeds {} limit"
TOO_MANY_ITEMS: Final = "Exceeds {} item limit"
OUTPUT_TOO_LONG: Final = "Wrapper output exceeds {} limit"
INVALID_PAYLOAD: Final = "Invalid Lambda response payload"
SYNTAX_ERRORS: Final = frozenset({"SyntaxError", "IndentationError", "TabError"})

Envelope: TypeAlias = dict[str, Any]


class RunnerLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The bounds of one call of a runner."""

    script_bytes: int = limits.RUNNER_SCRIPT_MAX_BYTES
    items: int = limits.RUNNER_ITEMS_MAX
    timeout_default_s: float = limits.RUNNER_TIMEOUT_DEFAULT_S
    timeout_min_s: float = limits.RUNNER_TIMEOUT_MIN_S
    timeout_max_s: float = limits.RUNNER_TIMEOUT_MAX_S
    output_bytes: int = limits.RUNNER_OUTPUT_MAX_BYTES
    unpacked_bytes: int = limits.RUNNER_UNPACKED_MAX_BYTES


DEFAULTS: Final = RunnerLimits()


class Dialect(msgspec.Struct, frozen=True, kw_only=True):
    """How the runner of a language words its errors; `{type}` and `{message}` are the program's."""

    bad_script: str = "Invalid base64 in 'script'"
    bad_items: str = "'items' must be an array"
    item_error: str = "{message}"
    item_timeout: str = "Script execution timed out after 1000ms"
    bad_syntax: str = "Script compilation failed: {message}"
    """Of the whole call; empty if each item says it."""


DIALECTS: Final = {
    "python": Dialect(
        bad_script="Invalid base64 or encoding in 'script'",
        item_error="{type}: {message}",
        item_timeout="TimeoutError: Script execution timed out",
        bad_syntax="Failed to compile script: {message}",
    ),
    "r": Dialect(
        bad_items="'items' must be an array, not an object",
        item_timeout="reached elapsed time limit",
        bad_syntax="",
    ),
}
"""Runners of other languages have the words of a plain `Dialect`."""


def dialect(language: str) -> Dialect:
    """The words of that language's runner."""
    return DIALECTS.get(language, Dialect())


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """An event that was understood. `ids` are as they came; of an item that cannot be called there is an error."""

    code: str
    items: tuple[Item | str, ...]
    ids: tuple[JsonValue, ...]
    timeout_s: float

    @property
    def callable_items(self) -> list[Item]:
        return [item for item in self.items if isinstance(item, Item)]

    def source(self, runtime: str, item_limits: dict[str, Any]) -> Source:
        return Source(runtime=runtime, code=self.code, limits=item_limits, macros=True)


def failure(problem: str) -> Envelope:
    """The envelope of a call that failed as a whole."""
    return {"status": "error", "results": [], "errors": [problem]}


def read_event(event: object, language: str, bounds: RunnerLimits = DEFAULTS) -> Call | str:
    """The call that an event asks for, or the text of what is wrong with it."""
    if not isinstance(event, dict) or not event.get("script"):
        return MISSING_SCRIPT
    words = dialect(language)
    code = _script(event["script"], words, bounds)
    if code.problem:
        return code.problem
    items = event.get("items")
    items = [] if items is None else items
    if not isinstance(items, list):
        return words.bad_items
    if len(items) > bounds.items:
        return TOO_MANY_ITEMS.format(bounds.items)
    timeout = event.get("timeout")
    timeout = bounds.timeout_default_s if timeout is None else timeout
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or timeout != timeout:  # noqa: PLR0124  # NaN
        return "'timeout' must be a number"
    return Call(
        code=code.text,
        items=tuple(map(_item, items)),
        ids=tuple(item.get("id", "") if isinstance(item, dict) else "" for item in items),
        timeout_s=float(min(max(timeout, bounds.timeout_min_s), bounds.timeout_max_s)),
    )


class _Script(msgspec.Struct, frozen=True):
    text: str = ""
    problem: str = ""


def _script(script: object, words: Dialect, bounds: RunnerLimits) -> _Script:
    if not isinstance(script, str):
        return _Script(problem=words.bad_script)
    too_long = _Script(problem=SCRIPT_TOO_LONG.format(_size_text(bounds.script_bytes)))
    packed = "".join(script.split())
    if len(packed) > (bounds.script_bytes + 2) // 3 * 4:
        return too_long
    try:
        data = base64.b64decode(packed, validate=True)
        text = data.decode("utf-8")
    except ValueError:
        return _Script(problem=words.bad_script)
    return too_long if len(data) > bounds.script_bytes else _Script(text)


def _item(item: object) -> Item | str:
    """The item, or why it cannot be called: that is its own failure and nobody else's."""
    if not isinstance(item, dict):
        return "Item must be an object"
    context = item.get("context")
    context = {} if context is None else context
    if not isinstance(context, dict):
        return "'context' must be an object"
    return Item(id=str(item.get("id", "")), data=item.get("data"), context=context)


def _size_text(size_bytes: int) -> str:
    return f"{size_bytes // limits.MIB}MB" if size_bytes % limits.MIB == 0 else f"{size_bytes} bytes"


def reply(
    call: Call,
    results: Sequence[ItemResult],
    language: str,
    bounds: RunnerLimits = DEFAULTS,
    *,
    is_readable: bool = True,
) -> Envelope:
    """The envelope for the results of the call's items, which are one for each that could be called, in their order.

    `is_readable`: whether the language could read the script at all.
    """
    words = dialect(language)
    if not is_readable and words.bad_syntax and results:
        error = results[0].error
        return failure(words.bad_syntax.format(message=error.message if error else ""))
    given = iter(results)
    entries = [
        _entry(item_id, item if isinstance(item, str) else next(given), words)
        for item_id, item in zip(call.ids, call.items, strict=True)
    ]
    envelope: Envelope = {"status": "success", "results": entries}
    if len(msgspec.json.encode(envelope)) > bounds.output_bytes:
        return failure(OUTPUT_TOO_LONG.format(_size_text(bounds.output_bytes)))
    return envelope


def may_be_unreadable(results: Sequence[ItemResult], language: str) -> bool:
    """Whether all items failed as they do when the script cannot be read; a script may also fail so by itself."""
    types = {"" if result.error is None else result.error.type for result in results}
    return bool(dialect(language).bad_syntax) and bool(types) and types <= SYNTAX_ERRORS


def _entry(item_id: JsonValue, result: ItemResult | str, words: Dialect) -> Envelope:
    if isinstance(result, str):
        return {"id": item_id, "success": False, "error": result}
    if result.success:
        return {"id": item_id, "success": True, "output": result.output}
    return {"id": item_id, "success": False, "error": item_error(result, words)}


def item_error(result: ItemResult, words: Dialect) -> str:
    """One line on why an item failed."""
    if result.reason is Reason.TIMEOUT:
        return words.item_timeout
    if result.error is not None:
        return words.item_error.format(type=result.error.type, message=result.error.message)
    return f"Execution failed: {result.reason}"


# How envelopes travel --------------------------------------------------------------------------------


def wrap(envelope: Envelope) -> dict[str, str]:
    """The envelope, packed: some callers take only small replies."""
    packer = zlib.compressobj(wbits=GZIP_WINDOW_BITS)
    packed = packer.compress(msgspec.json.encode(envelope)) + packer.flush()
    return {"encoding": ENCODING, "payload": base64.b64encode(packed).decode("ascii")}


def unwrap(answer: object, bounds: RunnerLimits = DEFAULTS) -> Envelope:
    """The envelope in an answer, packed or not; refused if it is no envelope, or longer than the bound."""
    if isinstance(answer, dict) and answer.get("encoding") == ENCODING:
        answer = _unpacked(answer.get("payload"), bounds.unpacked_bytes)
    if not isinstance(answer, dict) or answer.get("status") not in {"success", "error"}:
        raise InvalidInput("payload", INVALID_PAYLOAD)
    results, errors = answer.get("results"), answer.get("errors", [])
    if not isinstance(results, list) or not isinstance(errors, list):
        raise InvalidInput("payload", INVALID_PAYLOAD)
    if not all(isinstance(entry, dict) and isinstance(entry.get("success"), bool) for entry in results):
        raise InvalidInput("payload", INVALID_PAYLOAD)
    return answer


def _unpacked(payload: object, most_bytes: int) -> object:
    if not isinstance(payload, str):
        raise InvalidInput("payload", INVALID_PAYLOAD)
    unpacker = zlib.decompressobj(wbits=GZIP_WINDOW_BITS)
    try:
        data = unpacker.decompress(base64.b64decode(payload, validate=True), most_bytes + 1)
    except (binascii.Error, ValueError, zlib.error) as error:
        raise InvalidInput("payload", INVALID_PAYLOAD) from error
    if len(data) > most_bytes:
        raise InvalidInput("payload", f"unpacked it is longer than {most_bytes} bytes")
    if not unpacker.eof or unpacker.unused_data:
        raise InvalidInput("payload", INVALID_PAYLOAD)
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidInput("payload", INVALID_PAYLOAD) from error

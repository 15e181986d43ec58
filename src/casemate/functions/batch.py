"""Batches: items for several functions, grouped into calls of runners, whose results come back in the items' order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from casemate import service_limits as limits
from casemate.errors import InvalidInput
from casemate.model.function import Item, ItemResult
from casemate.model.result import JsonValue, Reason

MISMATCH: Final = "Lambda response did not match the requested items"
NOT_FOUND: Final = "Function not found: {}"
MACRO_NOT_FOUND: Final = "Macro not found: {}"


class BatchLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The bounds of one batch."""

    items: int = limits.BATCH_ITEMS_MAX
    items_per_call: int = limits.RUNNER_ITEMS_MAX
    timeout_default_s: float = limits.BATCH_TIMEOUT_DEFAULT_S
    timeout_min_s: float = limits.BATCH_TIMEOUT_MIN_S
    timeout_max_s: float = limits.BATCH_TIMEOUT_MAX_S


DEFAULTS: Final = BatchLimits()


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Which function is meant: by its version, by an alias, or, with neither, by the usual alias."""

    function: str
    version: JsonValue = None
    alias: str = ""


class BatchItem(msgspec.Struct, frozen=True, kw_only=True):
    """One call that a batch asks for."""

    target: Target
    item: Item


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """What a batch asks for, in the order of the request."""

    items: tuple[BatchItem, ...]
    timeout_s: float


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One call of a runner: which items of the batch it has, all of one target."""

    target: Target
    positions: tuple[int, ...]


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one item."""

    id: str
    function: str
    success: bool
    output: JsonValue = None
    error: str = ""
    result: ItemResult | None = None


class Merged(msgspec.Struct, frozen=True, kw_only=True):
    """What became of all items, in the order of the request, and what failed for more than one of them."""

    results: tuple[Entry, ...]
    errors: tuple[str, ...] = ()


# Reading --------------------------------------------------------------------------------------------


def read_batch(
    body: object, *, name_key: str = "function", version_key: str = "version", bounds: BatchLimits = DEFAULTS
) -> Batch:
    """The batch of a request; `items`, and each one's `data` and `context`, may also come as JSON texts.

    Some senders encode twice. A text of `data` counts as JSON only if it is that of an object or an array.
    """
    if not isinstance(body, dict):
        raise InvalidInput("body", "not an object")
    items = _decoded(body.get("items"))
    if not isinstance(items, list):
        raise InvalidInput("items", "not an array")
    if not 1 <= len(items) <= bounds.items:
        raise InvalidInput("items", f"{len(items)} of them; there may be 1 to {bounds.items}")
    return Batch(
        items=tuple(_read_item(item, at, name_key, version_key) for at, item in enumerate(items)),
        timeout_s=_timeout(body.get("timeout"), bounds),
    )


def _timeout(value: object, bounds: BatchLimits) -> float:
    if value is None:
        return bounds.timeout_default_s
    low, high = bounds.timeout_min_s, bounds.timeout_max_s
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise InvalidInput("timeout", f"not a number of seconds from {low:g} to {high:g}")
    return float(value)


def _read_item(value: object, at: int, name_key: str, version_key: str) -> BatchItem:
    if not isinstance(value, dict):
        raise InvalidInput(f"items[{at}]", "not an object")
    item_id, name, alias = value.get("id"), value.get(name_key), value.get("alias", "")
    for key, text in (("id", item_id), (name_key, name), ("alias", alias)):
        if not isinstance(text, str):
            raise InvalidInput(f"items[{at}].{key}", "not a text")
    context = _decoded(value.get("context"))
    context = {} if context is None else context
    if not isinstance(context, dict):
        raise InvalidInput(f"items[{at}].context", "not an object")
    version = value.get(version_key)
    if isinstance(version, bool) or not isinstance(version, int | str | None):
        raise InvalidInput(f"items[{at}].{version_key}", "not the name or number of a version")
    target = Target(function=str(name), version=version, alias=str(alias))
    return BatchItem(target=target, item=Item(id=str(item_id), data=_decoded(value.get("data")), context=context))


def _decoded(value: JsonValue) -> JsonValue:
    if not isinstance(value, str) or not value.lstrip().startswith(("{", "[")):
        return value
    try:
        return msgspec.json.decode(value)
    except (msgspec.DecodeError, RecursionError):
        return value


# Splitting and merging --------------------------------------------------------------------------------


def split(batch: Batch, bounds: BatchLimits = DEFAULTS) -> tuple[Part, ...]:
    """The calls of runners that a batch needs: one for each target, or several where it has too many items."""
    grouped: dict[Target, list[int]] = {}
    for position, each in enumerate(batch.items):
        grouped.setdefault(each.target, []).append(position)
    size = bounds.items_per_call
    return tuple(
        Part(target=target, positions=tuple(positions[start : start + size]))
        for target, positions in grouped.items()
        for start in range(0, len(positions), size)
    )


def merge(batch: Batch, parts: Sequence[Part], answers: Sequence[Sequence[ItemResult] | str]) -> Merged:
    """What became of each item, by the answer to each part: its results, or the text of why there are none.

    An answer whose number of results or whose ids are not those of its part fails all items of its target: nobody
    can tell what belongs to which.
    """
    failed: dict[Target, str] = {}
    for part, answer in zip(parts, answers, strict=True):
        problem = answer if isinstance(answer, str) else _problem(batch, part, answer)
        if problem:
            failed.setdefault(part.target, problem)
    found: dict[int, ItemResult] = {}
    for part, answer in zip(parts, answers, strict=True):
        if part.target not in failed and not isinstance(answer, str):
            found.update(zip(part.positions, answer, strict=True))
    entries = tuple(_entry(each, found.get(at), failed) for at, each in enumerate(batch.items))
    return Merged(results=entries, errors=tuple(dict.fromkeys(failed.values())))


def _problem(batch: Batch, part: Part, answer: Sequence[ItemResult]) -> str:
    wanted = [batch.items[position].item.id for position in part.positions]
    return "" if [result.id for result in answer] == wanted else MISMATCH


def _entry(item: BatchItem, result: ItemResult | None, failed: Mapping[Target, str]) -> Entry:
    name, item_id = item.target.function, item.item.id
    if result is None:
        return Entry(id=item_id, function=name, success=False, error=failed.get(item.target, MISMATCH))
    if result.success:
        return Entry(id=item_id, function=name, success=True, output=result.output, result=result)
    return Entry(id=item_id, function=name, success=False, error=error_text(result), result=result)


def error_text(result: ItemResult) -> str:
    """One line on why an item failed."""
    if result.error is not None:
        return f"{result.error.type}: {result.error.message}" if result.error.type else result.error.message
    return "Execution timed out" if result.reason is Reason.TIMEOUT else f"Execution failed: {result.reason}"

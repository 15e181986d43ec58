"""`casemate fn test`: a function, called with examples; what comes out is compared with what should."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from casemate import service_limits as bound
from casemate.cli.arguments import Parsed, UsageError
from casemate.cli.functions import code_of, language_of, reason_of
from casemate.cli.messages import printable, show, show_json
from casemate.cli.options import read_file
from casemate.cli.service import client_of, number_of
from casemate.cli.style import Style, style_for
from casemate.errors import InvalidInput
from casemate.model.function import Item, Source
from casemate.model.result import JsonValue
from casemate.model.service import Invocation

TOLERANCE: Final = 1e-9
SHOWN_MAX_CHARS: Final = 300


class Case(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a function is called with, and the output or a part of the error that is to come of it."""

    name: str = ""
    data: JsonValue = None
    context: dict[str, Any] = {}
    output: JsonValue | msgspec.UnsetType = msgspec.UNSET
    error: str | msgspec.UnsetType = msgspec.UNSET


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How one case ended; `problem` is empty if it held."""

    name: str
    held: bool
    problem: str = ""


def test(parsed: Parsed) -> int:
    """0 if all cases hold."""
    (target,) = parsed.words
    cases = _cases(parsed)
    tolerance = _tolerance(parsed)
    items = [Item(id=str(place), data=case.data, context=case.context) for place, case in enumerate(cases)]
    answers = _in_service(parsed, target, items) if parsed.flag("service") else _here(parsed, target, items)
    pairs = enumerate(zip(cases, answers, strict=True), 1)
    outcomes = [judge(case, answer, tolerance, number) for number, (case, answer) in pairs]
    if parsed.flag("json"):
        show_json(outcomes)
    else:
        show(_lines(outcomes, style_for(sys.stdout)))
    return 0 if all(each.held for each in outcomes) else 1


def _cases(parsed: Parsed) -> list[Case]:
    path = parsed.one("cases")
    if path is None:
        raise UsageError("fn test", "give the examples by --cases FILE")
    data = read_file(path, bound.INPUT_MAX_BYTES, field="cases")
    try:
        found = msgspec.json.decode(data, type=list[Case])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput("cases", f"{path[:200]!r} has no cases: {error}") from error
    for place, case in enumerate(found):
        if (case.output is msgspec.UNSET) == (case.error is msgspec.UNSET):
            raise InvalidInput(f"cases[{place}]", "must have either output or error")
    return found


def _tolerance(parsed: Parsed) -> float:
    text = parsed.one("tolerance")
    try:
        return TOLERANCE if text is None else float(text)
    except ValueError as error:
        raise UsageError("fn test", f"--tolerance must be a number, not {text!r}") from error


def _in_service(parsed: Parsed, name: str, items: list[Item]) -> list[Invocation]:
    with client_of(parsed) as client:
        version = number_of(parsed.one("version"), "--version", "fn test")
        timeout, alias = parsed.one("timeout"), parsed.one("alias")
        return list(client.functions.batch(name, items, timeout=timeout, version=version, alias=alias))


def _here(parsed: Parsed, path: str, items: list[Item]) -> list[Invocation]:
    """In sandboxes of this machine."""
    from casemate.engine.engine import Engine
    from casemate.engine.items import run_items

    code = code_of(path)
    timeout = parsed.one("timeout")
    source = Source(
        runtime=parsed.one("runtime") or language_of(path, code),
        code=code,
        limits={} if timeout is None else {"timeout": timeout},
        function=parsed.one("function") or "",
        spread=parsed.flag("spread"),
        macros=parsed.flag("macros"),
    )
    found: dict[int, Invocation] = {}
    with Engine() as engine:
        for place, each in run_items(engine, source, items):
            found[place] = Invocation(
                id=each.id, success=each.success, output=each.output, error=each.error, reason=each.reason
            )
    return [found[place] for place in range(len(items))]


def judge(case: Case, answer: Invocation, tolerance: float, number: int) -> Outcome:
    """Whether what came is what was expected. Pure."""
    name = case.name or f"case {number}"
    if case.error is not msgspec.UNSET:
        if answer.success:
            return Outcome(name=name, held=False, problem=f"succeeded with {_shown(answer.output)}")
        held = case.error in reason_of(answer)
        return Outcome(name=name, held=held, problem="" if held else reason_of(answer))
    if not answer.success:
        return Outcome(name=name, held=False, problem=reason_of(answer))
    where = next(differences(case.output, answer.output, tolerance), None)
    return Outcome(name=name, held=where is None, problem=where or "")


def differences(expected: JsonValue, found: JsonValue, tolerance: float, place: str = "output") -> Iterator[str]:
    """Where two JSON values differ, and how. Pure."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in sorted({*expected, *found}):
            inner = f"{place}.{key}"
            if key not in found or key not in expected:
                yield f"{inner} is {'missing' if key in expected else 'not expected'}"
            else:
                yield from differences(expected[key], found[key], tolerance, inner)
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for number, (one, other) in enumerate(zip(expected, found, strict=True)):
            yield from differences(one, other, tolerance, f"{place}[{number}]")
    elif not _is_same(expected, found, tolerance):
        yield f"{place} is {_shown(found)}, not {_shown(expected)}"


def _is_same(expected: JsonValue, found: JsonValue, tolerance: float) -> bool:
    numbers = [isinstance(value, int | float) and not isinstance(value, bool) for value in (expected, found)]
    if all(numbers):
        return math.isclose(expected, found, rel_tol=tolerance, abs_tol=tolerance)
    return type(expected) is type(found) and expected == found


def _shown(value: JsonValue) -> str:
    return msgspec.json.encode(value).decode()[:SHOWN_MAX_CHARS]


def _lines(outcomes: list[Outcome], style: Style) -> Iterator[str]:
    for each in outcomes:
        problem = f": {printable(each.problem)}" if each.problem else ""
        yield f"{style.mark(good=each.held)} {printable(each.name)}{problem}"
    failed = sum(not each.held for each in outcomes)
    yield f"{len(outcomes) - failed} of {len(outcomes)} cases hold"

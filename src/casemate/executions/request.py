"""What a tenant asks to have run, checked as far as can be without a node."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from casemate import service_limits as bound
from casemate import service_limits as limits
from casemate.errors import InvalidInput
from casemate.executions.patterns import TOO_LARGE, is_too_large
from casemate.model.resources import ATTRIBUTES, Limits
from casemate.model.result import JsonValue

NO_INPUT: Final = msgspec.UNSET
"""Not given, which is not the same as null."""


class ExecutionRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One run of code. Fields are those of `casemate.run`, and what the service does with it besides.

    `files` and `stdin` are bytes. `changes` are what the sanitizer has done to the code.
    """

    runtime: str
    code: str
    input: JsonValue | msgspec.UnsetType = NO_INPUT
    args: tuple[str, ...] = ()
    env: dict[str, str] = {}
    stdin: bytes | None = None
    files: dict[str, bytes] = {}
    collect: tuple[str, ...] = ()
    limits: dict[str, Any] = {}
    require: tuple[str, ...] = ()
    filename: str | None = None
    fresh: bool = False
    function: str = ""
    spread: bool = False
    values: str = ""
    globals: tuple[str, ...] | None = None
    debug: dict[str, bool] = {}
    changes: tuple[dict[str, Any], ...] = ()
    priority: int = bound.PRIORITY_DEFAULT
    labels: dict[str, str] = {}
    live: bool = False


_OPTIONS: Final = frozenset(
    {"args", "env", "collect", "require", "filename", "fresh", "function", "spread", "values", "globals", "debug"}
)


def engine_options(request: ExecutionRequest) -> dict[str, Any]:
    """The options of the run as the engine takes them: those that say something."""
    found: dict[str, Any] = {"limits": request.limits} if request.limits else {}
    for name in sorted(_OPTIONS):
        value = getattr(request, name)
        if value not in ((), {}, "", None, False) or (name == "globals" and value is not None):
            found[name] = value  # no globals at all say something
    if request.input is not NO_INPUT:
        found["input"] = request.input
    return found


def check_code_size(code: str) -> None:
    """Raise InvalidInput for code that is too large to be looked at."""
    if is_too_large(code):
        raise InvalidInput("code", TOO_LARGE, hint=f"it may have {limits.CODE_MAX_BYTES} bytes")


def check_maximum(wanted: Mapping[str, Any], maximum: Mapping[str, Any]) -> None:
    """Raise InvalidInput for a limit that is no limit, or above what this service allows."""
    asked = Limits().replacing(wanted)
    for name, allowed in maximum.items():
        if name in wanted and _amount(asked, name) > _amount(Limits().replacing({name: allowed}), name):
            raise InvalidInput(f"limits.{name}", f"is above the {allowed} that this service allows")


def _amount(wanted: Limits, name: str) -> float:
    found: float = getattr(wanted, ATTRIBUTES[name])
    return found

"""What a run of code may ask of its harness besides: a function to call, richer values, or a look at the syntax."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, Final

import msgspec

from casemate import limits
from casemate.engine.request import check_flag, encoded_text
from casemate.errors import InvalidInput
from casemate.model.runtime import Ability, Runtime

VALUES: Final = ("json", "rich")


class Calling(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What stands in the request beside code and input. What is as ever is not mentioned.

    `context` is what an item has beside its data, `library` the text of the functions that macros may call. `globals`
    are the only ones of the runtime's that the program finds; None: all.
    """

    function: str = ""
    spread: bool = False
    values: str = "json"
    check: bool = False
    globals: tuple[str, ...] | None = None
    context: dict[str, Any] | None = None
    library: str = ""

    def fields(self) -> dict[str, Any]:
        """For the request."""
        found: dict[str, Any] = msgspec.to_builtins(self)
        return found


AS_EVER: Final = Calling()
ONLY_CHECK: Final = Calling(check=True)


def check_calling(runtime: Runtime, options: Mapping[str, Any]) -> Calling:
    """The options that are about calls. Raises InvalidInput for what the runtime's harness cannot do."""
    wanted = Calling(
        function=_function(options.get("function", "")),
        spread=check_flag(options.get("spread", False), field="spread"),
        values=_values(options.get("values", "json")),
        globals=_globals(runtime, options.get("globals")),
    )
    if wanted.function and Ability.FUNCTION not in runtime.abilities:
        raise InvalidInput("function", "the programs of this runtime have no functions that can be called by name")
    if wanted.values != "json" and Ability.RICH not in runtime.abilities:
        raise InvalidInput("values", "this runtime has no richer values than those of JSON")
    if wanted.spread:
        _check_spread(wanted, options.get("input"))
    return wanted


def _function(name: object) -> str:
    encoded = encoded_text(name, field="function")
    if len(encoded) > limits.FUNCTION_NAME_MAX_BYTES or b"\0" in encoded:
        raise InvalidInput("function", f"is no name of at most {limits.FUNCTION_NAME_MAX_BYTES} bytes")
    return encoded.decode()


def _values(kind: object) -> str:
    if not isinstance(kind, str) or kind not in VALUES:
        raise InvalidInput("values", f"{str(kind)[:80]!r} is unknown", hint="known: " + ", ".join(VALUES))
    return kind


def _globals(runtime: Runtime, names: object) -> tuple[str, ...] | None:
    if names is None:
        return None
    if not runtime.globals:
        raise InvalidInput("globals", "the globals of this runtime's programs cannot be chosen")
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise InvalidInput("globals", f"must be names, not {type(names).__name__}")
    found = tuple(islice(names, len(runtime.globals) + 1))
    for at, name in enumerate(found):
        if not isinstance(name, str) or name not in runtime.globals:
            raise InvalidInput(
                f"globals[{at}]", f"{str(name)[:80]!r} is unknown", hint=_meant(str(name)[:80], runtime.globals)
            )
    if len(found) > len(runtime.globals):
        raise InvalidInput("globals", f"has more than the {len(runtime.globals)} names that there are")
    return found


def _meant(name: str, known: Iterable[str]) -> str:
    from difflib import get_close_matches  # only a mistake pays for it

    close = get_close_matches(name, known, n=1)
    return f"did you mean {close[0]}?" if close else "known: " + ", ".join(known)


def _check_spread(wanted: Calling, given: object) -> None:
    if not wanted.function:
        raise InvalidInput("spread", "there is no function whose arguments the input could be", hint="name a function")
    value = given.get("json") if wanted.values == "rich" and isinstance(given, Mapping) else given
    if not isinstance(value, list | tuple):
        raise InvalidInput("input", "is to be spread, and so must be an array of arguments")

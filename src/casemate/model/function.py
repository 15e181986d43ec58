"""What functions are made of: source, the items that they are called with, and what becomes of each."""

from __future__ import annotations

from typing import Any

import msgspec

from casemate.model.result import GuestError, JsonValue, Reason, Usage


class Source(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Code that is called with items, one after the other, none of which can tell that there were others.

    `limits` are of one item, as people write them; those that are not named are the runtime's. `function` names what
    is called with the data, `*` the first function of the source; empty: the program itself is what is run. `spread`:
    its data is an array, of arguments. `macros`: the library of helper functions is there.
    """

    runtime: str
    code: str
    limits: dict[str, Any] = {}
    function: str = ""
    spread: bool = False
    macros: bool = False


class Item(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One call: `data` is the input, `context` is what was found before, read-only. Ids need not differ."""

    id: str = ""
    data: JsonValue = None
    context: dict[str, Any] = {}


class ItemResult(msgspec.Struct, frozen=True, kw_only=True):
    """How one call ended: with an output, or with an error. What it printed is cut to a bound."""

    id: str
    success: bool
    reason: Reason
    output: JsonValue = None
    error: GuestError | None = None
    stdout: str = ""
    stderr: str = ""
    truncated_bytes: int = 0
    usage: Usage = Usage()

"""What a function's input and output must look like, as JSON Schema, checked within bounds.

Schema and data are both untrusted. Patterns are of the kind that is matched in linear time (no look-around, no
back-references), their compiled size has a bound, and nothing is ever fetched.
"""

from __future__ import annotations

from itertools import islice
from typing import Final
from urllib.parse import unquote

import jsonschema_rs
import msgspec

from casemate import service_limits as limits
from casemate.errors import InvalidInput
from casemate.model.result import JsonValue

UNBOUNDED: Final = ("$dynamicRef", "$recursiveRef", "$id", "id")
"""Where these are, a reference leads elsewhere than it says; inside `properties` they are schemas and no texts."""


class SchemaProblem(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is not as the schema says: where in the data, and what. The text may quote the data."""

    path: str
    message: str


class Budget:
    """What checks may come to together."""

    def __init__(self, most: int = limits.SCHEMA_CHECK_MAX) -> None:
        self._left = most

    def spend(self, amount: int) -> bool:
        """Whether there is so much left, which is then spent."""
        if amount > self._left:
            return False
        self._left -= amount
        return True


class Schema:
    """A schema that has been compiled, once, for any number of checks, also by several threads."""

    def __init__(self, schema: JsonValue, *, field: str = "schema") -> None:
        self._extent = _check_bounds(schema, field)
        patterns = jsonschema_rs.RegexOptions(
            size_limit=limits.SCHEMA_PATTERN_MAX_BYTES, dfa_size_limit=limits.SCHEMA_PATTERN_MAX_BYTES
        )
        try:
            self._validator = jsonschema_rs.validator_for(
                schema, pattern_options=patterns, offline=True, validate_formats=False
            )
        except (ValueError, jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError) as error:
            raise InvalidInput(field, f"not a JSON Schema: {_short(str(error))}") from error

    def problems(self, value: JsonValue, budget: Budget | None = None) -> tuple[SchemaProblem, ...]:
        """What is wrong with the value, at most some of it; nothing if it is as the schema says."""
        try:
            if not (budget or Budget()).spend(self._extent * len(msgspec.json.encode(value))):
                return (SchemaProblem(path="", message="too much to be checked with a schema as large as this one"),)
            errors = list(islice(self._validator.iter_errors(value), limits.SCHEMA_PROBLEMS_MAX))
        except (ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
            # Nested too deep, or no JSON at all, as texts with half a character are.
            return (SchemaProblem(path="", message=_short(f"cannot be checked: {error}")),)
        return tuple(SchemaProblem(path=_path(each.instance_path), message=_short(each.message)) for each in errors)

    def check(self, value: JsonValue, *, field: str, budget: Budget | None = None) -> None:
        """Refuse a value that is not as the schema says; the field names the first place."""
        found = self.problems(value, budget)
        if found:
            raise InvalidInput(f"{field}{found[0].path}", found[0].message)


def _path(path: list[str | int]) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)[
        : limits.SCHEMA_PROBLEM_MAX_CHARS
    ]


def _short(text: str) -> str:
    first = text.partition("\n")[0]
    most = limits.SCHEMA_PROBLEM_MAX_CHARS
    return first if len(first) <= most else first[: most - 1] + "…"


def _check_bounds(schema: JsonValue, field: str) -> int:
    """How large it is; schemas that are long or deep, or with which a check could take long, are refused.

    Where references form a cycle, or lead to the same place over and over, a check can take time exponential in the
    depth of the data or of the schema. Without cycles it takes at most the expanded schema's size for each value.
    """
    if not isinstance(schema, dict | bool):
        raise InvalidInput(field, "not an object")
    if len(msgspec.json.encode(schema)) > limits.SCHEMA_MAX_BYTES:
        raise InvalidInput(field, f"longer than {limits.SCHEMA_MAX_BYTES // limits.KIB}Ki")
    return _Extent(schema, field).of(schema, depth=1)[0]


class _Extent:
    """How large a schema is once its references are replaced by what they refer to."""

    def __init__(self, root: JsonValue, field: str) -> None:
        self._root = root
        self._field = field
        self._known: dict[int, tuple[int, int]] = {}
        self._above: set[int] = set()

    def of(self, value: JsonValue, depth: int) -> tuple[int, int]:
        """Count and height; refused where they are over their bounds or have none."""
        if not isinstance(value, dict | list):
            return 1, 1
        key = id(value)
        if key in self._above:
            raise InvalidInput(self._field, "refers to itself", hint="a check of such a schema has no bound in time")
        if key not in self._known:
            if depth > limits.SCHEMA_DEPTH_MAX:
                raise InvalidInput(self._field, f"nested more than {limits.SCHEMA_DEPTH_MAX} deep")
            self._above.add(key)
            parts = [self.of(child, depth + 1) for child in self._parts(value)]
            self._above.remove(key)
            self._known[key] = 1 + sum(count for count, _ in parts), 1 + max((height for _, height in parts), default=0)
        count, height = self._known[key]
        if count > limits.SCHEMA_EXPANDED_MAX or depth + height > limits.SCHEMA_DEPTH_MAX + 1:
            raise InvalidInput(self._field, "too large, or too deep, once its references are followed")
        return count, height

    def _parts(self, value: JsonValue) -> list[JsonValue]:
        """What a check of this may look at next."""
        if isinstance(value, list):
            return value
        for keyword in UNBOUNDED:
            if isinstance(value.get(keyword), str) and (keyword not in ("$id", "id") or value is not self._root):
                raise InvalidInput(self._field, f"{keyword} is not supported")
        reference = value.get("$ref")
        return [*value.values(), *([self._target(reference)] if isinstance(reference, str) else [])]

    def _target(self, reference: str) -> JsonValue:
        path = reference.removeprefix("#")
        if path == reference or (path and not path.startswith("/")):
            raise InvalidInput(self._field, "refers to something outside of it", hint="`$ref` begins with `#/`")
        found = self._root
        for part in unquote(path).split("/")[1:]:
            step = part.replace("~1", "/").replace("~0", "~")
            if isinstance(found, list) and step.isdecimal() and int(step) < len(found):
                found = found[int(step)]
            elif isinstance(found, dict) and step in found:
                found = found[step]
            else:
                raise InvalidInput(self._field, "refers to something that is not there")
        return found

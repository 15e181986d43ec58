"""The output value as JSON: what every type becomes, and which cannot be written.

No library is imported for this: a value can only be of a library that the program itself has loaded.
"""

from __future__ import annotations

import sys
from _collections_abc import Mapping, Sequence, Set, ValuesView

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

VALUE_MAX_BYTES = 10 * 1024 * 1024
DEPTH_MAX = 200
TEXT_MAX_CHARS = 16_384
KEY_MAX_CHARS = 80
PLAIN = frozenset({str, int, bool, type(None)})
PLAIN_OR_FLOAT = PLAIN | {float}
MISSING = object()


class Unwritable(Exception):
    """The value has no JSON form; the path to it is put together on the way out."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.path = ""

    def below(self, key: str | int) -> Unwritable:
        plain = isinstance(key, str) and key.isidentifier() and len(key) <= KEY_MAX_CHARS
        self.path = (f".{key}" if plain else f"[{_shorten(key)}]") + self.path
        return self


def payload(value: Any) -> bytes:
    """The reply for an output value. Converting it may run code of the program, which may do anything."""
    try:
        reply = b'{"kind":"value","output":%s}' % _write(_tree(value, ()))
        if len(reply) <= VALUE_MAX_BYTES:
            return reply
        problem = f"output: {len(reply)} bytes of JSON, more than the {VALUE_MAX_BYTES} allowed"
    except Unwritable as error:
        problem = f"output{error.path}: {error.problem}"
    except RecursionError:
        problem = "output: nested too deeply"
    except BaseException as error:
        problem = f"output: converting it failed with {type(error).__name__}: {_describe(error)}"
    fields = {"type": "InvalidOutput", "message": problem[:TEXT_MAX_CHARS], "traceback": ""}
    return b'{"kind":"invalid","error":%s}' % _write(fields)


def _describe(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException:
        return "<exception str() failed>"


def _shorten(key: object) -> str:
    return repr(key)[:KEY_MAX_CHARS]


def _write(plain: Any) -> bytes:
    """What `json.dumps` makes of a tree of plain values, without importing `json`."""
    try:
        from _json import encode_basestring, make_encoder
    except ImportError:
        import json

        text = json.dumps(plain, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    else:
        # No markers, no default, no indent; separators; no sorting, no skipping, no NaN: only by place.
        make: Callable[..., Callable[[Any, int], Iterable[str]]] = make_encoder
        encoder = make(*(None, None, encode_basestring, None), *(":", ","), *(False, False, False))
        try:
            text = "".join(encoder(plain, 0))
        except ValueError:
            raise Unwritable(f"an integer of more than {sys.get_int_max_str_digits()} digits") from None
    try:
        return text.encode()
    except UnicodeEncodeError:
        # Half of a surrogate pair cannot be written in UTF-8: it becomes the replacement character.
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()


def _tree(value: Any, above: tuple[int, ...]) -> Any:
    """The value, made of None, bool, int, float, str, list and dict alone. `above`: the ids of its containers."""
    kind = type(value)
    if kind in PLAIN:
        return value
    if kind is float:
        return _finite(value)
    if id(value) in above:
        raise Unwritable("circular reference")
    if len(above) >= DEPTH_MAX:
        raise Unwritable(f"nested more than {DEPTH_MAX} deep")
    if kind is dict:
        return _mapping(value, above)
    if kind is list or kind is tuple:
        return _sequence(value, above)
    return _other(value, above)


def _finite(number: float) -> float | None:
    """The number, or None for NaN and the infinities, which JSON does not have."""
    return number if number - number == 0 else None


def _mapping(value: Any, above: tuple[int, ...]) -> dict[str, Any]:
    above = (*above, id(value))
    result: dict[str, Any] = {}
    for key, item in value.items():
        name = key if type(key) is str else _key_text(key)
        if name in result:
            raise Unwritable(f"two keys become {_shorten(name)}")
        try:
            result[name] = _tree(item, above)
        except Unwritable as problem:
            raise problem.below(name) from None
    return result


def _sequence(value: list[Any] | tuple[Any, ...], above: tuple[int, ...]) -> list[Any]:
    kinds = set(map(type, value))
    if kinds <= PLAIN:
        return list(value)
    if kinds <= PLAIN_OR_FLOAT:
        return [_finite(item) if type(item) is float else item for item in value]
    above = (*above, id(value))
    result: list[Any] = []
    try:
        for item in value:
            result.append(_tree(item, above))  # noqa: PERF401  (its length tells where the problem is)
    except Unwritable as problem:
        raise problem.below(len(result)) from None
    return result


def _key_text(key: Any) -> str:
    """The name of an entry whose key is not text: what the value would be written as."""
    plain = MISSING if isinstance(key, tuple | Set) else _tree(key, ())
    if isinstance(plain, str):
        return plain
    if plain is None or isinstance(plain, bool | int | float):
        return _write(plain).decode()
    raise Unwritable(f"a key of type {_type_name(key)} cannot be a name")


def _type_name(value: object) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _other(value: Any, above: tuple[int, ...]) -> Any:
    """What is no plain built-in type: of the standard library, a subclass, or of another library."""
    for module, convert in LIBRARY.items():
        found = convert(sys.modules[module], value) if module in sys.modules else MISSING
        if found is not MISSING:
            return _tree(found, (*above, id(value)))
    for base, convert_base in BASES.items():
        if isinstance(value, base):
            return _tree(convert_base(value), (*above, id(value)))
    found = _foreign(value)
    if found is MISSING:
        raise Unwritable(f"a value of type {_type_name(value)} cannot be written as JSON")
    return _tree(found, (*above, id(value)))


def _from_dataclasses(dataclasses: Any, value: Any) -> Any:
    if isinstance(value, type) or not dataclasses.is_dataclass(value):
        return MISSING
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def _from_datetime(datetime: Any, value: Any) -> Any:
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, datetime.date | datetime.time):
        # Only pandas' "not a time" is unequal to itself.
        return value.isoformat() if value == value else None  # noqa: PLR0124
    return MISSING


def _as_text(*names: str) -> Callable[[Any, Any], Any]:
    """A conversion to `str(value)` of the module's classes of these names."""

    def convert(module: Any, value: Any) -> Any:
        return str(value) if isinstance(value, tuple(getattr(module, name) for name in names)) else MISSING

    return convert


LIBRARY: dict[str, Callable[[Any, Any], Any]] = {
    "enum": lambda enum, value: value.value if isinstance(value, enum.Enum) else MISSING,
    "dataclasses": _from_dataclasses,
    "datetime": _from_datetime,
    "decimal": lambda decimal, value: (
        MISSING if not isinstance(value, decimal.Decimal) else str(value) if value.is_finite() else None
    ),
    "fractions": _as_text("Fraction"),
    "uuid": _as_text("UUID"),
    "pathlib": _as_text("PurePath"),
    "ipaddress": _as_text("_IPAddressBase"),
    "collections": _as_text("UserString"),
}


def _in_base64(value: bytes | bytearray | memoryview) -> str:
    import binascii

    return binascii.b2a_base64(bytes(value), newline=False).decode()


def _in_order(value: Iterable[Any]) -> list[Any]:
    """The elements of a set, sorted if they can be: equal sets give equal output."""
    elements = list(value)
    try:
        return sorted(elements)
    except TypeError:
        return elements


BASES: dict[type, Callable[[Any], Any]] = {
    str: str.__str__,
    int: int.__int__,
    float: float.__float__,
    bytes: _in_base64,
    bytearray: _in_base64,
    memoryview: _in_base64,
    Mapping: lambda value: dict(value.items()),
    Set: _in_order,
    Sequence: list,
    ValuesView: list,
}


def _foreign(value: Any) -> Any:
    """A value of another library, known by what it can do; MISSING if it can do nothing of that."""
    kind = type(value)
    if kind.__name__ == "NAType":
        return None
    if hasattr(kind, "to_dict") and hasattr(value, "columns"):
        return _columns(value)
    if not hasattr(kind, "tolist"):
        return MISSING
    if getattr(getattr(value, "dtype", None), "kind", "") in {"m", "M"} and kind.__module__ == "numpy":
        # In finer units than microseconds numpy would give bare integers.
        value = value.astype(f"{value.dtype.kind}8[us]")
    found = value.tolist()
    return float(found) if type(found) is kind else found


def _columns(frame: Any) -> Any:
    """A data frame as an object with one array per column: pandas' way to say so, then that of polars."""
    try:
        return frame.to_dict(orient="list")
    except TypeError:
        return frame.to_dict(as_series=False)

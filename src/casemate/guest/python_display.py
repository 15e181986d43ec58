"""What a value looks like: as text, and in the richer forms that it has methods for. All of it is the program's code.

No library is imported for this: a value can only be of a library that the program itself has loaded.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

PARTS_MAX_BYTES = 8 << 20
"""All forms of one value together; what does not fit is named instead."""
TEXT_MAX_CHARS = 1 << 20
SEQUENCE_MAX_CHARS = 100_000
ITEMS_MAX = 10_000
CELLS_MAX = 100_000
"""More cells of a data frame, or items of a plain value, are not written as JSON."""

METHODS = {
    "html": "_repr_html_",
    "json": "_repr_json_",
    "svg": "_repr_svg_",
    "png": "_repr_png_",
    "jpeg": "_repr_jpeg_",
    "markdown": "_repr_markdown_",
    "latex": "_repr_latex_",
}
TYPES = {
    "text/plain": "text",
    "text/html": "html",
    "application/json": "json",
    "image/svg+xml": "svg",
    "image/png": "png",
    "image/jpeg": "jpeg",
    "text/markdown": "markdown",
    "text/latex": "latex",
}
ORDER = ("text", "png", "html", "json", "svg", "jpeg", "markdown", "latex")
"""The earlier ones come first if there is not room for all."""
PLAIN = frozenset({str, int, float, bool, type(None)})


class Unbundled(Exception):
    """It has no form of that kind."""


def bundle(output: Any, kind: str, value: Any) -> dict[str, Any]:
    """The display of a value, made of plain values. `output`: the module that knows what JSON makes of things."""
    found = _figure_forms(value) if _is_figure(value) else {**_forms(output, value), **_mime_forms(value)}
    found["text"] = _shortened(found["text"]) if isinstance(found.get("text"), str) else _text(value)
    return _fitting(output, kind, found)


def figures() -> Iterator[Any]:
    """The figures that are open, which are closed one after the other."""
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is None:
        return
    for number in pyplot.get_fignums():
        try:
            yield pyplot.figure(number)
        finally:
            pyplot.close(number)


def _fitting(output: Any, kind: str, found: dict[str, Any]) -> dict[str, Any]:
    """As many of the forms as there is room for."""
    display: dict[str, Any] = {"kind": kind}
    left_out = []
    room = PARTS_MAX_BYTES
    for name in ORDER:
        try:
            plain = _plain(output, name, found[name])
            size = len(output._write(plain))
        except KeyError:
            continue
        except Exception:
            left_out.append(name)
            continue
        if size > room:
            left_out.append(name)
        else:
            display[name] = plain
            room -= size
    return {**display, "left_out": left_out} if left_out else display


def _plain(output: Any, name: str, form: Any) -> Any:
    if name == "json":
        return output._tree(form, ())
    if name in {"png", "jpeg"}:
        return output._in_base64(form) if isinstance(form, bytes | bytearray) else str(form)
    if not isinstance(form, str):
        raise Unbundled
    return str.__str__(form)


def _forms(output: Any, value: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if isinstance(value, type):
        return found
    for name, method in METHODS.items():
        form = _call(value, method)
        if form is not None:
            found[name] = form
    if "json" not in found and _is_small(value):
        found["json"] = value
    elif hasattr(type(value), "to_dict") and _is_frame(value):
        found["json"] = output._columns(value)
    return found


def _call(value: Any, method: str) -> Any:
    """What the method returns, without the metadata that may come with it; None if it fails."""
    if not hasattr(type(value), method):
        return None
    try:
        form = getattr(value, method)()
    except Exception:
        return None
    return form[0] if isinstance(form, tuple) and form else form


def _mime_forms(value: Any) -> dict[str, Any]:
    if isinstance(value, type):
        return {}
    forms = _call(value, "_repr_mimebundle_")
    if not isinstance(forms, dict):
        return {}
    return {TYPES[kind]: form for kind, form in forms.items() if kind in TYPES}


def _is_frame(value: Any) -> bool:
    """Whether it is a data frame of which all can be written."""
    try:
        return len(value) * len(value.columns) <= CELLS_MAX
    except (AttributeError, TypeError):
        return False


def _is_small(value: Any) -> bool:
    """Whether it is made of plain values alone, and of not too many."""
    waiting, seen = [value], 0
    while waiting:
        each = waiting.pop()
        kind = type(each)
        if kind is dict:
            waiting += each.values()
        elif kind is list or kind is tuple:
            waiting += each
        elif kind not in PLAIN:
            return False
        seen += 1 + (len(each) // SEQUENCE_MAX_CHARS if kind is str else 0)
        if seen + len(waiting) > ITEMS_MAX:
            return False
    return True


def _is_figure(value: Any) -> bool:
    module = sys.modules.get("matplotlib.figure")
    return module is not None and isinstance(value, module.Figure)


def _figure_forms(figure: Any) -> dict[str, Any]:
    """A figure is shown once: one that is a value is not shown again as one that is open."""
    import io

    found: dict[str, Any] = {}
    for name in ("png", "svg"):
        data = io.BytesIO()
        figure.savefig(data, format=name, bbox_inches="tight")
        found[name] = data.getvalue() if name == "png" else data.getvalue().decode()
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is not None:
        pyplot.close(figure)
    return found


def _text(value: Any) -> str:
    """`repr(value)`, without making a text of hundreds of megabytes first."""
    try:
        if isinstance(value, str | bytes | bytearray) and len(value) > SEQUENCE_MAX_CHARS:
            return f"{value[:SEQUENCE_MAX_CHARS]!r}… {len(value) - SEQUENCE_MAX_CHARS} more"
        if type(value) in {list, tuple, set, frozenset, dict} and len(value) > ITEMS_MAX:
            return _beginning(value)
        return _shortened(repr(value))
    except Exception as error:
        return f"<{type(value).__name__}: its repr() failed with {type(error).__name__}>"


def _beginning(value: Any) -> str:
    from itertools import islice

    items = value.items() if type(value) is dict else value
    first = type(value)(islice(items, ITEMS_MAX))
    return _shortened(f"{first!r}… {len(value) - ITEMS_MAX} more")


def _shortened(text: str) -> str:
    return text if len(text) <= TEXT_MAX_CHARS else text[:TEXT_MAX_CHARS] + "…"

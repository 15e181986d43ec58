"""What values and figures of a guest look like, as it says. Hostile, like everything from inside."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

import msgspec

DisplayKind: TypeAlias = Literal["result", "display", "figure"]
"""The value of a call's last expression, what the code showed itself, and a figure that was left open."""

Form: TypeAlias = Literal["text", "html", "json", "svg", "png", "jpeg", "markdown", "latex"]
FORMS = 8


class Display(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One value in the forms that it has; those that were too large are named in `left_out`.

    HTML, SVG and Markdown are of the guest's making: a page that shows them has to keep their scripts from running.
    """

    kind: DisplayKind
    text: str = ""
    html: str | None = None
    json: Any = None
    svg: str | None = None
    png: bytes | None = None
    jpeg: bytes | None = None
    markdown: str | None = None
    latex: str | None = None
    left_out: Annotated[tuple[Form, ...], msgspec.Meta(max_length=FORMS)] = ()

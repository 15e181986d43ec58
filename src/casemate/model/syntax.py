"""What a language says of the syntax of a program."""

from __future__ import annotations

from typing import Final

import msgspec

PREFIX: Final = "Syntax error: "


class SyntaxReport(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whether code can be compiled. Where it cannot, `message` is the language's own, and hostile text.

    `line` and `column` count from one, in the text as it was given; None where the language does not say.
    """

    valid: bool
    message: str = ""
    line: int | None = None
    column: int | None = None

    @property
    def error(self) -> str:
        """For people: `Syntax error: …`; empty if there is none."""
        return "" if self.valid else f"{PREFIX}{self.message}"

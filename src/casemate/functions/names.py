"""Names of functions and of the runners that call them."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from casemate import service_limits as limits
from casemate.errors import InvalidInput

RUNNER_PREFIX: Final = "macro-sandbox"
_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9_]|-(?=[a-z0-9_]))*")
_RESERVED: Final = frozenset("/?#%*:\\")
"""They mean something in addresses, scopes or shells."""


def function_name(name: object) -> str:
    """The name without spaces around it; refused if it is empty, too long, or cannot stand in an address or a line."""
    if not isinstance(name, str):
        raise InvalidInput("name", "not a text")
    found = unicodedata.normalize("NFC", name.strip())
    if not found:
        raise InvalidInput("name", "empty")
    if len(found) > limits.FUNCTION_NAME_MAX_CHARS:
        raise InvalidInput("name", f"longer than {limits.FUNCTION_NAME_MAX_CHARS} characters")
    if found in {".", ".."} or _RESERVED.intersection(found) or not found.isprintable():
        wrong = "'" + "".join(sorted(_RESERVED)) + "'"
        raise InvalidInput("name", f"may hold none of {wrong}, nothing unprintable, and be neither '.' nor '..'")
    return found


def runner_name(language: str, environment: str) -> str:
    """`macro-sandbox-<language>-<environment>`."""
    return f"{RUNNER_PREFIX}-{_label('language', language)}-{_label('environment', environment)}"


def runner_language(name: str, environment: str) -> str | None:
    """The language of a runner's name in this environment; None if it is no such name."""
    start, end = f"{RUNNER_PREFIX}-", f"-{environment}"
    language = name.removeprefix(start).removesuffix(end)
    return language if name == f"{start}{language}{end}" and _LABEL.fullmatch(language) else None


def _label(field: str, value: str) -> str:
    if len(value) > limits.FUNCTION_NAME_MAX_CHARS or not _LABEL.fullmatch(value):
        raise InvalidInput(field, "not small letters, digits, '_' and single '-' between them")
    return value

"""Whether a program can be compiled, by the compiler that would run it, and else where it cannot. Nothing is run."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

TEXT_MAX_CHARS = 16_384
TOO_COMPLEX = "too deeply nested for the parser"


def payload(compile_program: Callable[[], Any]) -> bytes:
    """The reply to the request that only asks for this."""
    import json

    return json.dumps({"kind": "value", "output": _checked(compile_program)}).encode()


def _checked(compile_program: Callable[[], Any]) -> dict[str, Any]:
    try:
        compile_program()
    except SyntaxError as error:
        return _mistake(str(error.msg), error.lineno, error.offset)
    except ValueError as error:
        return _mistake(str(error), None, None)
    except (RecursionError, MemoryError, OverflowError):
        return _mistake(TOO_COMPLEX, None, None)
    return {"valid": True, "message": "", "line": None, "column": None}


def _mistake(message: str, line: int | None, column: int | None) -> dict[str, Any]:
    return {"valid": False, "message": message[:TEXT_MAX_CHARS], "line": line or None, "column": column or None}

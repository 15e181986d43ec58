"""Calls a function of the program by its name, or the first that the source gives a name."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FIRST = "*"
PARSE_ONLY = 0x400
"""What `ast.PyCF_ONLY_AST` is: importing `ast` for it would take longer than all the rest."""


class FunctionNotFound(Exception):
    """There is no function of that name."""

    __module__ = "builtins"


class Named:
    """The function that is wanted. Where the source has none at all, that is found out before it is run."""

    def __init__(self, wanted: str, source: str) -> None:
        name = _first(source) if wanted == FIRST else wanted
        if name is None:
            raise _not_found()
        self.name = name

    def call(self, names: dict[str, Any], request: dict[str, Any]) -> Any:
        """Call it with the input, with the elements of the input, or, where there is none, with nothing."""
        function = names.get(self.name)
        if not callable(function):
            raise _not_found()
        if not request["has_input"]:
            return function()
        return function(*request["input"]) if request.get("spread") else function(request["input"])


def _not_found() -> FunctionNotFound:
    return FunctionNotFound("Function name not found")


def _first(source: str) -> str | None:
    """`def name`, `async def name` or `name = lambda` at the top level."""
    tree: Any = compile(source.removeprefix("\ufeff"), "<string>", "exec", PARSE_ONLY, dont_inherit=True)
    for statement in tree.body:
        kind = type(statement).__name__
        if kind in {"FunctionDef", "AsyncFunctionDef"}:
            return str(statement.name)
        if kind == "Assign" and type(statement.value).__name__ == "Lambda" and hasattr(statement.targets[0], "id"):
            return str(statement.targets[0].id)
    return None

"""A `return` at the top level of a program: only the statements that hold one become functions.

Everything else stays module code, so that names, annotations, star imports, `__future__` imports, line numbers
and error messages are what they are natively.
"""

from __future__ import annotations

import ast
from types import CodeType, FunctionType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeAlias

    Part: TypeAlias = CodeType | Callable[[], Any]

SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)
ONLY_IN_FUNCTIONS = (ast.Yield, ast.YieldFrom, ast.Await, ast.AsyncFor, ast.AsyncWith)


class Marker(ast.NodeTransformer):
    """Makes `return x` of the top level into `return (x,)` and `return` into `return ()`: falling off the end is None.

    An annotated assignment loses its annotation, which a function could not keep for the module.
    """

    def __init__(self) -> None:
        self.only_in_function: ast.expr | ast.stmt | None = None

    def visit(self, node: ast.AST) -> Any:
        if isinstance(node, ONLY_IN_FUNCTIONS):
            self.only_in_function = node
        return node if isinstance(node, SCOPES) else super().visit(node)

    def visit_Return(self, node: ast.Return) -> ast.Return:
        values = [] if node.value is None else [node.value]
        returned = ast.copy_location(ast.Tuple(elts=values, ctx=ast.Load()), node.value or node)
        return ast.copy_location(ast.Return(value=returned), node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.stmt:
        if node.value is None:
            return ast.copy_location(ast.Pass(), node)
        return ast.copy_location(ast.Assign(targets=[node.target], value=node.value), node)


def split(source: str, path: str, names: dict[str, Any]) -> list[Part]:
    """The program as code and functions to run one after the other. Raises SyntaxError as the compiler would."""
    body = ast.parse(source, path).body
    flags = _future_flags(body)
    parts: list[Part] = []
    for statements in _group(body):
        if _has_return(statements[0]):
            parts.append(_make_function(statements[0], path, names, flags))
        else:
            parts.append(_make_module_code(statements, path, flags, first=not parts))
    return parts


def _group(body: list[ast.stmt]) -> list[list[ast.stmt]]:
    """Runs of statements without a `return` at their top level, and single statements with one."""
    groups: list[list[ast.stmt]] = [[]]
    for statement in body:
        if _has_return(statement):
            groups += [[statement], []]
        else:
            groups[-1].append(statement)
    return [each for each in groups if each]


def _has_return(statement: ast.stmt) -> bool:
    waiting: list[ast.AST] = [statement]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Return):
            return True
        if not isinstance(node, SCOPES):
            waiting += ast.iter_child_nodes(node)
    return False


def _future_flags(body: list[ast.stmt]) -> int:
    import __future__

    names = [
        alias.name
        for statement in body
        if isinstance(statement, ast.ImportFrom) and statement.module == "__future__"
        for alias in statement.names
    ]
    return sum({getattr(__future__, name).compiler_flag for name in names if hasattr(__future__, name)})


def _make_module_code(statements: list[ast.stmt], path: str, flags: int, *, first: bool) -> CodeType:
    while statements and not first and _is_text(statements[0]):
        # It would become the docstring of the module a second time.
        statements = statements[1:]
    code: CodeType = compile(ast.Module(statements, []), path, "exec", flags, dont_inherit=True)
    return code


def _is_text(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _make_function(statement: ast.stmt, path: str, names: dict[str, Any], flags: int) -> Part:
    """The statement as a function over the module's names, looking like module code in tracebacks."""
    marker = Marker()
    marked = marker.visit(statement)
    if marker.only_in_function is not None:
        node = marker.only_in_function
        raise SyntaxError("'yield' or 'await' outside function", (path, node.lineno, node.col_offset + 1, None))
    # The compiler knows best which names a statement binds: what is local at first is declared global then.
    first = _compile_function([marked], path, flags)
    local = sorted({*first.co_varnames, *first.co_cellvars})
    declaration = [ast.Global(names=local)] if local else []
    code = _compile_function([*declaration, marked], path, flags)
    return FunctionType(code.replace(co_name="<module>", co_qualname="<module>"), names)


def _compile_function(body: list[ast.stmt], path: str, flags: int) -> CodeType:
    arguments = ast.arguments(posonlyargs=[], args=[], kwonlyargs=[], kw_defaults=[], defaults=[])
    function = ast.FunctionDef(name="program", args=arguments, body=body, decorator_list=[])
    module = ast.fix_missing_locations(ast.Module([function], []))
    outer: CodeType = compile(module, path, "exec", flags, dont_inherit=True)
    return next(each for each in outer.co_consts if isinstance(each, type(outer)))

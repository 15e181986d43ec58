"""The package's names are loaded when they are asked for."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import casemate


def imported_for_types() -> set[str]:
    """The names that a type checker sees."""
    tree = ast.parse(Path(casemate.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If) and isinstance(node.test, ast.Name)]
    return {alias.name for node in ast.walk(block) if isinstance(node, ast.ImportFrom) for alias in node.names}


def test_every_public_name_is_there_for_people_and_for_type_checkers() -> None:
    for name in casemate.__all__:
        assert getattr(casemate, name).__name__ == name
    assert set(casemate.__all__) <= set(dir(casemate))
    assert imported_for_types() == set(casemate.__all__)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        casemate.nothing  # type: ignore[attr-defined] # noqa: B018


def test_importing_the_package_loads_next_to_nothing() -> None:
    heavy = ["msgspec", "asyncio", "socket", "casemate.engine"]
    code = f"import sys, casemate; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"

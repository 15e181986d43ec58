"""The built-in declarations fit the harness files, and those the bounds of the engine."""

from __future__ import annotations

import ast
import re

import pytest

from casemate import limits
from casemate.model.spec import GUEST_DIRECTORY
from casemate.runtimes.bytecode import GUEST_FILES
from casemate.runtimes.registry import builtin_runtimes

PLACEHOLDERS = {"{interpreter}", "{code}", "{guest}", "{harness}", "{addon}"}
NOTHING_THERE = "program"
"""What a preloading interpreter is given instead of a program: the harness names the real one."""

BOUNDS = {
    "VALUE_MAX_BYTES": limits.VALUE_MAX_BYTES,
    "DEPTH_MAX": limits.VALUE_DEPTH_MAX,
    "TEXT_MAX_CHARS": limits.ERROR_TEXT_MAX_CHARS,
}
HARNESSES = ["python_output.py", "python_failure.py", "values.js", "r.R"]


@pytest.mark.parametrize("name", builtin_runtimes())
def test_commands_name_files_that_are_there(name: str) -> None:
    runtime = builtin_runtimes()[name]
    words = [*runtime.command, *runtime.harness_environment.values()]
    assert {found for word in words for found in re.findall(r"\{\w+\}", word)} <= PLACEHOLDERS
    assert "{interpreter}" in runtime.command
    named = [word.rpartition("/")[2] for word in words if word.startswith(("{guest}", GUEST_DIRECTORY))]
    assert named
    for file in named:
        assert (GUEST_FILES / file).is_file() != (file == NOTHING_THERE)


@pytest.mark.parametrize("file", HARNESSES)
def test_harnesses_keep_the_bounds_of_the_engine(file: str) -> None:
    text = (GUEST_FILES / file).read_text()
    found = dict(re.findall(r"^ *(?:const )?(\w+_MAX\w*|\w+_max\w*) (?:=|<-) ([\d_ *L]+);?$", text, re.MULTILINE))
    bounds = {name.upper(): eval_product(product) for name, product in found.items()}
    assert {name: bounds[name] for name in BOUNDS if name in bounds} == {
        name: BOUNDS[name] for name in BOUNDS if name in bounds
    }
    assert bounds.keys() & BOUNDS.keys()


def eval_product(text: str) -> int:
    """The number that `10 * 1024L` says."""
    product = 1
    for factor in text.replace("L", "").split("*"):
        product *= int(ast.literal_eval(factor.strip()))
    return product

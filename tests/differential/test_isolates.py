"""Programs that need nothing but the language print the same and end alike in Node and in an isolate."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import Final

import pytest
from tests.differential.catalogue import Program, programs

import casemate

TIMEOUT_S: Final = 30.0
OF_NODE: Final = re.compile(
    r"\b(require|process|import|export|set(Timeout|Immediate|Interval)|queueMicrotask|Buffer|__filename|__dirname|module"
    r"|exports|URL|Text(En|De)coder|structuredClone|performance|global|fetch|WebAssembly|SharedArrayBuffer|Atomics|Event"
    r"|AbortController|Blob|console\.(table|time|timeEnd))\b"
)
DIFFERENT: Final = {
    "stack_trace_api": "frames of Node itself",
    "prepare_stack_trace": "the number of frames",
    "prints_with_formats": "%o, which shows hidden properties",
    "regular_expressions": "further properties of arrays",
    "arrays": "long arrays in columns",
    "typed_arrays": "long arrays in columns",
    "json": "circular objects",
    "promise_combinators": "what a promise holds",
    "unsettled_top_level_await": "the status 13",
}
"""What `console` or the interpreter around the language shows otherwise."""


def comparable() -> tuple[Program, ...]:
    plain = (each for each in programs("node") if not OF_NODE.search(each.code))
    return tuple(each for each in plain if not (each.args or each.env or each.stdin or each.files))


@pytest.fixture(scope="module")
def engine() -> Iterator[casemate.Engine]:
    with casemate.Engine() as opened:
        yield opened


@pytest.mark.slow
@pytest.mark.parametrize("program", [each for each in comparable() if each.name not in DIFFERENT], ids=str)
def test_is_as_in_node(engine: casemate.Engine, program: Program, slowness: float) -> None:
    node = shutil.which("node")
    assert node
    native = subprocess.run([node, "-"], input=program.code.encode(), capture_output=True, check=False)
    limits = {"timeout": TIMEOUT_S * slowness, "memory": "64Mi"}
    inside = casemate.run(program.code, "javascript", engine=engine, limits=limits)
    assert (inside.stdout.text, inside.exit_code) == (native.stdout.decode(), native.returncode), inside.stderr.text


def test_there_are_enough_programs_and_the_exceptions_are_among_them() -> None:
    names = {program.name for program in comparable()}
    assert len(names) >= 70
    assert names >= set(DIFFERENT)

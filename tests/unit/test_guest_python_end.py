"""The end of a Python program: at once if nobody can tell, and as the interpreter does it otherwise."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
from tests.unit.guests import ENVIRONMENT, interpreter, run

from casemate.runtimes.bytecode import GUEST_FILES

WITHOUT_SITE: Final = """
import sys
sys.path.insert(0, {guest!r})
import python_end
del sys.path[0]
end = python_end.End(print)
names = {{"__name__": "program"}}
exec({code!r}, names)
print(end._has_left_nothing())
"""
QUIET: Final = (
    "",
    "x = [1, 'a', {2: (3, None)}]",
    "class A: pass\nkept = A()\nkept.me = kept",
    "def f(): yield 1\ndone = f()\nlist(done)",
    "import abc\nclass A(abc.ABC): pass\nclass B(A): pass\nisinstance(B(), A)",
    "import json, math, re\nkept = json.loads('[1]'), re.compile('x')",
    "import dataclasses, datetime, enum, random, statistics, typing\nkept = random.Random(1)",
    "import weakref\nclass A: pass\nkept = A()\ntold = weakref.ref(kept)\ntable = weakref.WeakSet([kept])",
    "import io\nkept = io.StringIO(), io.BytesIO()",
    "with open('/dev/null') as kept: pass",
    "kept = [[number] for number in range(1000)]",
    "kept = [[number] for number in range(100_000)]",
    "import gc\ngc.collect()",
)
NOISY: Final = "class A:\n    def __del__(self): pass\n"
TELLING: Final = (
    f"{NOISY}kept = A()",
    f"{NOISY}class B(A): pass\nkept = [[B()]]",
    f"{NOISY}kept = A()\nother = [[number] for number in range(100_000)]",
    "class A:\n    __slots__ = ()\n    def __del__(self): pass\nkept = {1: (A(),)}",
    "class M(type):\n    def __del__(cls): pass\nclass A(metaclass=M): pass",
    "kept = open('/dev/null')",
    "def f(): yield 1\nkept = f()\nnext(kept)",
    "async def f(): pass\nkept = f()",
    "import weakref\nclass A: pass\nkept = A()\ntold = weakref.ref(kept, print)",
    "import weakref\nclass A: pass\nkept = A()\nfinal = weakref.finalize(kept, print)",
    "import io\nclass A(io.StringIO): pass\nkept = A()",
    "import gc\ngc.callbacks.append(lambda phase, info: None)",
    "import gc\ngc.freeze()",
    "import gc\ngc.set_debug(gc.DEBUG_STATS)",
    "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()",
    "import ctypes",
    "import socket",
)


def left_nothing(code: str) -> str:
    program = WITHOUT_SITE.format(guest=str(GUEST_FILES), code=code)
    command = [interpreter("python"), "-S", "-c", program]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.mark.parametrize("code", QUIET)
def test_what_only_takes_memory_is_left_to_the_kernel(code: str) -> None:
    assert left_nothing(code) == "True\n"


@pytest.mark.parametrize("code", TELLING)
def test_what_could_be_noticed_is_left_to_the_interpreter(code: str) -> None:
    assert left_nothing(code).startswith("False\n")


def test_the_process_ends_without_the_interpreters_own_end(tmp_path: Path) -> None:
    """What Python counts of its memory is told at its own end, if it is asked to."""
    told: dict[str, Any] = {}
    for name, env in (("usual", {}), ("asked", {"PYTHONMALLOCSTATS": "1"})):
        told[name] = run("python", "print(1)", cwd=tmp_path, env=env).stderr
    assert told["usual"] == ""
    assert "arenas" in told["asked"]


def test_the_program_does_not_see_what_its_end_needs(tmp_path: Path) -> None:
    code = "import sys\nprint(sorted({'gc', 'python_end', 'io', '__future__'} & set(sys.modules)))"
    assert run("python", code, cwd=tmp_path).stdout == "['io']\n"

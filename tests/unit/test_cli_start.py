"""What the command line does not import before a sandbox is being built, and that nobody misses it."""

from __future__ import annotations

import subprocess
import sys
from typing import Final

import pytest

NOT_NEEDED: Final = (
    "asyncio",
    "decimal",
    "fractions",
    "inspect",
    "ipaddress",
    "json",
    "logging",
    "ntpath",
    "platform",
    "selectors",
    "shutil",
    "subprocess",
    "tempfile",
    "textwrap",
    "urllib.parse",
    "uuid",
)
LATER: Final = ("casemate.engine.inside", "casemate.engine.execution", "casemate.engine.collect")


def told(code: str) -> str:
    command = [sys.executable, "-I", "-c", f"import casemate.cli.main, casemate.cli.run, sys\n{code}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_a_run_does_not_import_what_it_does_not_need() -> None:
    assert told(f"print(sorted(set({[*NOT_NEEDED, *LATER]!r}) & set(sys.modules)))") == "[]"


@pytest.mark.parametrize(
    "code",
    [
        "import uuid; print(uuid.UUID(int=1))",
        "import pathlib; print(pathlib.PurePosixPath('/a/b').parts, pathlib.Path('/').is_dir())",
        "import selectors; print(selectors.DefaultSelector().__class__)",
        "import ntpath; print(ntpath.join('a', 'b'))",
        "import asyncio; print(asyncio.run(asyncio.sleep(0, 1)))",
        "import decimal; print(decimal.Decimal('1.50'))",
        "import urllib.parse; print(urllib.parse.quote('ä'))",
        "import datetime; print(datetime.date.fromisoformat('2024-02-29').year, datetime.__name__)",
        "import msgspec.inspect; print(msgspec.inspect.type_info(int))",
        "import msgspec; print(msgspec.json.decode(b'[1, 2.5]'), msgspec.toml.decode(b'a = 1'))",
    ],
)
def test_who_imports_later_what_had_a_stand_in_gets_the_real_one(code: str) -> None:
    plain = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert told(code) == plain.stdout.strip()

"""What the pages show is what happens: every command, program and configuration in them is carried out.

`console` and `sh` blocks with lines that begin with `$ ` are typed into a shell; the lines between are what it
must answer. `python` blocks of a page run one after the other, as in one session; a `text` block right after one
is what it prints. A block with `file=NAME` becomes that file. A block with the word `service` is carried out where
a service of its own runs, whose address and key are in the environment. Programs in other languages run in a
sandbox, and configurations are read as such.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from io import StringIO
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from tests.docs.pages import ROOT, Block, agrees, blocks, code_spans, name, pages, prose

import casemate
from casemate.config import parse_config

SHELLS = {"console", "sh"}
PROGRAMS = {"javascript": "javascript", "r": "r", "bash": "bash"}
PROMPT = "$ "
BLOCK_LIMIT_S = 280
PASSIVE = {"", "text", "sh", "mermaid", "c", "ini", "diff"}
"""Pictures, output of others, and commands without a prompt, which are not typed here."""


class Step:
    """One command of a shell session and what the page shows as its answer."""

    def __init__(self, command: str) -> None:
        self.command = command
        self.shown = ""


def session(text: str) -> list[Step]:
    """The commands of a block; a line that follows a backslash belongs to its command."""
    steps: list[Step] = []
    continued = False
    for line in text.splitlines():
        if continued:
            steps[-1].command += "\n" + line.removeprefix("> ")
        elif line.startswith(PROMPT):
            steps.append(Step(line.removeprefix(PROMPT)))
        elif steps:
            steps[-1].shown += line + "\n"
        continued = bool(steps) and not steps[-1].shown and steps[-1].command.endswith("\\")
    return steps


def type_into_shell(steps: list[Step], folder: Path, variables: Mapping[str, str] = MappingProxyType({})) -> list[str]:
    """The answers of one shell to the commands, each with what came on both streams."""
    mark = f"{os.urandom(8).hex()}-mark"
    lines = []
    for step in steps:
        lines += [step.command, f"_status=$?; printf '%s\\n' {mark}; (exit $_status)"]
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(folder),
        "LANG": "C.UTF-8",
        "NO_COLOR": "1",
        **variables,
    }
    done = subprocess.run(
        ["bash", "-c", "exec 2>&1\n" + "\n".join(lines)],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        timeout=BLOCK_LIMIT_S,
        check=False,
    )
    return done.stdout.split(f"{mark}\n")[: len(steps)]


def run_python(block: Block, names: dict[str, Any], page: Path) -> str:
    output = StringIO()
    # The line numbers of a traceback are then those of the page.
    code = compile("\n" * block.line + block.text, name(page), "exec")
    with redirect_stdout(output):
        exec(code, names)
    return output.getvalue()


def run_program(block: Block) -> None:
    result = casemate.run(block.text, PROGRAMS[block.language])
    assert result.ok, result.stderr.text


def check_shell(block: Block, folder: Path, service: Mapping[str, str]) -> None:
    steps = session(block.text)
    variables = service if "service" in block.options else {}
    for step, output in zip(steps, type_into_shell(steps, folder, variables), strict=True):
        assert agrees(step.shown, output), f"$ {step.command}\n{output}"


def carry_out(page: Path, folder: Path, service: Mapping[str, str]) -> Iterator[str]:
    """Carry out the blocks of a page in their order; yields what was done with each."""
    names: dict[str, Any] = {"__name__": "__main__"}
    page_blocks = [*blocks(page), Block(0, "", {}, "")]
    for block, following in pairwise(page_blocks):
        if "file" in block.options:
            (folder / block.options["file"]).write_text(block.text)
        elif block.language in SHELLS and PROMPT in block.text:
            check_shell(block, folder, service)
        elif block.language == "python":
            output = run_python(block, names, page)
            shown = following.text if following.language == "text" else ""
            assert agrees(shown, output), f"{name(page)}:{block.line} prints\n{output}"
        elif block.language == "toml":
            parse_config(block.text.encode(), name=name(page))
        elif block.language == "json":
            json.loads(block.text)
        elif block.language in PROGRAMS:
            run_program(block)
        else:
            assert block.language in PASSIVE, f"{name(page)}:{block.line}: nothing tests {block.language} blocks"
        yield block.language


@pytest.mark.parametrize("page", [page for page in pages() if any(blocks(page))], ids=name)
def test_what_a_page_shows_happens(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.chdir(tmp_path)
    is_served = any("service" in block.options for block in blocks(page))
    variables = request.getfixturevalue("service") if is_served else {}
    for name_, value in variables.items():
        monkeypatch.setenv(name_, value)
    assert list(carry_out(page, tmp_path, variables))


def test_commands_of_make_name_targets_of_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(makefile.split(".PHONY:")[1].split("\n\n")[0].replace("\\", " ").split())
    for page in pages():
        code = [*code_spans(prose(page)), *(line for block in blocks(page) for line in block.text.splitlines())]
        named = {found[1] for text in code if (found := re.match(r"(?:\$ )?make ([a-z-]+)", text))}
        assert named <= targets, name(page)


def test_gaps_stand_for_lines_and_for_parts_of_lines() -> None:
    assert agrees("a\n…\nd\n", "a\nb\nc\nd\n")
    assert agrees("took … ms\n", "took 12 ms")
    assert agrees("", "")
    assert not agrees("a\nd\n", "a\nb\nd\n")
    assert not agrees("", "something\n")

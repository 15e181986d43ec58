"""The program's own file lies in the work directory while it runs; afterwards it is nobody's output."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import pytest

import casemate
from casemate.config import Config
from casemate.model.result import Reason
from casemate.runtimes.builtin import BUILTIN

Run = Callable[..., casemate.Result]
MakeSandbox = Callable[..., casemate.Sandbox]

EARLY_ENDS: Final = {
    "python": {
        "left": "import os; os._exit(0)",
        "killed": "import os; os.kill(os.getpid(), 9)",
        "without rights": "import os; os.chmod('main.py', 0); os.chmod('.', 0); os._exit(0)",
    },
    "node": {"left": "process.reallyExit(0)", "killed": "process.kill(process.pid, 9)"},
    "r": {"killed": "tools::pskill(Sys.getpid(), 9)"},
}
WRITE: Final = {
    "python": "open('made', 'w').write('x')\n",
    "node": "require('fs').writeFileSync('made', 'x');\n",
    "r": "writeLines('x', 'made')\n",
}
ENDLESS: Final = {"python": "while True: pass", "node": "for (;;);", "r": "while (TRUE) {}"}


def names(result: casemate.Result) -> list[str]:
    return [file.path for file in result.files]


@pytest.mark.parametrize(("language", "end"), [(name, end) for name, ends in EARLY_ENDS.items() for end in ends])
def test_it_is_not_collected_after_an_early_end(run: Run, language: str, end: str) -> None:
    result = run(WRITE[language] + EARLY_ENDS[language][end], language, collect=["**"])
    assert names(result) == ["made"]


@pytest.mark.parametrize("language", list(ENDLESS))
def test_it_is_not_collected_after_a_timeout(run: Run, slowness: float, language: str) -> None:
    result = run(WRITE[language] + ENDLESS[language], language, collect=["**"], limits={"timeout": 2 * slowness})
    assert (result.reason, names(result)) == (Reason.TIMEOUT, ["made"])


@pytest.mark.parametrize("end", ["import os; os._exit(0)", ""])
def test_a_file_of_that_name_that_the_caller_gave_is_collected(run: Run, end: str) -> None:
    code = f"pass\n{end}"
    assert names(run(code, collect=["*"], files={"main.py": code})) == ["main.py"]


def test_what_a_program_makes_of_its_own_file_is_its_own(run: Run) -> None:
    result = run("import os\nopen('main.py', 'a').write('more')\nos._exit(0)", collect=["*"])
    assert [(file.path, file.data[-4:]) for file in result.files] == [("main.py", b"more")]


def test_its_content_under_another_name_is_an_output(run: Run) -> None:
    result = run("import os, shutil\nshutil.copy('main.py', 'copy.py')\nos._exit(0)", collect=["*"])
    assert names(result) == ["copy.py"]


def test_a_link_in_its_place_is_left_alone(run: Run) -> None:
    result = run("import os\nos.remove('main.py'); os.symlink('/etc/passwd', 'main.py'); os._exit(0)", collect=["*"])
    assert [event.detail for event in result.events] == ["1 left out: symbolic link"]


def test_in_a_sandbox_that_stays_the_next_program_finds_no_other_s(make_sandbox: MakeSandbox) -> None:
    sandbox = make_sandbox()
    sandbox.run("import os; os._exit(0)")
    assert (sandbox.files.list(), sandbox.files.collect("**")) == ((), ())
    assert sandbox.run("output = open(__file__).read()[:6]").output == "output"


def test_in_a_sandbox_that_stays_it_does_not_outlive_a_run_that_is_broken_off(make_sandbox: MakeSandbox) -> None:
    class Enough(Exception):
        pass

    def stop(_: casemate.Chunk) -> None:
        raise Enough

    sandbox = make_sandbox()
    with pytest.raises(Enough):
        sandbox.run("print('on', flush=True)\nwhile True: pass", on_output=stop)
    assert sandbox.files.list() == ()


@pytest.fixture
def older_node() -> Iterator[casemate.Engine]:
    """Run a Node that, like older ones, takes a module only from a file with the ending of one."""
    node = BUILTIN["node"]
    command = (node.command[0], "--no-experimental-require-module", *node.command[1:])
    declared = {key: getattr(node, key) for key in node.__struct_fields__} | {"command": command, "aliases": ()}
    with casemate.Engine(Config(runtimes={"older": type(node)(**declared)}), warm=False) as engine:
        yield engine


def test_copies_under_another_ending_are_not_collected_either(run: Run, older_node: casemate.Engine) -> None:
    code = "import fs from 'fs'; fs.writeFileSync('made', fs.readdirSync('.').join()); process.reallyExit(0)"
    result = casemate.run(code, "older", collect=["*"], engine=older_node)
    assert [(file.path, file.data) for file in result.files] == [("made", b"main.js,main.mjs")]

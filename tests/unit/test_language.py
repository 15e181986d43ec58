"""Which language a file is in."""

from __future__ import annotations

import pytest

from casemate.cli.language import guess_runtime, interpreter_name, require_runtime
from casemate.errors import InvalidInput
from casemate.model.runtime import Runtime
from casemate.runtimes.registry import Registry

REGISTRY = Registry({"perl": Runtime(interpreter=("/usr/bin/perl",), command=(), extensions=(".pl",))})


@pytest.mark.parametrize(
    ("name", "line", "runtime"),
    [
        ("a.py", "", "python"),
        ("deep/er/a.R", "", "r"),
        ("a.mjs", "", "node"),
        ("a.js", "#!/bin/bash", "node"),
        ("a.pl", "", "perl"),
        ("a", "#!/bin/bash", "bash"),
        ("a", "#!/bin/sh -e", "bash"),
        ("a", "#!/usr/bin/env python3", "python"),
        ("a", "#!/usr/bin/env -S python3.11 -u", "python"),
        ("a.txt", "#!/usr/bin/env LANG=C perl -w", "perl"),
        ("a", "#! /usr/bin/perl5.36", "perl"),
        ("a", "#!/usr/bin/env node", "node"),
        ("a", "#!/usr/bin/ruby", None),
        ("a", "#!", None),
        ("a", "#!/usr/bin/env", None),
        ("a", "echo #!/bin/bash", None),
        ("", "", None),
    ],
)
def test_a_language_is_guessed_by_the_ending_then_by_the_first_line(name: str, line: str, runtime: str | None) -> None:
    assert guess_runtime(REGISTRY, name, f"{line}\nrest\n") == runtime


def test_a_file_of_no_known_language_is_refused_with_the_choice() -> None:
    with pytest.raises(InvalidInput) as caught:
        require_runtime(REGISTRY, "notes.txt", "hello")
    assert caught.value.field == "runtime"
    assert "notes.txt" in caught.value.message
    assert "perl" in caught.value.hint


def test_the_program_of_a_first_line_is_its_name_alone() -> None:
    assert interpreter_name("#!/a/b/env -i A=1 /c/d/tool --x") == "tool"
    assert interpreter_name("no") == ""

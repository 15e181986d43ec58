"""Which language a file is in: its ending says so, or its first line does."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from casemate.errors import InvalidInput, UnknownRuntime
from casemate.runtimes.registry import Registry


def guess_runtime(registry: Registry, name: str, code: str) -> str | None:
    """The runtime of a file by its ending, then by its `#!` line; None if neither tells."""
    return registry.guess(name) or _by_first_line(registry, code.partition("\n")[0])


def require_runtime(registry: Registry, name: str, code: str) -> str:
    """As `guess_runtime`. Raises InvalidInput if nothing tells."""
    found = guess_runtime(registry, name, code)
    if found is None:
        known = ", ".join(sorted(name for name, _ in registry))
        program = interpreter_name(code.partition("\n")[0])
        problem = f"no runtime is that of {program[:80]!r}, which" if program else "cannot tell the language of"
        end = " names in its first line" if program else ""
        raise InvalidInput("runtime", f"{problem} {name[:200]!r}{end}", hint=f"--runtime with one of {known}")
    return found


def _by_first_line(registry: Registry, line: str) -> str | None:
    program = interpreter_name(line)
    for candidate in dict.fromkeys((program, re.sub(r"[\d.]+$", "", program))):
        if candidate and (found := _by_interpreter(registry, candidate)):
            return found
    return None


def _by_interpreter(registry: Registry, name: str) -> str | None:
    for runtime, declared in registry:
        if any(PurePosixPath(candidate).name == name for candidate in declared.interpreter):
            return runtime
    try:
        return registry.declared(name)
    except UnknownRuntime:
        return None


def interpreter_name(line: str) -> str:
    """The program that a `#!` line names, empty if it is none: `#!/usr/bin/env -S python3 -u` → `python3`."""
    if not line.startswith("#!"):
        return ""
    words = [word for word in line[2:].split() if "=" not in word]
    if words and PurePosixPath(words[0]).name == "env":
        words = [word for word in words[1:] if not word.startswith("-")]
    return PurePosixPath(words[0]).name if words else ""

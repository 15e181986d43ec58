"""All runtimes by name: the built-in declarations and those of the configuration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Final

from casemate.errors import ConfigError, UnknownRuntime
from casemate.model.runtime import Runtime
from casemate.runtimes.builtin import BUILTIN

DEFAULT_RUNTIME: Final = "python"
"""What code is written in where nobody says it."""


def builtin_runtimes() -> Mapping[str, Runtime]:
    """The declarations that come with the package."""
    return BUILTIN


class Registry:
    """Finds a runtime by name, alias, or a file's ending. A declared one replaces a built-in of its name."""

    def __init__(self, declared: Mapping[str, Runtime]) -> None:
        self._runtimes = {**builtin_runtimes(), **declared}
        self._aliases = _aliases(self._runtimes)

    def __iter__(self) -> Iterator[tuple[str, Runtime]]:
        return iter(self._runtimes.items())

    def get(self, name: str) -> Runtime:
        """The runtime of that name or alias. Raises UnknownRuntime."""
        name = str(name)
        runtime = self._runtimes.get(self._aliases.get(name, name))
        if runtime is None:
            raise UnknownRuntime(name[:80], self._runtimes)
        return runtime

    def guess(self, path: str) -> str | None:
        """The name of the runtime that a file's ending belongs to."""
        ending = PurePath(path).suffix
        for name, runtime in self._runtimes.items():
            if ending and ending in runtime.extensions:
                return name
        return None


def _aliases(runtimes: Mapping[str, Runtime]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, runtime in runtimes.items():
        for alias in runtime.aliases:
            if found.setdefault(alias, name) != name or alias in runtimes:
                raise ConfigError(f"runtimes.{name}.aliases", f"{alias!r} is another runtime's name already")
    return found

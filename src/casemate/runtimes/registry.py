"""All runtimes by name: the built-in declarations, those of the configuration, and the package sets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Final

from casemate.errors import ConfigError, UnknownRuntime
from casemate.model.runtime import Runtime
from casemate.runtimes.builtin import BUILTIN

if TYPE_CHECKING:
    from casemate.runtimes.sets import SetRuntimes

DEFAULT_RUNTIME: Final = "python"
"""What code is written in where nobody says it."""


def builtin_runtimes() -> Mapping[str, Runtime]:
    """The declarations that come with the package."""
    return BUILTIN


class Registry:
    """Finds a runtime by name, alias, or a file's ending. A declared one replaces a built-in of its name.

    Package sets are looked for when no declaration has the name; `data_directory` says where they are, and may raise.
    """

    def __init__(self, declared: Mapping[str, Runtime], data_directory: Callable[[], Path] | None = None) -> None:
        self._runtimes = {**builtin_runtimes(), **declared}
        self._aliases = _aliases(self._runtimes)
        self._data_directory = data_directory
        self._sets: SetRuntimes | None = None

    def __iter__(self) -> Iterator[tuple[str, Runtime]]:
        """The declared ones: sets are not listed, as each would be held and checked for it."""
        return iter(self._runtimes.items())

    @property
    def names(self) -> list[str]:
        """Every name that is declared, and those of sets."""
        sets = self._set_runtimes()
        return sorted({*self._runtimes, *(sets.directory.list() if sets else ())})

    @property
    def taken(self) -> frozenset[str]:
        """Names and aliases that no set can have."""
        return frozenset((*self._runtimes, *self._aliases))

    def get(self, name: str) -> Runtime:
        """The runtime of that name or alias. Raises UnknownRuntime, or SetDamaged."""
        name = str(name)
        runtime = self._runtimes.get(self._aliases.get(name, name))
        if runtime is None:
            sets = self._set_runtimes()
            runtime = sets.get(name, self._runtimes) if sets else None
        if runtime is None:
            raise UnknownRuntime(name[:80], self.names)
        return runtime

    def declared(self, name: str) -> str:
        """The name of a declared runtime by its name or alias. Raises UnknownRuntime."""
        name = self._aliases.get(name, name)
        if name not in self._runtimes:
            raise UnknownRuntime(name[:80], self._runtimes)
        return name

    def guess(self, path: str) -> str | None:
        """The name of the runtime that a file's ending belongs to."""
        ending = PurePath(path).suffix
        for name, runtime in self._runtimes.items():
            if ending and ending in runtime.extensions:
                return name
        return None

    def close(self) -> None:
        """Let go of the sets that were used. Idempotent."""
        if self._sets is not None:
            self._sets.close()

    def _set_runtimes(self) -> SetRuntimes | None:
        """Made when first needed: whoever uses no set does not pay for its import."""
        if self._sets is None and self._data_directory is not None:
            from casemate.runtimes.sets import SetDirectory, SetRuntimes

            try:
                self._sets = SetRuntimes(SetDirectory(self._data_directory()))
            except ConfigError:  # nowhere to keep sets: then there are none
                self._data_directory = None
        return self._sets


def _aliases(runtimes: Mapping[str, Runtime]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, runtime in runtimes.items():
        for alias in runtime.aliases:
            if found.setdefault(alias, name) != name or alias in runtimes:
                raise ConfigError(f"runtimes.{name}.aliases", f"{alias!r} is another runtime's name already")
    return found

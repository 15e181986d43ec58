"""The command line. Modules are imported when their command runs: the start time is a promise."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType


class _Placeholder(type):
    """A class, or what has one's attributes, that is only named and never used."""

    def __getattr__(cls, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Nothing


class _Nothing(metaclass=_Placeholder):
    pass


class _StandIn(ModuleType):
    """In place of a module that somebody imports at the top and that no command needs."""

    def __getattr__(self, name: str) -> object:
        return getattr(_Nothing, name)


@contextmanager
def _stand_ins(places: dict[str, ModuleType | None]) -> Iterator[None]:
    """While somebody is imported, others have stand-ins; whoever imports those later gets the real ones.

    None is how the import system is told that there is no such module. What is there already stays.
    """
    given = {name: stand_in for name, stand_in in places.items() if name not in sys.modules}
    sys.modules.update(given)  # type: ignore[arg-type] # None is right, see above
    try:
        yield
    finally:
        for name in given:
            del sys.modules[name]


def _clock() -> dict[str, ModuleType | None]:
    """The part of `datetime` that is written in C, all of which is in it; the rest of the module is the same again."""
    try:
        import _datetime  # type: ignore[import-not-found] # what typeshed leaves out
    except ImportError:
        return {}
    return {"datetime": _datetime}


# msgspec takes along what it can turn into JSON and what describes that, which takes longer to import than itself.
# `typing_extensions` has nothing that our oldest Python lacks.
_UNUSED = ("decimal", "uuid", "msgspec.inspect", "msgspec._json_schema")
if "msgspec" not in sys.modules:
    with _stand_ins({"typing_extensions": None, **{name: _StandIn(name) for name in _UNUSED}, **_clock()}):
        import msgspec  # noqa: F401

# For a path as a URL, for paths of Windows, and for sending files where the kernel does not.
if "pathlib" not in sys.modules:
    with _stand_ins({"urllib.parse": _StandIn("urllib.parse"), "ntpath": _StandIn("ntpath")}):
        import pathlib  # noqa: F401
if "socket" not in sys.modules:
    with _stand_ins({"selectors": _StandIn("selectors")}):
        import socket  # noqa: F401

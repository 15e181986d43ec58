"""The command line. Modules are imported when their command runs: the start time is a promise."""

from __future__ import annotations

import sys
from importlib import import_module


def _import_without(hidden: str, name: str) -> None:
    """Import a module that takes another one along if it is installed, but can do without."""
    if hidden not in sys.modules:
        sys.modules[hidden] = None  # type: ignore[assignment] # how the import system is told that there is none
        try:
            import_module(name)
        finally:
            del sys.modules[hidden]


# It has nothing that our oldest Python lacks, and takes as long to import as a third of all that we need.
_import_without("typing_extensions", "msgspec")

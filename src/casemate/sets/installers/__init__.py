"""What makes packages into sets, by the names that runtimes declare."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Final

from casemate.errors import InvalidInput
from casemate.sets.installers.base import Installer

_HOMES: Final = {"pip": ("pip", "Pip"), "npm": ("npm", "Npm"), "r": ("r", "RPackages")}


def find_installer(name: str) -> Installer:
    """The installer of that name. Raises InvalidInput."""
    if name not in _HOMES:
        raise InvalidInput("installer", f"{name[:80]!r} is none", hint="known: " + ", ".join(_HOMES))
    module, class_name = _HOMES[name]
    make: Callable[[], Installer] = getattr(import_module(f"{__name__}.{module}"), class_name)
    return make()

"""The bases of jobs on a node: made when first wanted, and made again when the machine's programs are others."""

from __future__ import annotations

import os
import secrets
import shutil
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from casemate.errors import CasemateError, LaunchError
from casemate.isolation.rootfs import MACHINE_HINT
from casemate.limits import EVENTS_MAX
from casemate.model.result import MINIMAL_BASE, Event, GuestError, Result
from casemate.node.base import Base, make_mask, read_base
from casemate.runtimes.interpreter import find_interpreter
from casemate.runtimes.registry import Registry

DIRECTORY: Final = "base"
"""Its name, beside the place for what is staged."""

HINT: Final = 'who runs the service can choose it with `programs`, or `base = "machine"`, below [jobs]'
NOT_FOUND: Final = 127
_OURS: Final = 0o700
_NAME_CHARS: Final = 80
_PLACES: Final = ("/usr/local/bin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/sbin", "/sbin")


class Bases:
    """Those of one node, in a directory of its own. Safe to use from many threads."""

    def __init__(self, directory: Path | None, interpreters: Callable[[], Iterable[str]]) -> None:
        """`interpreters`: the paths of those that a base has in any case."""
        self._directory = directory
        self._interpreters = interpreters
        self._lock = threading.Lock()
        self._known: dict[tuple[str, ...], Base] = {}

    def find(self, programs: tuple[str, ...]) -> Base | None:
        """One that is there and still is what the machine has. Quick."""
        base = self._known.get(programs)
        return base if base is not None and base.is_current() else None

    def get(self, programs: tuple[str, ...]) -> Base:
        """The base with these programs chosen. Raises LaunchError where it cannot be made."""
        with self._lock:
            base = self.find(programs)
            if base is None:
                try:
                    base = self._made(programs)
                except OSError as error:
                    problem = f"{error.filename or self._directory}: {error.strerror}"
                    raise LaunchError("the minimal base", error.errno or 0, problem, hint=MACHINE_HINT) from error
                self._known[programs] = base
            return base

    def mask_of(self, base: Base) -> str:
        """Where what hides lies."""
        return str(self._place() / mask_name(base))

    def _place(self) -> Path:
        if self._directory is None:
            raise LaunchError("the minimal base", 0, "this node has no place for it", hint=MACHINE_HINT)
        return self._directory

    def _made(self, programs: tuple[str, ...]) -> Base:
        """Of an earlier process nothing is trusted, and nothing of it runs any more."""
        place = self._place()
        if not self._known and place.exists():
            shutil.rmtree(place)
        place.mkdir(mode=_OURS, parents=True, exist_ok=True)
        base = read_base(programs, self._interpreters())
        mask = place / mask_name(base)
        if not mask.exists():
            fresh = place / secrets.token_hex(8)
            make_mask(base, str(fresh))
            fresh.rename(mask)
        return base


def interpreters_of(runtimes: Registry) -> list[str]:
    """The paths on this machine of all interpreters of declared languages; those of package sets are among them."""
    found = []
    for name, runtime in runtimes:
        with suppress(CasemateError):
            found.append(find_interpreter(name, runtime).host_path)
    return found


def mask_name(base: Base) -> str:
    """What a base is called."""
    return f"{MINIMAL_BASE}-{base.digest}"


def explained(result: Result, argv: tuple[str, ...], base: Base) -> Result:
    """With what a program that was not found has to do with the base, where it may have."""
    if result.exit_code != NOT_FOUND:
        return result
    if result.error is None:
        event = Event(kind="base", detail=f"a program that is not found may not be in the minimal base; {HINT}")
        return msgspec.structs.replace(result, events=(*result.events, event)[:EVENTS_MAX])
    name = argv[0].rpartition("/")[2] if argv else ""
    places = [argv[0]] if "/" in "".join(argv[:1]) else [f"{place}/{name}" for place in _PLACES]
    if not any(_is_left_out(each, base) for each in places):
        return result
    problem = f"{name[:_NAME_CHARS]!r} is not in the minimal base of jobs; {HINT}"
    return msgspec.structs.replace(result, error=GuestError(type=result.error.type, message=problem))


def _is_left_out(path: str, base: Base) -> bool:
    place = Path(path)
    return os.path.lexists(path) and base.is_hidden(str(place.parent.resolve() / place.name))

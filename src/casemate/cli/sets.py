"""`casemate runtimes show | build | update | remove`: package sets from the command line."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from typing import Final

from casemate.cli.arguments import Parsed, UsageError
from casemate.cli.messages import printable, say, show, show_json
from casemate.cli.runtimes import check_options
from casemate.cli.style import Style, style_for, table
from casemate.engine.engine import Engine
from casemate.errors import BuildFailed
from casemate.model.packages import Manifest, PackageSet
from casemate.model.units import format_bytes
from casemate.runtimes.registry import DEFAULT_RUNTIME
from casemate.sets.api import Sets

LIMITS: Final = ("timeout", "memory", "disk")
_CONTINUES: Final = re.compile(r"\s*[<>=!~]")
"""What a piece between commas begins with where the comma was a requirement's own: `pandas>=2,<3`."""


def change(parsed: Parsed) -> int:
    """Carry out one action about one set."""
    action = _ACTIONS.get(parsed.words[0])
    if action is None:
        known = ", ".join(("list", *_ACTIONS))
        raise UsageError("runtimes", f"unknown action {parsed.words[0]!r}; there are {known}")
    carry_out, options = action
    check_options(parsed, parsed.words[0], options, named=True)
    with Engine() as engine:
        try:
            carry_out(Sets(engine), parsed.words[1], parsed)
        except BuildFailed as error:
            for line in error.log.splitlines():
                say(f"| {line}")
            raise
    return 0


def split_packages(words: Iterable[str]) -> list[str]:
    """`a,b>=1,<2` in its requirements."""
    found: list[str] = []
    for word in words:
        for number, piece in enumerate(_outside_brackets(word)):
            if number and _CONTINUES.match(piece):
                found[-1] += f",{piece}"
            elif piece.strip():
                found.append(piece.strip())
    return found


def _outside_brackets(word: str) -> list[str]:
    """The pieces between commas; a comma in `name[extra,extra]` is part of its piece."""
    return re.split(r",(?![^\[\]]*\])", word)


def _build(sets: Sets, name: str, parsed: Parsed) -> None:
    if not parsed.all("with"):
        raise UsageError("runtimes", "`build` needs --with PACKAGES")
    _done(
        sets.build(
            name,
            split_packages(parsed.all("with")),
            runtime=parsed.one("runtime") or DEFAULT_RUNTIME,
            preload=split_packages(parsed.all("preload")),
            source=parsed.one("from") or "",
            allow=parsed.all("allow"),
            limits=_limits(parsed),
            progress=_progress,
        ),
        parsed,
    )


def _update(sets: Sets, name: str, parsed: Parsed) -> None:
    _done(sets.update(name, limits=_limits(parsed), progress=_progress), parsed)


def _remove(sets: Sets, name: str, _: Parsed) -> None:
    sets.remove(name)


def _show(sets: Sets, name: str, parsed: Parsed) -> None:
    found = sets.get(name, check=parsed.flag("check"))
    if parsed.flag("json"):
        show_json(found)
    else:
        show(_page(found, style_for(sys.stdout)))


def _limits(parsed: Parsed) -> dict[str, str]:
    return {key: value for key in LIMITS if (value := parsed.one(key)) is not None}


def _progress(phase: str) -> None:
    say(phase)


def _done(made: PackageSet, parsed: Parsed) -> None:
    if parsed.flag("json"):
        show_json(made)
    else:
        manifest = made.manifest
        show([f"{made.name} {made.digest[:12]}: {count_packages(manifest)}, {format_size(manifest.size_bytes)}"])


def count_packages(manifest: Manifest) -> str:
    """How many, in words."""
    return "1 package" if len(manifest.lock) == 1 else f"{len(manifest.lock)} packages"


def format_size(size_bytes: int) -> str:
    """A size for people."""
    return format_bytes(size_bytes) if size_bytes < 1 << 20 else f"{size_bytes / (1 << 20):.0f} MiB"


def _page(found: PackageSet, style: Style) -> list[str]:
    manifest = found.manifest
    facts = {
        "name": found.name,
        "runtime": manifest.runtime,
        "digest": found.digest,
        "files": f"{manifest.files}, {format_size(manifest.size_bytes)}",
        "wanted": ", ".join(manifest.packages),
        "preload": ", ".join(manifest.preload) or "-",
        "from": found.recipe.source or "the network",
        "reached": _reached(found) or "nothing",
        "left out": ", ".join(printable(each) for each in manifest.left_out) or "-",
    }
    lines = [f"{style.paint(key.ljust(9), 'cyan')} {value}" for key, value in facts.items()]
    rows = [[each.name, each.version, each.hash] for each in manifest.lock]
    return [*lines, "", *table(style, ("PACKAGE", "VERSION", "HASH"), rows)]


def _reached(found: PackageSet) -> str:
    names = {f"{flow.host}:{flow.port}" + ("" if flow.allowed else " (refused)") for flow in found.flows if flow.host}
    return ", ".join(sorted(names))


_ACTIONS: Final[dict[str, tuple[Callable[[Sets, str, Parsed], None], frozenset[str]]]] = {
    "show": (_show, frozenset({"json", "check"})),
    "build": (_build, frozenset({"with", "runtime", "preload", "from", "allow", "json", *LIMITS})),
    "update": (_update, frozenset({"json", *LIMITS})),
    "remove": (_remove, frozenset()),
}

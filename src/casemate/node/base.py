"""The minimal base: which of the machine's programs jobs see, and the mask that hides all others.

A mask is a directory that lies over the machine's own in the overlay of each sandbox: what it has a whiteout for is
not there. So a base costs a start no mount, no copy of a program is made, and what is shown is the machine's own file.
In directories of programs only what is known by name is shown; elsewhere what gives rights, and what is known to build,
to install, to debug or to administer, is hidden.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
import tomllib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Final

import msgspec

from casemate.isolation.host import BASE_DIRECTORIES

BIN: Final = "bin"
ADMINISTRATION: Final = "sbin"
CAPABILITIES: Final = "security.capability"
LINKS_MAX: Final = 40
_RIGHTS: Final = stat.S_ISUID | stat.S_ISGID
_EXECUTABLE: Final = 0o111
_VERSION: Final = "0123456789.-"
_COMPILERS: Final = "$compilers"
_NAMES_FILE: Final = "base.toml"


class Names(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is known by name: data, see the file for each. Words are separated by spaces."""

    programs: str
    versioned: str
    compilers: str
    toolchain: str
    hidden_programs: str
    packages: str
    entered: str
    above: dict[str, str]
    hidden_directories: dict[str, dict[str, str]]


class Known:
    """The same, ready to be asked."""

    def __init__(self, names: Names) -> None:
        self.programs = frozenset(names.programs.split())
        self.compilers = frozenset(names.compilers.split())
        self.toolchain = frozenset(names.toolchain.split())
        self.hidden_programs = frozenset(names.hidden_programs.split())
        self.packages = frozenset(names.packages.split())
        self.entered = frozenset(names.entered.split())
        self._versioned = re.compile(names.versioned)
        self._above = [(re.compile(pattern), kind) for pattern, kind in names.above.items()]
        self._directories = names.hidden_directories

    def is_known(self, program: str) -> bool:
        return program in self.programs or self._versioned.fullmatch(program) is not None

    def bringing(self, above: str, name: str) -> frozenset[str] | None:
        """The programs with which a directory is shown; None: it is, in any case."""
        kind = next((kind for pattern, kind in self._above if pattern.fullmatch(above)), above)
        below = self._directories.get(kind, {})
        words = below.get(name, below.get(name.rstrip(_VERSION)))
        return None if words is None else frozenset(words.replace(_COMPILERS, " ".join(self.compilers)).split())


@cache
def known() -> Known:
    """What comes with the package."""
    with Path(__file__).with_name(_NAMES_FILE).open("rb") as file:
        return Known(msgspec.convert(tomllib.load(file), Names))


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """One program of a base."""

    path: str
    size_bytes: int


class Base(msgspec.Struct, frozen=True, kw_only=True):
    """What is shown and what is not. `watched`: the directories of programs, and when each was last changed."""

    programs: tuple[Shown, ...]
    hidden: tuple[str, ...]
    watched: tuple[tuple[str, int], ...]
    digest: str

    def is_hidden(self, path: str) -> bool:
        """Whether a path of the machine is not to be seen in the sandbox."""
        return any(path == each or path.startswith(f"{each}/") for each in self.hidden)

    def is_current(self) -> bool:
        """Whether no program has come or gone since it was read."""
        return all(_changed_ns(path) == when for path, when in self.watched)


def read_base(chosen: Iterable[str] = (), needed: Iterable[str] = ()) -> Base:
    """Look at the machine: some tenths of a second. `chosen`: further names; `needed`: paths of interpreters.

    What we may not look into is hidden. Raises OSError for what cannot be read for another reason.
    """
    look = _Look(frozenset(chosen))
    tops = _tops()
    watched = [str(path) for top in tops for path in _program_directories(Path(top))]
    stamps = tuple((path, _changed_ns(path)) for path in watched)  # first: what changes meanwhile is looked at again
    for interpreter in needed:
        look.keep(interpreter, is_chosen=True)
    for directory in watched:
        look.keep_known(directory)
    for top in tops:
        look.walk(top)
    shown = tuple(Shown(path=path, size_bytes=size) for path, size in sorted(look.shown.items()))
    hidden = tuple(sorted(look.hidden))
    return Base(programs=shown, hidden=hidden, watched=stamps, digest=_digest_of(shown, hidden, stamps))


def _tops() -> list[str]:
    """The top-level directories of the machine that are none by a link."""
    return [f"/{name}" for name in BASE_DIRECTORIES if Path("/", name).is_dir() and not Path("/", name).is_symlink()]


def _program_directories(top: Path) -> Iterator[Path]:
    """Those on the path of every sandbox: links lead to others of them."""
    if top.name in {BIN, ADMINISTRATION}:
        yield top
    for below in (top, top / "local"):
        for path in (below / BIN, below / ADMINISTRATION):
            if path.is_dir() and not path.is_symlink():
                yield path


def _changed_ns(path: str) -> int:
    try:
        return Path(path).stat().st_mtime_ns
    except OSError:
        return 0


def _digest_of(shown: tuple[Shown, ...], hidden: tuple[str, ...], stamps: tuple[tuple[str, int], ...]) -> str:
    return hashlib.sha256(repr((shown, hidden, stamps)).encode()).hexdigest()


class _Look:
    """One look at the machine. `kept` are paths that are shown; those of `trusted` even if they give rights."""

    def __init__(self, chosen: frozenset[str]) -> None:
        self.known = known()
        self.chosen = chosen | (self.known.toolchain if chosen & self.known.compilers else frozenset())
        self.kept: set[str] = set()
        self.trusted: set[str] = set()
        self.shown: dict[str, int] = {}
        self.hidden: list[str] = []

    def keep(self, path: str, *, is_chosen: bool) -> None:
        """A program, and what it leads to, link by link."""
        for _ in range(LINKS_MAX):
            above, _, name = path.rpartition("/")
            directory = os.path.realpath(above)
            self.kept.add(f"{directory}/{name}")
            if is_chosen:
                self.trusted.add(f"{directory}/{name}")
            try:
                target = os.readlink(f"{directory}/{name}")  # noqa: PTH115 - text in, text out
            except OSError:  # it is no link
                return
            path = target if target.startswith("/") else f"{directory}/{target}"

    def keep_known(self, directory: str) -> None:
        """The programs of a directory that are known, or chosen; of one for administration only these."""
        is_open = not directory.endswith(f"/{ADMINISTRATION}")
        with os.scandir(directory) as entries:
            for entry in entries:
                is_chosen = entry.name in self.chosen
                if is_chosen or (is_open and self.known.is_known(entry.name)):
                    self.keep(entry.path, is_chosen=is_chosen)

    def walk(self, top: str) -> None:
        """Sort out everything below a directory."""
        waiting = [(top, False)]
        while waiting:
            directory, is_package = waiting.pop()
            is_strict = not is_package and directory.rpartition("/")[2] in {BIN, ADMINISTRATION}
            if is_strict and directory != top and not any(path.startswith(f"{directory}/") for path in self.kept):
                self.hidden.append(directory)
                continue
            try:
                waiting += self._sorted(directory, is_strict=is_strict, is_package=is_package)
            except PermissionError:
                self.hidden.append(directory)

    def _sorted(self, directory: str, *, is_strict: bool, is_package: bool) -> list[tuple[str, bool]]:
        """What of a directory is to be looked into."""
        is_data = directory.endswith("/share")
        with os.scandir(directory) as entries:
            inside = [entry for entry in entries if self._sort(entry, is_strict=is_strict)]
        found = []
        for entry in inside:
            if not is_data or entry.name in self.known.entered:
                found.append((entry.path, is_package or entry.name in self.known.packages))
            elif Path(entry.path, BIN).is_dir():
                found.append((f"{entry.path}/{BIN}", False))
        return found

    def _sort(self, entry: os.DirEntry[str], *, is_strict: bool) -> bool:
        """Show it or hide it; whether it is a directory to be looked into."""
        is_kept = entry.path in self.kept and (entry.path in self.trusted or not _gives_rights(entry))
        if is_kept and not entry.is_dir(follow_symlinks=False):
            self.shown[entry.path] = entry.stat(follow_symlinks=False).st_size
            return False
        if entry.is_dir(follow_symlinks=False):
            if is_strict or self._is_hidden_directory(entry):
                self.hidden.append(entry.path)
                return False
            return True
        if is_strict or self._is_hidden_file(entry):
            self.hidden.append(entry.path)
        return False

    def _is_hidden_directory(self, entry: os.DirEntry[str]) -> bool:
        bringing = self.known.bringing(entry.path.rsplit("/", 2)[1], entry.name)
        return bringing is not None and self.chosen.isdisjoint(bringing)

    def _is_hidden_file(self, entry: os.DirEntry[str]) -> bool:
        if entry.is_symlink():
            return False
        if entry.name in self.known.hidden_programs and entry.name not in self.chosen:
            return True
        return _gives_rights(entry)


def _gives_rights(entry: os.DirEntry[str]) -> bool:
    """By its mode or by capabilities of its own."""
    if entry.is_symlink() or not entry.is_file(follow_symlinks=False):
        return False
    mode = entry.stat(follow_symlinks=False).st_mode
    if mode & _RIGHTS:
        return True
    if not mode & _EXECUTABLE:
        return False
    try:
        return bool(os.getxattr(entry.path, CAPABILITIES, follow_symlinks=False))
    except OSError:
        return False


# The mask ----------------------------------------------------------------------------------------


def make_mask(base: Base, directory: str) -> None:
    """Fill a directory, which is not there yet, with what hides. Raises OSError."""
    _make_directory(directory)
    made = {directory}
    tops = _tops()
    for path in (*tops, *base.hidden):
        wanted = f"{directory}{path}" if path in tops else f"{directory}{path}".rpartition("/")[0]
        for parent in _missing(wanted, made):
            _make_directory(parent)
    last = ""
    for path in base.hidden:
        last = _hide(f"{directory}{path}", last)


def _hide(path: str, like: str) -> str:
    """A whiteout: the same one under another name, as often as a file may have one. The one to be tried next."""
    try:
        if like:
            os.link(like, path)
            return like
    except OSError as error:
        if error.errno not in {errno.EMLINK, errno.EPERM, errno.EXDEV}:
            raise
    os.mknod(path, stat.S_IFCHR, os.makedev(0, 0))
    return path


def _missing(directory: str, made: set[str]) -> list[str]:
    found = []
    while directory not in made:
        made.add(directory)
        found.append(directory)
        directory = directory.rpartition("/")[0]
    return found[::-1]


def _make_directory(path: str) -> None:
    """One that everybody may look into, whatever our umask."""
    Path(path).mkdir()
    Path(path).chmod(0o755)

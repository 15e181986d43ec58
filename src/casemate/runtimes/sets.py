"""Package sets as they lie on disk, and how they become runtimes.

    DIRECTORY/lock              held while names or sets change, never for long
    DIRECTORY/names/NAME.json   which set a name stands for, and how to make it anew
    DIRECTORY/sets/DIGEST/      set.json, which has that digest, and tree/, which nobody changes any more
    DIRECTORY/seen/DIGEST       the fingerprint of a tree that was found to be what its set.json says
    DIRECTORY/building/RANDOM/  what is being made, or removed, locked by whoever does it

Whoever uses a set holds a shared lock on its set.json; only what nobody holds is removed. Locks end with their process.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, TypeVar
from weakref import finalize

import msgspec

from casemate import limits
from casemate.errors import SetDamaged
from casemate.model.packages import DIGEST, FORMAT, Manifest, NamedSet, PackageSet, is_set_name
from casemate.model.runtime import Library, Runtime
from casemate.runtimes.tree import fingerprint, summarize

MANIFEST_FILE: Final = "set.json"
TREE: Final = "tree"
_WRITABLE_BY_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH
T = TypeVar("T")


class SetDirectory:
    """The sets of one user. Reading needs nothing to be there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.names = path / "names"
        self.sets = path / "sets"
        self.seen = path / "seen"
        self.building = path / "building"

    def list(self) -> Iterator[str]:
        """The names, sorted."""
        with suppress(FileNotFoundError):
            for entry in sorted(os.listdir(self.names)):  # noqa: PTH208 - names are all that is wanted
                if entry.endswith(".json"):
                    yield entry.removesuffix(".json")

    def find(self, name: str) -> PackageSet | None:
        """The set of that name as it was made; its files are not looked at. Raises SetDamaged."""
        named = self.named(name)
        if named is None:
            return None
        return PackageSet(
            name=name,
            digest=named.digest,
            recipe=named.recipe,
            flows=named.flows,
            manifest=self.manifest(named.digest, name),
            source_path=str(self.sets / named.digest / TREE),
        )

    def named(self, name: str) -> NamedSet | None:
        """What a name stands for, None if for nothing. Raises SetDamaged."""
        data = _read(self.names / f"{name}.json") if is_set_name(name) else None
        if data is None:
            return None
        self.check_owner()
        named = _decoded(data, NamedSet, f"the name {name!r}", name)
        if not DIGEST.fullmatch(named.digest):
            raise SetDamaged(f"the name {name!r} stands for no set", hint=_rebuild(name))
        return named

    def manifest(self, digest: str, name: str = "NAME") -> Manifest:
        """What a set consists of; `name` is for the hint. Raises SetDamaged if it is not what its digest says."""
        data = _read(self.sets / digest / MANIFEST_FILE)
        if data is None or hashlib.sha256(data).hexdigest() != digest:
            raise SetDamaged(f"package set {digest[:12]} is missing or was changed", hint=_rebuild(name))
        manifest = _decoded(data, Manifest, f"package set {digest[:12]}", name)
        if manifest.format != FORMAT:
            raise SetDamaged(f"package set {digest[:12]} was made by another version", hint=_rebuild(name))
        return manifest

    def check_owner(self) -> None:
        """Raise SetDamaged where somebody else could have put packages."""
        for directory in (self.path, self.names, self.sets):
            try:
                status = directory.lstat()
            except OSError as error:
                raise SetDamaged(f"{str(directory)!r} cannot be read: {error.strerror}") from error
            mine = status.st_uid in {0, os.geteuid()} and stat.S_ISDIR(status.st_mode)
            if not mine or status.st_mode & _WRITABLE_BY_OTHERS:
                hint = "it must belong to you, and nobody else may write to it"
                raise SetDamaged(f"others can change {str(directory)!r}", hint=hint)

    def check_content(self, found: PackageSet, *, thorough: bool = False) -> None:
        """See that the files are those that were installed. Raises SetDamaged.

        All are read only once, and again whenever one could have changed since; `thorough` reads them anyway.
        """
        hint = _rebuild(found.name)
        seen = self.seen / found.digest
        try:
            now = fingerprint(found.source_path)
            if not thorough and _read(seen) == now.encode():
                return
            tree = summarize(found.source_path).digest
        except OSError as error:
            raise SetDamaged(f"package set {found.name!r} cannot be read: {error.strerror}", hint=hint) from error
        if tree != found.manifest.tree:
            raise SetDamaged(f"the files of package set {found.name!r} were changed", hint=hint)
        with suppress(OSError):  # then all are read the next time, too
            write_atomically(seen, now.encode())

    @contextmanager
    def changing(self) -> Iterator[None]:
        """While names or sets change: one process at a time."""
        fd = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def hold(self, name: str) -> tuple[PackageSet, int] | None:
        """A set for use, and the descriptor that keeps it from being removed. Raises SetDamaged."""
        while (found := self.find(name)) is not None:
            fd = self._held(found.digest)
            if fd is not None:
                return found, fd
        return None

    def _held(self, digest: str) -> int | None:
        """None if the set was removed meanwhile; the name stands for another one then, or for none."""
        path = self.sets / digest / MANIFEST_FILE
        with suppress(FileNotFoundError):
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            fcntl.flock(fd, fcntl.LOCK_SH)
            with suppress(FileNotFoundError):
                if path.stat().st_ino == os.fstat(fd).st_ino:
                    return fd
            os.close(fd)
        return None


class SetRuntimes:
    """The runtimes that sets are, each held and checked when it is first asked for. Safe to use from many threads.

    A set is held as long as its runtime is in use: by its name here, and by whatever was started before that changed.
    """

    def __init__(self, directory: SetDirectory) -> None:
        self.directory = directory
        self._lock = threading.Lock()
        self._found: dict[str, tuple[str, Runtime]] = {}
        self._holds: set[finalize[[int], Runtime]] = set()

    def get(self, name: str, bases: Mapping[str, Runtime]) -> Runtime | None:
        """The runtime of that name, None if there is none. A name that stands for another set now is found anew."""
        with self._lock:
            data = _read(self.directory.names / f"{name}.json") if is_set_name(name) else None
            known = self._found.get(name)
            if known is not None and (data is None or known[0].encode() not in data):
                known = None
                del self._found[name]
            if data is not None and known is None:
                known = self._find(name, bases)
            return known[1] if known else None

    def _find(self, name: str, bases: Mapping[str, Runtime]) -> tuple[str, Runtime] | None:
        held = self.directory.hold(name)
        if held is None:
            return None
        found, fd = held
        try:
            runtime = self._checked(found, bases)
        except BaseException:
            os.close(fd)
            raise
        self._holds = {hold for hold in self._holds if hold.alive}
        self._holds.add(finalize(runtime, os.close, fd))
        self._found[name] = (found.digest, runtime)
        return self._found[name]

    def _checked(self, found: PackageSet, bases: Mapping[str, Runtime]) -> Runtime:
        base = bases.get(found.manifest.runtime)
        if base is None:
            raise SetDamaged(f"package set {found.name!r} is for {found.manifest.runtime!r}, which is declared no more")
        self.directory.check_content(found)
        return runtime_of(found, base)

    def close(self) -> None:
        """Let go of all of them. Idempotent."""
        with self._lock:
            self._found.clear()
            while self._holds:
                self._holds.pop()()


def runtime_of(found: PackageSet, base: Runtime) -> Runtime:
    """A set as a runtime: its base with the packages, and with no claim on files or further names."""
    if base.sets is None:
        raise SetDamaged(f"package set {found.name!r} is for {found.manifest.runtime!r}, which takes none any more")
    library = Library(source=found.source_path, target=base.sets.target, environment=base.sets.environment)
    return msgspec.structs.replace(
        base, aliases=(), extensions=(), sets=None, library=library, preload=found.manifest.preload
    )


def write_atomically(path: Path, data: bytes) -> None:
    """A whole file or none, on the disk when this returns."""
    new = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """What was renamed in a directory stays so."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _read(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            return file.read(limits.SET_FILE_MAX_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise SetDamaged(f"{str(path)!r} cannot be read: {error.strerror}") from error


def _rebuild(name: str) -> str:
    return f"build it anew with `casemate runtimes update {name}`"


def _decoded(data: bytes, kind: type[T], what: str, name: str) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, ValueError) as error:
        raise SetDamaged(f"{what} cannot be read: {error}", hint=_rebuild(name)) from error

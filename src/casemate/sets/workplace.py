"""Where sets are made, published, and removed: every change is one rename, and an interrupted one leaves only litter.

A workplace is a directory with a lock that ends with its process; a sweep removes those that nobody holds.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec

from casemate import limits
from casemate.errors import BuildFailed, InvalidInput, SetDamaged
from casemate.kernel.syncfs import sync_file_system
from casemate.model.flow import Flow
from casemate.model.packages import Manifest, NamedSet, Recipe
from casemate.runtimes.sets import MANIFEST_FILE, TREE, SetDirectory, sync_directory, write_atomically
from casemate.runtimes.tree import DIRECTORY_MODE, summarize

LOCK: Final = "lock"
MADE: Final = "made"


def prepare(directory: SetDirectory) -> None:
    """Make the directories, and see that nobody else can change them. Raises BuildFailed or SetDamaged."""
    try:
        for each in (directory.path, directory.names, directory.sets, directory.seen, directory.building):
            each.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
    except OSError as error:
        raise BuildFailed(f"no package set can be kept in {str(directory.path)!r}: {error.strerror}") from error
    directory.check_owner()


class Workplace:
    """One directory under `building/`. What is to become a set is in `made`, the rest is for us."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.made = path / MADE
        self.tree = self.made / TREE


@contextmanager
def workplace(directory: SetDirectory) -> Iterator[Workplace]:
    """A new workplace, which is gone at the end."""
    path = directory.building / os.urandom(8).hex()
    with directory.changing():
        path.mkdir(mode=0o700)
        fd = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    try:
        work = Workplace(path)
        work.made.mkdir(mode=DIRECTORY_MODE)
        yield work
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(fd)


def publish(
    directory: SetDirectory,
    work: Workplace,
    name: str,
    manifest: Manifest,
    *,
    recipe: Recipe,
    flows: tuple[Flow, ...],
    replace: bool,
) -> str:
    """Make what lies in the workplace a set, and the name stand for it; its digest. Raises InvalidInput."""
    data = msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"
    digest = hashlib.sha256(data).hexdigest()
    write_atomically(work.made / MANIFEST_FILE, data)
    _sync(work.made)
    named = NamedSet(digest=digest, recipe=recipe, flows=flows[: limits.SET_FLOWS_MAX])
    with directory.changing():
        place = directory.names / f"{name}.json"
        known = directory.find(name) if place.exists() and not replace else None
        if known is not None and known.digest != digest:
            raise InvalidInput("name", f"a package set {name!r} was made meanwhile")
        if not _is_there(directory, digest, manifest):
            work.made.rename(directory.sets / digest)
            sync_directory(directory.sets)
        write_atomically(place, msgspec.json.format(msgspec.json.encode(named), indent=1) + b"\n")
    return digest


def _is_there(directory: SetDirectory, digest: str, manifest: Manifest) -> bool:
    """Whether the same set was made before; one that was changed since makes room."""
    path = directory.sets / digest
    with suppress(OSError, SetDamaged):
        if summarize(str(path / TREE)).digest == manifest.tree and directory.manifest(digest) == manifest:
            return True
    with suppress(FileNotFoundError):
        path.rename(directory.building / f"damaged-{os.urandom(8).hex()}")
    return False


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sync_file_system(fd)
    finally:
        os.close(fd)


def forget(directory: SetDirectory, name: str) -> bool:
    """Take the name away; its set stays until nobody uses it. False if there was none."""
    with directory.changing():
        try:
            (directory.names / f"{name}.json").unlink()
        except FileNotFoundError:
            return False
        sync_directory(directory.names)
    return True


def sweep(directory: SetDirectory) -> list[str]:
    """Remove what builders that died have left, and every set without a name that nobody uses; their digests."""
    litter: list[tuple[Path, int]] = []
    with directory.changing():
        litter += _abandoned(directory.building)
        removed = list(_unused(directory, litter))
        for place in (directory.names, directory.seen):
            for path in place.glob(".*"):  # what a writer that died has left
                path.unlink(missing_ok=True)
    for path, fd in litter:
        shutil.rmtree(path, ignore_errors=True)
        os.close(fd)
    return removed


def _abandoned(building: Path) -> Iterator[tuple[Path, int]]:
    for path in building.iterdir():
        with suppress(FileNotFoundError):  # its owner has just removed it
            fd = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            if _is_free(fd):
                yield path, fd


def _unused(directory: SetDirectory, litter: list[tuple[Path, int]]) -> Iterator[str]:
    """Sets that no name stands for and nobody holds, moved away; a damaged name keeps no set."""
    named = set(_named(directory))
    for path in directory.sets.iterdir():
        if path.name in named:
            continue
        with ExitStack() as stack:
            with suppress(FileNotFoundError):
                users = os.open(path / MANIFEST_FILE, os.O_RDONLY | os.O_CLOEXEC)
                if not _is_free(users):
                    continue
                stack.callback(os.close, users)  # once it is moved: who waits for the lock then finds it gone
            litter.append(_moved_away(directory, path))
        yield path.name


def _moved_away(directory: SetDirectory, path: Path) -> tuple[Path, int]:
    """A set in a workplace, and the lock of that."""
    place = directory.building / os.urandom(8).hex()
    place.mkdir(mode=0o700)
    fd = os.open(place / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    path.rename(place / MADE)
    (directory.seen / path.name).unlink(missing_ok=True)
    return place, fd


def _named(directory: SetDirectory) -> Iterator[str]:
    for name in directory.list():
        with suppress(OSError, msgspec.DecodeError):
            yield msgspec.json.decode((directory.names / f"{name}.json").read_bytes(), type=NamedSet).digest


def _is_free(fd: int) -> bool:
    """Locked by us if it was free, closed if not."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return False
    return True

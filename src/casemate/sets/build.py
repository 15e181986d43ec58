"""From a recipe to a published set: fetch, lock, install, probe, each phase in a sandbox of its own."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from casemate import limits
from casemate.egress.rules import parse_rule
from casemate.engine.engine import Engine
from casemate.errors import BuildFailed, InvalidInput
from casemate.model.flow import Flow
from casemate.model.packages import FORMAT, Locked, Manifest, Recipe
from casemate.model.resources import Limits
from casemate.model.runtime import Runtime
from casemate.model.spec import Mount
from casemate.runtimes.interpreter import find_interpreter
from casemate.runtimes.tree import FILE_MODE, summarize
from casemate.sets.harvest import copy_file, make_directory
from casemate.sets.installers import find_installer
from casemate.sets.installers.base import Installer, Job
from casemate.sets.phase import ARTIFACTS_DIRECTORY, Done, Phase, run_phase
from casemate.sets.workplace import Workplace

DEFAULT_LIMITS: Final = Limits(
    wall_s=limits.SET_WALL_DEFAULT_S,
    cpus=2.0,
    memory_bytes=limits.SET_MEMORY_DEFAULT_BYTES,
    disk_bytes=limits.SET_DISK_DEFAULT_BYTES,
    processes=limits.SET_PROCESSES_DEFAULT,
    inodes=limits.SET_INODES_DEFAULT,
)
"""What the phases together may use."""

Progress = Callable[[str], None]


class Built(msgspec.Struct, frozen=True, kw_only=True):
    """What building came to, before it is published."""

    manifest: Manifest
    flows: tuple[Flow, ...]


class Build:
    """One build in one workplace."""

    def __init__(self, engine: Engine, runtime: Runtime, recipe: Recipe, *, wanted: Limits, progress: Progress) -> None:
        if runtime.sets is None:
            raise InvalidInput("runtime", f"{recipe.runtime!r} takes no package sets")
        self._engine = engine
        self._recipe = recipe
        self._sets = runtime.sets
        self._installer: Installer = find_installer(runtime.sets.installer)
        self._interpreter = find_interpreter(recipe.runtime, runtime)
        self._limits = wanted
        self._deadline_s = time.monotonic() + wanted.wall_s
        self._progress = progress
        self._allowed = tuple(parse_rule(text) for text in recipe.allow)
        self._job = Job(
            packages=tuple(self._installer.check(package) for package in recipe.packages),
            preload=recipe.preload,
            offline=bool(recipe.source),
            interpreter=self._interpreter,
            sets=runtime.sets,
        )

    def run(self, work: Workplace) -> Built:
        """All phases; the workplace's tree is the set's then. Raises BuildFailed."""
        artifacts = work.path / "artifacts"
        fetched = self._fetch(work, artifacts)
        lock = self._installer.lock(artifacts)
        if not lock:
            raise BuildFailed("the installer has fetched nothing", log=fetched.log)
        installed = self._phase(self._installer.install(self._job, lock), work.tree, artifacts)
        if self._recipe.preload:
            probe = self._installer.probe(self._job)
            self._phase(probe, work.path / "nothing", None, Mount(str(work.tree), self._sets.target))
        return Built(manifest=self._manifest(work, lock, installed), flows=fetched.flows)

    def _fetch(self, work: Workplace, artifacts: Path) -> Done:
        if not self._recipe.source:
            phase = self._installer.fetch(self._job)
            rules = tuple(dict.fromkeys((*phase.rules, *self._allowed)))
            return self._phase(msgspec.structs.replace(phase, rules=rules), artifacts, None)
        source = work.path / "source"
        copy_source(Path(self._recipe.source), source, self._limits.disk_bytes)
        return self._phase(self._installer.fetch(self._job), artifacts, source)

    def _phase(self, phase: Phase, target: Path, artifacts: Path | None, *mounts: Mount) -> Done:
        self._progress(phase.name)
        left_s = self._deadline_s - time.monotonic()
        if left_s <= 0:
            raise BuildFailed(f"{phase.name}: no time is left", hint="raise it: --timeout")
        wanted = msgspec.structs.replace(self._limits, wall_s=left_s)
        seen = (Mount(str(artifacts), ARTIFACTS_DIRECTORY),) if artifacts else ()
        phase = msgspec.structs.replace(phase, mounts=(*phase.mounts, *seen, *mounts))
        return run_phase(self._engine, self._interpreter, phase, wanted, target)

    def _manifest(self, work: Workplace, lock: tuple[Locked, ...], installed: Done) -> Manifest:
        summary = summarize(str(work.tree))
        return Manifest(
            format=FORMAT,
            runtime=self._recipe.runtime,
            installer=self._sets.installer,
            packages=self._job.packages,
            preload=self._recipe.preload,
            lock=lock,
            tree=summary.digest,
            files=summary.files,
            size_bytes=summary.size_bytes,
            left_out=installed.left_out,
        )


def copy_source(source: Path, target: Path, max_bytes: int) -> None:
    """The caller's files as they are now, readable for the guest. Links are followed nowhere. Raises InvalidInput."""
    try:
        fd = os.open(source, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            count = _copy_files(fd, target, max_bytes)
        finally:
            os.close(fd)
    except OSError as error:
        name = error.filename or source
        raise InvalidInput("from", f"{str(name)[:200]!r} cannot be read: {error.strerror}") from error
    if not count:
        raise InvalidInput("from", f"{str(source)[:200]!r} holds no files")


def _copy_files(directory_fd: int, target: Path, max_bytes: int) -> int:
    """All of one directory; how many they were."""
    count = 0
    make_directory(target)
    for name in sorted(os.listdir(directory_fd)):
        if (fd := _opened(directory_fd, name)) is None:
            continue
        try:
            size_bytes = os.fstat(fd).st_size
            max_bytes -= size_bytes
            if max_bytes < 0:
                raise InvalidInput("from", "the files are larger than the disk limit", hint="raise it: --disk")
            copy_file(fd, target / name, size_bytes, FILE_MODE)
        finally:
            os.close(fd)
        count += 1
    return count


def _opened(directory_fd: int, name: str) -> int | None:
    """A regular file; None for directories and whatever else is no package.

    Whoever put packages there may have put a link to a file of the caller's, which the code of a package would read.
    """
    mode = os.stat(name, dir_fd=directory_fd, follow_symlinks=False).st_mode
    if stat.S_ISLNK(mode):
        raise InvalidInput("from", f"{name[:200]!r} is a symbolic link", hint="put the file itself there")
    if not stat.S_ISREG(mode):
        return None
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory_fd)
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)  # it was replaced meanwhile
    return None

"""Writing collected files, whose names a hostile program chose, into a directory of the caller's."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from casemate.cli.arguments import Parsed
from casemate.cli.messages import printable, quoted, say
from casemate.engine.collect import NOT_COLLECTED, NOTHING_MATCHED, lost
from casemate.errors import InvalidInput
from casemate.model.result import Event, OutputFile
from casemate.model.spec import WORK_DIRECTORY

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_WILD = frozenset("*?[")


def check_targets(parsed: Parsed) -> None:
    """Refuse to start where a named file would have to be replaced. Raises InvalidInput."""
    if parsed.flag("force"):
        return
    for pattern in parsed.all("collect"):
        path = _directory(parsed) / pattern.removeprefix(WORK_DIRECTORY).lstrip("/")
        if not _WILD.intersection(pattern) and path.exists():
            raise InvalidInput("collect", f"{str(path)[:200]!r} exists already", hint="--force replaces it")


def report_left_out(events: Iterable[Event]) -> bool:
    """Say on stderr what was not collected; whether nothing that should have been is missing."""
    events = tuple(events)
    for event in events:
        if event.kind == NOT_COLLECTED:
            say(f"collect: {event.detail}")
        elif event.kind == NOTHING_MATCHED:
            say(f"collect: {printable(event.detail)} matched nothing")
    return not lost(events)


def save(files: tuple[OutputFile, ...], parsed: Parsed) -> tuple[dict[str, str], bool]:
    """Write the files below `--out`; where each went, and whether all could be written."""
    directory = _directory(parsed)
    saved: dict[str, str] = {}
    for file in files:
        try:
            _write(directory, file, replace=parsed.flag("force"))
        except FileExistsError:
            say(f"collect: {quoted(file.path)} exists already and was not written; --force replaces it")
        except OSError as error:
            say(f"collect: {quoted(file.path)} was not written: {error.strerror}")
        else:
            saved[file.path] = str(directory / file.path)
    return saved, len(saved) == len(files)


def _directory(parsed: Parsed) -> Path:
    return Path(parsed.one("out") or ".")


def _write(directory: Path, file: OutputFile, *, replace: bool) -> None:
    """No symbolic link below the directory is followed, so nothing lands outside of it."""
    *parents, name = file.path.split("/")
    if not name or {"", ".", ".."}.intersection([*parents, name]):
        raise PermissionError(1, "its path leaves the directory")
    with _opened(directory, parents) as fd:
        if replace:
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=fd)
        with os.fdopen(os.open(name, _NEW_FILE, 0o666, dir_fd=fd), "wb") as target:
            target.write(file.data)


@contextmanager
def _opened(directory: Path, parents: list[str]) -> Iterator[int]:
    """The innermost directory, made with its parents where they are missing."""
    directory.mkdir(parents=True, exist_ok=True)
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in parents:
            with suppress(FileExistsError):
                os.mkdir(name, dir_fd=fd)
            inner = os.open(name, _DIRECTORY, dir_fd=fd)
            os.close(fd)
            fd = inner
        yield fd
    finally:
        os.close(fd)

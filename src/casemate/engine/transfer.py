"""Files into and out of a living sandbox: init opens them inside, we only handle what it hands over."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath

import msgspec

from casemate import limits
from casemate.engine.collect import names_in
from casemate.engine.execution import await_report
from casemate.engine.paths import display_name
from casemate.engine.request import InputFile
from casemate.errors import FileTransferError, InvalidInput
from casemate.isolation.native import NativeSandbox
from casemate.isolation.protocol import Report, ReportKind, encode_mkdir, encode_open
from casemate.isolation.waiting import Steps, Turn
from casemate.model.spec import WRITABLE_DIRECTORIES

WRITE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
EXECUTABLE_MODE = 0o755
DATA_MODE = 0o644


class FileInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of a directory. `kind` is `file`, `directory`, `link` or `other`."""

    name: str
    kind: str
    size_bytes: int


def _request(sandbox: NativeSandbox, message: bytes, *, fds: int) -> Steps[Report]:
    with (yield from sandbox.ask(message)) as channel:
        return (yield from await_report(channel, sandbox, ReportKind.DONE, fds=fds))


def _open(sandbox: NativeSandbox, path: PurePosixPath, flags: int, mode: int = 0) -> Steps[int]:
    """The descriptor of a file inside. Raises FileTransferError."""
    report = yield from _request(sandbox, encode_open(str(path), flags=flags, mode=mode), fds=1)
    if report.error:
        raise _refused(report.error, path)
    return report.fds[0]


def _refused(number: int, path: PurePosixPath) -> FileTransferError:
    return FileTransferError(f"{path}: {os.strerror(number)}", errno=number, hint=_hint(number))


def _hint(number: int) -> str:
    if number == errno.ELOOP:
        return "symbolic links are not followed"
    return "raise the disk limit" if number in {errno.ENOSPC, errno.EDQUOT} else ""


@contextmanager
def _regular(fd: int, path: PurePosixPath) -> Iterator[os.stat_result]:
    """The descriptor of a regular file, closed afterwards; anything else is refused unread."""
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise FileTransferError(f"{path}: not a regular file")
        yield status
    except OSError as error:
        raise _refused(error.errno or 0, path) from error
    finally:
        os.close(fd)


def write_files(sandbox: NativeSandbox, files: Iterable[InputFile]) -> Steps[None]:
    """Make or replace files, with their missing directories, each asked for once. Raises FileTransferError."""
    made: set[PurePosixPath] = set()
    for file in files:
        yield from _make_missing(sandbox, file.path.parent, made)
        mode = EXECUTABLE_MODE if file.executable else DATA_MODE
        _fill(sandbox, (yield from _open(sandbox, file.path, WRITE_FLAGS, mode)), file.path, file.data, mode)


def write_file(sandbox: NativeSandbox, path: PurePosixPath, data: bytes) -> Steps[None]:
    """Make or replace a file, with its missing directories. Raises FileTransferError."""
    report = yield from _request(sandbox, encode_open(str(path), flags=WRITE_FLAGS, mode=DATA_MODE), fds=1)
    if report.error == errno.ENOENT:
        yield from write_files(sandbox, [InputFile(path, data)])
    elif report.error:
        raise _refused(report.error, path)
    else:
        _fill(sandbox, report.fds[0], path, data, DATA_MODE)


def _fill(sandbox: NativeSandbox, fd: int, path: PurePosixPath, data: bytes, mode: int) -> None:
    """Written are files of the sandbox's own disk only: in /proc, for one, what we write could be an order."""
    with _regular(fd, path) as status:
        if status.st_dev != os.fstat(sandbox.work_fd).st_dev:
            raise FileTransferError(f"{path}: not a file of the sandbox")
        if stat.S_IMODE(status.st_mode) != mode:
            os.fchmod(fd, mode)
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]


def make_directories(sandbox: NativeSandbox, path: PurePosixPath) -> Steps[None]:
    """Make a directory and its missing parents below a writable directory."""
    yield from _make_missing(sandbox, path, set())


def _make_missing(sandbox: NativeSandbox, path: PurePosixPath, made: set[PurePosixPath]) -> Steps[None]:
    """The same, without asking for those that are known to be there; tells which are then."""
    for directory in [*reversed(path.parents), path]:
        if directory in made or str(directory) in WRITABLE_DIRECTORIES or not _is_below(directory):
            continue
        report = yield from _request(sandbox, encode_mkdir(str(directory.parent), directory.name), fds=0)
        if report.error == errno.EEXIST:
            yield from _see_directory(sandbox, directory)
        elif report.error:
            raise _refused(report.error, directory)
        made.add(directory)


def _see_directory(sandbox: NativeSandbox, path: PurePosixPath) -> Steps[None]:
    """Raises FileTransferError if something else has this name. A directory may well be one that cannot be read."""
    try:
        os.close((yield from _open(sandbox, path, os.O_RDONLY | os.O_DIRECTORY)))
    except FileTransferError as error:
        if error.errno != errno.EACCES:
            raise


def _is_below(path: PurePosixPath) -> bool:
    return any(path.is_relative_to(directory) for directory in WRITABLE_DIRECTORIES)


def require_directory(sandbox: NativeSandbox, path: PurePosixPath) -> Steps[None]:
    """See that a directory to work in is there: of a program that cannot start the kernel says only `not found`."""
    try:
        os.close((yield from _open(sandbox, path, os.O_RDONLY | os.O_DIRECTORY)))
    except FileTransferError as error:
        raise InvalidInput("cwd", error.message, hint=error.hint) from error


def read_file(sandbox: NativeSandbox, path: PurePosixPath, *, max_bytes: int) -> Steps[bytes]:
    """The content of a regular file. Raises FileTransferError, also when it is larger than `max_bytes`."""
    fd = yield from _open(sandbox, path, os.O_RDONLY)
    with _regular(fd, path) as status:
        if status.st_size > max_bytes:
            raise FileTransferError(f"{path}: larger than {max_bytes} bytes")
        with open(fd, "rb", closefd=False) as file:
            return file.read(max_bytes)


def list_directory(sandbox: NativeSandbox, path: PurePosixPath) -> Steps[tuple[FileInfo, ...]]:
    """The entries of a directory, sorted by name. Raises FileTransferError."""
    fd = yield from _open(sandbox, path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        turn = Turn()
        names = yield from names_in(fd, turn)
        if len(names) > limits.COLLECT_ENTRIES_MAX:
            raise FileTransferError(f"{path}: more than {limits.COLLECT_ENTRIES_MAX} entries")
        found = []
        for name in names:
            found.append(_info(fd, name))
            yield from turn.pause()
        return tuple(filter(None, found))
    except OSError as error:
        raise _refused(error.errno or 0, path) from error
    finally:
        os.close(fd)


def _info(directory_fd: int, name: bytes) -> FileInfo | None:
    try:
        status = os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
    except FileNotFoundError:
        return None
    kinds = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "link"}
    kind = kinds.get(stat.S_IFMT(status.st_mode), "other")
    return FileInfo(name=display_name(name), kind=kind, size_bytes=status.st_size)


def remove_file(sandbox: NativeSandbox, path: PurePosixPath) -> Steps[None]:
    """Remove a file or an empty directory; a symbolic link is removed, not followed."""
    fd = yield from _open(sandbox, path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            os.unlink(path.name, dir_fd=fd)
        except IsADirectoryError:
            os.rmdir(path.name, dir_fd=fd)
    except OSError as error:
        raise _refused(error.errno or 0, path) from error
    finally:
        os.close(fd)

"""`Sandbox`: a place that stays, for many runs in turn and at once, from any number of threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Self, Unpack

from casemate import limits as bound
from casemate.engine.cancel import CancelToken
from casemate.engine.drive import drive
from casemate.engine.engine import Engine, default_engine
from casemate.engine.fork import Fork, call
from casemate.engine.request import LimitsLike, NetworkLike, SessionCodeOptions, SessionCommandOptions
from casemate.engine.session import Session
from casemate.engine.terminal import TerminalSession
from casemate.engine.transfer import FileInfo
from casemate.model.layers import Layer
from casemate.model.result import Chunk, Isolation, OutputFile, Result
from casemate.runtimes.registry import DEFAULT_RUNTIME


class Files:
    """The sandbox's writable directories. Relative paths start in the work directory."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def write(self, path: str, data: bytes | str) -> None:
        """Make or replace a file, with missing directories. Raises InvalidInput or FileTransferError."""
        drive(self._session.write(path, data))

    def read(self, path: str, *, max_bytes: int = bound.COLLECT_TOTAL_MAX_BYTES) -> bytes:
        """The content of a regular file. Raises FileTransferError for anything else, and if it is larger."""
        return drive(self._session.read(path, max_bytes))

    def list(self, path: str = ".") -> tuple[FileInfo, ...]:
        """The entries of a directory, by name."""
        return drive(self._session.list(path))

    def make_directory(self, path: str) -> None:
        """Make a directory and its parents; it may exist already."""
        drive(self._session.make_directory(path))

    def remove(self, path: str) -> None:
        """Remove a file, a link, or an empty directory."""
        drive(self._session.remove(path))

    def collect(self, *patterns: str) -> tuple[OutputFile, ...]:
        """All regular files of the work directory that match one of the globs."""
        return drive(self._session.collect(patterns)).files


class Terminal:
    """A program on a terminal inside the sandbox. `fd` may be polled; read and write only through us."""

    def __init__(self, session: TerminalSession) -> None:
        self._session = session

    @property
    def fd(self) -> int:
        return self._session.fd

    def read(self, timeout_s: float | None = None) -> bytes:
        """The next output; empty when the time is over, or at the end, and then `ended` is true."""
        return drive(self._session.read(timeout_s))

    @property
    def ended(self) -> bool:
        """Whether everything is read that there will ever be."""
        return self._session.ended

    def write(self, data: bytes) -> None:
        """Type something."""
        drive(self._session.write(data))

    def resize(self, rows: int, columns: int) -> None:
        """Change the size of the window."""
        self._session.resize(rows, columns)

    def wait(self) -> int:
        """Wait for the end of the program; its exit code, or minus the number of the signal that ended it."""
        return drive(self._session.wait())

    def close(self) -> None:
        """Hang up. Idempotent."""
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Sandbox:
    """A sandbox of one runtime whose files and background processes stay until it is closed.

    `limits` hold for the sandbox as a whole; `timeout`, `cpu_time` and `output` can be set for each run.
    `stateful=True` keeps the variables of one call for the next, where the runtime can. With an `idle_timeout` the
    sandbox ends when nothing has run in it for so long; what runs counts as work. `network` is a list of hosts, a
    mapping, or a NetworkPolicy: what its programs may reach, all of them together.
    Raises InvalidInput, RuntimeUnavailable, LayerMissing, LaunchError or CapacityError when it is made.
    """

    def __init__(
        self,
        runtime: str = DEFAULT_RUNTIME,
        *,
        limits: LimitsLike = None,
        require: Iterable[Layer | str] = (),
        stateful: bool = False,
        idle_timeout: str | float | None = None,
        network: NetworkLike = None,
        engine: Engine | None = None,
    ) -> None:
        self._session = Session(
            engine or default_engine(),
            runtime=runtime,
            limits=limits,
            require=require,
            stateful=stateful,
            idle_timeout=idle_timeout,
            network=network,
        )
        self.files = Files(self._session)
        drive(self._session.start())

    @property
    def isolation(self) -> Isolation:
        """The layers in force."""
        return self._session.isolation

    def run(
        self,
        code: str,
        *,
        on_output: Callable[[Chunk], None] | None = None,
        cancel: CancelToken | None = None,
        **options: Unpack[SessionCodeOptions],
    ) -> Result:
        """Run code of the sandbox's runtime and wait for its Result.

        Code that keeps its variables is interrupted first by whatever ends it, and killed only if it does not stop.
        """
        if self._session.context is not None:
            return call(self._session, None, code, options, on_output=on_output, cancel=cancel)
        steps = self._session.run(code, cancel=cancel, live=on_output is not None, **options)
        return drive(steps, on_output)

    def interrupt(self) -> bool:
        """Have the running call stop, as Ctrl-C would, and keep the variables; whether there was one."""
        return self._session.require_context().interrupt()

    def fork(self, count: int = 1) -> list[Fork]:
        """So many copies of the live interpreter. They share the sandbox's limits and files, and end with it.

        Raises InvalidInput, CapacityError, LaunchError or StateLost; then there is none.
        """
        return [Fork(self._session, each) for each in drive(self._session.fork(count))]

    def restart(self) -> None:
        """Begin anew with no variables, also after the interpreter has ended; files and copies stay."""
        drive(self._session.restart())

    def exec(
        self,
        argv: Iterable[str],
        *,
        on_output: Callable[[Chunk], None] | None = None,
        cancel: CancelToken | None = None,
        **options: Unpack[SessionCommandOptions],
    ) -> Result:
        """Run a program and wait for its Result."""
        steps = self._session.exec(argv, cancel=cancel, **options)
        return drive(steps, on_output)

    def open_pty(
        self, argv: Iterable[str] = (), *, rows: int = 24, columns: int = 80, env: Mapping[str, str] | None = None
    ) -> Terminal:
        """Start a program, or the runtime's own prompt, on a terminal."""
        return Terminal(drive(self._session.open_pty(argv, rows=rows, columns=columns, env=env)))

    def close(self) -> None:
        """Kill everything inside and release it. Idempotent."""
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

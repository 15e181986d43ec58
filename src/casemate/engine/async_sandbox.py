"""`AsyncSandbox`: the twin of `Sandbox` for asyncio. Cancelling a task kills what it was running."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Self, Unpack

from casemate import limits as bound
from casemate.engine.drive import drive_async
from casemate.engine.engine import Engine, default_engine
from casemate.engine.fork import AsyncFork, call_async
from casemate.engine.request import LimitsLike, NetworkLike, SessionCodeOptions, SessionCommandOptions
from casemate.engine.run import prepared
from casemate.engine.session import Session
from casemate.engine.terminal import TerminalSession
from casemate.engine.transfer import FileInfo
from casemate.model.layers import Layer
from casemate.model.result import Chunk, Isolation, OutputFile, Result
from casemate.runtimes.registry import DEFAULT_RUNTIME


class AsyncFiles:
    """As `Files`."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def write(self, path: str, data: bytes | str) -> None:
        await drive_async(self._session.write(path, data))

    async def read(self, path: str, *, max_bytes: int = bound.COLLECT_TOTAL_MAX_BYTES) -> bytes:
        return await drive_async(self._session.read(path, max_bytes))

    async def list(self, path: str = ".") -> tuple[FileInfo, ...]:
        return await drive_async(self._session.list(path))

    async def make_directory(self, path: str) -> None:
        await drive_async(self._session.make_directory(path))

    async def remove(self, path: str) -> None:
        await drive_async(self._session.remove(path))

    async def collect(self, *patterns: str) -> tuple[OutputFile, ...]:
        return (await drive_async(self._session.collect(patterns))).files


class AsyncTerminal:
    """As `Terminal`."""

    def __init__(self, session: TerminalSession) -> None:
        self._session = session

    async def read(self, timeout_s: float | None = None) -> bytes:
        return await drive_async(self._session.read(timeout_s))

    @property
    def ended(self) -> bool:
        return self._session.ended

    async def write(self, data: bytes) -> None:
        await drive_async(self._session.write(data))

    def resize(self, rows: int, columns: int) -> None:
        self._session.resize(rows, columns)

    async def wait(self) -> int:
        return await drive_async(self._session.wait())

    async def close(self) -> None:
        self._session.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._session.close()


class AsyncSandbox:
    """As `Sandbox`, opened by `async with`."""

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
        self.files = AsyncFiles(self._session)

    @property
    def isolation(self) -> Isolation:
        return self._session.isolation

    async def start(self) -> None:
        """Build the sandbox; `async with` does it."""
        await drive_async(self._session.start())

    async def run(
        self,
        code: str,
        *,
        on_output: Callable[[Chunk], None] | None = None,
        **options: Unpack[SessionCodeOptions],
    ) -> Result:
        """Run code of the sandbox's runtime. Where variables stay, cancelling the task interrupts the code first."""
        if self._session.context is not None:
            return await call_async(self._session, None, code, options, on_output=on_output)
        steps = await prepared(lambda: self._session.run(code, **options), options.get("files"))
        return await drive_async(steps, on_output)

    def interrupt(self) -> bool:
        """As `Sandbox.interrupt`; it never waits."""
        return self._session.require_context().interrupt()

    async def fork(self, count: int = 1) -> list[AsyncFork]:
        """As `Sandbox.fork`."""
        return [AsyncFork(self._session, each) for each in await drive_async(self._session.fork(count))]

    async def restart(self) -> None:
        """As `Sandbox.restart`."""
        await drive_async(self._session.restart())

    async def exec(
        self,
        argv: Iterable[str],
        *,
        on_output: Callable[[Chunk], None] | None = None,
        **options: Unpack[SessionCommandOptions],
    ) -> Result:
        """Run a program."""
        steps = self._session.exec(argv, **options)
        return await drive_async(steps, on_output)

    async def open_pty(
        self, argv: Iterable[str] = (), *, rows: int = 24, columns: int = 80, env: Mapping[str, str] | None = None
    ) -> AsyncTerminal:
        """Start a program, or the runtime's own prompt, on a terminal."""
        return AsyncTerminal(await drive_async(self._session.open_pty(argv, rows=rows, columns=columns, env=env)))

    async def close(self) -> None:
        """Kill everything inside; it is released beside the loop. Idempotent."""
        await drive_async(self._session.end())

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

"""`run`, `execute`, and their streaming and asyncio twins: one program in a sandbox of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from functools import partial
from typing import Self, Unpack

from casemate.engine.cancel import CancelToken
from casemate.engine.drive import drive, drive_async, iterate, iterate_async
from casemate.engine.engine import Engine, default_engine
from casemate.engine.request import CodeOptions, CommandOptions
from casemate.engine.run import Run, prepare_code, prepare_command, prepared, run_alone
from casemate.errors import SandboxClosed
from casemate.model.result import Chunk, Result
from casemate.runtimes.registry import DEFAULT_RUNTIME


def run(
    code: str,
    runtime: str = DEFAULT_RUNTIME,
    *,
    on_output: Callable[[Chunk], None] | None = None,
    cancel: CancelToken | None = None,
    engine: Engine | None = None,
    **options: Unpack[CodeOptions],
) -> Result:
    """Run code in a new sandbox and wait for its Result.

    Options: `input` (any JSON value), `args`, `env`, `files` ({path inside: bytes, text or Path}),
    `collect` (globs below the work directory), `stdin`, `limits` ({"memory": "512Mi", …} or Limits),
    `require` (isolation layers), `filename`, `network` (hosts that may be reached, or a NetworkPolicy).
    `on_output` gets live output, lines when they are printed; `cancel` ends the run from another thread.
    What the guest does wrong is in the Result; raises CasemateError for what we cannot do.
    """
    engine = engine or default_engine()
    ready = prepare_code(engine, code, runtime=runtime, live=on_output is not None, **options)
    return drive(run_alone(engine, ready, cancel), on_output)


def execute(
    argv: Iterable[str],
    *,
    on_output: Callable[[Chunk], None] | None = None,
    cancel: CancelToken | None = None,
    engine: Engine | None = None,
    **options: Unpack[CommandOptions],
) -> Result:
    """Run a program of the base in a new sandbox and wait for its Result. Options as for `run`."""
    engine = engine or default_engine()
    return drive(run_alone(engine, prepare_command(engine, argv, **options), cancel), on_output)


async def arun(
    code: str,
    runtime: str = DEFAULT_RUNTIME,
    *,
    on_output: Callable[[Chunk], None] | None = None,
    engine: Engine | None = None,
    **options: Unpack[CodeOptions],
) -> Result:
    """As `run`, for asyncio; cancelling the task kills the sandbox."""
    engine = engine or default_engine()
    live = on_output is not None
    check = partial(prepare_code, engine, code, runtime=runtime, live=live, **options)
    ready = await prepared(check, options.get("files"))
    return await drive_async(run_alone(engine, ready), on_output)


async def aexecute(
    argv: Iterable[str],
    *,
    on_output: Callable[[Chunk], None] | None = None,
    engine: Engine | None = None,
    **options: Unpack[CommandOptions],
) -> Result:
    """As `execute`, for asyncio."""
    engine = engine or default_engine()
    ready = await prepared(lambda: prepare_command(engine, argv, **options), options.get("files"))
    return await drive_async(run_alone(engine, ready), on_output)


class Stream:
    """Live output of one run: iterate over it for chunks; `result` is there when it has ended.

    Closing it early, or leaving its `with` block, kills the run.
    """

    def __init__(self, engine: Engine, run: Run) -> None:
        self._chunks = iterate(run_alone(engine, run))
        self._result: Result | None = None

    @property
    def result(self) -> Result:
        """The Result; reads the output to its end first."""
        for _ in self:
            continue
        if self._result is None:
            raise SandboxClosed("the stream was closed before its end")
        return self._result

    def __iter__(self) -> Iterator[Chunk]:
        return self

    def __next__(self) -> Chunk:
        try:
            return next(self._chunks)
        except StopIteration as stop:
            self._result = stop.value or self._result
            raise

    def close(self) -> None:
        """Kill the run if it has not ended. Idempotent."""
        self._chunks.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def stream(
    code: str, runtime: str = DEFAULT_RUNTIME, *, engine: Engine | None = None, **options: Unpack[CodeOptions]
) -> Stream:
    """Run code and iterate over its live output. Options as for `run`."""
    engine = engine or default_engine()
    return Stream(engine, prepare_code(engine, code, runtime=runtime, live=True, **options))


class AsyncStream:
    """As `Stream`, for asyncio: `async with` it, or close it, to be sure that leaving early kills the run."""

    def __init__(self, engine: Engine, run: Run) -> None:
        self._results: list[Result] = []
        self._chunks = iterate_async(run_alone(engine, run), self._results.append)

    @property
    def result(self) -> Result:
        """The Result, once the iteration has ended."""
        if not self._results:
            raise SandboxClosed("the stream has not been read to its end")
        return self._results[0]

    def __aiter__(self) -> AsyncIterator[Chunk]:
        return self._chunks

    async def aclose(self) -> None:
        """Kill the run if it has not ended. Idempotent."""
        await self._chunks.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


def astream(
    code: str, runtime: str = DEFAULT_RUNTIME, *, engine: Engine | None = None, **options: Unpack[CodeOptions]
) -> AsyncStream:
    """As `stream`, for asyncio. Files given by Path are read here and now."""
    engine = engine or default_engine()
    return AsyncStream(engine, prepare_code(engine, code, runtime=runtime, live=True, **options))

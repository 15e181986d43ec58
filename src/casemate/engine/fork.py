"""`Fork` and `AsyncFork`: copies of a live interpreter, each with variables of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self, Unpack

from casemate.engine.cancel import CancelToken
from casemate.engine.drive import drive, drive_async, drive_to_end, drive_to_end_async
from casemate.engine.request import SessionCodeOptions
from casemate.engine.run import prepared
from casemate.engine.session import Session
from casemate.engine.stateful import Context
from casemate.model.result import Chunk, Result


def call(
    session: Session,
    context: Context | None,
    code: str,
    options: SessionCodeOptions,
    *,
    on_output: Callable[[Chunk], None] | None,
    cancel: CancelToken | None,
) -> Result:
    """A call that is interrupted, and not killed, by whatever comes between."""
    token = cancel or CancelToken()
    steps = session.run(code, cancel=token, live=on_output is not None, context=context, **options)
    return drive_to_end(steps, on_output, token.cancel)


async def call_async(
    session: Session,
    context: Context | None,
    code: str,
    options: SessionCodeOptions,
    *,
    on_output: Callable[[Chunk], None] | None,
) -> Result:
    """The same for asyncio."""
    token = CancelToken()
    live = on_output is not None
    steps = await prepared(
        lambda: session.run(code, cancel=token, live=live, context=context, **options), options.get("files")
    )
    return await drive_to_end_async(steps, on_output, token.cancel)


class Fork:
    """A copy of a sandbox's live interpreter. It shares the sandbox's limits and files, and nothing else."""

    def __init__(self, session: Session, context: Context) -> None:
        self._session = session
        self._context = context

    def run(
        self,
        code: str,
        *,
        on_output: Callable[[Chunk], None] | None = None,
        cancel: CancelToken | None = None,
        **options: Unpack[SessionCodeOptions],
    ) -> Result:
        """As `Sandbox.run`, with the variables of this copy."""
        return call(self._session, self._context, code, options, on_output=on_output, cancel=cancel)

    def interrupt(self) -> bool:
        """As `Sandbox.interrupt`."""
        return self._context.interrupt()

    def fork(self, count: int = 1) -> list[Fork]:
        """Copies of this copy."""
        return [Fork(self._session, each) for each in drive(self._session.fork(count, self._context))]

    def close(self) -> None:
        """End this copy. Idempotent."""
        self._context.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncFork:
    """As `Fork`, for asyncio."""

    def __init__(self, session: Session, context: Context) -> None:
        self._session = session
        self._context = context

    async def run(
        self,
        code: str,
        *,
        on_output: Callable[[Chunk], None] | None = None,
        **options: Unpack[SessionCodeOptions],
    ) -> Result:
        """As `Fork.run`. Cancelling the task interrupts the code."""
        return await call_async(self._session, self._context, code, options, on_output=on_output)

    def interrupt(self) -> bool:
        """As `Sandbox.interrupt`."""
        return self._context.interrupt()

    async def fork(self, count: int = 1) -> list[AsyncFork]:
        """Copies of this copy."""
        return [AsyncFork(self._session, each) for each in await drive_async(self._session.fork(count, self._context))]

    async def close(self) -> None:
        """End this copy. Idempotent."""
        self._context.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._context.close()

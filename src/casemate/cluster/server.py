"""The node's end of a Unix socket: takes questions, has them worked on side by side, and sends the answers."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Final

from casemate import service_limits as bound
from casemate.cluster.calls import Handler, Window, Work, answers_of
from casemate.cluster.frames import BadFrame, GivenUp, Taken, decode_question, encode, read_body
from casemate.cluster.local import peer_uid
from casemate.cluster.messages import Answer, Cancel, Question
from casemate.cluster.refusals import refused
from casemate.errors import CapacityError, CasemateError, Conflict

_LOG: Final = logging.getLogger(__name__)
_PRIVATE: Final = 0o177


class NodeServer:
    """Serves one handler to whoever connects. Everything of a connection ends with it."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._connections: set[asyncio.Task[None]] = set()
        self._is_open = False
        self.running_count = 0

    @asynccontextmanager
    async def listening(self, path: Path) -> AsyncGenerator[None, None]:
        """Listen at `path`, for our own user alone, for as long as this lasts; then end every connection."""
        server = await asyncio.start_unix_server(self._accept, sock=_bound(path), limit=bound.READ_CHUNK_BYTES)
        self._is_open = True
        ours = _inode(path)
        try:
            yield
        finally:
            self._is_open = False
            server.close()
            for task in self._connections:
                task.cancel()
            if self._connections:
                await asyncio.wait(self._connections, timeout=bound.NODE_CLOSE_TIMEOUT_S)
            if _inode(path) == ours:  # a node that was started since may listen there
                path.unlink()  # noqa: ASYNC240 - of a directory that is ours alone

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._is_open:  # what connected in the last moment
            writer.transport.abort()
        elif peer_uid(writer) != os.geteuid():
            _LOG.warning("a connection of another user was refused")
            writer.transport.abort()
        elif len(self._connections) >= bound.NODE_CONNECTIONS_MAX:
            _LOG.warning("more than %d connections", bound.NODE_CONNECTIONS_MAX)
            writer.transport.abort()
        else:
            task = asyncio.create_task(_Connection(self, self._handler, reader, writer).serve())
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)


def _bound(path: Path) -> socket.socket:
    """A socket that only our user can connect to, from its first moment; one that was left there is replaced."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    previous = os.umask(_PRIVATE)
    try:
        listener.bind(os.fspath(path))
    except BaseException:
        listener.close()
        raise
    finally:
        os.umask(previous)
    return listener


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return 0


class _Connection:
    def __init__(
        self, server: NodeServer, handler: Handler, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._server = server
        self._handler = handler
        self._reader = reader
        self._writer = writer
        self._works: dict[str, tuple[Work, asyncio.Task[None]]] = {}

    async def serve(self) -> None:
        """Until the connection ends; then all its work is ended, and has ended when this returns."""
        try:
            async with asyncio.TaskGroup() as group:
                await self._read(group)
        except* (OSError, _Over):
            pass
        except* BadFrame as bad:
            _LOG.warning("a connection was cut off: %s", bad.exceptions[0])
        finally:
            self._writer.transport.abort()

    async def _read(self, group: asyncio.TaskGroup) -> None:
        while (body := await read_body(self._reader)) is not None:
            message = decode_question(body)
            work, task = self._works.get(message.id, (None, None))
            if isinstance(message, Taken):
                if work is not None:
                    work.window.taken(message.bytes_count)
            elif isinstance(message, Cancel):
                if work is not None:
                    work.stop.set()
            elif isinstance(message, GivenUp):
                if task is not None:
                    task.cancel()
            else:
                self._begin(message, group)
        raise _Over

    def _begin(self, question: Question, group: asyncio.TaskGroup) -> None:
        problem = self._problem(question)
        if problem is not None:
            self._writer.write(encode(refused(question.id, problem)))
            return
        work = Work(question)
        task = group.create_task(self._work(question, work), name=question.id)
        self._works[question.id] = work, task
        self._server.running_count += 1
        task.add_done_callback(lambda _: self._ended(question.id))

    def _problem(self, question: Question) -> CasemateError | None:
        if question.id in self._works:
            return Conflict("a call of that id is under way")
        if self._server.running_count >= bound.NODE_CALLS_MAX:
            return CapacityError("the node works on as many calls as it can", hint="try again soon")
        return None

    def _ended(self, call_id: str) -> None:
        del self._works[call_id]
        self._server.running_count -= 1

    async def _work(self, question: Question, work: Work) -> None:
        async with aclosing(answers_of(self._handler, question, work.stop)) as answers:
            async for answer in answers:
                if not await self._send(answer, work.window):
                    return

    async def _send(self, answer: Answer, window: Window) -> bool:
        """Send an answer if there is room; False if it can be none, and another was the last in its place."""
        try:
            frame = encode(answer)
        except BadFrame as error:
            frame = encode(refused(answer.id, CapacityError(f"the answer cannot be sent: {error}")))
            self._writer.write(frame)
            return False
        if await window.admit(answer, len(frame)):
            self._writer.write(frame)
            await self._writer.drain()
        return True


class _Over(Exception):
    """The connection has ended, and all its work is to."""

"""The service's end of a Unix socket to the node on its machine: one connection, made anew when it ends."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Final, Self

from casemate import service_limits as bound
from casemate.cluster.calls import LOST, Inbox
from casemate.cluster.frames import BadFrame, GivenUp, Taken, ToNode, decode_answer, encode, read_body
from casemate.cluster.messages import LAST, Answer, Cancel, Question
from casemate.errors import Conflict, InvalidInput, NodeLost, NodeUnavailable

_LOG: Final = logging.getLogger(__name__)
_CREDENTIALS: Final = struct.Struct("3i")


def peer_uid(writer: asyncio.StreamWriter) -> int:
    """Whose process the other end of a Unix socket is, by the kernel's word."""
    packed = writer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(packed)[1])


class LocalBus:
    """A Bus to the node that listens at `path`. `connected` is set while there is a connection.

    `await bus.start()` begins to connect and goes on for as long as it is open; it does not wait for the node.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: asyncio.StreamWriter | None = None
        self._inboxes: dict[str, Inbox] = {}
        self._keeping: asyncio.Task[None] | None = None
        self.connected = asyncio.Event()

    async def start(self) -> Self:
        """Begin to connect. Idempotent."""
        if self._keeping is None:
            self._keeping = asyncio.create_task(self._keep_connected(), name="bus")
        return self

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def is_connected(self) -> bool:
        return self._writer is not None

    async def close(self) -> None:
        """End the connection, and with it what runs on its behalf. Idempotent."""
        keeping, self._keeping = self._keeping, None
        if keeping is not None:
            keeping.cancel()
            await asyncio.wait([keeping])

    async def call(self, question: Question) -> AsyncGenerator[Answer, None]:
        """Every answer to a question. A Cancel has none of its own: it hurries the call of its id to its last one."""
        if self._writer is None:
            raise NodeUnavailable("there is no connection to the node", hint="it is started again; try again soon")
        if isinstance(question, Cancel):
            await self._send(question)
            return
        inbox = Inbox(lambda count: self._send_soon(Taken(id=question.id, bytes_count=count)))
        if self._inboxes.setdefault(question.id, inbox) is not inbox:
            raise Conflict(f"a call {question.id[: bound.CALL_ID_MAX_CHARS]!r} is under way")
        last = False
        try:
            await self._send(question)
            while not last:
                answer = await inbox.take()
                last = isinstance(answer, LAST)
                yield answer
        finally:
            if self._inboxes.pop(question.id, None) is not None and not last:
                self._send_soon(GivenUp(id=question.id))

    async def _send(self, message: ToNode) -> None:
        try:
            frame = encode(message)
        except BadFrame as error:
            raise InvalidInput("request", str(error), hint="send less at once") from error
        writer = self._writer
        if writer is None:
            raise NodeUnavailable(LOST)
        writer.write(frame)
        try:
            await writer.drain()
        except OSError as error:
            raise NodeLost(LOST) from error

    def _send_soon(self, message: ToNode) -> None:
        if self._writer is not None:
            self._writer.write(encode(message))

    async def _keep_connected(self) -> None:
        pause_s = bound.NODE_RETRY_MIN_S
        while True:
            try:
                reader, writer = await self._connect()
                pause_s = bound.NODE_RETRY_MIN_S
                await self._serve(reader, writer)
            except BadFrame as error:
                _LOG.warning("the node was cut off: %s", error)
            except OSError as error:
                _LOG.debug("no connection to the node: %s", error)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, bound.NODE_RETRY_MAX_S)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        async with asyncio.timeout(bound.NODE_CONNECT_TIMEOUT_S):
            reader, writer = await asyncio.open_unix_connection(self._path, limit=bound.READ_CHUNK_BYTES)
        if peer_uid(writer) != os.geteuid():
            writer.transport.abort()
            raise PermissionError("another user listens in the node's place")
        return reader, writer

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass answers to their calls until the connection ends; then all calls are lost."""
        self._writer = writer
        self.connected.set()
        try:
            while (body := await read_body(reader)) is not None:
                self._deliver(decode_answer(body), len(body))
        finally:
            self._writer = None
            self.connected.clear()
            writer.transport.abort()
            for inbox in self._inboxes.values():
                inbox.lose()

    def _deliver(self, answer: Answer, size_bytes: int) -> None:
        """Answers to calls that have been given up are still on their way for a moment."""
        inbox = self._inboxes.get(answer.id)
        if inbox is not None and not inbox.put(answer, size_bytes):
            raise BadFrame("more answers than may be under way")
